"""Which frames in a spool are which of a run's: believed where nothing can have been lost before the first, and else not."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptyplugin.io.spool import Channel, Spool
from ptyplugin.io.spool_run import RunInSpool
from ptyplugin.io.spool_writer import SpoolWriter

PVA = Channel(name="SIM:Pva1:Image", kind="pva", detectors=())
EIGER = Channel(name="tcp://dcu:9999", kind="eiger", detectors=())
BEGUN_S = 1000.0


class Story:
    """Writes a spool as it would have been at given times."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, channel: Channel = PVA) -> None:
        self.now_s = BEGUN_S - 60
        monkeypatch.setattr("ptyplugin.io.spool_writer.time.time", lambda: self.now_s)
        self.folder, self.channel = folder, channel
        self.writer = SpoolWriter(folder, channel, 10**6)

    def at(self, seconds: float) -> Story:
        """Seconds after the run began."""
        self.now_s = BEGUN_S + seconds
        return self

    def frames(self, *numbers: int, every_s: float = 0.01) -> None:
        for number in numbers:
            self.writer.frame(number, bytes(4), 0, (2, 2), "u1", self.now_s)
            self.now_s += every_s

    def burst(self, *numbers: int, every_s: float = 0.01) -> None:
        """Frames of the time before, which come all at once."""
        for number in numbers:
            self.writer.frame(number, bytes(4), 0, (2, 2), "u1", self.now_s - (numbers[-1] - number) * every_s)

    def restarted(self) -> None:
        self.writer.close()
        self.writer = SpoolWriter(self.folder, self.channel, 10**6)

    def told(self) -> tuple[dict[int, int], str | None]:
        """Number by frame of the run, and what is wrong."""
        run = RunInSpool(Spool(self.folder), self.channel, BEGUN_S)
        return {frame: int(row["number"]) for frame, row in run.look().items()}, run.trouble


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    story = Story(tmp_path, monkeypatch)
    story.writer.connected(True)
    yield story
    story.writer.close()


def test_the_first_frame_after_the_beginning_is_the_first_of_the_file(story: Story) -> None:
    story.at(-30).frames(*range(100, 120))
    assert story.told() == ({}, None)
    story.at(0.4).frames(*range(120, 125))
    assert story.told() == ({frame: 120 + frame for frame in range(5)}, None)


def test_looking_often_takes_no_memory(story: Story) -> None:
    story.at(0.4).frames(0)
    run = RunInSpool(Spool(story.folder), story.channel, BEGUN_S)
    tracemalloc.start()
    try:
        for number in range(1, 400):
            story.frames(number)
            assert len(run.look()) == number + 1
        assert tracemalloc.get_traced_memory()[0] < 10**6
    finally:
        tracemalloc.stop()


def test_a_lost_frame_shifts_no_other(story: Story) -> None:
    story.at(0.4).frames(7, 8, 10, 11, 9)
    assert story.told()[0] == {0: 7, 1: 8, 3: 10, 4: 11, 2: 9}


@pytest.mark.parametrize(("series", "number"), [("goes on", 97), ("anew", 2)])
def test_a_run_whose_first_frame_may_be_lost_is_not_believed(story: Story, series: str, number: int) -> None:
    story.at(-30).frames(*range(90, 96))
    story.at(0.2)
    if series == "anew":
        story.writer.series_begins()
    story.frames(number, number + 1)
    frames, trouble = story.told()
    assert frames == {}
    assert "were lost just before the first that came" in str(trouble)


def test_what_was_sent_while_the_recorder_was_away_is_no_gap(story: Story) -> None:
    story.at(-30).frames(*range(90, 96))
    story.writer.connected(False)
    story.at(-20)
    story.writer.connected(True)
    story.at(0.2).frames(204, 205)
    assert story.told() == ({0: 204, 1: 205}, None)


def test_back_to_back_scans_are_told_apart(story: Story) -> None:
    story.at(-1.0).frames(*range(90, 95))
    story.at(0.2).frames(*range(95, 98))
    assert story.told()[0] == {0: 95, 1: 96, 2: 97}


def test_a_detector_that_ran_already_is_not_believed(story: Story) -> None:
    story.at(-0.5).frames(*range(100))
    frames, trouble = story.told()
    assert frames == {}
    assert trouble is not None
    assert "sent frames already when the run began" in trouble


def test_bursts_are_not_taken_for_pauses(story: Story) -> None:
    for tenth in range(-9, 3):
        story.at(tenth / 10 + 0.05).burst(*range(100 + 10 * tenth, 110 + 10 * tenth))
    assert "sent frames already when the run began" in str(story.told()[1])


@pytest.mark.parametrize("lost_at", [-20.0, 0.1])
def test_a_connection_that_was_not_there_from_the_beginning_is_not_believed(story: Story, lost_at: float) -> None:
    story.at(lost_at)
    story.writer.connected(False)
    story.at(0.2)
    story.writer.connected(True)
    story.frames(4, 5)
    frames, trouble = story.told()
    assert frames == {}
    assert "was not connected from the beginning of the run on" in str(trouble)


def test_a_recorder_that_began_during_the_run_is_not_believed(story: Story) -> None:
    story.at(0.5).restarted()
    story.writer.connected(True)
    story.frames(4, 5)
    assert "was not connected" in str(story.told()[1])


def test_a_recorder_begun_anew_before_the_run_is(story: Story) -> None:
    story.at(-40).frames(*range(3))
    story.at(-20).restarted()
    story.writer.connected(True)
    story.at(0.3).frames(3, 4)
    assert story.told() == ({0: 3, 1: 4}, None)


def test_a_connection_lost_on_the_way_costs_only_what_it_lost(story: Story) -> None:
    story.at(0.3).frames(1, 2, 3)
    story.writer.connected(False)
    story.writer.connected(True)
    story.frames(6, 7)
    assert story.told() == ({0: 1, 1: 2, 2: 3, 5: 6, 6: 7}, None)


def test_a_count_begun_anew_within_the_run_ends_it(story: Story) -> None:
    story.at(-1).frames(50, 51)
    story.at(0.001)
    story.writer.series_begins()
    story.frames(1, 2, 3)
    story.writer.series_begins()
    story.frames(1, 2)
    assert story.told()[0] == {0: 1, 1: 2, 2: 3}


def test_what_is_told_goes_on(story: Story) -> None:
    run = RunInSpool(Spool(story.folder), PVA, BEGUN_S)
    assert run.look() == {}
    for first in (0, 3, 6):
        story.at(0.5 + first).frames(*range(first, first + 3))
        assert sorted(run.look()) == list(range(first + 3))
    run.forget("another frame")
    assert (run.look(), run.trouble) == ({}, "another frame")


def test_series_follow_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(tmp_path, monkeypatch, EIGER)
    story.writer.series_begins(4)
    story.frames(0, 1, 2, 3)
    story.at(0.1).writer.series_begins(3)
    story.writer.mask(np.ones((2, 2), np.uint8))
    story.frames(0, 2)
    story.writer.series_begins(2)
    story.frames(0, 1)
    story.writer.series_begins(-1)
    story.frames(0, 1)
    story.writer.series_begins(2)
    story.frames(0)
    run = RunInSpool(Spool(tmp_path), EIGER, BEGUN_S)
    assert {frame: int(row["number"]) for frame, row in run.look().items()} == {0: 0, 2: 2, 3: 0, 4: 1, 5: 0, 6: 1}
    assert run.mask_row is not None
    story.writer.close()


def test_rows_of_earlier_segments_are_not_read(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        story.restarted()
        story.writer.connected(True)
        story.at(-50).frames(*range(10))
    spool = Spool(story.folder)
    rows: Any = spool.rows_since(BEGUN_S)
    assert set(rows["segment"]) == {4}
