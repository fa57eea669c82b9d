"""What counting noise alone leaves of the error, and what no image at all would leave of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from ptyplugin.solvers.batches import Batches
from ptyplugin.solvers.state import State
from ptyplugin.solvers.way import Walk

#: The table: steps of the root of the mean, and where a series takes over.
_STEP, _LAST = 1 / 128, 6.0
#: Frames of each rank at most that are looked at, and how many at once.
_FRAMES, _AT_ONCE = 256, 16


def noise_of(means: NDArray[Any]) -> NDArray[np.float64]:
    """E (sqrt(n) - sqrt(mean))^2 for counts n as chance has them (Poisson) about each of ``means``, to 1e-4 of it.

    Below 36 counts from a table of the exact sum, above from its series in 1 / mean, whose first term is 1 / 4.
    """
    root = np.sqrt(np.asarray(means, dtype=np.float64))
    few = np.minimum(root, _LAST)
    many = np.maximum(root, _LAST) ** 2
    series = 1 / 4 + (7 / 64 + 75 / 512 / many) / many
    return np.where(root < _LAST, few**2 * np.interp(few, *_TABLE), series)


def expected_errors(state: State, way: Walk) -> dict[str, float]:
    """``noise_floor`` and ``mean_frame_error``, of some 256 frames of each rank, spread over its own. All ranks call it together.

    The floor is the error that counting noise would leave if the model were the truth: sum of E (sqrt(n) - sqrt(m))^2 over good pixels,
    n as chance has it about the model's counts m, over the sum of counts. The other is what the mean frame would leave as the model of
    all frames, with what it knows of each from being made of it taken off.
    """
    frames, do = way.frames, way.verbs
    chosen = np.unique(np.linspace(0, max(len(frames) - 1, 0), min(len(frames), _FRAMES)).astype(np.int64))
    sums, pixels = np.zeros(2), np.zeros((2, *frames.good.shape))
    for b in Batches(frames, _AT_ONCE, -(-len(chosen) // _AT_ONCE), chosen):
        model = do.model_counts(do.to_detector(do.exit_waves(state.object, state.probe, b), b), b)
        do.finish()
        counts = b.host_counts
        sums += noise_of(model[:, b.good]).sum(), len(counts)
        pixels += counts.sum(axis=0, dtype=np.float64) * b.good, np.sqrt(counts).sum(axis=0, dtype=np.float64) * b.good
    (noise, count), (total, roots) = way.ranks.sum(sums), way.ranks.sum(pixels)
    left = 2 * total.sum() - 2 * float((np.sqrt(total / count) * roots).sum())
    return {
        "noise_floor": float(noise / total.sum()),
        "mean_frame_error": float(left / total.sum() * count / max(count - 1, 1)),
    }


def _table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Roots of means, and the noise over the mean: smooth down to 0, where it is 2."""
    roots = np.arange(0, _LAST + _STEP, _STEP)
    counts = np.arange(200)
    means = roots[1:, None] ** 2
    chances = np.exp(xlogy(counts, means) - gammaln(counts + 1) - means)
    mean_of_root = (chances * np.sqrt(counts)).sum(axis=1)
    return roots, np.concatenate([[2.0], 2 - 2 * mean_of_root / roots[1:]])


_TABLE = _table()
