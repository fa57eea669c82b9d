"""Counts that are read when they are needed give what counts in memory give, and no more of them are held than is said."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import FramesError, Geometry, MemoryFrames, Placement, Preparation, Recipe
from ptyplugin.solvers import OneRank, Solver
from ptyplugin.solvers import streaming as module
from ptyplugin.solvers.batches import RankFrames, in_blocks, in_random_batches
from ptyplugin.solvers.growing import GrowingCounts
from ptyplugin.solvers.prepare import prepare
from ptyplugin.solvers.streaming import StoredCounts
from ptyplugin.solvers.verbs import cpu_patches


@dataclass
class Watched:
    """A model.Frames that notes who reads what."""

    frames: MemoryFrames
    reads: list[list[int]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    shape = property(lambda self: self.frames.shape)
    dtype = property(lambda self: self.frames.dtype)
    mask = property(lambda self: self.frames.mask)

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        self.reads.append(frames.tolist())
        self.threads.add(threading.get_ident())
        return self.frames.read(frames)


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 frames of 32 x 32 px are read at once."""
    monkeypatch.setattr(module, "PIECE_PIXELS", 5 * 32 * 32)
    monkeypatch.setattr(module, "_FEWEST", 1)


def stored(count: int = 12) -> tuple[StoredCounts, list[list[int]]]:
    reads: list[list[int]] = []

    def read(numbers: NDArray[np.int64]) -> NDArray[Any]:
        reads.append(numbers.tolist())
        return np.full((len(numbers), 32, 32), numbers[:, None, None], np.uint16)

    return StoredCounts(read, 100 + np.arange(count), (32, 32), np.dtype(np.uint16)), reads


def frames_of(counts: Any) -> RankFrames:
    none = np.zeros((len(counts), 1, 2), np.int32)
    return RankFrames(np.arange(len(counts)), none, none.astype(np.float32), counts, np.ones((32, 32), bool))


@pytest.mark.usefixtures("_small_pieces")
def test_stored_counts_look_like_an_array() -> None:
    counts, reads = stored()
    assert (len(counts), counts.shape, counts.dtype) == (12, (12, 32, 32), np.uint16)
    assert not reads
    assert [int(frame[0, 0]) for frame in counts] == list(range(100, 112))
    assert int(counts[3][5, 5]) == 103
    some = counts[4:9][np.array([3, 0])]
    np.testing.assert_array_equal(np.asarray(some)[:, 0, 0], [107, 104])


@pytest.mark.usefixtures("_small_pieces")
def test_blocks_are_read_once_each_and_one_ahead() -> None:
    counts, reads = stored()
    seen = []
    for b in in_blocks(frames_of(counts), 1000, 14):
        seen += b.counts[:, 0, 0].tolist()
        assert b.counts is b.counts
        counts[0]  # the reader has done what was asked for before
        ahead = min(len(seen) + 5, 12) if len(seen) < 12 else 12
        assert max(max(each) for each in reads if each != [100]) == 100 + ahead - 1
    assert seen == list(range(100, 112))
    assert sorted(number for each in reads if len(each) > 1 for number in each) == seen


@pytest.mark.usefixtures("_small_pieces")
def test_nothing_is_read_for_those_who_do_not_look() -> None:
    counts, reads = stored()
    assert [len(b) for b in in_blocks(frames_of(counts), 4, 14)] == [4, 4, 4, 0]
    assert not reads


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("size", [1, 2, 7])
def test_random_batches_are_read_in_groups(size: int) -> None:
    counts, reads = stored()
    batches = in_random_batches(frames_of(counts), size, 13, (1, 2))
    for b in batches:
        index = np.arange(12)[b.index]
        np.testing.assert_array_equal(b.counts[:, 0, 0], 100 + index)
    assert sum(map(len, reads)) == 12
    assert len(reads) <= (3 if size < 7 else 2) + 1


def prepared(frames: Any, streamed: bool, **how: Any) -> RankFrames:
    count = len(frames)
    placement = Placement(np.zeros((count, 1, 2), np.int32), np.zeros((count, 1, 2), np.float32), (64, 64))
    geometry = Geometry(8000.0, 1.0, 75e-6, (12, 12), focus_distance_m=how.pop("focus", None))
    return prepare(frames, np.arange(count), placement, geometry, Preparation(crop_px=12, **how), OneRank(), streamed)[0]


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        (np.uint16, {"orientation": "transpose_flip_y"}),
        (np.uint16, {"centre_px": "auto"}),
        (np.uint32, {"saturated_counts": 80_000.0, "focus": 1e-2}),
        (np.float32, {"centre_px": (9.0, 3.0), "orientation": "flip_y"}),
    ],
)
def test_stored_counts_are_prepared_as_those_in_memory(kind: Any, how: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 1000, (150, 20, 16)).astype(kind)
    counts[3, 4, 5] = np.iinfo(kind).max if kind is not np.float32 else np.nan
    counts[140, 8, 8] = 70_000 if kind is np.uint32 else 7
    mask = (rng.random((20, 16)) < 0.1).astype(np.uint8)
    memory, lazy = (prepared(MemoryFrames(counts, mask), streamed, **how) for streamed in (False, True))
    assert isinstance(lazy.counts, StoredCounts)
    assert lazy.counts.dtype == memory.counts.dtype
    np.testing.assert_array_equal(np.asarray(lazy.counts), np.asarray(memory.counts))
    np.testing.assert_array_equal(lazy.good, memory.good)


def test_counts_become_wide_when_they_must() -> None:
    rng = np.random.default_rng(2)
    chunks = [rng.integers(0, top, (size, 3, 5)).astype(np.uint32) for size, top in ((4, 99), (4, 65_000), (2, 99), (4, 70_000), (1, 9))]
    chunks[3][0, 0, 0] = 69_999
    growing = GrowingCounts((15, 3, 5), np.dtype(np.uint32))
    for number, chunk in enumerate(chunks):
        growing.add(chunk)
        assert growing.there.dtype == (np.uint16 if number < 3 else np.float32)
    np.testing.assert_array_equal(growing.there, np.concatenate(chunks))


def all_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every solver streams, as if there were too little memory."""
    plan = Solver._plan_of
    monkeypatch.setattr(Solver, "_plan_of", lambda self, recipe: replace(plan(self, recipe), streams=True))


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("subpixel", ["none", "probe"])
@pytest.mark.parametrize("recipe", ["DM(4)", "LSQML(4, batch=8)", 'LSQML(3, batches="compact")', "ePIE(3)", "mPIE(3, batch=6)"])
def test_the_same_bits_streamed_or_in_memory(experiment: Any, recipe: str, subpixel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptyplugin.solvers.solver._threads", lambda ranks: 2)
    # Of real pieces none is so small that sums go by patches.
    monkeypatch.setattr(cpu_patches, "_MOST_PIXELS", 0)
    bits = []
    for streams in (False, True):
        if streams:
            all_stream(monkeypatch)
        frames = Watched(experiment.frames)
        solver = Solver(
            frames, experiment.scan, experiment.geometry, Recipe.parse(recipe), subpixel=subpixel, start_probe=experiment.probe, fft="scipy"
        )
        for _ in solver:
            pass
        bits.append((solver.object, solver.probe))
        counted = sum(map(len, frames.reads))
        assert counted > 49 * 4 if streams else counted == 49
    for streamed, in_memory in zip(*bits, strict=True):
        np.testing.assert_array_equal(streamed, in_memory)


def test_a_frame_that_cannot_be_read_later_is_told(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    all_stream(monkeypatch)
    frames = Watched(experiment.frames)
    solver = Solver(frames, experiment.scan, experiment.geometry, Recipe.parse("ePIE(3)"))
    next(solver)

    def broken(numbers: NDArray[np.int64]) -> NDArray[Any]:
        raise FramesError("frame 7 cannot be read: the file system is gone.")

    frames.read = broken  # type: ignore[method-assign]
    with pytest.raises(FramesError, match="file system is gone"):
        next(solver)
