"""Merging: from the ranks' own copies of object and probe to one that all share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batches
from ptyplugin.solvers.ranks import Ranks, Window
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs import Complex, Real, Verbs


def merge_overlaps(state: State, batches: Batches, do: Verbs, ranks: Ranks) -> None:
    """As ``merge_copies``, but of the object only the rectangle that holds all pixels which several ranks light."""
    if ranks.size > 1:
        light = state.remembered("light", lambda: _light(state, batches, do))
        rows, columns = state.remembered("overlaps", lambda: _overlaps(do.host(light), ranks))
        _mean(state.object[:, rows, columns], light[rows, columns], do, ranks)
        _mean(state.probe, batches.frame_count, do, ranks)


def merge_copies(state: State, batches: Batches, do: Verbs, ranks: Ranks) -> None:
    """O <- sum_r c_r O_r / sum_r c_r, c_r = sum_j |P|^2 over the frames of rank r; P <- the mean weighted with the ranks' frames.

    c_r is that of the first merge of a stage: it is a weight, and the probe changes slowly.
    """
    if ranks.size > 1:
        _mean(state.object, state.remembered("light", lambda: _light(state, batches, do)), do, ranks)
        _mean(state.probe, batches.frame_count, do, ranks)


def _mean(X: Complex, weight: Real | int, do: Verbs, ranks: Ranks) -> None:
    if X.size:
        num, den = do.sums(X)
        do.weigh(num, den, X, weight)
        do.quotient(X, ranks.sum(num), ranks.sum(den), 0)


def _light(state: State, batches: Batches, do: Verbs) -> Real:
    """(y, x): sum_j |P|^2 over the frames of this rank."""
    total = do.sums(state.object)[1]
    for b in batches:
        do.coverage_sums(total, state.probe, b)
    do.finish()
    return total


def _overlaps(light: NDArray[Any], ranks: Ranks) -> Window:
    """Rows and columns of the object that hold all pixels which several ranks light, the same on all ranks; none if there are none."""
    several = ranks.sum(np.asarray(light > 0, dtype=np.int32)) > 1
    lines = [np.flatnonzero(several.any(axis=1 - axis)) for axis in (0, 1)]
    rows, columns = (slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0) for found in lines)
    return rows, columns
