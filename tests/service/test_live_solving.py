"""A live job: it grows while it runs, whatever is killed; it waits, makes way, ends by itself; and the final one follows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from at_work import at_work
from live_scan import LiveScan, write_scan

from ptyplugin.api import opening
from ptyplugin.io import live_frames, read_result
from ptyplugin.io.ways import FileWay
from ptyplugin.jobs import GrowthFolder, Inbox, Intake, Ledger, Order, give, read_snapshot
from ptyplugin.model import Cancelled, CatalogAway, FramesError, Progress, Reconstruction, Site
from ptyplugin.service import Daemon, Inline, Launcher, Wish, arriving, live_solving, preview, slot
from ptyplugin.service.live_solving import Waits, solve_live
from ptyplugin.service.mpiexec import Mpiexec
from ptyplugin.solvers import OneRank

SOON = Waits(aside_s=0.1, late_s=0.3, begin_s=0.1, again_s=0.1, lost_s=900.0)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    return path, write_scan(path, 20)


@pytest.fixture
def scan(tmp_path: Path, measured: tuple[Path, np.ndarray]) -> LiveScan:
    site = Site(home=tmp_path / "home", ranks=2, data_roots=[measured[0].parent], device="cpu")
    return LiveScan(site, *measured)


@pytest.fixture
def ledger(scan: LiveScan) -> Iterator[Ledger]:
    with Ledger(scan.site.ledger) as ledger:
        yield ledger


class Solving:
    """One rank that solves the live job of a scan in a thread, without a daemon."""

    def __init__(self, scan: LiveScan, ledger: Ledger, waits: Waits = SOON) -> None:
        self.scan, self.waits, self.wish = scan, waits, Wish.GO_ON
        self.intake = Intake(Inbox(scan.site.inbox), ledger, scan.site.jobs)
        self.heard: list[Progress] = []
        self.made: Reconstruction | None = None
        self.error: BaseException | None = None
        self.folder = scan.site.jobs / scan.live.key
        scan.submit("live")
        self.take_in()

    def take_in(self) -> None:
        for item in Inbox(self.scan.site.inbox).waiting():
            self.intake.take_in(item)

    def grow(self, start: int, stop: int, ended: bool = False) -> None:
        self.scan.grow(start, stop, ended)
        self.take_in()

    def begin(self) -> threading.Thread:
        thread = threading.Thread(target=self._solve)
        thread.start()
        return thread

    def _solve(self) -> None:
        job, site = self.scan.live, self.scan.site
        try:
            self.made = solve_live(job, self.folder, site, OneRank(), self.heard.append, lambda: self.wish, self.waits)
        except BaseException as error:
            self.error = error

    @property
    def frames(self) -> int:
        return self.heard[-1].frames if self.heard else 0


@contextmanager
def going(solving: Solving) -> Iterator[Solving]:
    thread = solving.begin()
    try:
        yield solving
    finally:
        thread.join(20)
        solving.wish = Wish.CANCEL
        thread.join(20)
        assert not thread.is_alive()


def error_of(made: Reconstruction | None) -> float:
    assert made is not None
    return made.quality["error"]


def test_a_job_that_grew_in_twenty_portions_is_as_good_as_one_that_had_all(scan: LiveScan, ledger: Ledger, until) -> None:
    scan.positions_m = scan.positions_m[:224]
    with going(Solving(scan, ledger)) as solving:
        until(lambda: solving.frames)
        for start in range(64, 224, 8):
            solving.grow(start, start + 8, ended=start + 8 == 224)
            until(lambda start=start: solving.frames >= start + 8 or solving.error)
    assert solving.error is None
    assert sorted({event.frames for event in solving.heard}) == [*range(64, 225, 8)]
    assert solving.made is not None
    assert solving.made.provenance["admitted"] == {"portions": 20, "first_frames": 64}
    assert len(solving.made.positions_m) == 224
    whole = solve_live(scan.job("live", 224), _ended(solving.folder, scan), scan.site, OneRank(), lambda _: None, lambda: Wish.GO_ON)
    assert error_of(solving.made) < 1.05 * error_of(whole)


def _ended(folder: Path, scan: LiveScan) -> Path:
    """A folder beside for the job that has all frames at once."""
    beside = folder.with_name("beside")
    shutil.copytree(folder, beside)
    (beside / "snapshot.npz").unlink(missing_ok=True)
    shutil.rmtree(beside / "growth")
    GrowthFolder(beside).end()
    return beside


def test_it_goes_on_from_its_snapshot_with_all_that_came_meanwhile(scan: LiveScan, ledger: Ledger, until) -> None:
    solving = Solving(scan, ledger)
    with going(solving):
        until(lambda: solving.frames)
        solving.grow(64, 200)
        until(lambda: solving.frames == 200)
        until(lambda: solving.heard[-1].iteration == solving.heard[-1].iterations)
        solving.wish = Wish.STOP
    assert isinstance(solving.error, Cancelled)
    there = read_snapshot(solving.folder)
    assert there is not None
    assert (there.frames, there.job) == (200, scan.live.key)
    solving.grow(200, 300)
    solving.grow(300, 300, ended=True)
    after = solving.heard[-1]
    solving.heard.clear()
    solving.wish, solving.error = Wish.GO_ON, None
    with going(solving):
        pass
    assert solving.error is None
    assert {event.frames for event in solving.heard} == {300}
    assert len(solving.made.positions_m) == 300
    # It did not begin anew: the first iteration is better than the first that there ever was.
    measure = next(iter(after.errors))
    assert solving.heard[0].errors[measure] < 0.5


def test_cancel_is_heard_while_it_waits_for_frames(scan: LiveScan, ledger: Ledger, until) -> None:
    with going(Solving(scan, ledger)) as solving:
        until(lambda: solving.heard and solving.heard[-1].iteration == solving.heard[-1].iterations)
        time.sleep(0.2)
        solving.wish = Wish.CANCEL
    assert isinstance(solving.error, Cancelled)


@pytest.mark.parametrize("wish", [Wish.GIVE_WAY, Wish.FINISH])
def test_it_makes_way_only_while_it_waits(scan: LiveScan, ledger: Ledger, until, wish: Wish) -> None:
    solving = Solving(scan, ledger)
    solving.wish = wish
    with going(solving):
        until(lambda: solving.error)
    assert "makes way" in str(solving.error)
    assert solving.heard[-1].iteration == solving.heard[-1].iterations == 10
    assert read_snapshot(solving.folder) is not None


def test_it_ends_with_all_frames_once_the_final_job_waits(scan: LiveScan, ledger: Ledger, until) -> None:
    solving = Solving(scan, ledger, Waits(aside_s=20.0))
    solving.wish = Wish.FINISH
    with going(solving):
        until(lambda: solving.heard)
        assert solving.made is None, "there are frames to come"
        solving.grow(64, 150, ended=True)
    assert solving.error is None
    assert len(solving.made.positions_m) == 150
    with_all = [event for event in solving.heard if event.frames == 150]
    assert len(with_all) < 10, "the rest of the recipe is left to the final job"


@pytest.mark.parametrize("others_see", [True, False])
def test_whoever_hands_frames_over_may_die(scan: LiveScan, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, others_see: bool) -> None:
    if not others_see:
        monkeypatch.setattr(live_solving._Live, "_at_hand", lambda _, frames: frames[:0])
    solving = Solving(scan, ledger, Waits(lost_s=1.0))
    with going(solving):
        solving.grow(64, 100)
    assert solving.error is None
    assert len(solving.made.positions_m) == (100 if others_see else 64)
    assert any("nor the end of the run" in note for note in solving.made.provenance["notes"])


def test_growth_with_a_gap_or_of_another_kind_is_left_out(scan: LiveScan, ledger: Ledger) -> None:
    solving = Solving(scan, ledger)
    solving.grow(64, 100)
    solving.grow(120, 200, ended=True)
    with going(solving):
        pass
    assert len(solving.made.positions_m) == 100
    again = Solving(LiveScan(scan.site, scan.path, scan.positions_m, run="run-2"), ledger)
    growth = again.scan.growth(64, 70, ended=True)
    two = [[position[0], position[0]] for position in growth.positions_m]
    Inbox(scan.site.inbox).grow(growth.model_copy(update={"positions_m": two}), {})
    again.take_in()
    with going(again):
        pass
    assert len(again.made.positions_m) == 64
    assert any("2 sub-steps" in note for note in again.made.provenance["notes"])


def test_frames_that_cannot_be_read_yet_are_tried_again(scan: LiveScan, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[int] = []
    admit = live_solving.JobSolver.admit

    def admit_later(self, frames, positions) -> None:
        if len(refused) < 2:
            refused.append(len(frames))
            raise FramesError("the detector wrote fewer than it announced.")
        admit(self, frames, positions)

    monkeypatch.setattr(live_solving.JobSolver, "admit", admit_later)
    solving = Solving(scan, ledger)
    solving.grow(64, 100, ended=True)
    with going(solving):
        pass
    assert refused == [100, 100]
    assert len(solving.made.positions_m) == 100


def test_frames_that_cannot_be_read_yet_hold_up_no_others(scan: LiveScan, ledger: Ledger, until, monkeypatch: pytest.MonkeyPatch) -> None:
    admit = live_solving.JobSolver.admit

    def admit_others(self, frames, positions) -> None:
        if len(frames) == 100:
            raise FramesError("the detector wrote fewer than it announced.")
        admit(self, frames, positions)

    monkeypatch.setattr(live_solving.JobSolver, "admit", admit_others)
    solving = Solving(scan, ledger, Waits(again_s=60.0))
    with going(solving):
        until(lambda: solving.frames)
        solving.grow(64, 100)
        solving.grow(100, 150)
        until(lambda: solving.frames == 114 or solving.error)
        solving.wish = Wish.CANCEL
    assert isinstance(solving.error, Cancelled)


@pytest.mark.parametrize(("bad", "heals", "before"), [(70, True, False), (70, False, False), (70, True, True), (7, True, False)])
def test_a_frame_that_cannot_be_read_holds_up_no_other(
    scan: LiveScan, ledger: Ledger, until, monkeypatch: pytest.MonkeyPatch, bad: int, heals: bool, before: bool
) -> None:
    damaged, read = {bad}, FileWay.read

    def read_sound(self: FileWay, frames: np.ndarray) -> np.ndarray:
        if damaged & set(frames.tolist()):
            raise FramesError("a chunk is damaged.")
        return read(self, frames)

    monkeypatch.setattr(FileWay, "read", read_sound)
    monkeypatch.setattr(live_frames, "_DAMAGED_S", 0.05)
    monkeypatch.setattr(arriving, "_FIRST_AGAIN_S", 0.05)
    solving = Solving(scan, ledger)
    if before:
        solving.grow(64, 100)
    with going(solving):
        if not before:
            until(lambda: solving.frames or solving.error)
            solving.grow(64, 100)
        until(lambda: solving.frames == 99 or solving.error)
        solving.grow(100, 150)
        until(lambda: solving.frames == 149 or solving.error)
        if heals:
            damaged.clear()
            until(lambda: solving.frames == 150 or solving.error)
        solving.grow(150, 160, ended=True)
    assert solving.error is None
    assert len(solving.made.positions_m) == 159 + heals
    assert np.allclose(np.sort(solving.made.positions_m[:, 0]), np.sort(np.delete(scan.positions_m[:160, 0], [] if heals else [bad])))
    left_out = ["1 frames did not come in time, or cannot be read, and were left out."]
    assert [note for note in solving.made.provenance["notes"] if "left out" in note] == ([] if heals else left_out)


def test_it_begins_without_first_frames_that_do_not_come_and_whatever_the_catalog_says(
    scan: LiveScan, ledger: Ledger, until, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, has, asked, may_answer = {7, 8}, FileWay.has, threading.Event(), threading.Event()

    def answers_late(*_: object) -> None:
        asked.set()
        may_answer.wait(30)
        raise CatalogAway("it does not answer.")

    def has_others(self: FileWay, frames: np.ndarray) -> np.ndarray:
        return has(self, frames) & ~np.isin(frames, list(lost))

    monkeypatch.setattr(FileWay, "has", has_others)
    monkeypatch.setattr(opening, "_from_catalog", answers_late)
    scan.site = scan.site.model_copy(update={"tiled_uri": "http://127.0.0.1:1"})
    with going(Solving(scan, ledger, Waits(begin_s=60.0))) as solving:
        until(lambda: (solving.frames == 62 and asked.is_set()) or solving.error, 20)
        may_answer.set()
        lost.clear()
        until(lambda: solving.frames == 64 or solving.error)
        solving.grow(64, 80, ended=True)
    assert solving.error is None
    assert len(solving.made.positions_m) == 80


def test_the_final_job_does_not_wait_for_frames_that_the_live_one_lacks(
    scan: LiveScan, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = FileWay.has
    monkeypatch.setattr(FileWay, "has", lambda self, frames: has(self, frames) & (frames != 70))
    solving = Solving(scan, ledger, Waits(late_s=60.0))
    solving.wish = Wish.FINISH
    solving.grow(64, 150, ended=True)
    with going(solving):
        pass
    assert solving.error is None
    assert len(solving.made.positions_m) == 149
    notes = [note for note in solving.made.provenance["notes"] if "final job" in note]
    assert notes == ["1 frames had not come when the run ended: they are left to the final job, which waits."]


@contextmanager
def running(site: Site, launcher: Launcher, on_progress: Callable[[Progress], None] | None = None) -> Iterator[Daemon]:
    with Daemon(site, launcher, lambda *_: None, on_progress) as daemon, at_work(daemon.run):
        yield daemon


def is_done(daemon: Daemon, key: str) -> bool:
    return any(entry.key == key and entry.state == "published" for entry in daemon.ledger.list())


def states(daemon: Daemon, key: str) -> list[str]:
    return [step.state for step in daemon.ledger.history(key)]


def test_two_ranks_grow_and_one_is_killed_and_the_final_job_follows(scan: LiveScan, until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "RETRY_S", 0.1)
    seen: list[tuple[int, str]] = []
    folder = scan.site.home / "slots" / "test"
    with Mpiexec(folder, 2) as ranks, running(scan.site, ranks) as daemon:
        daemon.add_snapshot_listener(lambda snapshot, entry: seen.append((snapshot.frames, str(entry.purpose))))
        key, final = scan.submit("live"), scan.final.key

        def produce() -> None:
            for start in range(64, 400, 28):
                scan.grow(start, min(start + 28, 400))
                time.sleep(0.1)
            scan.grow(400, 400, ended=True)
            scan.submit("final")

        producer = threading.Thread(target=produce)
        until(lambda: seen)
        producer.start()
        until(lambda: seen[-1][0] > 150)
        os.kill(json.loads((folder / "processes.json").read_text())[1][0], signal.SIGKILL)
        producer.join()
        until(lambda: is_done(daemon, final), 60)
        live = daemon.ledger.show(key)
        assert states(daemon, key) == ["queued", "running", "queued", "running", "solved", "cancelled"]
        assert "has taken its place" in str(live.sentence)
        assert (live.frames, live.tries) == (400, 1)
        assert not (scan.site.jobs / key / "growth").exists()
        ended = next(step.at_s for step in daemon.ledger.history(key) if step.state == "solved")
        assert next(step.at_s for step in daemon.ledger.history(final) if step.state == "running") >= ended
    assert [path.stem for path in scan.site.results.iterdir()] == [final]
    assert len(read_result(scan.site.results / f"{final}.h5").positions_m) == 400
    counts = [frames for frames, purpose in seen if purpose == "live"]
    assert counts == sorted(counts)
    assert counts[-1] == 400


def test_a_scan_that_pauses_lets_others_be_solved_and_goes_on(scan: LiveScan, until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_solving, "Waits", lambda: SOON)
    monkeypatch.setattr(slot, "BEAT_S", 0.1)
    monkeypatch.setattr(preview, "GRACE_S", 0.0)
    other = LiveScan(scan.site, scan.path, scan.positions_m[:100], run="run-2")
    with running(scan.site, Inline()) as daemon:
        key = scan.submit("live")
        until(lambda: read_snapshot(scan.site.jobs / key))
        other.submit("final")
        until(lambda: is_done(daemon, other.final.key))
        until(lambda: daemon.ledger.show(key).state == "queued")
        assert daemon.ledger.show(key).tries == 0
        scan.grow(64, 200, ended=True)
        until(lambda: is_done(daemon, key))
    with Ledger(scan.site.ledger) as ledger:
        assert [step.state for step in ledger.history(key)] == ["queued", "running", "queued", "running", "solved", "published"]


def test_two_scans_back_to_back_with_one_slot(scan: LiveScan, until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_solving, "Waits", lambda: SOON)
    monkeypatch.setattr(slot, "BEAT_S", 0.1)
    scans = [scan, LiveScan(scan.site, scan.path, scan.positions_m, run="run-2")]
    with running(scan.site, Inline()) as daemon:
        for each in scans:
            each.submit("live")
            for start in range(64, 400, 84):
                each.grow(start, start + 84)
                time.sleep(0.1)
            each.grow(400, 400, ended=True)
            each.submit("final")
        keys = [job.key for each in scans for job in (each.live, each.final)]
        until(lambda: [entry.state for entry in daemon.ledger.list()] == ["cancelled", "published"] * 2, 60)
        assert [daemon.ledger.show(key).frames for key in keys] == [400] * 4


def test_a_live_job_that_comes_after_the_final_one_is_not_begun(scan: LiveScan) -> None:
    scan.submit("final")
    with Daemon(scan.site, Inline(), lambda *_: None) as daemon:
        daemon.run_once()
        scan.submit("live")
        daemon.run_once()
        live = daemon.ledger.show(scan.live.key)
        assert live.state == "cancelled"
        assert f"taken its place (job {scan.final.key})" in str(live.sentence)


def test_a_live_job_is_cancelled_by_order_and_the_final_one_goes_on(scan: LiveScan, until) -> None:
    with running(scan.site, Inline()) as daemon:
        key = scan.submit("live")
        until(lambda: read_snapshot(scan.site.jobs / key))
        scan.submit("final")
        give(scan.site, Order(order="cancel", job=key))
        until(lambda: is_done(daemon, scan.final.key))
        assert daemon.ledger.show(key).state in ("cancelled", "solved")
    assert not (scan.site.jobs / key / "snapshot.npz").exists()
