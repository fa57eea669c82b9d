"""AutoReconstruct: quick and silent towards the RunEngine, stubborn towards the inbox."""

from __future__ import annotations

import gc
import logging
import math
import subprocess
import sys
import threading
from collections import UserDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptyplugin.callbacks import AutoReconstruct, locating
from ptyplugin.callbacks.copying import Copier
from ptyplugin.jobs import Inbox
from ptyplugin.model import Job, ProfileError, Refusal, Site, SiteError, canonical_json


class Taker:
    """Stands for the inbox: takes jobs, or refuses ``failures`` times."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.tries = 0
        self.taken: list[tuple[Job | Refusal, Mapping[str, Any]]] = []

    def __call__(self, site: Site, job: Job | Refusal, arrays: Mapping[str, Any]) -> str:
        self.tries += 1
        if self.tries <= self.failures:
            raise SiteError("the inbox is full: make room.")
        self.taken.append((job, arrays))
        return job.key


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield Site(home=tmp_path / "home")
    # Lets the threads of the objects that the test dropped come to their end.
    gc.collect()


def play(auto: AutoReconstruct, documents: Any) -> None:
    for name, document in documents:
        auto(name, document)


@pytest.mark.parametrize("name", ["stream assets", "resource and datum", "arrays in events"])
def test_each_run_gives_the_job_of_the_assembler(bench: Any, site: Site, name: str) -> None:
    taker, documents = Taker(), bench.streams[name]()
    auto = AutoReconstruct(bench.profile(), site, taker)
    play(auto, documents)
    assert auto.flush(10.0)
    (expected,) = bench.collect(documents)
    ((job, arrays),) = taker.taken
    assert job.to_bytes() == expected.job.to_bytes()
    assert arrays.keys() == expected.arrays.keys()


def test_the_job_lies_in_the_inbox_of_the_site(bench: Any, site: Site) -> None:
    auto = AutoReconstruct(bench.profile(), site)
    play(auto, bench.arrays_in_events())
    play(auto, bench.stream_assets([], run="run2"))
    assert auto.flush(10.0)
    items = Inbox(site.inbox).waiting()
    assert len(items) == 2
    (parts,) = bench.collect(bench.arrays_in_events())
    assert (items[0] / "job.json").read_bytes() == parts.job.to_bytes()
    np.testing.assert_array_equal(np.load(items[0] / "frames.npy"), parts.arrays["frames.npy"])
    assert b"no frame of 'det' has a position" in (items[1] / "job.json").read_bytes()


def test_profiles_by_name_and_wrong_ones(site: Site) -> None:
    AutoReconstruct("sim", site, Taker())
    with pytest.raises(ProfileError, match="no profile 'nowhere'"):
        AutoReconstruct(profile="nowhere", site=site)


def test_documents_are_copied_when_they_come(bench: Any, site: Site) -> None:
    taker, gate = Taker(), threading.Event()

    def waiting_taker(*job: Any) -> str:
        gate.wait(10.0)
        return taker(*job)

    auto = AutoReconstruct(bench.profile(), site, waiting_taker)
    play(auto, bench.stream_assets())
    # The thread now waits in the taker; what comes next stays in the queue until it is let go.
    documents = bench.arrays_in_events(run="run2")
    for name, document in documents:
        auto(name, document)
        if name == "event":
            document["data"]["x"] = 1e9
            if "det" in document["data"]:
                document["data"]["det"][:] = 0
        elif name == "descriptor":
            document["data_keys"].clear()
    gate.set()
    assert auto.flush(10.0)
    (expected,) = bench.collect(bench.arrays_in_events(run="run2"))
    assert taker.taken[1][0].to_bytes() == expected.job.to_bytes()


def test_a_copy_shares_nothing_that_can_change() -> None:
    original = {"a": [1, 2], "b": ({"c": [[1.0]]}, "text"), "d": np.zeros(3), 5: None, "e": []}
    copy = Copier()(original)
    original["a"].append(3)
    original["b"][0]["c"][0][0] = 2.0
    original["d"][0] = 1.0
    assert copy["a"] == [1, 2]
    assert copy["b"] == [{"c": [[1.0]]}, "text"]
    assert copy["d"].sum() == 0
    assert (copy[5], copy["e"]) == (None, [])


def test_nothing_that_comes_raises_or_ends_the_thread(bench: Any, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    taker = Taker()
    auto = AutoReconstruct(bench.profile(), site, taker)
    bottomless: dict[str, Any] = {}
    bottomless["self"] = bottomless

    class Bad(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError("no")

    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    class Worse(UserDict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise Unspeakable

        def get(self, key: str, default: Any = None) -> Any:
            raise Unspeakable

    for document in (None, 3, [], {}, {"uid": object()}, bottomless, Bad(), Worse()):
        for name in ("start", "event", "stop", None, "nonsense"):
            auto(name, document)
    play(auto, bench.stream_assets())
    assert auto.flush(10.0)
    assert len(taker.taken) == 1
    assert "could not be copied" in caplog.text
    assert "documents were passed over" in caplog.text


def test_a_mistake_of_ours_in_one_run_does_not_end_the_thread(
    bench: Any, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from ptyplugin.callbacks import Assembling

    look = Assembling.look

    def broken_for_run1(self: Assembling) -> Any:
        if self.run.uid == "run1":
            raise ZeroDivisionError
        return look(self)

    monkeypatch.setattr(Assembling, "look", broken_for_run1)
    taker = Taker()
    auto = AutoReconstruct(bench.profile(), site, taker)
    play(auto, bench.stream_assets())
    play(auto, bench.stream_assets(run="run2"))
    assert auto.flush(10.0)
    assert [(job.source.run_uid, isinstance(job, Refusal)) for job, _ in taker.taken] == [("run1", True), ("run2", False)]
    assert "a mistake of ptyplugin: no job could be made of this run (ZeroDivisionError)" in taker.taken[0][0].reason
    assert "run run1 (scan 7): no job could be made of it" in caplog.text


def test_position_files_that_are_not_there_hold_up_no_other_run(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Any
) -> None:
    monkeypatch.setattr(locating, "DEADLINE_S", 60.0)
    taker, place = Taker(), {"/data": str(tmp_path)}
    auto = AutoReconstruct(bench.profile(), Site(home=tmp_path / "home", data_roots=[tmp_path], path_map=place), taker)
    play(auto, bench.fly())
    play(auto, bench.stream_assets(run="run2"))
    until(lambda: [job.source.run_uid for job, _ in taker.taken] == ["run2"])
    assert not auto.flush(0.1)
    for key in "yx":
        with h5py.File(tmp_path / f"{key}.h5", "w") as file:
            file[key] = np.arange(24.0) ** (1 + (key == "x"))
    assert auto.flush(20.0)
    assert [(job.source.run_uid, type(job)) for job, _ in taker.taken] == [("run2", Job), ("run1", Job)]


def test_a_file_that_a_later_run_has_overwritten_is_said(bench: Any, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def into_one_file(run: str, first: int = 0) -> Iterator[tuple[str, Any]]:
        for name, document in bench.stream_assets(run=run):
            if name == "start":
                document["time"] = float(run.removeprefix("run"))
            elif name == "stream_resource":
                document["uri"] = "file://localhost/data/always.h5"
            elif name == "stream_datum":
                document["indices"] = {end: at + first for end, at in document["indices"].items()}
            yield name, document

    taker = Taker()
    auto = AutoReconstruct(bench.profile(), site, taker)
    for run, first in (("run1", 0), ("run2", 1000), ("run4", 1000), ("run4", 1000), ("run3", 1000)):
        play(auto, into_one_file(run, first))
        assert auto.flush(10.0)
    notes = [" ".join(job.notes) for job, _ in taker.taken]
    assert ["anew" in each for each in notes] == [False, False, True, False, True]
    assert "always.h5 held frames of run run2 (scan 7) before this run wrote into it anew" in notes[2]
    # Its positions were waited for.
    assert "always.h5 holds frames of run run4 (scan 7), which wrote into it anew: the image of this run is probably one of" in notes[4]
    assert "Let the detector write a file of its own for each run" in caplog.text
    keys = [job.key for job, _ in taker.taken]
    assert keys[2] == keys[3], "notes are no part of the key"


def test_a_mistake_of_ours_with_one_document_does_not_end_the_thread(
    bench: Any, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from ptyplugin.callbacks.collector import Run
    from ptyplugin.callbacks.documents import StreamDatum

    add = Run.add

    def broken_for_run1(run: Any, document: Any) -> Any:
        if run.uid == "run1" and isinstance(document, StreamDatum):
            raise MemoryError
        return add(run, document)

    monkeypatch.setattr(Run, "add", broken_for_run1)
    taker = Taker()
    auto = AutoReconstruct(bench.profile(), site, taker)
    play(auto, bench.stream_assets())
    play(auto, bench.stream_assets(run="run2"))
    assert auto.flush(10.0)
    assert [(job.source.run_uid, isinstance(job, Refusal)) for job, _ in taker.taken] == [("run1", True), ("run2", False)]
    assert "a 'stream_datum' document could not be used" in caplog.text


def test_a_job_that_cannot_be_written_does_not_end_the_thread(
    bench: Any, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = [math.nan, math.nan, 1.0]

    def key_of_three_tries(job: Job) -> str:
        return canonical_json(numbers.pop(0)).hex()[:16].ljust(16, "0")

    monkeypatch.setattr(Job, "key", property(key_of_three_tries))
    auto = AutoReconstruct(bench.profile(), site, lambda site, job, arrays: job.key)
    play(auto, bench.stream_assets())
    assert auto.flush(20.0)
    assert numbers == []
    assert "run run1 (scan 7): its job cannot be handed over and is kept: Out of range float" in caplog.text


def test_jobs_are_kept_until_the_inbox_takes_them(bench: Any, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ptyplugin")
    taker = Taker(failures=3)
    auto = AutoReconstruct(bench.profile(), site, taker)
    play(auto, bench.stream_assets())
    play(auto, bench.resource_datum(run="run2"))
    assert auto.flush(20.0)
    assert {job.source.run_uid for job, _ in taker.taken} == {"run1", "run2"}
    key = taker.taken[0][0].key
    assert "is kept: the inbox is full: make room." in caplog.text
    assert f"(scan 7): job {key} handed over, 6 frames" in caplog.text


def test_a_refusal_is_handed_over_and_told(bench: Any, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    taker = Taker()
    auto = AutoReconstruct(bench.profile(detector={"key": "eiger"}), site, taker)
    play(auto, bench.stream_assets())
    assert auto.flush(10.0)
    assert isinstance(taker.taken[0][0], Refusal)
    assert "not reconstructed: profile 'test': detector.key = 'eiger' is not in stream 'primary'" in caplog.text


def test_flush_gives_up_when_the_inbox_stays_closed(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where the inbox should be")
    auto = AutoReconstruct(bench.profile(), Site(home=tmp_path, inbox_dir=tmp_path / "file" / "inbox"))
    play(auto, bench.stream_assets())
    assert not auto.flush(0.2)
    (tmp_path / "file").unlink()
    assert auto.flush(10.0)
    assert len(Inbox(tmp_path / "file" / "inbox").waiting()) == 1


def test_the_thread_ends_when_nobody_has_a_use_for_it(bench: Any, site: Site) -> None:
    taker = Taker()
    before = set(threading.enumerate())
    auto = AutoReconstruct(bench.profile(), site, taker)
    (thread,) = set(threading.enumerate()) - before
    play(auto, bench.stream_assets())
    del auto
    gc.collect()
    thread.join(10.0)
    assert not thread.is_alive()
    assert len(taker.taken) == 1


SCRIPT = """
import sys, time
from pathlib import Path
from ptyplugin.callbacks import AutoReconstruct
from ptyplugin.model import Site
sys.path.insert(0, {folder!r})
from conftest import Bench
auto = AutoReconstruct(Bench.profile(), Site(home=Path({home!r}), inbox_dir=Path({inbox!r})))
for name, document in Bench.stream_assets():
    auto(name, document)
print(time.monotonic(), flush=True)
{last}
"""


def run_and_exit(home: Path, inbox: Path, last: str = "") -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(folder=str(Path(__file__).parent), home=str(home), inbox=str(inbox), last=last)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.system
@pytest.mark.parametrize("last", ["", "del auto", "del auto; time.sleep(0.3)"])
def test_the_exit_of_the_interpreter_flushes(tmp_path: Path, last: str) -> None:
    done = run_and_exit(tmp_path, tmp_path / "inbox", last)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(Inbox(tmp_path / "inbox").waiting()) == 1


@pytest.mark.system
def test_the_exit_does_not_hang_on_a_closed_inbox(tmp_path: Path) -> None:
    import time

    (tmp_path / "file").write_text("a file where the inbox should be")
    done = run_and_exit(tmp_path, tmp_path / "file" / "inbox")
    assert time.monotonic() - float(done.stdout) < 15.0
    assert done.returncode == 0
    assert f"jobs were not handed over to {tmp_path}/file/inbox before the exit: run run1 (scan 7)." in done.stderr
