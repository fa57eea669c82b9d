"""Background and intensities: found on simulated scans, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.io import read_result, write_result
from ptyplugin.model import MemoryFrames, Recipe, Reconstruction
from ptyplugin.solvers import Solver, solve

ALGORITHMS = ["DM(50{})", "ePIE(40{})", "LSQML(30{})"]


def run(experiment: Any, recipe: str, option: str = "", **how: Any) -> Reconstruction:
    result = solve(experiment.frames, experiment.scan, experiment.geometry, recipe=Recipe.parse(recipe.format(option)), **how)
    assert result is not None
    return result


def detected(experiment: Any, background: Any = 0.0, beam: Any = 1.0, seed: int = 9) -> Any:
    """The experiment, without noise, as a detector sees it with this background (y, x) and intensity of each frame (frame,)."""
    expected = experiment.frames.counts * np.reshape(beam, (-1, 1, 1)) + background
    return replace(experiment, frames=MemoryFrames(np.random.default_rng(seed).poisson(expected).astype(np.uint16)))


@pytest.fixture(scope="module")
def plain(simulate: Callable[..., Any]) -> Any:
    return simulate(side=64, grid=(9, 9), step=6.0, photons=1e6, noise=False)


@pytest.fixture(scope="module")
def clean(plain: Any) -> Callable[[str], Reconstruction]:
    """By recipe: the image of the scan without background and flicker, from the true probe out of focus."""
    frames = detected(plain)
    return lru_cache(lambda recipe: run(frames, recipe, start_probe=wrong(plain)))


def wrong(experiment: Any) -> NDArray[np.complex128]:
    """The true probe out of focus."""
    k = np.arange(experiment.geometry.shape[0]) - experiment.geometry.shape[0] / 2
    return np.asarray(experiment.probe * np.exp(0.003j * (k[:, None] ** 2 + k[None, :] ** 2)))


def smooth_map(side: int, top: float) -> NDArray[np.float64]:
    y, x = np.indices((side, side)) - side / 2
    return np.asarray(top * np.exp(-((y - 4) ** 2 + (x + 6) ** 2) / (2 * (side / 4) ** 2)))


def beam_of(frames: int) -> NDArray[np.float64]:
    beam = np.random.default_rng(4).lognormal(0, 0.1, frames)
    return np.asarray(beam / beam.mean())


def without_trend(experiment: Any, values: NDArray[Any]) -> NDArray[np.float64]:
    """Without what is quadratic in the position: the object's amplitude can make up for that."""
    y, x = (experiment.corners / experiment.corners.max(axis=0)).T
    basis = np.stack([np.ones_like(y), y, x, y * y, y * x, x * x], axis=1)
    return np.asarray(values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0])


@pytest.mark.parametrize("recipe", ALGORITHMS)
@pytest.mark.parametrize("kind", ["constant", "smooth"])
def test_a_background_is_found_and_does_no_harm(plain: Any, clean: Callable[..., Any], recipe: str, kind: str) -> None:
    """Some 5 % of all counts; the best that can be hoped for is the scan without it."""
    background = np.full((64, 64), 10.0) if kind == "constant" else smooth_map(64, 40.0)
    spoiled, start = detected(plain, background), wrong(plain)
    ideal, blind = clean(recipe), run(spoiled, recipe, start_probe=start)
    aware = run(spoiled, recipe, f', background="{kind}"', start_probe=start)
    assert blind.background is None
    assert aware.background is not None
    assert aware.background.dtype == np.float32
    assert aware.background.min() >= 0
    dim = plain.frames.counts.mean(axis=0) < 10 * background
    assert np.sqrt(((aware.background - background)[dim] ** 2).mean()) < 0.35 * background[dim].mean()
    assert aware.background[dim].mean() == pytest.approx(background[dim].mean(), rel=0.15)
    assert aware.quality["error"] < 1.15 * ideal.quality["error"] < 0.8 * blind.quality["error"]
    best, before = plain.phase_rms(ideal.object[0], ideal.positions_px), plain.phase_rms(blind.object[0], blind.positions_px)
    assert plain.phase_rms(aware.object[0], aware.positions_px) < max(0.5 * (best + before), 1.1 * best)
    power = (np.abs(aware.probe) ** 2).sum()
    assert power == pytest.approx(spoiled.frames.counts.sum(axis=(1, 2)).mean() - aware.background.sum(), rel=0.02)


@pytest.mark.parametrize("recipe", ALGORITHMS)
def test_the_intensity_of_each_frame_is_found(plain: Any, clean: Callable[..., Any], recipe: str) -> None:
    beam, start = beam_of(81), wrong(plain)
    flickering = detected(plain, beam=beam)
    ideal, blind = clean(recipe), run(flickering, recipe, start_probe=start)
    aware = run(flickering, recipe, ', intensities="fitted"', start_probe=start)
    assert blind.intensities is None
    assert aware.intensities is not None
    assert without_trend(plain, aware.intensities / beam).std() < 0.01
    assert aware.quality["error"] < 1.1 * ideal.quality["error"] < 0.6 * blind.quality["error"]
    rms = [plain.phase_rms(each.object[0], each.positions_px) for each in (aware, ideal, blind)]
    assert rms[0] < 1.15 * rms[1]
    assert rms[2] < 2 * rms[1], "flicker does not destroy an image that does not model it"


def test_a_beam_that_does_not_flicker_is_left_alone(plain: Any) -> None:
    result = run(detected(plain), "DM(60{})", ', intensities="fitted"', start_probe=wrong(plain))
    assert result.intensities is not None
    assert np.abs(result.intensities - 1).max() < 0.01


def test_frames_held_out_have_the_background_too(plain: Any) -> None:
    """Whatever is found for them, positions for one, is found beside it."""
    spoiled = detected(plain, 10.0)
    solver = Solver(spoiled.frames, spoiled.scan, spoiled.geometry, Recipe.parse('LSQML(5, background="smooth")'), start_probe=wrong(plain))
    for _ in solver:
        pass
    way = solver._there().way
    assert way.held_out is not None
    assert way.frames.background is not None
    np.testing.assert_array_equal(way.held_out.background, way.frames.background)


def test_a_monitor_is_used_and_can_be_corrected(plain: Any) -> None:
    beam, start = beam_of(81), wrong(plain)
    flickering = detected(plain, beam=beam)
    told = replace(flickering, scan=replace(flickering.scan, monitor=7.0 * beam))
    result, blind = (run(each, "LSQML(30)", start_probe=start) for each in (told, flickering))
    assert result.intensities is not None
    np.testing.assert_allclose(result.intensities, beam, rtol=1e-5)
    assert result.quality["error"] < 0.5 * blind.quality["error"]
    half = replace(flickering, scan=replace(flickering.scan, monitor=np.sqrt(beam)))
    fitted = run(half, "LSQML(30{})", ', intensities="fitted"', start_probe=start)
    assert fitted.intensities is not None
    assert without_trend(plain, fitted.intensities / beam).std() < 0.01


def test_what_masked_pixels_hold_is_no_background(plain: Any, tmp_path: Path) -> None:
    spoiled = detected(plain, 10.0, beam_of(81))
    counts, mask = spoiled.frames.counts.copy(), np.zeros((64, 64), np.uint8)
    mask[20:24, 40:50] = 1
    counts[:, mask == 1] = 60_000
    masked = replace(spoiled, frames=MemoryFrames(counts, mask))
    recipe = 'LSQML(30, background="smooth", intensities="fitted") + DM(4)'
    result = run(masked, recipe, start_probe=wrong(plain))
    assert result.background is not None, "what an earlier stage has found stays"
    assert result.background.max() < 20
    assert result.background.mean() == pytest.approx(10, rel=0.2)
    write_result(tmp_path / "result.h5", result)
    read = read_result(tmp_path / "result.h5")
    np.testing.assert_array_equal(read.background, result.background)
    np.testing.assert_array_equal(read.intensities, result.intensities)


@pytest.mark.parametrize("how", ["near_field", "substeps"])
def test_near_field_and_fly_scans(simulate: Callable[..., Any], how: str) -> None:
    plain = simulate(noise=False, photons=1e6, **({"near_field": True} if how == "near_field" else {"substeps": 3}))
    background = 0.1 * plain.frames.counts.mean()
    spoiled, clean = detected(plain, background), detected(plain)
    aware, best, blind = (
        run(each, "DM(100{})", option) for each, option in ((spoiled, ', background="constant"'), (clean, ""), (spoiled, ""))
    )
    assert aware.background is not None
    assert aware.background.mean() == pytest.approx(background, rel=0.25)
    assert aware.quality["error"] < 0.5 * (best.quality["error"] + blind.quality["error"])
