"""A catalog of several users, as at a facility: least scopes, keys that end, and who sees a result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import pytest
from at_work import until
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import connect as listen

from benchmarks.scan_burst import scan_documents, write_frames
from ptyplugin.catalog import CatalogFrames, LiveImages, connect, publish, scopes_missing, search
from ptyplugin.catalog.access import NEEDED_SCOPES
from ptyplugin.catalog.connection import ensure_container, plain
from ptyplugin.catalog.publishing import own_node, result_metadata
from ptyplugin.io import read_result
from ptyplugin.jobs import Inbox, Ledger
from ptyplugin.jobs.contents import parse
from ptyplugin.model import CatalogAway, CatalogError, Job, Reconstruction, Site, Snapshot, TiledSource
from ptyplugin.service.sources import Sources

if TYPE_CHECKING:
    from many_users import ManyUsers

pytestmark = pytest.mark.system
MakeResult = Callable[..., tuple[Path, str, Reconstruction]]
#: Each folder on the way is a question more to the server's access policy.
SITE, PATH = Site(processed_path="{beamline}/ptyplugin"), "sim/ptyplugin"
READ = ("read:metadata", "read:data")
RUN = "users-01-0000-4000-8000-000000000000"
_seeds = count(400)


@pytest.fixture(scope="module")
def hall(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyUsers]:
    """With one run of the visitor's proposal."""
    # Only who runs these tests needs to import a server.
    from many_users import many_users

    with many_users(tmp_path_factory.mktemp("users"), [folder / "data", folder / "results"]) as running:
        write_frames(folder / "data" / "users.h5", 10)
        write(running, RUN, folder / "data" / "users.h5", 10_000)
        yield running


def write(hall: ManyUsers, uid: str, frames: Path, batch_size: int) -> None:
    """As a session does."""
    from bluesky_tiled_plugins import TiledWriter

    documents = scan_documents(uid, 81, frames, time.time(), 10)
    documents[0][1]["tiled_access_tags"] = ["proposal-1"]
    with as_user(hall, hall.key("service", *NEEDED_SCOPES, "register")) as client:
        ensure_container(plain(client), "sim/raw")
        writer = TiledWriter(client["sim/raw"], batch_size=batch_size)
        for document in documents:
            writer(*document)


@contextmanager
def as_user(hall: ManyUsers, key: str) -> Iterator[Any]:
    client = connect(Site(tiled_uri=hall.uri), key)
    try:
        yield client
    finally:
        client.context.close()


def snapshot(job: str, iteration: int) -> Snapshot:
    wave = np.exp(1j * iteration * np.linspace(0, 1, 600).reshape(20, 30)).astype(np.complex64)
    return Snapshot(job, "DM", iteration, 10, {}, 3, 0.0, wave, wave[None, :12, :12], (1e-8, 1e-8), (0.0, 0.0))


@pytest.fixture(scope="module")
def service(hall: ManyUsers) -> Iterator[Any]:
    """With no more than it needs."""
    with as_user(hall, hall.key("service", *NEEDED_SCOPES, "register")) as client:
        yield client


@pytest.fixture(scope="module")
def visitor(hall: ManyUsers) -> Iterator[Any]:
    """Of the proposal."""
    with as_user(hall, hall.key("visitor", *READ)) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(hall: ManyUsers) -> Iterator[Any]:
    """Of another proposal."""
    with as_user(hall, hall.key("stranger", *READ)) as client:
        yield client


def test_who_may_see_the_run_sees_its_image_grow_and_its_result_and_nobody_else(
    hall: ManyUsers, service: Any, visitor: Any, stranger: Any, make_result: MakeResult, tmp_path: Path
) -> None:
    path, key, reconstruction = make_result(RUN, seed=next(_seeds))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.put(Job.model_validate(read_result(path).provenance["job"]))
        job = ledger.show(key)
    live = LiveImages(service, SITE, job)
    live.put(snapshot(key, 1))
    stream = f"{hall.uri.replace('http', 'ws')}/api/v1/stream/single/{PATH}/{key}/live/1/object_phase?envelope_format=msgpack&start=1"

    def headers(client: Any) -> dict[str, str]:
        return {"Authorization": f"Apikey {client.context.api_key}"}

    with pytest.raises(InvalidHandshake), listen(stream, additional_headers=headers(stranger), proxy=None):
        pass
    with listen(stream, additional_headers=headers(visitor), proxy=None) as socket:
        told = [msgpack.unpackb(socket.recv(20)) for _ in range(2)]
        live.put(snapshot(key, 2))
        told.append(msgpack.unpackb(socket.recv(20)))
    node = visitor[PATH][key]
    block = np.frombuffer(told[-1]["payload"], np.float32).reshape(told[-1]["shape"])
    np.testing.assert_array_equal(block, node["live/1/object_phase"][:])
    assert node.live().said["iteration"] == 2
    publish(service, SITE, path, key)
    assert [found.metadata["state"] for found in search(visitor, scan_uid=RUN)] == ["published"]
    np.testing.assert_array_equal(visitor[PATH][key]["object"][:], reconstruction.object)
    assert search(stranger, scan_uid=RUN) == []
    assert key not in stranger[PATH]
    frames = TiledSource(run_uid=RUN, stream="primary", key="detector")
    assert len(CatalogFrames(visitor, SITE, "sim", frames).read(np.arange(3))) == 3
    with pytest.raises(CatalogError, match="there is no run"):
        CatalogFrames(stranger, SITE, "sim", frames)


def test_what_a_key_does_not_allow_is_said_and_done_with_another(
    hall: ManyUsers, make_result: MakeResult, caplog: pytest.LogCaptureFixture
) -> None:
    """Without ``register`` arrays are sent."""
    path, key, reconstruction = make_result(RUN, seed=next(_seeds))
    caplog.set_level("INFO", "ptyplugin")

    def without(scope: str) -> None:
        with as_user(hall, hall.key("service", *(each for each in NEEDED_SCOPES if each != scope))) as client:
            assert scopes_missing(client) == [scope]
            publish(client, SITE, path, key)

    for scope in ("read:metadata", "write:data"):
        with pytest.raises(CatalogAway, match=f"the key in TILED_API_KEY does not allow {scope}"):
            without(scope)
    with as_user(hall, hall.key("service", *NEEDED_SCOPES)) as client:
        assert scopes_missing(client) == []
        array = publish(client, SITE, path, key)["object"]
        np.testing.assert_array_equal(array[:], reconstruction.object)
        assert [source.management for source in array.data_sources()] == ["writable"]
    assert "is sent to the catalog by value: the key in TILED_API_KEY does not allow register" in caplog.text


def test_a_key_that_was_revoked_is_said(hall: ManyUsers, make_result: MakeResult) -> None:
    path, key, _ = make_result(RUN, seed=next(_seeds))
    ends = hall.key("service", *NEEDED_SCOPES)
    with as_user(hall, ends) as client:
        hall.revoke("service", ends)
        with pytest.raises(CatalogAway, match=r"refuses the key\. Check TILED_API_KEY: has the key expired, or was it revoked"):
            publish(client, SITE, path, key)


def test_what_access_tags_do_not_allow_is_said_and_done_when_they_do(
    hall: ManyUsers, service: Any, visitor: Any, stranger: Any, make_result: MakeResult
) -> None:
    path, key, _ = make_result(RUN, seed=next(_seeds))
    try:
        hall.allow(owner=False)
        with pytest.raises(
            CatalogAway, match=r"access policy says: .*user='service' is not an owner of tag='proposal-1'\. Have that changed"
        ):
            publish(service, SITE, path, key)
        hall.allow(*READ, "write:metadata", "create:node")
        with pytest.raises(CatalogAway, match=r"the access tags of that place do not allow (register|write:data) to the user"):
            publish(service, SITE, path, key)
        hall.allow("write:data")
        with pytest.raises(CatalogAway, match=f"the catalog hides {PATH}/{key}, which is there"):
            publish(service, SITE, path, key)
    finally:
        hall.allow()
    assert key in visitor[PATH]
    run = service["sim/raw"][RUN]
    try:
        run.update_metadata(access_tags=["proposal-2"])
        assert publish(service, SITE, path, key).metadata["state"] == "published"
    finally:
        run.update_metadata(access_tags=["proposal-1"])
    assert key not in visitor[PATH]
    assert stranger[PATH][key].metadata["state"] == "published"


def test_a_node_that_more_people_see_than_its_run_gets_no_result(service: Any, make_result: MakeResult) -> None:
    """Its run was hidden while the job was running."""
    path, key, reconstruction = make_result("hidden-0000-4000-8000-000000000000", seed=next(_seeds))
    own_node(ensure_container(plain(service), PATH), key, result_metadata(reconstruction, key), ["proposal-1"])
    with pytest.raises(CatalogAway, match=rf"{PATH}/{key} is there already, for who has the access tags proposal-1, and its run is not"):
        publish(service, SITE, path, key)
    assert list(service[PATH][key]) == []


def test_a_run_is_followed_with_a_key_that_makes_no_keys(
    hall: ManyUsers, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILED_API_KEY", hall.key("service", *READ))
    profile = tmp_path / "live.toml"
    sim = Path(__file__).resolve().parents[2] / "profiles" / "sim.toml"
    profile.write_text(sim.read_text() + "\n[live]\nfirst_frames = 9\n")
    site = Site.model_validate(
        {
            "home": tmp_path / "home",
            "tiled_uri": hall.uri,
            "data_roots": [folder / "data"],
            "source": [{"kind": "tiled", "profiles": [str(profile)]}],
        }
    )
    uid = "users-02-0000-4000-8000-000000000000"
    with Ledger(site.ledger), Sources(site) as sources:
        tiled = sources.states()[0]
        until(lambda: tiled.connected)
        write(hall, uid, folder / "data" / "users.h5", 1)
        until(lambda: {"live", "final"} <= {job.purpose for job in _jobs(site, uid)})
    assert tiled.last_error is None


def _jobs(site: Site, uid: str) -> list[Any]:
    files = [item / "job.json" for item in Inbox(site.inbox).waiting()]
    jobs = [parse(file.read_bytes()) for file in files if file.exists()]
    return [job for job in jobs if job.source.run_uid == uid]
