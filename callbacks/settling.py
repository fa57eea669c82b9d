"""Frames that were taken far away from the scan: while the stage came from where it was parked, or settled at the begin of a line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Most frames of a scan lie between these shares of each coordinate; what is beyond them by more than they span is no part of it.
_INNER = 0.1, 0.9
#: Of fewer frames nobody can say what the scan is.
_FEWEST = 9


def far_outside(positions_m: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which frames lie farther outside of the others than the scan is long, (frame,).

    positions_m: (frame, yx) m
    """
    if len(positions_m) < _FEWEST or not np.isfinite(positions_m).all():
        return np.zeros(len(positions_m), dtype=bool)
    low = np.quantile(positions_m, _INNER[0], axis=0, method="higher")
    high = np.quantile(positions_m, _INNER[1], axis=0, method="lower")
    length = float((high - low).max())
    if length <= 0:
        return np.zeros(len(positions_m), dtype=bool)
    beyond = np.maximum(low - positions_m, positions_m - high)
    return np.asarray(beyond.max(axis=1) > length)


def width_of_line(positions_m: NDArray[np.float64]) -> tuple[float, float]:
    """Length and width of what the positions (frame, yx) cover, along and across its longest direction, metres."""
    centred = positions_m - positions_m.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    across, along = np.ptp(centred @ directions, axis=0)
    return float(along), float(across)
