"""Detector frames through the catalog, where their file is not mounted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.catalog.arrays import REQUEST_BYTES, AheadOfCatalog, open_array
from ptyplugin.model import CatalogAway, CatalogError, FramesError, Site, TiledSource

#: Bytes between two frames that are fetched with them, as each rank has some frames of a range: one more request costs the server more.
BETWEEN_BYTES = 2**20


class CatalogFrames:
    """A ``model.Frames`` over an array (..., y, x) of a run: frames are numbered from 0 over all leading axes together.

    Raises:
        CatalogError: the catalog is away, or has no such run, or no such array of it (yet).
        FramesError: the array is none of frames.
    """

    mask: NDArray[np.uint8] | None = None

    def __init__(self, client: Any, site: Site, beamline: str, source: TiledSource) -> None:
        array, name = open_array(client, site, beamline, source), f"{source.stream}/{source.key} of run {source.run_uid}"
        if array is None or len(array.shape) < 3 or 0 in array.shape[-2:] or array.dtype.kind not in "uif":
            raise FramesError(f"{name} is no array of frames in the catalog: was its file's format known when the run was written?")
        self._array = array
        self._axis = self._request_axis()
        self._per_row = prod(array.shape[self._axis + 1 : -2])

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (y, x) of one frame."""
        y, x = self._array.shape[-2:]
        return y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the counts."""
        return self._array.dtype

    def __len__(self) -> int:
        return prod(self._array.shape[:-2])

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        """Counts (frame, y, x) of these frames, in this order; neighbours are fetched together.

        Raises:
            FramesError: there are no such frames, or the catalog does not give them.
            CatalogAway: it has gone away on the way.
            CatalogError: it gives no frame now, since their file goes on.
        """
        frames = np.asarray(frames, dtype=np.int64)
        if frames.size and not (frames.min() >= 0 and frames.max() < len(self)):
            raise FramesError(f"{self._array.name} has {len(self)} frames; frames {frames.min()}..{frames.max()} were asked for.")
        rows = frames // self._per_row
        counts = np.empty((frames.size, *self.shape), self.dtype)
        for begin, end in self._requests(np.unique(rows)):
            here = (begin <= rows) & (rows < end)
            counts[here] = self._fetch(begin, end)[frames[here] - begin * self._per_row]
        return counts

    def _request_axis(self) -> int:
        """The first axis along which a request takes a range and all of those behind it, as one step of it is not too much."""
        sizes = (prod(self._array.shape[axis + 1 :]) * self.dtype.itemsize for axis in range(len(self._array.shape) - 2))
        return next((axis for axis, size in enumerate(sizes) if size <= REQUEST_BYTES), len(self._array.shape) - 3)

    def _requests(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Half-open ranges that hold ``rows`` (sorted, numbered over all axes up to the one of requests together), and little else.

        None is above REQUEST_BYTES, but for a single frame, and none goes beyond the end of its axis.
        """
        length, row_bytes = self._array.shape[self._axis], self._per_row * prod(self.shape) * self.dtype.itemsize
        most = max(1, REQUEST_BYTES // row_bytes)
        gaps = np.flatnonzero(np.diff(rows) > 1 + BETWEEN_BYTES // row_bytes) + 1
        for first, last in pairwise([0, *gaps.tolist(), len(rows)] if len(rows) else []):
            begin, stop = int(rows[first]), int(rows[last - 1]) + 1
            while begin < stop:
                end = min(begin + most, stop, (begin // length + 1) * length)
                yield begin, end
                begin = end

    def _fetch(self, begin: int, end: int) -> NDArray[Any]:
        *above, first = (int(place) for place in np.unravel_index(begin, self._array.shape[: self._axis + 1]))
        try:
            block = self._array.part(*((place, place + 1) for place in above), (first, first + end - begin))
        except CatalogAway:
            raise
        except AheadOfCatalog as error:
            # Worth another try, of all frames together; the name of this class means nothing to who hears of it.
            raise CatalogError(str(error)) from error
        except CatalogError as error:
            raise FramesError(f"frames of {self._array.name} cannot be read through the catalog: {error}") from error
        return block.reshape(-1, *self.shape)
