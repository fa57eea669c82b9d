"""Publishing results into a real Tiled server, and finding them again."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptyplugin.catalog import LocalServer, apart, publish, search
from ptyplugin.catalog.apart import CatalogPublish
from ptyplugin.catalog.client import PtychoReconstruction
from ptyplugin.model import CatalogError, Reconstruction, Site

pytestmark = pytest.mark.system

MakeResult = Callable[..., tuple[Path, str, Reconstruction]]
ARRAYS = ("object", "probe", "object_phase", "object_amplitude", "positions_m", "positions_px", "background", "intensities", "mask")


def managements(node: Any) -> set[str]:
    """How the server keeps the node's arrays: external = by reference."""
    return {node[name].include_data_sources().data_sources()[0].management for name in ARRAYS}


def assert_same(node: Any, reconstruction: Reconstruction) -> None:
    for name in ARRAYS:
        stored, meant = node[name].read(), getattr(reconstruction, name)
        assert stored.dtype == meant.dtype, name
        np.testing.assert_array_equal(stored, meant, err_msg=name)
    assert node["object"].dtype == np.complex64
    assert node["object_phase"].dtype == np.float32


@pytest.fixture(scope="session")
def published(client: Any, site: Site, make_result: MakeResult) -> tuple[Any, Reconstruction, Path]:
    """A published result: its node, what was in the file, and the file."""
    path, key, reconstruction = make_result("run-whole", scan_id=11)
    return publish(client, site, path, key), reconstruction, path


def test_a_result_is_published_whole_with_its_metadata(published: tuple[Any, Reconstruction, Path]) -> None:
    node, reconstruction, path = published
    assert_same(node, reconstruction)
    # The server reads the file, so the arrays are references to it.
    assert managements(node) == {"external"}
    assert node.path_parts == ["sim", "processed", "ptyplugin", path.stem]
    assert [(spec.name, spec.version) for spec in node.specs] == [("PtychoReconstruction", "1.0")]
    metadata = node.metadata
    assert (metadata["scan_uid"], metadata["scan_id"], metadata["recipe"], metadata["state"]) == ("run-whole", 11, "DM(10)", "published")
    assert metadata["quality"] == {"error": 0.01, "not_measured": None}
    assert (metadata["verdict"], metadata["convergence"]) == ("doubtful", "still falling")
    assert list(metadata["verdict_reasons"]) == ["The error was still falling."]
    assert metadata["notes"] == ["2 frames had no position and were left out."]
    assert metadata["geometry"]["object_pixel_m"] == pytest.approx(reconstruction.geometry.object_pixel_m)
    assert metadata["provenance"]["versions"] == {"ptyplugin": "0"}
    assert "positions_m" not in metadata["provenance"]["job"]
    table = node["progress"].read()
    assert table["iteration"].tolist() == [1, 2]
    assert table["constraint_residual"].tolist() == [0.25, 0.125]
    assert table["error"].isna().tolist() == [True, False]


def test_what_is_known_is_not_asked(client: Any, site: Site, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request costs a Tiled server as much as any other: publishing takes as long as there are requests."""
    monkeypatch.setattr(apart, "connect", lambda site: client)
    put = CatalogPublish(site)
    put(*make_result("run-first")[:2])
    asked, transport = [], client.context.http_client._transport
    send = transport.handle_request
    monkeypatch.setattr(transport, "handle_request", lambda request: asked.append(request.method) or send(request))
    put(*make_result("run-next")[:2])
    # Node, arrays, table; a line that is read back; the table's rows; the state.
    assert Counter(asked) == {"POST": 1 + len(ARRAYS) + 1, "GET": 1, "PUT": 1, "PATCH": 1}


def test_where_the_server_may_not_read_the_file_arrays_are_sent(client: Any, site: Site, make_result: MakeResult) -> None:
    path, key, reconstruction = make_result("run-c", where="unseen")
    node = publish(client, site, path, key)
    assert managements(node) == {"writable"}
    path.unlink()
    assert_same(node, reconstruction)


def test_another_file_at_the_servers_path_is_noticed(
    client: Any, site: Site, make_result: MakeResult, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publisher's and the server's file systems differ: what the server sees at that path is an older file."""
    path, key, reconstruction = make_result("run-d", seed=5)
    with h5py.File(path, "r+") as file:
        file["object"][...] = 0
    monkeypatch.setattr("ptyplugin.catalog.publishing.read_result", lambda _: reconstruction)
    node = publish(client, site, path, key)
    assert managements(node) == {"writable"}
    assert_same(node, reconstruction)


def test_publishing_twice_changes_nothing(client: Any, site: Site, published: tuple[Any, Reconstruction, Path]) -> None:
    first, reconstruction, path = published
    second = publish(client, site, path, path.stem)
    assert second.metadata == first.metadata
    assert len(second.metadata_revisions[:]) == 0
    assert_same(second, reconstruction)


@pytest.mark.parametrize("where", ["results", "unseen"])
def test_an_interrupted_publication_is_completed(
    client: Any, site: Site, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path, key, reconstruction = make_result(f"run-f-{where}", where=where)

    def interrupted(*_: Any) -> None:
        raise CatalogError("the line is cut")

    with monkeypatch.context() as patch:
        patch.setattr("ptyplugin.catalog.publishing._put_progress", interrupted)
        with pytest.raises(CatalogError, match="the line is cut"):
            publish(client, site, path, key)
    half = client["sim/processed/ptyplugin", key]
    assert half.metadata["state"] == "publishing"
    with pytest.raises(CatalogError, match=r"progress of result \w+ is not in the catalog: its state is publishing"):
        half.reconstruction()
    # One array was created, but its numbers never came; one is missing.
    half.delete_contents(["probe", "mask"], external_only=False)
    half.write_array(np.zeros_like(reconstruction.probe), key="probe")
    node = publish(client, site, path, key)
    assert node.metadata["state"] == "published"
    assert_same(node, reconstruction)
    assert len(node["progress"].read()) == 2


def test_the_node_of_something_else_is_left_alone(client: Any, site: Site, make_result: MakeResult) -> None:
    path, _, _ = make_result("run-g")
    client["sim/processed/ptyplugin"].create_container("taken", metadata={"mine": 1})
    with pytest.raises(CatalogError, match=r"sim/processed/ptyplugin/taken in the catalog is not the result of this job"):
        publish(client, site, path, "taken")
    assert client["sim/processed/ptyplugin/taken"].metadata == {"mine": 1}


def test_the_node_of_another_job_is_left_alone(client: Any, site: Site, make_result: MakeResult) -> None:
    path, key, reconstruction = make_result("run-h")
    other_path, _, _ = make_result("run-i", seed=9)
    publish(client, site, path, key)
    with pytest.raises(CatalogError, match="is not the result of this job"):
        publish(client, site, other_path, key)
    assert_same(client["sim/processed/ptyplugin", key], reconstruction)


def test_the_search_finds_by_run_scan_state_and_time(client: Any, site: Site, make_result: MakeResult) -> None:
    nodes = [publish(client, site, *make_result("run-j", scan_id=21, seed=seed)[:2]) for seed in (1, 2)]
    folder = client["sim/processed/ptyplugin"]
    newest_first = [node.item["id"] for node in reversed(nodes)]
    assert [node.item["id"] for node in search(folder, scan_uid="run-j")] == newest_first
    assert [node.item["id"] for node in search(folder, scan_uid="run-")[:2]] == newest_first
    assert search(folder, scan_uid="%") == []
    assert [node.item["id"] for node in search(folder, scan_id=21, limit=1)] == newest_first[:1]
    assert [node.item["id"] for node in search(client, scan_uid="run-j")] == newest_first
    assert search(folder, scan_uid="run-j", state="publishing") == []
    assert [node.item["id"] for node in search(folder, scan_uid="run-j", verdict="doubtful")] == newest_first
    assert search(folder, scan_uid="run-j", verdict="good") == []
    assert [node.item["id"] for node in search(folder, scan_uid="run-j", since=nodes[1].metadata["time"])] == newest_first[:1]
    assert search(folder, scan_uid="run-j", since="2099-01-01") == []
    assert len(search(folder, scan_uid="run-j", since="2001-01-01T12:00")) == 2
    with pytest.raises(CatalogError, match="'tomorrow' is no time"):
        search(folder, since="tomorrow")


def test_a_result_speaks_the_words_of_ptyplugin(published: tuple[Any, Reconstruction, Path]) -> None:
    node, reconstruction, path = published
    assert isinstance(node, PtychoReconstruction)
    assert repr(node).startswith(f"<PtychoReconstruction {path.stem} scan_id=11 run=run-whol DM(10) error=0.01 doubtful published 20")
    again = node.reconstruction()
    assert again.geometry == reconstruction.geometry
    assert again.progress == reconstruction.progress
    for name in ("positions_px", "background", "intensities"):
        np.testing.assert_array_equal(getattr(again, name), getattr(reconstruction, name))
    assert again.provenance["recipe"] == "DM(10)"
    assert again.quality == pytest.approx(reconstruction.quality, nan_ok=True)
    assert again.verdict == reconstruction.verdict
    titles = {axes.get_title(loc="left") for axes in node.plot().axes}
    assert again.object.shape == (2, 40, 44)
    assert {"Object phase, mode 1 of 2", "Object amplitude, mode 1 of 2", "Error over iterations"} <= titles


def test_web_pages_get_a_picture_of_the_phase(client: Any, published: tuple[Any, Reconstruction, Path]) -> None:
    node, _, _ = published
    link = node["object_phase"].item["links"]["full"]
    answer = client.context.http_client.get(link, headers={"Accept": "image/png"})
    assert answer.status_code == 200
    assert answer.content.startswith(b"\x89PNG")


def test_a_fresh_process_needs_only_tiled(server: LocalServer, published: tuple[Any, Reconstruction, Path]) -> None:
    script = """
import os, sys, entrypoints
entrypoints.get_group_named = lambda group: {}  # as if no other package brought clients of its own
sys.modules.update(dict.fromkeys(("ptyplugin", "bluesky_tiled_plugins", "databroker")))
from tiled.client import from_uri
from tiled.queries import Key
client = from_uri(os.environ["URI"])
(node,) = client["sim/processed/ptyplugin"].search(Key("scan_uid") == "run-whole").values()
arrays = {name: node[name].read() for name in ("object", "probe", "positions_m", "progress")}
print(node.item["id"], arrays["object"].shape, arrays["probe"].dtype, arrays["positions_m"].shape, len(arrays["progress"]))
client.context.close()
"""
    environment = {"PATH": "", "TILED_API_KEY": server.api_key, "URI": server.uri}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[0] == f"{published[2].stem} (2, 40, 44) complex64 (3, 2) 2", done.stderr
