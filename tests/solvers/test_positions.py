"""Positions are found from the frames: by every algorithm, in both fields, with modes and sub-steps, on several ranks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import MemoryFrames, Recipe, RecipeError, Reconstruction, Scan
from ptyplugin.solvers import Solver, check_recipe, solve
from ptyplugin.solvers.held_out import SHARE, frames_to_hold_out
from ptyplugin.solvers.positions import move
from ptyplugin.solvers.state import fill_waves
from ptyplugin.solvers.way import blocks_of


def misplaced(experiment: Any, by_px: float, seed: int = 1) -> tuple[Any, NDArray[np.float64]]:
    """The experiment with a scan that says something else than where its frames were taken, and by how much (frame, yx) px."""
    errors = np.random.default_rng(seed).uniform(-by_px, by_px, (len(experiment.scan), 2))
    positions_m = experiment.scan.positions_m + errors[:, None] * np.asarray(experiment.geometry.object_pixel_m)
    return replace(experiment, scan=Scan(positions_m, experiment.scan.frame_ids)), errors


def left(shifts: NDArray[np.float64], errors: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """(frame,) px: how far off positions are that were said with ``errors`` and moved by ``shifts``, without an affine map of them all."""
    wrong = shifts + errors
    design = np.c_[np.ones(len(places)), places]
    weights = np.ones(len(places))
    for _ in range(10):
        fit = np.linalg.lstsq(design * weights[:, None], wrong * weights[:, None], rcond=None)[0]
        distances = np.hypot(*(wrong - design @ fit).T)
        weights = 1 / np.sqrt(1 + (distances / (2 * np.median(distances))) ** 2)
    return np.asarray(distances)


def refined(experiment: Any, recipe: str, **more: Any) -> Reconstruction:
    probe = more.pop("start_probe", experiment.probe)
    found = solve(experiment.frames, experiment.scan, experiment.geometry, recipe=Recipe.parse(recipe), start_probe=probe, **more)
    assert found is not None
    return found


def off(found: Reconstruction, errors: NDArray[np.float64]) -> NDArray[np.float64]:
    assert found.positions_start_px is not None
    return left(found.positions_px - found.positions_start_px, errors, found.positions_start_px)


def rms(numbers: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(numbers**2)))


@pytest.fixture(scope="module")
def moved(simulate: Any) -> tuple[Any, NDArray[np.float64]]:
    return misplaced(simulate(photons=1e6), 1.5)


@pytest.mark.parametrize(
    "recipe",
    [
        'LSQML(40, momentum=0.5, positions="gradient", positions_every=1)',
        'LSQML(40, momentum=0.5, positions="correlation")',
        'LSQML(30, momentum=0.5, positions="trials", positions_max=4)',
        'ePIE(40, positions="gradient")',
        'ML(40, positions="gradient")',
        'mPIE(40, positions="gradient")',
        'DM(60, positions="gradient")',
        'RAAR(60, positions="gradient")',
        'AP(60, positions="gradient", positions_every=1)',
    ],
)
def test_every_algorithm_and_search_finds_the_positions(moved: tuple[Any, NDArray[np.float64]], recipe: str) -> None:
    experiment, errors = moved
    start = rms(left(np.zeros_like(errors), errors, experiment.corners))
    found = refined(experiment, recipe)
    assert start > 1
    assert rms(off(found, errors)) < (0.2 if "correlation" in recipe else 0.11)
    assert found.quality["positions_moved_px"] == pytest.approx(rms(np.hypot(*errors.T)), rel=0.25)
    pixel = np.asarray(experiment.geometry.object_pixel_m)
    difference = found.positions_px - found.positions_start_px
    np.testing.assert_allclose(found.positions_m - experiment.scan.positions_m.mean(axis=1), difference * pixel, atol=1e-3 * pixel[0])


@pytest.mark.parametrize(
    ("kind", "recipe"),
    [
        ({"near_field": True}, 'ePIE(30, positions="gradient")'),
        ({"near_field": True}, 'DM(40, positions="gradient")'),
        ({"modes": 2}, 'LSQML(40, momentum=0.5, positions="gradient")'),
        ({"substeps": 2}, 'LSQML(40, momentum=0.5, positions="gradient", positions_every=1)'),
        ({"substeps": 2, "modes": 2}, 'RAAR(50, positions="gradient")'),
    ],
    ids=["near field, ePIE", "near field, DM", "modes", "sub-steps", "sub-steps and modes"],
)
def test_near_field_modes_and_sub_steps(simulate: Any, kind: dict[str, Any], recipe: str) -> None:
    experiment, errors = misplaced(simulate(photons=1e6, **kind), 1.2)
    found = refined(experiment, recipe, probe_modes=kind.get("modes", 1))
    start = left(np.zeros_like(errors), errors, experiment.corners)
    assert rms(off(found, errors)) < 0.2 * rms(start)


def test_a_scan_that_is_right_is_left_alone(simulate: Any) -> None:
    found = refined(simulate(photons=1e5), 'LSQML(20, momentum=0.5, positions="gradient", positions_every=1)')
    assert found.quality["positions_moved_px"] < 0.05


def test_without_subpixel_positions_are_found_just_as_well_but_used_rounded(moved: tuple[Any, NDArray[np.float64]]) -> None:
    experiment, errors = moved
    solver = of_solver(experiment, 'ePIE(40, positions="gradient")', subpixel="none")
    for _ in solver:
        pass
    assert solver._begun is not None
    assert not solver._begun.way.frames.rests.any()
    found = solver.result()
    assert found is not None
    assert np.abs(found.positions_px % 1).max() > 0.2
    assert rms(off(found, errors)) < 0.35


def of_solver(experiment: Any, recipe: str, **more: Any) -> Solver:
    return Solver(experiment.frames, experiment.scan, experiment.geometry, Recipe.parse(recipe), start_probe=experiment.probe, **more)


def test_what_the_frames_cannot_tell_stays_as_the_scan_said(simulate: Any) -> None:
    experiment = simulate(photons=1e6)
    places = experiment.corners - experiment.corners.mean(axis=0)
    turned, scaled = places @ np.array([[0, 0.03], [-0.03, 0]]), 0.03 * places
    pixel = np.asarray(experiment.geometry.object_pixel_m)
    wrong = replace(experiment, scan=Scan(experiment.scan.positions_m + (turned + scaled)[:, None] * pixel, experiment.scan.frame_ids))
    for options, left_over in ((), scaled), (("probe='fixed'",), 0 * scaled):
        found = refined(
            wrong, f"LSQML(40, {', '.join(['momentum=0.5', *options])}, positions='gradient', positions_every=1)".replace("'", '"')
        )
        after = found.positions_px - found.positions_start_px + turned + scaled
        after -= after.mean(axis=0)
        assert rms(after - left_over) < 0.35 * rms(scaled)
        assert rms(after - left_over) < 0.5 * rms(turned)


def test_frames_held_out_are_refined_too(simulate: Any) -> None:
    experiment, errors = misplaced(simulate(photons=1e6, grid=(8, 8)), 1.2)
    solver = of_solver(experiment, 'ePIE(30, positions="gradient")', held_out=0.1)
    for _ in solver:
        pass
    found = solver.result()
    assert found is not None
    assert solver._begun is not None
    assert solver._begun.way.held_out is not None
    numbers = solver._begun.way.held_out.numbers
    assert len(numbers) > 2
    assert rms(off(found, errors)[numbers]) < 0.25


def test_frames_held_out_may_be_dark(simulate: Any) -> None:
    """Of a scan so weak that nothing can be said of dark frames."""
    weak = simulate(photons=500, grid=(8, 8))
    counts, out = weak.frames.counts.copy(), frames_to_hold_out(weak.scan.positions_m.mean(axis=1), SHARE)
    counts[out] = 0
    found = refined(replace(weak, frames=MemoryFrames(counts)), 'LSQML(6, positions="gradient")')
    assert len(out)
    assert "held_out_error" not in found.quality
    assert np.isfinite(found.quality["error"])
    np.testing.assert_allclose(found.positions_px, found.positions_start_px, atol=10)


def test_frames_stay_near_where_the_scan_said_and_inside_of_the_object(moved: tuple[Any, NDArray[np.float64]]) -> None:
    experiment, _ = moved
    found = refined(experiment, 'ePIE(6, positions="trials", positions_from=1, positions_every=1, positions_max=0.5)')
    assert np.abs(found.positions_px - found.positions_start_px).max() == pytest.approx(0.5)
    solver = of_solver(experiment, "ePIE(1) + ePIE(2)")
    next(solver)
    # The object has no room for more than 4 px: it was made before anybody asked for it.
    solver.recipe = Recipe.parse('ePIE(1) + ePIE(8, positions="trials", positions_from=1, positions_every=1, positions_max=40)')
    for _ in solver:
        corners = solver._begun.way.frames.corners if solver._begun else np.zeros(1)
        assert corners.min() >= 0
        assert np.all(corners.max(axis=(0, 1)) + 32 <= solver.object.shape[-2:])


def test_exit_waves_keep_their_probe(moved: tuple[Any, NDArray[np.float64]]) -> None:
    experiment, _ = moved
    solver = of_solver(experiment, 'DM(3, positions="gradient", positions_max=5)', precision="double")
    next(solver)
    assert solver._begun is not None
    state, way = solver._begun.state, solver._begun.way
    before, waves = way.frames, state.waves.copy()
    move(state, way, np.broadcast_to([0.0, 0.7], (len(before), 2)).copy())
    to_right = way.frames.corners[:, 0, 1] - before.corners[:, 0, 1]
    assert set(to_right) == {0, 1}
    for j, corner in enumerate(to_right):
        k = np.fft.fftfreq(32)
        ramp = np.exp(-2j * np.pi * k * (0.7 - corner))
        np.testing.assert_allclose(
            state.waves[j], np.fft.ifft(np.fft.fft(waves[j], axis=-1) * ramp, axis=-1), atol=1e-4 * np.abs(waves).max()
        )
    move(state, way, np.zeros((len(before), 2)))
    np.testing.assert_array_equal(way.frames.corners, before.corners)
    np.testing.assert_allclose(state.waves, waves, atol=1e-4 * np.abs(waves).max())


def test_each_sub_step_of_each_object_mode_keeps_its_probe(simulate: Any) -> None:
    """An even sample: each wave is its probe, moved by the rest of its sub-step. Rests of a frame go around at different shifts."""
    experiment = simulate(substeps=3, modes=2)
    apart = np.array([0, 0.4, 0.8])[:, None] * np.asarray(experiment.geometry.object_pixel_m)
    experiment = replace(experiment, scan=Scan(experiment.scan.positions_m + apart, experiment.scan.frame_ids))
    solver = of_solver(experiment, "DM(2)", probe_modes=2, object_modes=2)
    next(solver)
    assert solver._begun is not None
    state, way = solver._begun.state, solver._begun.way
    state.object[...] = np.array([1, 0.5j])[:, None, None]
    fill_waves(state, blocks_of(state, way), way.verbs)
    move(state, way, np.broadcast_to([0.0, 0.3], (len(way.said), 2)).copy())
    moved = state.waves.copy()
    fill_waves(state, blocks_of(state, way), way.verbs)
    way.verbs.finish()
    np.testing.assert_allclose(moved, state.waves, atol=1e-4 * np.abs(moved).max())


@pytest.mark.parametrize("search", ["gradient", "correlation", "trials"])
def test_the_reference_verbs_find_them_too(moved: tuple[Any, NDArray[np.float64]], search: str) -> None:
    experiment, errors = moved
    found = refined(experiment, f'RAAR(40, positions="{search}", positions_max=3)', precision="double")
    assert rms(off(found, errors)) < 0.2


def test_two_ranks_find_the_same(moved: tuple[Any, NDArray[np.float64]], ranks_of: Any) -> None:
    experiment, _ = moved
    recipe = 'AP(8, positions="trials", positions_from=1, positions_every=1, positions_max=3)'
    two = ranks_of(2)(experiment, experiment.probe, recipe, precision="double").arrays
    one = refined(experiment, recipe, precision="double")
    assert one.quality["positions_moved_px"] > 0.5
    # Which frames are tried is decided on each rank.
    assert np.median(np.abs(two["positions_px"] - one.positions_px)) < 0.02


@pytest.mark.parametrize("recipe", ['DM(1, positions="newton")', "ePIE(1, positions_every=0)", "LSQML(1, positions_max=-1)"])
def test_options_are_checked(recipe: str) -> None:
    with pytest.raises(RecipeError, match="positions"):
        check_recipe(Recipe.parse(recipe))
