"""Scans that come in portions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import MemoryFrames, Recipe, Scan
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


ORDERS = {
    "down": np.arange(100),
    "up": np.arange(100)[::-1],
    "right": np.arange(100).reshape(10, 10).T.ravel(),
    "left": np.arange(100).reshape(10, 10).T.ravel()[::-1],
    "from the middle": np.argsort(np.hypot(*(np.indices((10, 10)).reshape(2, -1) - 4.4)), kind="stable"),
}


def moved_by(e: Any, rests: NDArray[np.float64]) -> Any:
    """The experiment, said to have been measured ``rests`` px from where it was."""
    pixel = np.asarray(e.geometry.object_pixel_m)
    return dataclasses.replace(e, scan=Scan(e.scan.positions_m + rests[:, None] * pixel, e.scan.frame_ids))
