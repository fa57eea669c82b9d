"""Merging: from the ranks' own copies of object and probe to one that all share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batches
from ptyplugin.solvers.ranks import Ranks, Window
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs import Verbs


def merge_overlaps(state: State, batches: Batches, do: Verbs, ranks: Ranks) -> None:
    """As ``merge_copies``, but of the object only the rectangle that holds all pixels which several ranks light."""
    if ranks.size > 1:
        light = state.remembered("light", lambda: _light(state, batches, do))
        rows, columns = _window(state.remembered("overlaps", lambda: _overlaps(light, ranks)))
        _mean(state.object[:, rows, columns], light[rows, columns], do, ranks)
        _mean(state.probe, batches.frame_count, do, ranks)


def merge_copies(state: State, batches: Batches, do: Verbs, ranks: Ranks) -> None:
    """O <- sum_r c_r O_r / sum_r c_r, c_r = sum_j |P|^2 over the frames of rank r; P <- the mean weighted with the ranks' frames.

    c_r is that of the first merge of a stage: it is a weight, and the probe changes slowly.
    """
    if ranks.size > 1:
        _mean(state.object, state.remembered("light", lambda: _light(state, batches, do)), do, ranks)
        _mean(state.probe, batches.frame_count, do, ranks)


def _mean(X: NDArray[Any], weight: Any, do: Verbs, ranks: Ranks) -> None:
    if X.size:
        num, den = do.sums(X)
        do.weigh(num, den, X, weight)
        do.quotient(X, ranks.sum(num), ranks.sum(den), 0)


def _light(state: State, batches: Batches, do: Verbs) -> NDArray[Any]:
    """(y, x): sum_j |P|^2 over the frames of this rank."""
    total: NDArray[Any] = do.sums(state.object)[1]
    for b in batches:
        do.coverage_sums(total, state.probe, b)
    do.finish()
    return total


def _overlaps(light: NDArray[Any], ranks: Ranks) -> NDArray[np.int64]:
    """First and last + 1 row and column of the pixels that several ranks light, the same on all ranks; zeros if there are none."""
    several = ranks.sum(np.asarray(light > 0, dtype=np.int32)) > 1
    found = [np.flatnonzero(several.any(axis=1 - axis)) for axis in (0, 1)]
    return np.array([(lines[0], lines[-1] + 1) if len(lines) else (0, 0) for lines in found], dtype=np.int64)


def _window(edges: NDArray[np.int64]) -> Window:
    rows, columns = (slice(first, last) for first, last in edges.tolist())
    return rows, columns
