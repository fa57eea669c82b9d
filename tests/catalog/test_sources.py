"""Runs come from 0MQ, from Tiled's stream, and from nobody at all; what was lost on the way is in the catalog."""

from __future__ import annotations

import pickle  # noqa: TID251  (what a publisher may send)
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from at_work import until

from benchmarks.scan_burst import fill, runs_of, scan_documents, send_and_solve, write_frames, write_profile, zmq_proxy
from ptyplugin.callbacks import live
from ptyplugin.catalog import LocalServer, publish
from ptyplugin.jobs import Inbox, Ledger, Order, give
from ptyplugin.jobs.contents import parse
from ptyplugin.model import Growth, Site
from ptyplugin.service import Daemon, Inline
from ptyplugin.service.sources import Sources, SourceState, sweeping

pytestmark = pytest.mark.system
Documents = list[tuple[str, dict[str, Any]]]
SIM = Path(__file__).resolve().parents[2] / "profiles" / "sim.toml"


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[str, str]]:
    with zmq_proxy() as addresses:
        yield addresses


@pytest.fixture(scope="module")
def frames(folder: Path) -> Path:
    path = folder / "data" / "shared.h5"
    write_frames(path)
    return path


@pytest.fixture
def make_site(tmp_path: Path, server: LocalServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Site]:
    monkeypatch.setenv("TILED_API_KEY", server.api_key)

    def make_site(*sources: dict[str, Any], **more: Any) -> Site:
        tables = [{"profiles": ["sim"], **table} for table in sources]
        known = {"home": tmp_path / "home", "tiled_uri": server.uri, "data_roots": [folder / "data"], "device": "cpu"}
        return Site.model_validate({**known, "source": tables, **more})

    return make_site


@pytest.fixture
def send(proxy: tuple[str, str]) -> Iterator[Callable[..., None]]:
    """Publish as a RunEngine's Publisher does, through the proxy; first until the subscriber hears it."""
    from bluesky.callbacks.zmq import Publisher

    publisher = Publisher(proxy[0], serializer=msgpack.packb)

    def send(documents: Documents, state: SourceState) -> None:
        heard = state.counts["documents"]

        def knock() -> bool:
            publisher("datum", {"datum_id": "knock", "resource": "knock"})
            return state.counts["documents"] > heard

        until(knock)
        for name, document in documents:
            publisher(name, document)

    yield send
    publisher.close()


def jobs_of(site: Site) -> dict[str, int]:
    jobs = [parse((item / "job.json").read_bytes()) for item in Inbox(site.inbox).waiting()]
    assert len({job.key for job in jobs}) == len(jobs)
    return {job.source.run_uid: getattr(job, "frame_count", 0) for job in jobs}


def test_documents_that_0mq_lost_come_from_the_catalog(make_site, proxy, frames: Path, send, write_run) -> None:
    site = make_site({"kind": "zmq", "address": proxy[1]}, {"kind": "sweep", "every_s": 1000})
    runs = {uid: scan_documents(uid, 50, frames, time.time()) for uid in ("zmq-all", "zmq-event", "zmq-start", "zmq-stop")}
    lost = {"zmq-all": "none", "zmq-event": "event", "zmq-start": "start", "zmq-stop": "stop"}

    def mine() -> dict[str, int]:
        """The sweep finds what other tests have left in the catalog, too."""
        return {uid: frames for uid, frames in jobs_of(site).items() if uid in runs}

    with Ledger(site.ledger), Sources(site) as sources:
        state, sweep = sources.states()
        until(lambda: state.connected and sweep.counts["sweeps"])
        for uid, documents in runs.items():
            kept = list(documents)
            places = [place for place, (name, _) in enumerate(documents) if name == lost[uid]]
            for place in places[:1]:
                del kept[place]
            send(kept, state)
        # The catalog is behind, and has none of them yet.
        until(lambda: state.counts["runs"] == 3)
        until(lambda: mine() == {"zmq-all": 16})
        for uid in runs:
            write_run(runs[uid], 10_000)
        until(lambda: len(mine()) == 3)
        # Nobody said that the last one ended: the next sweep finds it, and so does one after a connection was lost.
        sources._ask_for_sweep()
        until(lambda: len(mine()) == 4)
    assert mine() == dict.fromkeys(runs, 16)
    assert state.counts["healed"] == 2


def test_wrong_messages_are_counted_and_the_next_run_is_taken(make_site, proxy, frames: Path, send) -> None:
    from bluesky.callbacks.zmq import Publisher

    site = make_site({"kind": "zmq", "address": proxy[1], "prefix": "raw", "largest_mb": 0.01})
    with Ledger(site.ledger), Sources(site) as sources:
        state = sources.states()[0]
        until(lambda: state.connected)
        publisher = Publisher(proxy[0], serializer=msgpack.packb, prefix=b"raw")
        foreign = Publisher(proxy[0], prefix=b"other")

        def knock() -> bool:
            publisher("datum", {"datum_id": "knock", "resource": "knock"})
            return state.counts["documents"] > 0

        until(knock)
        for wrong in (
            b"raw start " + pickle.dumps({"uid": "p"}),
            b"raw start \xc1",
            b"raw start [1]",
            b"raw start " + b"x" * 20_000,
            b"raw x",
        ):
            publisher._socket.send(wrong)
        foreign("start", {"uid": "foreign"})
        until(lambda: state.counts["refused"] == 5)
        for name, document in scan_documents("zmq-after", 51, frames, time.time()):
            publisher(name, document)
        until(lambda: jobs_of(site).get("zmq-after") == 16)
        publisher.close()
        foreign.close()
    assert state.last_document_s is not None
    assert state.last_error is not None


def test_pickled_documents_are_taken_where_the_site_says_so(make_site, proxy, frames: Path, caplog: pytest.LogCaptureFixture) -> None:
    from bluesky.callbacks.zmq import Publisher

    site = make_site({"kind": "zmq", "address": proxy[1], "unpickle": True}, tiled_uri=None)
    with Ledger(site.ledger), Sources(site) as sources:
        assert "pickled documents are taken (unpickle = true)" in caplog.text
        (state,) = sources.states()
        publisher = Publisher(proxy[0])
        until(lambda: publisher("datum", {"datum_id": "knock", "resource": "knock"}) or state.counts["documents"])
        for name, document in scan_documents("zmq-pickled", 52, frames, time.time()):
            publisher(name, document)
        until(lambda: jobs_of(site).get("zmq-pickled") == 16)
        publisher.close()


def test_the_sweep_finds_a_run_that_nobody_announced_once(make_site, frames: Path, write_run, make_result, client) -> None:
    site = make_site({"kind": "sweep", "every_s": 0.3, "lookback_hours": 1})
    path, key, _ = make_result("swept-done", scan_id=57)
    publish(client, site, path, key)
    write_run(scan_documents("swept-done", 57, frames, time.time()), 10_000)
    write_run(scan_documents("swept", 53, frames, time.time()), 10_000)
    write_run(scan_documents("swept-old", 54, frames, time.time() - 7200), 10_000)
    write_run(scan_documents("swept-open", 55, frames, time.time())[:-1], 10_000)
    write_run(_another_kind_of_run("swept-other"), 10_000)
    with Ledger(site.ledger) as ledger, Sources(site) as sources:
        (state,) = sources.states()
        until(lambda: "swept" in jobs_of(site))
        until(lambda: not sources._desk.waiting())
        found, rung = jobs_of(site), state.counts["runs"]
        sweeps = state.counts["sweeps"]
        until(lambda: state.counts["sweeps"] > sweeps + 1)
        assert (jobs_of(site), state.counts["runs"]) == (found, rung)
        assert found.keys() & {"swept", "swept-old", "swept-open", "swept-other", "swept-done"} == {"swept"}
        # Another start knows the jobs from the ledger.
        for item in Inbox(site.inbox).waiting():
            ledger.put(parse((item / "job.json").read_bytes()))
            Inbox(site.inbox).remove(item)
    with Ledger(site.ledger), Sources(site) as again:
        until(lambda: again.states()[0].counts["sweeps"])
        until(lambda: not again._desk.waiting())
    assert jobs_of(site) == {}


def test_the_sweep_makes_a_job_of_a_run_whose_session_was_killed(make_site, frames: Path, write_run, monkeypatch) -> None:
    """Without a stop document: of what there is, when there have been no news for a while, with a note; the whole would be another job."""
    monkeypatch.setattr(sweeping, "UNENDED_S", 1e6)
    site = make_site({"kind": "sweep", "every_s": 0.2, "lookback_hours": 1})
    whole = scan_documents("killed", 61, frames, time.time())
    events = [place for place, (name, _) in enumerate(whole) if name == "event"]
    write_run([document for place, document in enumerate(whole[:-1]) if place not in events[12:]], 1)
    with Ledger(site.ledger), Sources(site) as sources:
        state = sources.states()[0]
        until(lambda: state.counts["sweeps"] > 2)
        assert "killed" not in jobs_of(site)
        monkeypatch.setattr(sweeping, "UNENDED_S", 0.0)
        until(lambda: "killed" in jobs_of(site))
        jobs = [parse((item / "job.json").read_bytes()) for item in Inbox(site.inbox).waiting()]
    (job,) = [job for job in jobs if job.source.run_uid == "killed"]
    assert job.frame_count == 12
    assert any("its session was probably killed" in note for note in job.notes)
    assert job.key != job.model_copy(update={"attempt": 0}).key


def _another_kind_of_run(uid: str) -> Documents:
    keys = {"temperature": {"source": "sim", "dtype": "number", "shape": [], "object_name": "temperature"}}
    objects = {"temperature": ["temperature"]}
    descriptor = {"uid": f"{uid}-d", "run_start": uid, "time": time.time(), "name": "primary", "data_keys": keys, "configuration": {}}
    return [
        ("start", {"uid": uid, "time": time.time(), "scan_id": 56, "plan_name": "count"}),
        ("descriptor", {**descriptor, "hints": {}, "object_keys": objects}),
        ("stop", {"uid": f"{uid}-s", "run_start": uid, "time": time.time(), "exit_status": "success", "num_events": {"primary": 0}}),
    ]


def test_the_catalog_tells_that_a_run_has_ended(make_site, frames: Path, write_run) -> None:
    site = make_site({"kind": "tiled"}, {"kind": "sweep", "every_s": 1000})
    with Ledger(site.ledger), Sources(site) as sources:
        tiled, sweep = sources.states()
        until(lambda: tiled.connected and sweep.counts["sweeps"])
        until(lambda: not sources._desk.waiting())
        documents = scan_documents("streamed", 58, frames, time.time())
        # Metadata above the megabyte at which Tiled's own client would leave for ever.
        documents[0][1]["note"] = "x" * 1_500_000
        write_run(documents, 10_000)
        until(lambda: "streamed" in jobs_of(site))
    assert jobs_of(site)["streamed"] == 16
    assert tiled.counts["jobs"] >= 1
    assert tiled.last_error is None


@pytest.mark.parametrize("batch_size", [1, 10_000])
def test_a_run_has_a_live_job_if_it_is_written_while_it_goes_on(
    make_site, folder: Path, tmp_path: Path, write_run, monkeypatch, batch_size: int
) -> None:
    monkeypatch.setattr(live, "EVERY_S", 0.02)
    count, uid = 24, f"followed-{batch_size}"
    write_frames(folder / "data" / f"{uid}.h5", count)
    profile = tmp_path / "live.toml"
    profile.write_text(SIM.read_text() + "\n[live]\nfirst_frames = 9\n")
    site = make_site({"kind": "tiled", "profiles": [str(profile)]}, {"kind": "sweep", "every_s": 1000})

    def items() -> list[Any]:
        """The final job, the live one and its growth, in their order."""
        found = [(item / "growth.json", item / "job.json") for item in Inbox(site.inbox).waiting()]
        read = [Growth.from_bytes(grown.read_bytes()) if grown.exists() else parse(job.read_bytes()) for grown, job in found]
        return [each for each in read if isinstance(each, Growth) or each.source.run_uid == uid]

    with Ledger(site.ledger), Sources(site) as sources:
        tiled, sweep = sources.states()
        until(lambda: tiled.connected and sweep.counts["sweeps"])
        write_run(scan_documents(uid, 59, folder / "data" / f"{uid}.h5", time.time(), count), batch_size)
        until(lambda: any(getattr(each, "purpose", "") == "final" for each in items()))
        until(lambda: not any(thread.name == f"ptyplugin-run-{uid}" for thread in threading.enumerate()))
        if batch_size == 1:
            until(lambda: any(getattr(each, "ended", False) for each in items()))
    (final,) = [each for each in items() if getattr(each, "purpose", "") == "final"]
    parts = [each for each in items() if each is not final and getattr(each, "purpose", "live") == "live"]
    assert tiled.counts["followed"] == 1
    if batch_size > 1:
        assert parts == []
        return
    firsts = [getattr(each, "first", 0) for each in parts]
    assert firsts == [sum(each.frame_count for each in parts[:place]) for place in range(len(parts))]
    assert [frame for each in parts for first, stop in each.frame_ids for frame in range(first, stop)] == list(range(count))
    assert [position for each in parts for position in each.positions_m or []] == final.positions_m
    assert {block.source for each in parts for block in each.frames} == {block.source for block in final.frames}


def test_a_catalog_that_does_not_stream_is_one_sentence(make_site) -> None:
    site = make_site({"kind": "tiled"}, raw_path="nowhere/{beamline}")
    with Ledger(site.ledger), Sources(site) as sources:
        until(lambda: all(state.last_error for state in sources.states()))
        errors = [str(state.last_error) for state in sources.states()]
    assert "does not stream nowhere/sim" in errors[0]
    assert "has no folder nowhere/sim" in errors[1]


def test_a_catalog_that_is_away_is_tried_again(make_site) -> None:
    site = make_site({"kind": "tiled"}, tiled_uri="http://127.0.0.1:9")
    with Ledger(site.ledger), Sources(site) as sources:
        until(lambda: all(state.last_error for state in sources.states()))
        assert all("does not answer" in str(state.last_error) for state in sources.states())


def test_frames_outside_the_data_roots_are_a_failed_job_with_one_sentence(make_site, proxy, tmp_path: Path, send) -> None:
    outside = tmp_path / "outside.h5"
    write_frames(outside)
    site = make_site({"kind": "zmq", "address": proxy[1]}, tiled_uri=None)
    foreign = scan_documents("elsewhere", 60, outside, time.time())
    foreign[2][1]["uri"] = "https://example.org/frames.h5"
    with Daemon(site, Inline(), publish=lambda *_: None) as daemon, Sources(site) as sources:
        working = threading.Thread(target=daemon.run)
        working.start()
        send([*scan_documents("outside", 59, outside, time.time()), *foreign], sources.states()[0])
        until(lambda: daemon._ledger.counts().get("failed") == 2)
        sentences = {entry.run_uid: entry.sentence for entry in daemon._ledger.list(state="failed")}
        daemon.stop()
        working.join()
        (refused,) = [entry.key for entry in daemon._ledger.list(run_uid="outside")]
    assert "lies outside the site's data_roots" in sentences["outside"]
    assert "only file:// addresses are read" in sentences["elsewhere"]
    # The site is corrected, and somebody asks for the job again.
    corrected = site.model_copy(update={"data_roots": [tmp_path], "source": []})
    give(corrected, Order(order="retry", job=refused))
    with Daemon(corrected, Inline("benchmarks.scan_burst:glance"), publish=lambda *_: None) as daemon:
        daemon.run_once()
        assert daemon._ledger.show(refused).state == "published"


def test_a_burst_with_a_late_start_gives_every_scan_its_result(make_site, proxy, frames: Path, tmp_path: Path) -> None:
    site = make_site({"kind": "zmq", "address": proxy[1], "profiles": [str(write_profile(tmp_path))]})
    runs = runs_of(4, frames)
    fill(site, runs)
    outcome = send_and_solve(site, runs, proxy[0], rate=200)
    assert outcome.results == outcome.in_catalog == outcome.scans == 4
    assert outcome.documents < outcome.sent
    assert outcome.healed >= 1
