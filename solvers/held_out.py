"""Held-out frames: a few that the fit never sees, so that the error on them is an honest one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from ptyplugin.model import SolverError
from ptyplugin.solvers.batches import hilbert_order

#: Share of the frames that is held out if nobody says otherwise.
SHARE = 0.03
#: Of fewer frames none is held out: each is needed.
_FEWEST = 50
_MOST = 0.5


def check_share(share: float) -> None:
    """Raise a SolverError for a share of frames that cannot be held out."""
    if not 0 <= share <= _MOST:
        raise SolverError(f"held_out = {share:g}: give the share of the frames that the fit must not see, 0 .. {_MOST}.")


def frames_to_hold_out(positions_m: NDArray[np.float64], share: float) -> NDArray[np.int64]:
    """Numbers of the frames that are held out, in ascending order; the same for the same scan.

    They are spread over the scan, equally spaced along a Hilbert curve through its inner part: what a frame at the border shows is
    not all known from its neighbours. None of fewer than 50 frames, and none of a scan along one line.

    positions_m: (frame, yx) m, of all frames of the scan
    """
    inner = _inner(positions_m) if share and len(positions_m) >= _FEWEST else np.empty(0, np.int64)
    if not len(inner):
        return inner
    count = min(int(np.ceil(share * len(positions_m))), len(inner))
    along = inner[hilbert_order(positions_m[inner])]
    return np.sort(along[((np.arange(count) + 0.5) * len(along) / count).astype(np.int64)])


def held_out_last(numbers: NDArray[np.int64], held_out: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """The frames ``numbers`` of a rank with those held out behind the others, and how many the others are."""
    out = np.isin(numbers, held_out)
    return np.concatenate([numbers[~out], numbers[out]]), int(np.count_nonzero(~out))


def _inner(positions_m: NDArray[np.float64]) -> NDArray[np.int64]:
    """Frames that lie deeper inside the scan's convex hull than the mean distance of neighbours."""
    span = float(np.ptp(positions_m, axis=0).max())
    places = (positions_m - positions_m.mean(axis=0)) / span
    try:
        hull = ConvexHull(places)
    except QhullError:
        return np.empty(0, np.int64)
    depth = -(places @ hull.equations[:, :2].T + hull.equations[:, 2]).max(axis=1)
    return np.flatnonzero(depth > np.sqrt(hull.volume / len(places))).astype(np.int64)
