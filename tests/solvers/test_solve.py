"""From frames to an image, on small simulated scans."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from experiments import run
from numpy.typing import NDArray

from ptyplugin.model import (
    Cancelled,
    FramesError,
    MemoryFrames,
    Preparation,
    Progress,
    Recipe,
    RecipeError,
    Reconstruction,
    Scan,
    ScanError,
    SolverError,
)
from ptyplugin.solvers import DEFAULT, Solver, check_recipe, solve
from ptyplugin.solvers.batches import Batches
from ptyplugin.solvers.state import State, fill_waves
from ptyplugin.solvers.verbs import Verbs


def plain_error(result: Reconstruction, counts: NDArray[Any]) -> float:
    """sum (sqrt(I) - |F(P O)|)^2 / sum I by its definition, in float64, far field, from nothing but the result."""
    side, total, power = result.geometry.shape[0], 0.0, 0.0
    for (y, x), frame in zip(result.positions_px.astype(int), counts, strict=True):
        waves = result.probe.astype(np.complex128) * result.object[0, y : y + side, x : x + side]
        model = np.sqrt((np.abs(np.fft.fftshift(np.fft.fft2(waves), axes=(-2, -1))) ** 2).sum(axis=0)) / side
        good = result.mask == 0
        total += ((np.sqrt(frame) - model)[good] ** 2).sum()
        power += frame[good].sum(dtype=float)
    return total / power


@pytest.mark.parametrize("recipe", ["DM(60)", "ePIE(40)", str(DEFAULT)])
@pytest.mark.parametrize("told", [False, True])
def test_algorithms_find_the_sample(experiment: Any, recipe: str, told: bool) -> None:
    """``told``: from the true probe with a wrong phase; else from the frames alone."""
    k = np.arange(32) - 16
    wrong = experiment.probe * np.exp(0.01j * (k[:, None] ** 2 + k[None, :] ** 2))
    result = run(experiment, recipe, start_probe=wrong if told else None)
    assert result.quality["error"] < 0.0035
    assert experiment.phase_rms(result.object[0], result.positions_px) < 0.06
    assert result.object.dtype == result.probe.dtype == np.complex64


@pytest.mark.parametrize("modes", [2, 3])
def test_modes_are_found_orthogonal_and_strongest_first(simulate: Callable[..., Any], modes: int) -> None:
    experiment = simulate(modes=modes)
    result = run(experiment, "DM(40) + ePIE(20)", probe_modes=modes)
    gram = np.einsum("kyx,lyx->kl", result.probe.conj(), result.probe)
    powers = np.diag(gram).real
    assert result.quality["error"] < 0.0033 < run(experiment, "DM(40) + ePIE(20)").quality["error"]
    assert (np.diff(powers) < 0).all()
    assert np.abs(gram - np.diag(powers)).max() < 1e-3 * powers[0]
    assert experiment.phase_rms(result.object[0], result.positions_px) < 0.06


@pytest.mark.parametrize(("recipe", "phase_rms"), [("DM(300)", 0.06), ("ePIE(60)", 0.25)])
def test_near_field(simulate: Callable[..., Any], recipe: str, phase_rms: float) -> None:
    """The near field tells little about slow phases, so ePIE is far from done where its error is small."""
    experiment = simulate(near_field=True, photons=1e6)
    result = run(experiment, recipe)
    assert result.quality["error"] < 0.0015
    assert experiment.phase_rms(result.object[0], result.positions_px) < phase_rms


def test_substeps_of_a_fly_scan_are_modelled(simulate: Callable[..., Any]) -> None:
    experiment = simulate(substeps=3, photons=1e6)
    blind = replace(experiment, scan=Scan(experiment.scan.positions_m.mean(axis=1), experiment.scan.frame_ids))
    assert 1.5 * run(experiment, "DM(60)").quality["error"] < run(blind, "DM(60)").quality["error"]


def test_error_is_what_its_definition_says(experiment: Any) -> None:
    spoiled = experiment.frames.counts.copy()
    mask = np.zeros(spoiled.shape[1:], np.uint8)
    mask[5:8, 10:14], spoiled[:, 5:8, 10:14] = 1, 60_000
    result = solve(
        MemoryFrames(spoiled, mask), experiment.scan, experiment.geometry, recipe=Recipe.parse("DM(15)"), start_probe=experiment.probe
    )
    assert result is not None
    np.testing.assert_array_equal(result.mask, mask)
    assert result.quality["error"] == pytest.approx(plain_error(result, spoiled), rel=1e-4)
    assert result.quality["error"] < 0.05


def test_errors_keep_their_names(experiment: Any) -> None:
    seen: list[Progress] = []
    result = run(experiment, "DM(12) + ePIE(3)", start_probe=experiment.probe, on_progress=seen.append, job_key="abc")
    assert seen == result.progress
    assert [event.iteration for event in seen] == list(range(1, 16))
    assert {event.job for event in seen} == {"abc"}
    assert {event.iterations for event in seen} == {15}
    assert [event.iteration for event in seen if "error" in event.errors] == [10, 12, 15]
    assert all(("constraint_residual" in event.errors) == (event.stage == "DM") for event in seen)
    assert all(("running_error" in event.errors) == (event.stage == "ePIE") for event in seen)


def test_same_seed_same_bits(experiment: Any) -> None:
    first, second, other = (run(experiment, "ePIE(3)", start_probe=experiment.probe, seed=seed).object for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 1e-4


def test_probe_power_is_in_counts(experiment: Any) -> None:
    result = run(experiment, "DM(10)", start_probe=1e-3 * experiment.probe)
    assert (np.abs(result.probe) ** 2).sum() == pytest.approx(experiment.frames.counts.sum() / 49, rel=1e-4)


def test_nothing_runs_away_where_no_light_falls(simulate: Callable[..., Any]) -> None:
    experiment = simulate(photons=2e3)
    for recipe in ("DM(100)", "rPIE(60, object_step=1, probe_step=0.9)", "mPIE(60)"):
        result = run(experiment, recipe, probe_modes=2)
        assert np.abs(result.object).max() <= 2.5
        assert result.quality["error"] < 0.2


def test_positions_are_where_the_patches_are(experiment: Any) -> None:
    result = run(experiment, "DM(2)", start_probe=experiment.probe)
    np.testing.assert_array_equal(np.diff(result.positions_px, axis=0), np.diff(experiment.corners, axis=0))
    assert result.positions_px.min() >= 0
    assert (result.positions_px.max(axis=0) + 32 <= result.object.shape[1:]).all()
    np.testing.assert_allclose(result.positions_m, experiment.scan.positions_m[:, 0])


def test_crop_and_orientation_reach_the_solver(experiment: Any) -> None:
    stored = np.zeros((49, 40, 48), np.uint16)
    stored[:, 5 : 5 + 32, 9 : 9 + 32] = np.roll(np.flip(experiment.frames.counts, 1), 1, 1)
    how = Preparation(crop_px=32, centre_px=(5 + 16, 9 + 16), orientation="flip_y")
    result = solve(MemoryFrames(stored), experiment.scan, experiment.geometry, preparation=how, recipe=Recipe.parse("DM(40)"))
    assert result is not None
    assert result.quality["error"] < 0.0045


def test_cancel_stops_at_the_next_iteration(experiment: Any) -> None:
    seen: list[Progress] = []
    with pytest.raises(Cancelled, match="stopped in iteration 3 of 50"):
        run(experiment, "DM(50)", start_probe=experiment.probe, on_progress=seen.append, cancelled=lambda: len(seen) >= 3)


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ("Magic(5)", r"no algorithm 'Magic': the recipe can use DM, .*ePIE, rPIE, mPIE"),
        (
            "DM(5, speed=2)",
            r"DM has no option 'speed': it has slack=0.1, .*beta=1.0; and, as every stage, probe=\"free\", .*positions=\"fixed\"",
        ),
        ("DM(5, beta=3.0)", r"DM: beta = 3 is outside 0.1 .. 1 .*default is 1"),
        ("DM(5, overlap_rounds=1.5)", r"DM: overlap_rounds = 1.5 is no whole number"),
        ('ePIE(5, object_step="big")', r"ePIE: object_step = 'big' is no number"),
        ("ePIE(5, object_step=True)", r"ePIE: object_step = True is no number"),
    ],
)
def test_wrong_recipes_are_told(experiment: Any, recipe: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        check_recipe(Recipe.parse(recipe))
    with pytest.raises(RecipeError, match=sentence):
        run(experiment, recipe)


def test_default_recipe_is_valid() -> None:
    check_recipe(DEFAULT)


def test_frames_and_positions_must_match(experiment: Any) -> None:
    fewer = MemoryFrames(experiment.frames.counts[:-2])
    with pytest.raises(ScanError, match="47 frames but 49 positions"):
        solve(fewer, experiment.scan, experiment.geometry)


def test_empty_frames_are_told(experiment: Any) -> None:
    with pytest.raises(SolverError, match="all 49 frames are empty"):
        solve(MemoryFrames(np.zeros((49, 32, 32), np.uint16)), experiment.scan, experiment.geometry)


@pytest.mark.parametrize("probe", [np.ones((16, 16)), np.zeros((32, 32)), np.full((32, 32), np.nan)])
def test_impossible_start_probes_are_told(experiment: Any, probe: NDArray[Any]) -> None:
    with pytest.raises(SolverError, match="start probe"):
        run(experiment, "DM(2)", start_probe=probe)


def test_an_unreadable_frame_is_told(experiment: Any) -> None:
    class Broken(MemoryFrames):
        def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
            raise FramesError("frame 7 cannot be read: the file is truncated.")

    with pytest.raises(FramesError, match="frame 7"):
        solve(Broken(experiment.frames.counts), experiment.scan, experiment.geometry)


def test_more_memory_than_there_is_is_refused(experiment: Any) -> None:
    with pytest.raises(SolverError, match=r"GB of memory, there are .* GB: "):
        run(experiment, "DM(2)", probe_modes=10_000_000)


@pytest.mark.parametrize(
    ("precision", "verbs", "used"), [("single", "cpu", "cpu"), ("single", "reference", "reference"), ("double", "cpu", "reference")]
)
def test_result_says_which_verbs_did_the_work(experiment: Any, precision: Any, verbs: Any, used: str) -> None:
    result = run(experiment, "ePIE(1)", start_probe=experiment.probe, precision=precision, verbs=verbs)
    assert (result.provenance["precision"], result.provenance["verbs"]) == (precision, used)
    assert result.object.dtype == (np.complex64 if precision == "single" else np.complex128)


def test_one_frame_has_no_overlap(experiment: Any) -> None:
    def quality_of(count: int) -> dict[str, float]:
        scan = Scan(experiment.scan.positions_m[:count], np.arange(count))
        frames = MemoryFrames(experiment.frames.counts[:count])
        result = solve(frames, scan, experiment.geometry, recipe=Recipe.parse("ePIE(1)"), start_probe=experiment.probe)
        assert result is not None
        return result.quality

    assert quality_of(2).keys() - quality_of(1).keys() == {"step_px", "overlap"}


def test_waves_are_let_go_when_their_stage_ends(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ptyplugin.solvers import run as loop

    kept: list[weakref.ref[NDArray[Any]]] = []

    def fill(state: State, batches: Batches, do: Verbs) -> None:
        fill_waves(state, batches, do)
        kept.append(weakref.ref(state.waves))

    monkeypatch.setattr(loop, "fill_waves", fill)
    going = Solver(experiment.frames, experiment.scan, experiment.geometry, Recipe.parse("DM(1) + ePIE(1)"), start_probe=experiment.probe)
    next(going)
    assert kept[0]() is not None
    next(going)
    assert kept[0]() is None


def test_divergence_is_an_error_and_no_image(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ptyplugin.solvers.verbs.cpu import CpuVerbs

    def spoil(self: CpuVerbs, X: NDArray[Any], largest: float) -> None:
        X[0, 10, 10] = np.nan

    monkeypatch.setattr(CpuVerbs, "clip_modulus", spoil)
    with pytest.raises(SolverError, match="diverged"):
        run(experiment, "DM(5)", start_probe=experiment.probe)
