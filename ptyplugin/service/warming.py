"""What takes a rank seconds the first time, done before there is a job: imports, and compiled code, which is loaded or compiled now."""

from __future__ import annotations

import gc

import numpy as np

from ptyplugin.model import Geometry, MemoryFrames, Recipe, Scan
from ptyplugin.service.solving import SOLVE_JOB, solve_function
from ptyplugin.solvers import Ranks, Solver

#: All that jobs do most, once.
_RECIPE = Recipe.parse("DM(1) + ePIE(1) + LSQML(1) + ML(1)")
#: Frames on a square grid, their side and steps, px; photons in a pixel.
_GRID, _SIDE, _STEP, _LIGHT = 4, 16, 4, 50.0


def warm_up(ranks: Ranks) -> None:
    """Solve a tiny problem, all ranks together, on what they will compute on: a GPU where they see one.

    Raises:
        PtypluginError: that did not go well.
    """
    solve_function(SOLVE_JOB)
    geometry = Geometry(8000.0, 1.0, 75e-6, (_SIDE, _SIDE))
    steps = np.arange(_GRID) * _STEP * np.asarray(geometry.object_pixel_m)[:, None]
    positions_m = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    frames = np.random.default_rng(0).poisson(_LIGHT, (_GRID**2, _SIDE, _SIDE)).astype(np.uint16)
    for _ in Solver(MemoryFrames(frames), Scan(positions_m, np.arange(_GRID**2)), geometry, _RECIPE, probe_modes=2, ranks=ranks):
        pass
    # What there is now stays: to look for what is free need not go through it.
    gc.freeze()
