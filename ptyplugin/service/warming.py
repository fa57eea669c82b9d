"""What takes a rank seconds the first time, done before there is a job: imports, and compiled code, which is loaded or compiled now."""

from __future__ import annotations

import gc

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Geometry, MemoryFrames, Recipe, Scan
from ptyplugin.service.solving import SOLVE_JOB, solve_function
from ptyplugin.solvers import Ranks, Solver
from ptyplugin.solvers.verbs.cpu_fft import best_fft, fft_of

#: What live jobs do, and what final ones do most, once each.
_LIVE = Recipe.parse("DM(1)")
_FINAL = Recipe.parse('LSQML(1, momentum=0.9, positions="gradient", positions_from=1) + ePIE(1) + ML(1)')
#: Frames on a square grid, their side and steps, px; photons in a pixel. A live job begins with the first half of them.
_GRID, _SIDE, _STEP, _LIGHT = 8, 16, 4.3, 50.0
#: Side of the usual frames, px: to find out how a side is transformed the quickest takes pyFFTW 0.2 s, once in a process.
_USUAL_SIDE = 128


def warm_up(ranks: Ranks) -> None:
    """Solve a tiny problem as a live and as a final job would, all ranks together, on what they will compute on: a GPU where they see one.

    Raises:
        PtypluginError: that did not go well.
    """
    solve_function(SOLVE_JOB)
    geometry = Geometry(8000.0, 1.0, 75e-6, (_SIDE, _SIDE))
    steps = np.arange(_GRID) * _STEP * np.asarray(geometry.object_pixel_m)[:, None]
    positions_m = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    frames = np.random.default_rng(0).poisson(_LIGHT, (_GRID**2, _SIDE, _SIDE)).astype(np.uint16)
    _live(frames, positions_m, geometry, ranks)
    _final(frames, positions_m, geometry, ranks)
    usual = (_USUAL_SIDE, _USUAL_SIDE)
    fft_of(best_fft(), usual).empty((1, 1, *usual))
    # What there is now stays: to look for what is free need not go through it.
    gc.freeze()


def _live(frames: NDArray[np.uint16], positions_m: NDArray[np.float64], geometry: Geometry, ranks: Ranks) -> None:
    first, everything = (_some(frames, positions_m, count) for count in (len(frames) // 2, len(frames)))
    solver = Solver(*first, geometry, _LIVE, ranks=ranks)
    next(solver)
    solver.admit(*everything)
    next(solver)
    solver.snapshot()
    solver.result()


def _final(frames: NDArray[np.uint16], positions_m: NDArray[np.float64], geometry: Geometry, ranks: Ranks) -> None:
    solver = Solver(*_some(frames, positions_m, len(frames)), geometry, _FINAL, probe_modes=2, ranks=ranks)
    for _ in solver:
        pass
    solver.result()


def _some(frames: NDArray[np.uint16], positions_m: NDArray[np.float64], count: int) -> tuple[MemoryFrames, Scan]:
    return MemoryFrames(frames[:count]), Scan(positions_m[:count], np.arange(count))
