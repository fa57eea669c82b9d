"""Frames that were taken where the scan should not be: the stage was on its way, settled at the begin of a line, or stood still."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Lowest and highest (yx), metres.
Extent = tuple[tuple[float, float], tuple[float, float]]

#: Most frames of a scan lie between these shares of each coordinate; what is beyond them by more than they span is no part of it.
_INNER = 0.1, 0.9
#: Share of the frames that keep to what was announced, at least: of lines that settle for long they may be few.
_KEEP = 0.2
#: Frames that cover so much more than was announced are not all of the scan.
_MORE = 1.5
#: Of fewer frames nobody can say what the scan is.
_FEWEST = 9
#: An axis went on if this share of what it covers is new ground: the last line of a grid adds nothing to the others.
_NEW_GROUND = 0.25
#: An axis is scanned if it covers this share of what the other one does: across a single line a stage drifts, or comes to rest.
_SCANNED = 0.1


def far_outside(positions_m: NDArray[np.float64], announced_m: Extent | None = None) -> NDArray[np.bool_]:
    """Which frames lie farther outside of the scan than it is long, (frame,).

    positions_m: (frame, yx) m
    announced_m: lowest and highest (yx) that the scan announced, m; believed if enough frames keep to it. Else the scan is where most are.
    """
    if len(positions_m) >= _FEWEST and np.isfinite(positions_m).all():
        first = np.quantile(positions_m, _INNER[0], axis=0, method="higher")
        most = first, np.quantile(positions_m, _INNER[1], axis=0, method="lower")
        # Where most cover hardly more than was announced, they are the scan: it may have announced its way from where it began.
        is_told = announced_m is not None and _MORE * _length_m(*announced_m) < _length_m(*most)
        for low, high in (np.asarray(announced_m if is_told else most), most):
            far = np.asarray(np.maximum(low - positions_m, positions_m - high).max(axis=1) > _length_m(low, high))
            if _length_m(low, high) > 0 and far.mean() <= 1 - _KEEP:
                return far
    return np.zeros(len(positions_m), dtype=bool)


def _length_m(low: ArrayLike, high: ArrayLike) -> float:
    return float(np.subtract(high, low).max())


def standing_still(positions_m: NDArray[np.float64], least_m: float) -> str:
    """A sentence if one axis of those scanned stood still to the end, while the other went where it had not been before; else nothing.

    positions_m: (frame, yx) m, in their order; least_m: what counts as a move
    """
    for axis, name in enumerate("yx"):
        own, other = positions_m[:, axis], positions_m[:, 1 - axis]
        moves = np.flatnonzero(np.abs(own - own[-1]) > least_m)
        if not len(moves) or len(own) - 1 - moves[-1] < _FEWEST or np.ptp(own) < _SCANNED * np.ptp(other):
            continue
        before, after = other[: moves[-1] + 1], other[moves[-1] + 1 :]
        new_m = max(after.max() - before.max(), before.min() - after.min())
        if new_m > max(least_m, _NEW_GROUND * np.ptp(other)):
            return f"{name} stood still during the last {len(after)} of {len(own)} frames, and {'xy'[axis]} went on: was a motor stalled?"
    return ""


def width_of_line(positions_m: NDArray[np.float64]) -> tuple[float, float]:
    """Length and width of what the positions (frame, yx) cover, along and across its longest direction, metres."""
    centred = positions_m - positions_m.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    across, along = np.ptp(centred @ directions, axis=0)
    return float(along), float(across)
