"""Merging: from the ranks' own copies of object and probe to one that all share."""


from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batches
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs import Verbs


def merge_copies(state: State, batches: Batches, do: Verbs, ranks: Ranks) -> None:
    """O <- sum_r c_r O_r / sum_r c_r, c_r = sum_j |P|^2 over the frames of rank r; P <- the mean weighted with the ranks' frames.

    c_r is that of the first merge of a stage: it is a weight, and the probe changes slowly.
    """
    if ranks.size == 1:
        return

    def light() -> NDArray[Any]:
        total: NDArray[Any] = do.sums(state.object)[1]
        for b in batches:
            do.coverage_sums(total, state.probe, b)
        do.finish()
        return total

    for X, weight in ((state.object, state.remembered("light", light)), (state.probe, batches.frame_count)):
        num, den = do.sums(X)
        do.weigh(num, den, X, weight)
        ranks.sum_canvas(num, den, state.window)
        do.quotient(X, num, den, 0)
