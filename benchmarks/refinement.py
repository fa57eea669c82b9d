"""Position refinement as a part of the table (positions.py makes the problems)."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.positions import RECIPES, Problem, left, problem
from benchmarks.table import Table, verdict
from ptyplugin.model import Geometry, MemoryFrames, PtypluginError, Recipe, Scan
from ptyplugin.solvers import Solver


def run(quick: bool) -> list[Table]:
    """Positions up to 3 px off, and white noise of 7 px RMS."""
    random = np.random.default_rng(11)
    small = Table("Positions: 200 frames of 64 x 64 px, up to 3 px off", ["recipe", "RMS left, px", "median, px", "s", "limit"])
    small.notes.append("The mean shift is taken off.")
    given = problem(200, 64, 8.0, 1, random.uniform(-3, 3, (200, 2)))
    for form in RECIPES["small"][: 1 if quick else None]:
        recipe = form.format("gradient")
        off, seconds = _left(recipe.replace("60", "3") if quick else recipe, given, False)
        rms = None if off is None else float(np.sqrt(np.mean(off**2)))
        small.add(recipe, rms, None if off is None else float(np.median(off)), seconds, "MISSED" if rms is None else verdict(rms, 0.1))
    if quick:
        return [small]
    large = Table(
        "Positions: 481 frames of 128 x 128 px, 3 modes, white noise of 7 px RMS along each axis",
        ["recipe", "median left, px", "off by > 3 px, %", "s", "limits"],
    )
    large.notes.append("The affine map closest to most frames is taken off.")
    given = problem(481, 128, 16.0, 3, random.normal(0, 7, (481, 2)))
    for form in RECIPES["large"]:
        recipe = form.format("trials")
        off, seconds = _left(recipe, given, True)
        if off is None:
            large.add(recipe, None, None, seconds, "MISSED: it failed")
            continue
        far = 100 * float(np.mean(off > 3))
        large.add(recipe, float(np.median(off)), far, seconds, f"{verdict(float(np.median(off)), 1.5)}; {verdict(far, 15)}")
    return [small, large]


def _left(recipe: str, given: Problem, affine: bool) -> tuple[np.ndarray | None, float]:
    """Distances that are left (px), and seconds; None if it failed."""
    side = given.counts.shape[-1]
    geometry = Geometry(8000.0, 3.0, 75e-6, (side, side))
    scan = Scan(given.said * np.asarray(geometry.object_pixel_m), np.arange(len(given.said)))
    start = time.perf_counter()
    try:
        going = Solver(
            MemoryFrames(given.counts), scan, geometry, Recipe.parse(recipe), probe_modes=len(given.probe), start_probe=given.probe
        )
        for _ in going:
            pass
        found = going.result()
    except PtypluginError:
        return None, time.perf_counter() - start
    assert found is not None
    return left(found.positions_px, given.true, affine), time.perf_counter() - start
