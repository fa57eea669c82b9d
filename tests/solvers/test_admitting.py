"""Frames that are admitted while a reconstruction goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import FramesError, MemoryFrames, Recipe, Scan, ScanError, SolverError
from ptyplugin.solvers import Solver


def first_of(e: Any, count: int, order: NDArray[np.int64] | None = None) -> tuple[MemoryFrames, Scan]:
    """The first frames of an experiment, in some order."""
    some = np.arange(len(e.scan))[:count] if order is None else order[:count]
    return MemoryFrames(e.frames.counts[some]), Scan(e.scan.positions_m[some], e.scan.frame_ids[some])


def wrong_probe(e: Any) -> NDArray[np.complex128]:
    k = np.arange(e.probe.shape[-1]) - e.probe.shape[-1] / 2
    return np.asarray(e.probe * np.exp(0.01j * np.add.outer(k**2, k**2)))


def solver_of(e: Any, recipe: str, count: int, order: NDArray[np.int64] | None = None, **how: Any) -> Solver:
    return Solver(*first_of(e, count, order), e.geometry, Recipe.parse(recipe), **({"start_probe": wrong_probe(e), "fft": "scipy"} | how))


def grown(e: Any, recipe: str, portions: int = 5, every: int = 6, order: NDArray[np.int64] | None = None, **how: Any) -> Solver:
    """To the end, the frames in ``portions``, the next one after ``every`` iterations."""
    edges = [len(e.scan) * number // portions for number in range(1, portions + 1)]
    solver = solver_of(e, recipe, edges[0], order, **how)
    for edge in edges[1:]:
        for _ in range(every):
            next(solver)
        solver.admit(*first_of(e, edge, order))
    for _ in solver:
        pass
    return solver


@pytest.fixture(scope="module")
def wide(simulate: Callable[..., Any]) -> Any:
    """100 frames, each showing a small part of the object."""
    return simulate(side=32, grid=(10, 10), step=4.0)


ORDERS = {
    "down": np.arange(100),
    "up": np.arange(100)[::-1],
    "right": np.arange(100).reshape(10, 10).T.ravel(),
    "left": np.arange(100).reshape(10, 10).T.ravel()[::-1],
    "from the middle": np.argsort(np.hypot(*(np.indices((10, 10)).reshape(2, -1) - 4.4)), kind="stable"),
}


@pytest.fixture(scope="module")
def whole(wide: Any) -> Any:
    return grown(wide, "DM(40)", 1).result()


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_in_five_portions_it_gets_as_good_as_at_once(wide: Any, whole: Any, order: NDArray[np.int64]) -> None:
    solver = grown(wide, "DM(40)", order=order)
    made = solver.result()
    assert made is not None
    assert made.quality["error"] < 1.05 * whole.quality["error"]
    assert made.object.shape == whole.object.shape
    np.testing.assert_array_equal(made.positions_px[np.argsort(order)], whole.positions_px)
    np.testing.assert_array_equal(made.positions_m, wide.scan.positions_m.mean(axis=1)[order])
    assert [event.iteration for event in made.progress] == list(range(1, 24 + 40 + 1))
    assert made.progress[-1].iterations == 64
    assert made.provenance["admitted"] == {"portions": 4, "first_frames": 20}


def test_what_is_seen_stays_where_it_is_to_the_last_bit(wide: Any) -> None:
    """On all sides the object grows by whole pixels; rests and what is known of it stay."""
    order = ORDERS["from the middle"]
    solver = solver_of(wide, "DM(5)", 12, order, held_out=0)
    next(solver)
    before, probe = solver.object, solver.probe
    frames, waves = solver._there().way.frames, solver._there().state.waves.copy()
    solver.admit(*first_of(wide, 100, order))
    begun = solver._there()
    moved = begun.way.frames.corners[:12] - frames.corners
    assert (moved == moved[0]).all()
    assert (moved[0] > 0).all()
    np.testing.assert_array_equal(begun.way.frames.rests[:12], frames.rests)
    np.testing.assert_array_equal(begun.state.waves[:12], waves)
    np.testing.assert_array_equal(solver.probe, probe)
    for corner in frames.corners[:, 0]:
        was = before[0, corner[0] + 8 : corner[0] + 24, corner[1] + 8 : corner[1] + 24]
        y, x = corner + moved[0, 0]
        np.testing.assert_array_equal(solver.object[0, y + 8 : y + 24, x + 8 : x + 24], was)
    with pytest.raises(ValueError, match="shapes"):
        np.add(before, solver.object)


def test_what_does_not_begin_with_what_there_was_is_refused_and_it_goes_on(wide: Any) -> None:
    solver = solver_of(wide, "DM(8)", 60)
    next(solver)
    frames, scan = first_of(wide, 80)
    moved = scan.positions_m.copy()
    moved[7] += 1e-9
    for wrong in (Scan(moved, scan.frame_ids), Scan(scan.positions_m, scan.frame_ids + 1), Scan(np.repeat(moved, 2, 1), scan.frame_ids)):
        with pytest.raises(ScanError, match="does not begin with the 60 frames"):
            solver.admit(frames, wrong)
    with pytest.raises(ScanError, match="does not begin with the 60 frames"):
        solver.admit(*first_of(wide, 59))
    with pytest.raises(ScanError, match="80 frames but 60 positions"):
        solver.admit(frames, first_of(wide, 60)[1])
    with pytest.raises(ScanError, match="only some have a monitor"):
        solver.admit(frames, Scan(scan.positions_m, scan.frame_ids, np.ones(80)))
    with pytest.raises(SolverError, match=r"frames of \(16, 16\) px"):
        solver.admit(MemoryFrames(frames.counts[:, :16, :16]), scan)
    untouched = solver_of(wide, "DM(8)", 60)
    for each in (solver, untouched):
        for _ in each:
            pass
    np.testing.assert_array_equal(solver.object, untouched.object)


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
