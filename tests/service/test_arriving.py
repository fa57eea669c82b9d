"""Ranks on other machines: what one sees, another one may see later. And what did not come is said once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from live_scan import LiveScan, write_scan
from numpy.typing import NDArray

from ptyplugin.io import JobFrames
from ptyplugin.jobs import Inbox, Intake, Ledger, write_snapshot
from ptyplugin.model import JobError, Site, Snapshot
from ptyplugin.service import Wish, arriving
from ptyplugin.service.arriving import Arrivals
from ptyplugin.service.live_solving import Waits, _Live, _start, solve_live
from ptyplugin.solvers import OneRank


@pytest.fixture
def scan(tmp_path: Path) -> LiveScan:
    path = tmp_path / "scan.h5"
    positions_m = write_scan(path, 10)
    return LiveScan(Site(home=tmp_path / "home", ranks=1, data_roots=[tmp_path], device="cpu"), path, positions_m)


@pytest.fixture
def intake(scan: LiveScan) -> Iterator[Intake]:
    with Ledger(scan.site.ledger) as ledger:
        yield Intake(Inbox(scan.site.inbox), ledger, scan.site.jobs)


def take_in(scan: LiveScan, intake: Intake) -> None:
    for item in Inbox(scan.site.inbox).waiting():
        intake.take_in(item)


@pytest.fixture
def arrivals(scan: LiveScan, intake: Intake) -> Arrivals:
    scan.submit("live")
    take_in(scan, intake)

    class Counted:
        """Frames that are only counted."""

        count = scan.first

        def __len__(self) -> int:
            return self.count

        def grow(self, growth: Any, folder: Path) -> None:
            self.count += growth.frame_count

    frames: JobFrames = Counted()  # type: ignore[assignment]
    return Arrivals(scan.live, scan.site.jobs / scan.live.key, frames, np.arange(scan.first))


def test_frames_that_were_passed_over_are_looked_at_seldom_if_that_takes_long(arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = SimpleNamespace(now=1000.0), list[float]()

    def readable(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        looks.append(clock.now)
        clock.now += 3.0
        return np.zeros(len(numbers), dtype=bool)

    monkeypatch.setattr(arriving, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(arrivals, "_frames", SimpleNamespace(readable=readable))
    arrivals.pass_over(np.arange(64, 70), "a chunk is damaged.")
    while clock.now < 1200.0:
        assert not len(arrivals._healed())
        clock.now += 0.1
    # For a twentieth of the time: the ranks wait for it.
    assert len(looks) == 4


def test_of_many_frames_that_were_passed_over_some_are_tried_at_a_time_and_all_in_the_end(
    arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, tried = SimpleNamespace(now=1000.0), list[int]()

    def readable(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        clock.now += 0.04 * len(numbers)
        tried.extend(numbers.tolist())
        return numbers % 2 == 0

    monkeypatch.setattr(arriving, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(arrivals, "_frames", SimpleNamespace(readable=readable))
    arrivals.pass_over(np.arange(64, 104), "a chunk is damaged.")
    healed = list[int]()
    while len(healed) < 20:
        begun = clock.now
        healed += arrivals._healed().tolist()
        assert clock.now - begun < 0.5
        clock.now += 1.0
    assert sorted(healed) == list(range(64, 104, 2))
    assert sorted(tried) == list(range(64, 104))


def test_frames_are_admitted_when_no_rank_waits_for_them() -> None:
    here: Any = SimpleNamespace(at_hand=lambda numbers: numbers != 5)
    others: Any = SimpleNamespace(rank=1, size=3, sum=lambda mine: mine + 1 + (np.array([4, 5, 6, 7]) != 6))
    live = _Live(Any, here, Any, others, Path(), lambda: Wish.GO_ON, Waits())  # type: ignore[arg-type]
    assert live._at_hand(np.array([4, 5, 6, 7])).tolist() == [4, 7]


def test_growth_that_another_rank_has_seen_is_waited_for(scan: LiveScan, intake: Intake, arrivals: Arrivals) -> None:
    waiting = threading.Thread(target=arrivals.hear, args=(90,))
    waiting.start()
    scan.grow(64, 80)
    scan.grow(80, 90)
    # This one is of the next vote.
    scan.grow(90, 100)
    take_in(scan, intake)
    waiting.join(20)
    assert arrivals.known == 90
    _, given = arrivals.with_(np.arange(64, 90))
    assert np.array_equal(given.positions_m[:, 0], scan.positions_m[:90])


def test_a_folder_that_is_not_the_same_is_said(arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "_SEEN_S", 0.1)
    with pytest.raises(JobError, match=r"sees 64 frames of the 90 that rank 0 sees in .*shared_dir"):
        arrivals.hear(90)


@pytest.mark.parametrize(("theirs_s", "begins"), [(5.0, True), (4.0, False), (6.0, False), (0.0, False)])
def test_ranks_begin_from_the_same_snapshot_or_from_none(tmp_path: Path, theirs_s: float, begins: bool) -> None:
    wave = np.ones((4, 4), np.complex64)
    write_snapshot(tmp_path, Snapshot("0" * 16, "DM", 1, 2, {}, 3, 5.0, wave, wave[None], (1e-8, 1e-8), (0.0, 0.0)))
    us = int(theirs_s * 1e6)
    ranks: Any = SimpleNamespace(largest=lambda value: max(value, us if value >= 0 else -us))
    assert (_start(tmp_path, ranks) is not None) == begins


@pytest.mark.parametrize("wish", [Wish.GO_ON, Wish.GIVE_WAY])
def test_what_did_not_come_is_noted_once_and_nobody_makes_way_for_that(
    scan: LiveScan, intake: Intake, wish: Wish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Arrivals, "ready", lambda _: np.empty(0, np.int64))
    scan.submit("live")
    scan.grow(64, 100, ended=True)
    take_in(scan, intake)
    waits = Waits(aside_s=0.0, late_s=0.0 if wish == Wish.GO_ON else 1.0)
    made = solve_live(scan.live, scan.site.jobs / scan.live.key, scan.site, OneRank(), lambda _: None, lambda: wish, waits)
    assert made is not None
    assert [note for note in made.provenance["notes"] if "in time" in note] == [
        "36 frames did not come in time, or cannot be read, and were left out."
    ]


@pytest.mark.parametrize("wish", [Wish.GO_ON, Wish.FINISH])
def test_what_comes_at_the_last_moment_is_not_noted_as_missing(scan: LiveScan, intake: Intake, wish: Wish) -> None:
    scan.submit("live")
    scan.grow(64, 100, ended=True)
    take_in(scan, intake)
    always_late = Waits(late_s=-1.0)
    made = solve_live(scan.live, scan.site.jobs / scan.live.key, scan.site, OneRank(), lambda _: None, lambda: wish, always_late)
    assert made is not None
    assert len(made.positions_m) == 100
    assert not [note for note in made.provenance["notes"] if "frames" in note]
