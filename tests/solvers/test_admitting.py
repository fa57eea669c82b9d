"""Frames that are admitted while a reconstruction goes on: nothing is lost, and it gets as good as at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from guarded import GuardedVerbs
from numpy.typing import NDArray
from portions import ORDERS, first_of, grown, moved_by, solver_of

from ptyplugin.model import MemoryFrames, Scan, ScanError, SolverError
from ptyplugin.solvers.divergence import Diverged, check


@pytest.fixture(scope="module")
def whole(wide: Any) -> Any:
    return grown(wide, "DM(40)", 1).result()


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_in_five_portions_it_gets_as_good_as_at_once(
    wide: Any, whole: Any, order: NDArray[np.int64], phase_difference: Callable[..., float]
) -> None:
    solver = grown(wide, "DM(40)", order=order)
    made = solver.result()
    assert made is not None
    assert made.quality["error"] < 1.05 * whole.quality["error"]
    assert made.object.shape == whole.object.shape
    middle = (0, slice(16, -16), slice(16, -16))
    assert phase_difference(made.object[middle], whole.object[middle]) < 0.04
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
    with pytest.raises(ScanError, match="the frames so far had none"):
        solver.admit(frames, Scan(scan.positions_m, scan.frame_ids, np.ones(80)))
    with pytest.raises(SolverError, match=r"frames of \(16, 16\) px"):
        solver.admit(MemoryFrames(frames.counts[:, :16, :16]), scan)
    untouched = solver_of(wide, "DM(8)", 60)
    for each in (solver, untouched):
        for _ in each:
            pass
    np.testing.assert_array_equal(solver.object, untouched.object)


@pytest.mark.parametrize(
    ("kind", "recipe", "how"),
    [
        ({"photons": 1e5}, "RAAR(40)", {}),
        ({"photons": 1e5}, "AP(40)", {}),
        ({"photons": 1e5}, "ePIE(20)", {}),
        ({"photons": 1e5}, "mPIE(25, slow_from=8)", {}),
        ({"photons": 1e5}, "LSQML(30)", {}),
        ({"photons": 1e5}, "ML(40)", {}),
        ({"photons": 1e5}, "DM(25) + ML(20)", {}),
        ({"modes": 2}, "DM(40)", {"probe_modes": 2}),
        ({"substeps": 2}, "DM(40)", {}),
        ({"near_field": True, "photons": 1e6}, "DM(40)", {}),
        ({"photons": 1e5}, "LSQML(30)", {"object_modes": 2}),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_whatever_the_algorithm_and_the_model(simulate: Callable[..., Any], kind: dict[str, Any], recipe: str, how: dict[str, Any]) -> None:
    e = simulate(side=32, grid=(8, 8), step=4.0, **kind)
    errors = [grown(e, recipe, portions, **how).result().quality["error"] for portions in (1, 5)]
    assert errors[1] < 1.05 * errors[0]


@pytest.mark.parametrize("recipe", ["DM(5)", "mPIE(4, batch=9)", "ML(4)", 'LSQML(5, positions="gradient", positions_from=1)'])
def test_nobody_looks_into_arrays_that_lie_elsewhere(simulate: Callable[..., Any], recipe: str) -> None:
    """And no sweep that a device would repeat does something else than the one that it recorded."""
    e = simulate(side=16, grid=(4, 4), step=3.0)
    errors = [grown(e, recipe, 3, 3, verbs=verbs, fft=None).result().quality["error"] for verbs in (GuardedVerbs, "reference")]
    assert errors[0] == pytest.approx(errors[1], rel=1e-6)


def test_rests_stay_when_the_scan_grows_beyond_its_beginning(wide: Any) -> None:
    """Where a scan begins is where its lattice lies: a lower position that comes later must not move it."""
    e = moved_by(wide, np.random.default_rng(2).uniform(-0.4, 0.4, (100, 2)))
    order = ORDERS["up"]
    solver = solver_of(e, "DM(4)", 40, order, held_out=0)
    next(solver)
    rests, said = solver._there().way.frames.rests, solver._there().way.said
    assert np.abs(rests).max() > 0.3
    solver.admit(*first_of(e, 100, order))
    way = solver._there().way
    np.testing.assert_array_equal(way.frames.rests[:40], rests)
    np.testing.assert_allclose(way.frames.corners + way.frames.rests, way.said, atol=1e-5)
    steps = way.said[:40] - said
    np.testing.assert_allclose(np.rint(steps), steps, atol=1e-12)


def test_positions_that_were_found_stay(simulate: Callable[..., Any]) -> None:
    e = simulate(photons=1e6, grid=(8, 8))
    wrong = np.random.default_rng(1).uniform(-1.2, 1.2, (64, 2))
    e = moved_by(e, wrong)
    solver = solver_of(e, 'LSQML(24, momentum=0.5, positions="gradient", positions_every=1)', 52, start_probe=e.probe, held_out=0.1)
    for _ in range(23):
        next(solver)
    found = solver._there().state.shifts.copy()
    solver.admit(*first_of(e, 64))
    state, way = solver._there().state, solver._there().way
    here = len(way.frames) - 12
    np.testing.assert_array_equal(state.shifts, np.insert(found, [here] * 12, 0.0, axis=0))
    places = np.concatenate([frames.corners + frames.rests for frames in (way.frames, way.held_out) if frames is not None])
    np.testing.assert_allclose(places, way.said + state.shifts[:, None], atol=1e-5)
    for _ in solver:
        pass
    off = solver._there().state.shifts + wrong[np.concatenate([way.frames.numbers, way.held_out.numbers])]
    assert np.hypot(*(off - off.mean(axis=0)).T).mean() < 0.3 * np.hypot(*wrong.T).mean()
    assert solver.result().quality["positions_moved_px"] > 0.5


def test_background_and_intensities_stay_and_new_frames_have_the_mean(simulate: Callable[..., Any]) -> None:
    e = simulate(photons=1e5, grid=(8, 8))
    e = dataclasses.replace(e, frames=MemoryFrames(e.frames.counts + np.uint16(3)))
    solver = solver_of(e, 'LSQML(12, background="constant", intensities="fitted")', 40, start_probe=e.probe, held_out=0)
    for _ in range(11):
        next(solver)
    before = solver._there().way.frames
    solver.admit(*first_of(e, 64))
    way = solver._there().way
    np.testing.assert_array_equal(way.frames.background, before.background)
    np.testing.assert_array_equal(way.frames.intensities, np.append(before.intensities, np.ones(24, np.float32)))
    for _ in solver:
        pass
    made = solver.result()
    assert made is not None
    assert made.background.mean() == pytest.approx(3, rel=0.3)
    assert made.intensities.shape == (64,)
    assert way.power == pytest.approx(float((np.abs(solver.probe) ** 2).sum()), rel=1e-4)


@pytest.mark.parametrize("recipe", ["DM(6)", "LSQML(4)"])
def test_before_the_first_iteration_it_is_as_if_all_had_been_given(wide: Any, recipe: str) -> None:
    solver, other = solver_of(wide, recipe, 30), solver_of(wide, recipe, 100)
    solver.admit(*first_of(wide, 70))
    solver.admit(*first_of(wide, 100))
    for each in (solver, other):
        for _ in each:
            pass
    np.testing.assert_array_equal(solver.object, other.object)
    assert solver.result().quality == other.result().quality


@pytest.mark.parametrize("recipe", ["DM(5)", "ePIE(3) + LSQML(2)"])
def test_after_the_end_the_recipe_is_done_once_more(wide: Any, recipe: str) -> None:
    solver = solver_of(wide, recipe, 60)
    assert [event.iteration for event in solver] == [1, 2, 3, 4, 5]
    solver.admit(*first_of(wide, 100))
    events = list(solver)
    assert [event.iteration for event in events] == [6, 7, 8, 9, 10]
    assert {event.iterations for event in events} == {10}
    solver.go_on()
    assert [event.iteration for event in solver] == [11, 12, 13, 14, 15]
    assert list(solver) == []
    assert solver.result().quality["error"] < 0.1


def test_a_stage_that_goes_on_does_not_wait_for_its_probe_again(wide: Any) -> None:
    solver = solver_of(wide, "DM(9, probe_from=4)", 60)
    for _ in range(6):
        next(solver)
    before = solver.probe
    solver.admit(*first_of(wide, 100))
    next(solver)
    assert np.abs(solver.probe - before).max() > 0
    assert len(list(solver)) == 8


def test_what_diverges_after_frames_came_begins_again_there(wide: Any) -> None:
    solver = solver_of(wide, "DM(6)", 60)
    for _ in range(4):
        next(solver)
    solver.admit(*first_of(wide, 100))
    next(solver)
    solver._there().state.object[0, 40, 40] = np.nan
    events = list(solver)
    assert [event.iteration for event in events] == [5, 6, 7, 8, 9, 10, 11]
    made = solver.result()
    assert made is not None
    assert made.quality["frames"] == 100
    assert any("it was begun again as DM" in reason for reason in made.verdict.reasons)


def test_a_jump_of_the_error_by_new_frames_is_no_divergence(wide: Any) -> None:
    solver = solver_of(wide, "DM(6)", 60)
    next(solver)
    way = solver._there().way
    way.progress[0].errors["error"] = 0.01
    with pytest.raises(Diverged, match=r"its error climbed from 0\.01 to 0\.3"):
        check(way.stages[0], 2, {"error": 0.3}, way.progress, way.begun_after, way.since)
    solver.admit(*first_of(wide, 100))
    check(way.stages[0], 2, {"error": 0.3}, way.progress, way.begun_after, way.since)
