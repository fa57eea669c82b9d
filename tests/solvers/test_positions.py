"""Positions are found from the frames: by every algorithm, in both fields, with modes and sub-steps, on several ranks."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import Recipe, RecipeError, Reconstruction, Scan
from ptyplugin.solvers import Solver, check_recipe, solve
from ptyplugin.solvers.positions import move
from ptyplugin.solvers.verbs.reference import ReferenceVerbs


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
        'rPIE(40, positions="gradient")',
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
