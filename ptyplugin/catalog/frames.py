"""Detector frames through the catalog, where their file is not mounted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from tiled.structures.core import StructureFamily

from ptyplugin.catalog.connection import catalog_errors, family
from ptyplugin.catalog.runs import find_run
from ptyplugin.model import CatalogAway, CatalogError, FramesError, Site, TiledSource

#: Bytes asked for at once: large enough to fill the line, small beside a worker's memory.
REQUEST_BYTES = 32 * 2**20
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
        run = find_run(client, site, beamline, source.run_uid)
        self._name = f"{source.stream}/{source.key} of run {source.run_uid}"
        with catalog_errors(f"open {self._name}"):
            try:
                array = run[source.stream, source.key]
            except KeyError as error:
                raise CatalogError(f"the catalog has no {self._name}: has the run been written to the end?") from error
        if family(array) != StructureFamily.array or len(array.shape) < 3:
            raise FramesError(f"{self._name} is no array of frames in the catalog: was its file's format known when the run was written?")
        self._array = array

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (y, x) of one frame."""
        y, x = self._array.shape[-2:]
        return int(y), int(x)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the counts."""
        dtype: np.dtype[Any] = self._array.dtype
        return dtype

    def __len__(self) -> int:
        return prod(self._array.shape[:-2])

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        """Counts (frame, y, x) of these frames, in this order; neighbours are fetched together.

        Raises:
            FramesError: there are no such frames, or the catalog does not give them.
            CatalogAway: it has gone away on the way.
        """
        frames = np.asarray(frames, dtype=np.int64)
        if frames.size and not (frames.min() >= 0 and frames.max() < len(self)):
            raise FramesError(f"{self._name} has {len(self)} frames; frames {frames.min()}..{frames.max()} were asked for.")
        per_row = prod(self._array.shape[1:-2])
        rows = frames // per_row
        counts = np.empty((frames.size, *self.shape), self.dtype)
        for begin, end in self._requests(np.unique(rows)):
            here = (begin <= rows) & (rows < end)
            counts[here] = self._fetch(begin, end)[frames[here] - begin * per_row]
        return counts

    def _requests(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Half-open ranges along the first axis that hold ``rows`` (sorted), and little else; none above REQUEST_BYTES."""
        row_bytes = prod(self._array.shape[1:]) * self.dtype.itemsize
        most = max(1, REQUEST_BYTES // row_bytes)
        gaps = np.flatnonzero(np.diff(rows) > 1 + BETWEEN_BYTES // row_bytes) + 1
        for first, last in pairwise([0, *gaps.tolist(), len(rows)] if len(rows) else []):
            for begin in range(int(rows[first]), int(rows[last - 1]) + 1, most):
                yield begin, min(begin + most, int(rows[last - 1]) + 1)

    def _fetch(self, begin: int, end: int) -> NDArray[Any]:
        try:
            with catalog_errors(f"read frames of {self._name}"):
                block = self._array[begin:end]
        except CatalogAway:
            raise
        except (CatalogError, httpx.HTTPError, KeyError, ValueError) as error:
            raise FramesError(f"frames of {self._name} cannot be read through the catalog: {error}") from error
        return np.asarray(block).reshape(-1, *self.shape)
