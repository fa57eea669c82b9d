"""How well positions come back: of simulated scans whose positions are wrong, and what finding them gains on measured scans.

    python benchmarks/positions.py small large
    python benchmarks/positions.py SCAN.cxi [--modes 2]

small: 200 frames of 64 x 64 px, each said to lie up to 3 px off along each axis. large: 481 frames of 128 x 128 px with three probe modes
and white noise of 7 px RMS along each axis. The start probe is the true one. Printed for each recipe: RMS and median of what is left (px),
the share of frames more than 3 px off, without the mean shift and without the affine map that is closest to most frames; error of the
model; seconds. For a measured scan: error, held-out error, how far its frames were moved (px RMS), with and without.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.api import solver
from ptyplugin.model import DEFAULT_RECIPE, Geometry, MemoryFrames, Recipe, Reconstruction, Scan
from ptyplugin.sim.optics import annular_probe, coherent_modes, far_field, shifted
from ptyplugin.sim.sample import make_sample
from ptyplugin.solvers import Solver

#: Room for the errors around the scan, px.
ROOM = 32
RECIPES = {
    "small": ['LSQML(60, positions="{}")', 'DM(60, positions="{}")', 'ePIE(60, positions="{}")'],
    "large": ['LSQML(40, positions="{}", positions_from=3, positions_every=1, positions_max=20)'],
}


@dataclass(frozen=True)
class Problem:
    """Frames (frame, y, x) of a scan; where it says that they lie and where they do, (frame, yx) px; the probe (mode, y, x)."""

    counts: NDArray[np.uint16]
    said: NDArray[np.float64]
    true: NDArray[np.float64]
    probe: NDArray[Any]


def problem(frames: int, side: int, spacing_px: float, modes: int, errors: NDArray[np.float64], photons: float = 1e6) -> Problem:
    """A spiral of equal areas; ``errors`` (frame, yx) px lie between what is said and what is true."""
    number, random = np.arange(frames), np.random.default_rng(5)
    radius, angle = spacing_px * np.sqrt(number / np.pi), number * np.pi * (3 - np.sqrt(5))
    true = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    true += ROOM - true.min(axis=0)
    scale = side / 128
    probe = coherent_modes(annular_probe(side, pupil_px=22 * scale, spot_px=38 * scale), modes) * np.sqrt(photons)
    rows, columns = (int(extent) + side + ROOM for extent in true.max(axis=0))
    sample = make_sample((rows, columns), 3)
    counts = np.empty((frames, side, side), np.uint16)
    for j, (y, x) in enumerate(true):
        row, column = round(y), round(x)
        patch = sample[row : row + side, column : column + side]
        counts[j] = random.poisson(far_field(shifted(probe, (y - row, x - column)) * patch))
    return Problem(counts, true + errors, true, probe)


def left(found: NDArray[np.float64], true: NDArray[np.float64], affine: bool) -> NDArray[np.float64]:
    """(frame,) px: distances of what was found from the truth, without the mean shift, or the affine map closest to most frames."""
    design = np.c_[np.ones(len(true)), true * affine]
    weights, wrong = np.ones(len(true)), found - true
    distances = np.zeros(len(true))
    for _ in range(20 if affine else 1):
        fit = np.linalg.lstsq(design * weights[:, None], wrong * weights[:, None], rcond=None)[0]
        distances = np.hypot(*(wrong - design @ fit).T)
        weights = 1 / np.sqrt(1 + (distances / (2 * np.median(distances))) ** 2)
    return np.asarray(distances)


def report(recipe: str, given: Problem) -> None:
    """Solve it and print a line for the mean shift removed, one for the affine map removed."""
    side = given.counts.shape[-1]
    geometry = Geometry(8000.0, 3.0, 75e-6, (side, side))
    scan = Scan(given.said * np.asarray(geometry.object_pixel_m), np.arange(len(given.said)))
    start, modes = time.perf_counter(), len(given.probe)
    going = Solver(MemoryFrames(given.counts), scan, geometry, Recipe.parse(recipe), probe_modes=modes, start_probe=given.probe)
    for _ in going:
        pass
    found, seconds = going.result(), time.perf_counter() - start
    assert found is not None
    for affine in (False, True):
        off = left(found.positions_px, given.true, affine)
        numbers = f"{np.sqrt(np.mean(off**2)):8.3f} {np.median(off):8.3f} {np.mean(off > 3):8.1%}"
        print(f"{recipe:90s} {'affine' if affine else 'mean':>8s} {numbers} {found.quality['error']:9.5f} {seconds:6.0f}", flush=True)


def simulated(size: str) -> None:
    """All recipes and searches on one of the two simulated problems."""
    random = np.random.default_rng(11)
    if size == "small":
        given = problem(200, 64, 8.0, 1, random.uniform(-3, 3, (200, 2)))
    else:
        given = problem(481, 128, 16.0, 3, random.normal(0, 7, (481, 2)))
    print(f"{size + ': recipe':90s} {'without':>8s} {'RMS px':>8s} {'median':>8s} {'> 3 px':>8s} {'error':>9s} {'s':>6s}")
    for recipe in RECIPES[size]:
        for search in ("fixed", "gradient", "trials"):
            report(recipe.format(search), given)


def measured(path: str, modes: int) -> None:
    """The default recipe on a measured scan, as it is and with positions refined."""
    plain = Recipe.parse(DEFAULT_RECIPE)
    refined = Recipe(
        tuple(type(stage)(stage.algorithm, stage.iterations, {**stage.options, "positions": "gradient"}) for stage in plain.stages)
    )
    print(f"{path}: {'recipe':90s} {'error':>9s} {'held out':>9s} {'moved px':>9s} {'s':>6s}")
    for recipe in (plain, refined):
        start, going = time.perf_counter(), solver(path, str(recipe), probe_modes=modes)
        for _ in going:
            pass
        found: Reconstruction | None = going.result()
        assert found is not None
        numbers = [found.quality.get(name, float("nan")) for name in ("error", "held_out_error", "positions_moved_px")]
        print(f"{recipe!s:90s} " + " ".join(f"{number:9.5f}" for number in numbers) + f" {time.perf_counter() - start:6.0f}", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", nargs="+", help="small, large, or a CXI file")
    arguments.add_argument("--modes", type=int, default=1, help="probe modes of a measured scan")
    said = arguments.parse_args()
    print(f"repeat with: python {shlex.join(sys.argv)}")
    for what in said.what:
        if what in RECIPES:
            simulated(what)
        else:
            measured(what, said.modes)


if __name__ == "__main__":
    main()
