"""Where the growing image of a job lies in the catalog: an array there keeps its shape, so it is larger than the image at first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Snapshot

#: Room around the first image, as a share of its side, and at the least, pixels; and how much is added where it was outgrown.
MARGIN, LEAST_MARGIN_PX, ADDED = 0.1, 16, 0.5
#: Announced limits of a scan that would need a larger canvas are not believed, pixels.
LARGEST_PX = 8192
#: Pixels are of the same size up to this.
_ALIKE = 1e-6

#: Lowest and highest position (y, x), metres.
Extent = tuple[tuple[float, float], tuple[float, float]]
_Px = NDArray[np.int_]


@dataclass(frozen=True, slots=True)
class Canvas:
    """shape: (y, x); pixel_m: (y, x); origin_m: (y, x) position of a patch whose first pixel is [0, 0] of the canvas."""

    shape: tuple[int, int]
    pixel_m: tuple[float, float]
    origin_m: tuple[float, float]

    def corner(self, snapshot: Snapshot) -> tuple[int, int] | None:
        """Where the snapshot's first (row, column) lies; None if it does not fit, or its pixels are of another size."""
        if not np.allclose(self.pixel_m, snapshot.pixel_m, rtol=_ALIKE, atol=0.0):
            return None
        row, column = _pixels(snapshot.origin_m, self.origin_m, self.pixel_m)
        fits = row >= 0 and column >= 0 and row + snapshot.object.shape[0] <= self.shape[0]
        return (row, column) if fits and column + snapshot.object.shape[1] <= self.shape[1] else None


def canvas_for(snapshot: Snapshot, extent_m: Extent | None = None, before: Canvas | None = None) -> Canvas:
    """A canvas with room for the snapshot and for what comes after it.

    extent_m: lowest and highest position (y, x) that was announced, if it is known
    before: the canvas that it has outgrown; it is part of the new one, which has more room where it was too small
    """
    low, high = np.zeros(2, dtype=np.int_), np.array(snapshot.object.shape, dtype=np.int_)
    if before is not None and np.allclose(before.pixel_m, snapshot.pixel_m, rtol=_ALIKE, atol=0.0):
        first = np.array(_pixels(before.origin_m, snapshot.origin_m, snapshot.pixel_m))
        last = first + before.shape
        room = np.maximum(LEAST_MARGIN_PX, np.ceil(ADDED * (np.maximum(high, last) - np.minimum(low, first)))).astype(int)
        low, high = np.where(low < first, low - room, first), np.where(high > last, high + room, last)
    else:
        low, high = _with_announced(snapshot, extent_m, low, high)
        room = np.maximum(LEAST_MARGIN_PX, np.ceil(MARGIN * (high - low))).astype(int)
        low, high = low - room, high + room
    origin = np.array(snapshot.origin_m) + low * np.array(snapshot.pixel_m)
    shape = (int(high[0] - low[0]), int(high[1] - low[1]))
    return Canvas(shape, snapshot.pixel_m, (float(origin[0]), float(origin[1])))


def _with_announced(snapshot: Snapshot, extent_m: Extent | None, low: _Px, high: _Px) -> tuple[_Px, _Px]:
    if extent_m is None:
        return low, high
    first, last = (np.array(_pixels(at, snapshot.origin_m, snapshot.pixel_m)) for at in extent_m)
    last += snapshot.probe.shape[-2:]
    # Plans that move relative to where they stand announce it relative, too: then the image is somewhere else.
    keeps_to_it = (first <= low + LEAST_MARGIN_PX).all() and (last >= high - LEAST_MARGIN_PX).all()
    return (np.minimum(low, first), np.maximum(high, last)) if keeps_to_it and (last - first).max() <= LARGEST_PX else (low, high)


def _pixels(at_m: tuple[float, float], origin_m: tuple[float, float], pixel_m: tuple[float, float]) -> tuple[int, int]:
    """The nearest (row, column) of a position on a grid."""
    row, column = ((at - origin) / pixel for at, origin, pixel in zip(at_m, origin_m, pixel_m, strict=True))
    return round(row), round(column)
