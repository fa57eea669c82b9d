"""Pictures of a job that runs: now and then, and the last good one stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptyplugin.jobs import read_snapshot
from ptyplugin.model import Progress, Snapshot
from ptyplugin.service import picturing
from ptyplugin.service.picturing import Pictures
from ptyplugin.solvers import OneRank


class Going:
    """A solver that shows what it is told to."""

    def __init__(self) -> None:
        image, probe = np.ones((4, 5), np.complex64), np.ones((1, 3, 3), np.complex64)
        self.shows = Snapshot("k", "DM", 1, 20, {"error": 0.5}, 64, 1e9, image, probe, (1e-8, 1e-8), (0.0, 0.0))

    def snapshot(self) -> Snapshot:
        return self.shows


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Second:
    rank, size = 1, 2


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(picturing, "time", clock)
    return clock


def event(iteration: int) -> Progress:
    return Progress("k", "DM", iteration, 20, 0.1, {})


def test_one_is_taken_now_and_then_and_told(tmp_path: Path, clock: Clock) -> None:
    told: list[Progress] = []
    going, pictures = Going(), Pictures(tmp_path, OneRank(), told.append, 0.25)
    for iteration in range(1, 11):
        pictures.offer(going, event(iteration))
        clock.now += 0.1
    assert [(one.iteration, one.snapshot) for one in told] == [(1, True), (4, True), (7, True), (10, True)]


def test_one_that_takes_long_is_taken_seldom(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Progress] = []
    monkeypatch.setattr(picturing, "write_snapshot", lambda *_: setattr(clock, "now", clock.now + 1.0))
    pictures = Pictures(tmp_path, OneRank(), told.append, 0.25)
    for iteration in range(1, 31):
        pictures.offer(Going(), event(iteration))
        clock.now += 1.0
    assert [one.iteration for one in told] == [1, 21]


def test_new_frames_are_seen_at_once(tmp_path: Path, clock: Clock) -> None:
    told: list[Progress] = []
    going, pictures = Going(), Pictures(tmp_path, OneRank(), told.append, 3600.0)
    for iteration in range(1, 6):
        if iteration == 4:
            pictures.hurry()
        pictures.offer(going, event(iteration))
    assert [one.iteration for one in told] == [1, 4]


def test_new_frames_do_not_make_ranks_draw_all_the_time(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Progress] = []
    monkeypatch.setattr(picturing, "write_snapshot", lambda *_: setattr(clock, "now", clock.now + 1.0))
    pictures = Pictures(tmp_path, OneRank(), told.append, 0.25)
    for iteration in range(1, 11):
        pictures.hurry()
        pictures.offer(Going(), event(iteration))
        clock.now += 1.0
    assert [one.iteration for one in told] == [1, 5, 9]


@pytest.mark.parametrize("trouble", ["not sound", "full disk"])
def test_one_that_is_not_written_takes_no_more_time_than_others(tmp_path: Path, clock: Clock, trouble: str) -> None:
    asked: list[float] = []

    class Slow(Going):
        def snapshot(self) -> Snapshot:
            asked.append(clock.now)
            clock.now += 1.0
            return replace(self.shows, object=self.shows.object * np.nan) if trouble == "not sound" else self.shows

    pictures = Pictures(tmp_path if trouble == "not sound" else tmp_path / "nowhere", OneRank(), lambda _: None, 0.25)
    for iteration in range(1, 31):
        pictures.offer(Slow(), event(iteration))
        clock.now += 1.0
    assert len(asked) == 2


def test_the_last_good_one_stays(tmp_path: Path, clock: Clock) -> None:
    told: list[Progress] = []
    going, pictures = Going(), Pictures(tmp_path, OneRank(), told.append, 0.0)
    good = going.shows
    bad = good.object.copy()
    bad[2, 2] = np.nan
    for number, shows in enumerate([good, replace(good, object=bad), replace(good, errors={"error": 1.1})]):
        going.shows = shows
        pictures.take(going, event(number))
    there = read_snapshot(tmp_path)
    assert (len(told), there is not None and there.errors) == (1, {"error": 0.5})
    going.shows = replace(good, errors={"error": 1.1}, frames=80)
    pictures.take(going, event(9))
    assert [one.iteration for one in told] == [0, 9]


def test_only_rank_0_takes_them_and_a_full_disk_is_no_matter_of_the_job(tmp_path: Path, clock: Clock) -> None:
    told: list[Progress] = []
    Pictures(tmp_path, Second(), told.append, 0.0).take(Going(), event(1))
    Pictures(tmp_path / "nowhere", OneRank(), told.append, 0.0).take(Going(), event(1))
    assert told == []
    assert read_snapshot(tmp_path) is None
