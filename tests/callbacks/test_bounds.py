"""The collector's memory: what waits is limited, what has ended is forgotten, what is absurd is refused."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest

from ptyplugin.callbacks import Collector, RunEnded, collector, run, waiting
from ptyplugin.callbacks.documents import Datum, weight
from ptyplugin.callbacks.waiting import Owner, WaitingRoom
from ptyplugin.model import JobParts, Refusal


def ended(collecting: Collector, documents: Any) -> int:
    return sum(isinstance(output, RunEnded) for name, document in documents for output in collecting(name, document))


def test_runs_are_forgotten_when_they_end(bench: Any) -> None:
    collecting = Collector(bench.profile())
    styles = list(bench.streams.values())
    for number in range(30):
        ended(collecting, styles[number % len(styles)](run=f"warm{number}"))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(90):
        assert ended(collecting, styles[number % len(styles)](run=f"run{number}")) == 1
    # It also gives back what Python keeps of tuples that are gone, to make new ones of.
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    # A short text for each, to know late documents; one image of a run has 768 bytes, a run some 20 documents.
    assert grown < 90 * 1000


def test_documents_of_unknown_runs_are_dropped_beyond_a_limit(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOST_BYTES", 50_000)
    collecting = Collector(bench.profile())
    for number in range(40):
        assert ended(collecting, bench.stream_assets(run=f"lost{number}")[1:-1]) == 0
    assert collecting.ignored["a document of an unknown run"] > 400
    (parts,) = [each for each in bench.collect(bench.stream_assets()) if isinstance(each, JobParts)]
    assert parts.job.frame_count == 6
    assert ended(collecting, bench.stream_assets()) == 1


def test_the_waiting_room_lets_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    datums = [Datum(f"r/{number}", "r", None, None, None) for number in range(6)]
    monkeypatch.setattr(waiting, "MOST_BYTES", 4 * weight(datums[0]))
    room = WaitingRoom()
    dropped = [room.hold(Owner("datum", "even" if number % 2 == 0 else "odd"), datum) for number, datum in enumerate(datums)]
    assert dropped == [0, 0, 0, 0, 1, 1]
    assert len(room) == 4
    assert room.release(Owner("datum", "even")) == [datums[2], datums[4]]
    assert room.release(Owner("datum", "even")) == []
    assert room.hold(Owner("datum", "odd"), datums[0]) == 0
    assert room.release(Owner("datum", "odd")) == [datums[3], datums[5], datums[0]]
    assert len(room) == 0


def test_of_too_many_open_runs_the_first_is_forgotten(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "MOST_OPEN_RUNS", 3)
    runs = [bench.stream_assets(run=f"run{number}") for number in range(5)]
    collecting = Collector(bench.profile())
    for documents in runs:
        assert ended(collecting, documents[:-1]) == 0
    assert [ended(collecting, documents[-1:]) for documents in runs] == [0, 0, 1, 1, 1]
    assert collecting.ignored["a run that never stopped"] == 2
    assert collecting.ignored["a document of a run that has ended"] == 2


def test_images_in_events_beyond_the_limit_are_refused(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "MOST_ARRAY_BYTES", 5 * 16 * 24 * 2)
    (refusal,) = bench.collect(bench.arrays_in_events())
    assert isinstance(refusal, Refusal)
    assert "the frames inside the events need more than" in refusal.reason


@pytest.mark.parametrize(
    ("indices", "seq_nums", "sentence"),
    [
        ((0, 10**12), (1, 10**12 + 1), "0 with frames"),
        ((0, 2**70), (1, 2), "0 with frames"),
        ((5, 3), (2, 1), "0 with frames"),
        ((2**50, 2**50 + 1), (1, 2), "0 with frames"),
        ((0, 1_500_000), (1, 1_500_001), "announces more than 2000000 frames in one file"),
    ],
)
def test_absurd_numbers_of_frames(bench: Any, indices: Any, seq_nums: Any, sentence: str) -> None:
    documents = []
    for name, document in bench.stream_assets():
        if name == "stream_datum":
            ranges = {key: {"start": start, "stop": stop} for key, (start, stop) in (("indices", indices), ("seq_nums", seq_nums))}
            document = {**document, **ranges}
        documents.append((name, document))
    (refusal,) = bench.collect(documents)
    assert sentence in refusal.reason


def test_reasons_for_passing_over_do_not_grow_without_end(bench: Any) -> None:
    collecting = Collector(bench.profile())
    for number in range(1000):
        collecting(f"kind {number}", {})
    assert len(collecting.ignored) <= 101
    assert sum(collecting.ignored.values()) == 1000


def test_nested_documents_without_end(bench: Any) -> None:
    collecting = Collector(bench.profile())
    endless: list[Any] = []
    endless.append(endless)
    for name, document in bench.stream_assets()[:3]:
        assert len(collecting(name, {**document, "endless": endless})) == (name == "start")
    event = {"uid": "e", "time": 0.0, "seq_num": 1, "descriptor": "run1-primary", "data": {"det": endless, "y": 0.0, "x": 0.0}}
    assert collecting("event", event) == []
    assert collecting("event", {**event, "data": {"det": np.zeros((0, 3)), "y": [1, 2], "x": np.zeros(2)}}) == []


def test_samples_far_beyond_any_file_are_no_mistake_of_ours(bench: Any) -> None:
    documents = bench.fly(samples=100_000)
    for name, document in documents:
        if name == "stream_datum" and not document["uid"].startswith("run1-det"):
            document["indices"] = {end: number + 2**53 - 10 for end, number in document["indices"].items()}
    (refusal,) = bench.collect(documents)
    assert isinstance(refusal, Refusal)
    assert "no frame of 'det' has a position (6 points, 0 with a position, 6 with frames, 0 with both)" in refusal.reason
