"""Counts on the way to a device: neither there nor on the host is more of them kept than is needed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from frames_on_device import KINDS, Frames, mine
from numpy.typing import NDArray

from ptyplugin.solvers.batches import RankFrames, in_blocks
from ptyplugin.solvers.streaming import StoredCounts

FRAME_BYTES = 2 * 64 * 64


@pytest.fixture
def _no_cycles() -> Iterator[None]:
    """Nothing is found by the collector of cycles: memory of a device does not wait for it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_cycles")
def test_counts_leave_the_device_with_their_frames() -> None:
    do = mine(KINDS[0])
    device: Any = do.device
    before = device.in_use
    held = do.hold(Frames(KINDS[0]).frames)
    for b in in_blocks(held, 2, 5):
        do._placing.placed(b)
    assert device.in_use > before + 5 * FRAME_BYTES
    del b, held
    do._forget()
    assert device.in_use == before


@pytest.mark.usefixtures("_no_cycles")
def test_of_counts_that_are_streamed_two_batches_are_on_the_device() -> None:
    do = mine(KINDS[0])
    do.counts_bytes, device = 0, do.device
    held, in_use = do.hold(Frames(KINDS[0]).frames), []
    do._placing.tables_of(held)
    before = device.in_use  # type: ignore[attr-defined]
    for _ in range(2):
        for b in in_blocks(held, 1, 5):
            np.testing.assert_array_equal(device.get(do._placing.placed(b).counts), b.host_counts)
            in_use.append(device.in_use - before)  # type: ignore[attr-defined]
    del b
    do._forget()
    assert max(in_use) == 2 * FRAME_BYTES
    assert device.in_use == before  # type: ignore[attr-defined]


class Reads:
    """Counts that are stored: how many frames were read at once, and how many arrays there were at the same time."""

    def __init__(self, frames: RankFrames) -> None:
        self.counts, self.frames, self.there, self.most = np.asarray(frames.counts), 0, 0, 0

    def __call__(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        read = self.counts[numbers]
        self.frames, self.there = max(self.frames, len(read)), self.there + 1
        self.most = max(self.most, self.there)
        weakref.finalize(read, self._gone)
        return read

    def _gone(self) -> None:
        self.there -= 1


@pytest.mark.parametrize("resident", [0, 5])
def test_of_counts_that_are_stored_few_are_in_memory(resident: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptyplugin.solvers.streaming.PIECE_PIXELS", 1)
    monkeypatch.setattr("ptyplugin.solvers.streaming._FEWEST", 1)
    do, frames = mine(KINDS[0]), Frames(KINDS[0]).frames
    reads = Reads(frames)
    do.counts_bytes = resident * FRAME_BYTES
    held = do.hold(replace(frames, counts=StoredCounts(reads, np.arange(5), (64, 64), np.dtype(np.uint16))))
    for b in in_blocks(held, 1, 5):
        p = do._placing.placed(b)
        row = int(do.host(p.rows)[0])
        np.testing.assert_array_equal(do.host(p.counts)[row], frames.counts[b.index][0])
    assert reads.frames == 1
    assert reads.most <= 4
