"""Which of the frames that come later are used, and how: broken ones, strays, masks, monitors, memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from portions import first_of, solver_of

from ptyplugin.model import FramesError, MemoryFrames, Recipe, Scan, SolverError
from ptyplugin.solvers import Solver


class Unreadable(MemoryFrames):
    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        raise FramesError("frame 70 cannot be read: the file is truncated.")


def test_frames_that_cannot_be_read_change_nothing(wide: Any) -> None:
    solver, other = (solver_of(wide, "DM(8)", 60) for _ in range(2))
    for each in (solver, other):
        next(each)
    frames, scan = first_of(wide, 80)
    with pytest.raises(FramesError, match="frame 70"):
        solver.admit(Unreadable(frames.counts), scan)
    for each in (solver, other):
        each.admit(frames, scan)
        for _ in each:
            pass
    np.testing.assert_array_equal(solver.object, other.object)


def test_frames_are_in_memory_once(wide: Any) -> None:
    solver = solver_of(wide, "DM(8)", 60)
    next(solver)
    read = weakref.ref(solver._there().counts[0].base)
    assert read() is not None
    solver.admit(*first_of(wide, 80))
    gc.collect()
    assert read() is None
    next(solver)


def test_a_monitor_goes_on_in_its_unit(wide: Any) -> None:
    """What a monitor says of new frames is relative to the mean of the first ones: those keep their intensities."""
    monitor = np.linspace(0.8, 1.6, 100)

    def first(count: int) -> tuple[MemoryFrames, Scan]:
        frames, scan = first_of(wide, count)
        return frames, Scan(scan.positions_m, scan.frame_ids, monitor[:count])

    solver = Solver(*first(60), wide.geometry, Recipe.parse("ePIE(2)"), start_probe=wide.probe, held_out=0)
    next(solver)
    solver.admit(*first(100))
    way = solver._there().way
    np.testing.assert_allclose(way.frames.intensities, monitor / monitor[:60].mean(), rtol=1e-6)
    assert way.power == pytest.approx(way.counts / float(way.frames.intensities.sum()), rel=1e-6)


def test_new_frames_that_no_monitor_has_seen_have_the_mean(wide: Any) -> None:
    monitor, (frames, scan) = np.linspace(0.8, 1.6, 60), first_of(wide, 60)
    measured = Scan(scan.positions_m, scan.frame_ids, monitor)
    solver = Solver(frames, measured, wide.geometry, Recipe.parse("ePIE(2)"), start_probe=wide.probe, held_out=0)
    next(solver)
    for count in (80, 100):
        solver.admit(*first_of(wide, count))
    expected = np.append(monitor / monitor.mean(), np.ones(40))
    np.testing.assert_allclose(solver._there().way.frames.intensities, expected, rtol=1e-6)


class Counting(MemoryFrames):
    """Frames that know which of them were read."""

    def __init__(self, counts: NDArray[Any], mask: NDArray[np.uint8] | None = None) -> None:
        super().__init__(counts, mask)
        object.__setattr__(self, "reads", [])

    __slots__ = ("reads",)

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        self.reads.append(np.array(frames))
        return super().read(frames)


def test_only_new_frames_are_read_and_what_is_bad_in_them_is_bad_in_all(wide: Any) -> None:
    counts = wide.frames.counts.copy()
    counts[70, 5, 7] = 65535
    counts[75] = 65535
    frames = Counting(counts)
    solver = solver_of(wide, "DM(6)", 60)
    next(solver)
    old = solver._there().way
    total = old.counts + old.held_out_counts
    assert old.frames.good.all()
    solver.admit(frames, wide.scan)
    np.testing.assert_array_equal(np.concatenate(frames.reads), np.arange(60, 100))
    way = solver._there().way
    bad = np.zeros((32, 32), bool)
    bad[5, 7] = True
    for each in (way.frames, way.held_out):
        np.testing.assert_array_equal(np.fft.fftshift(~each.good), bad)
    used = np.delete(counts, 75, axis=0)
    assert way.counts + way.held_out_counts == pytest.approx(used[:, ~bad].sum(dtype=np.float64))
    assert way.counts + way.held_out_counts > total
    for _ in solver:
        pass
    made = solver.result()
    assert made is not None
    assert made.quality["frames"] == 99
    assert "1 frames that came later cannot be used and were left out (frame 75)." in made.provenance["notes"]


def test_counts_become_floats_when_new_ones_are_no_uint16(wide: Any) -> None:
    solver = solver_of(wide, "DM(6)", 60, held_out=0)
    next(solver)
    counts = wide.frames.counts.astype(np.float32)
    counts[60:] += 0.5
    solver.admit(MemoryFrames(counts), wide.scan)
    kept = np.asarray(solver._there().way.frames.counts)
    np.testing.assert_array_equal(np.fft.fftshift(kept, axes=(1, 2)), counts)


def test_dark_frames_only_are_left_out_and_it_goes_on(wide: Any) -> None:
    counts = wide.frames.counts.copy()
    counts[60:80] = 0
    solver, untouched = (solver_of(wide, "DM(8)", 60) for _ in range(2))
    next(solver)
    scan = first_of(wide, 80)[1]
    solver.admit(MemoryFrames(counts[:80]), scan)
    for each in (solver, untouched):
        for _ in each:
            pass
    np.testing.assert_array_equal(solver.object, untouched.object)
    solver.admit(MemoryFrames(counts), wide.scan)
    np.testing.assert_array_equal(np.sort(solver._there().way.frames.numbers)[-1:], [79])
    assert len(list(solver)) == 8
    assert solver.result().quality["frames"] == 80


def test_a_stray_is_used_when_others_come_near(wide: Any) -> None:
    """A frame of another region came early; then that region is scanned."""
    pixel = np.asarray(wide.geometry.object_pixel_m)
    positions, ids = wide.scan.positions_m.copy(), wide.scan.frame_ids
    positions[70:] += 120 * pixel
    order = np.concatenate([np.arange(20), [99], np.arange(20, 99)])
    counts, positions = wide.frames.counts[order], positions[order]
    solver = Solver(
        MemoryFrames(counts[:40]), Scan(positions[:40], ids[:40]), wide.geometry, Recipe.parse("DM(3)"), start_probe=wide.probe, held_out=0
    )
    next(solver)
    assert len(solver._there().way.frames) == 39
    solver.admit(MemoryFrames(counts[:60]), Scan(positions[:60], ids[:60]))
    assert len(solver._there().way.frames) == 59
    assert "1 frames that lie far from all others were left out (frame 20)." in solver_notes(solver)
    solver.admit(MemoryFrames(counts), Scan(positions, ids))
    way = solver._there().way
    assert way.frames.numbers.tolist() == list(range(100))
    np.testing.assert_array_equal(np.asarray(way.frames.counts)[59].sum(), counts[20].sum())
    for _ in solver:
        pass
    assert not any("far from" in note for note in solver_notes(solver))
    np.testing.assert_array_equal(solver.result().positions_m[59], positions[20, 0])


def solver_notes(solver: Solver) -> list[str]:
    made = solver.result()
    assert made is not None
    notes: list[str] = made.provenance["notes"]
    return notes


def test_held_out_frames_stay_unseen_and_new_ones_are_fitted(wide: Any) -> None:
    solver = solver_of(wide, "DM(4)", 60, held_out=0.1)
    next(solver)
    unseen = solver._there().way.held_out.numbers
    assert len(unseen) == 6
    solver.admit(*first_of(wide, 100))
    for _ in solver:
        pass
    way = solver._there().way
    np.testing.assert_array_equal(way.held_out.numbers, unseen)
    assert sorted([*way.frames.numbers, *unseen]) == list(range(100))
    held = wide.frames.counts[unseen].sum(dtype=np.float64)
    assert way.held_out_counts == pytest.approx(held)
    assert solver.result().quality["held_out_frames"] == 6


def test_too_many_frames_are_refused_in_words(wide: Any) -> None:
    need = solver_of(wide, "DM(4)", 60).plan().needed_bytes
    solver = solver_of(wide, "DM(4)", 60, memory_bytes=need + 10_000)
    next(solver)
    before = solver.object
    with pytest.raises(SolverError, match=r"100 frames of 32 x 32 px .* need about"):
        solver.admit(*first_of(wide, 100))
    np.testing.assert_array_equal(solver.object, before)
    assert len(list(solver)) == 3


def test_counts_that_no_longer_fit_are_streamed(simulate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptyplugin.solvers.streaming.PIECE_PIXELS", 16 * 16**2)
    monkeypatch.setattr("ptyplugin.solvers.prepare.CHUNK_BYTES", 2**12)
    monkeypatch.setattr("ptyplugin.solvers.plan.CHUNK_BYTES", 2**12)
    e = simulate(side=16, grid=(25, 25), step=2.0)
    small, large = (solver_of(e, "LSQML(3)", count).plan().needed_bytes for count in (200, 625))
    memory = (small + large) // 2
    solver, other = solver_of(e, "LSQML(3)", 200, memory_bytes=memory), solver_of(e, "LSQML(3)", 200)
    for each in (solver, other):
        next(each)
    for count in (500, 625):
        for each in (solver, other):
            each.admit(*first_of(e, count))
    assert solver._there().way.frames.are_stored
    assert not other._there().way.frames.are_stored
    for each in (solver, other):
        for _ in each:
            pass
    np.testing.assert_array_equal(solver.object, other.object)
    assert solver.result().quality == other.result().quality
