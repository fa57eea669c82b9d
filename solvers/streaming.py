"""Counts that stay where they are stored, for scans larger than memory: read when needed, the next ones while these are worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = slice | NDArray[np.int64]
Read = Callable[[NDArray[np.int64]], NDArray[Any]]
ReadLater = Callable[[NDArray[np.int64]], Future[NDArray[Any]]]

#: Pixels of what is read at once, 1024 frames of 128 x 128 px, but so many frames at least: threads share them.
PIECE_PIXELS, _FEWEST = 2**24, 16
#: Pieces that there are at the same time: one in use, one just left, one that is coming.
PIECES = 3


class StoredCounts:
    """Prepared counts (frame, y, x) of one rank, for those who would use their array: length, shape, dtype, iteration, indexing.

    A part of them (``counts[3:7]``, ``counts[numbers]``) is still stored; one frame (``counts[3]``) and ``np.asarray(counts)`` are read.
    One thread reads, since HDF5 does not read in parallel.

    Args:
        read: the prepared counts of frames of the scan, by their numbers.
        numbers: (frame,) of the scan.
        shape: (y, x) of a prepared frame.
        dtype: of prepared counts.
        reader: the thread that reads; a new one if None.
    """

    def __init__(
        self,
        read: Read,
        numbers: NDArray[np.int64],
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        reader: ThreadPoolExecutor | None = None,
    ) -> None:
        self._read, self._numbers = read, numbers
        self.shape, self.dtype = (len(numbers), *shape), dtype
        self._reader = reader or ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):  # from 0 on
            return self._later(self._numbers[index : index + 1]).result()[0]
        return StoredCounts(self._read, self._numbers[index], (self.shape[1], self.shape[2]), self.dtype, self._reader)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        size = piece_frames((self.shape[1], self.shape[2]))
        for piece in self.readings([slice(start, start + size) for start in range(0, len(self), size)]):
            yield from piece.array()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self._later(self._numbers).result().astype(dtype or self.dtype, copy=False)

    def readings(self, wanted: Sequence[Index]) -> Iterator[Reading]:
        """What stands for these frames, one after the other. When one is read, so are some of those that come next."""
        ahead = _Ahead(self._later, [self._numbers[index] for index in wanted], piece_frames((self.shape[1], self.shape[2])))
        return (Reading(ahead, number) for number in range(len(wanted)))

    def _later(self, numbers: NDArray[np.int64]) -> Future[NDArray[Any]]:
        return self._reader.submit(self._read, numbers)


class Reading:
    """Counts that are read when somebody looks at them, and kept as long as this is."""

    __slots__ = ("_ahead", "_array", "_number")

    def __init__(self, ahead: _Ahead, number: int) -> None:
        self._ahead, self._number = ahead, number
        self._array: NDArray[Any] | None = None

    def array(self) -> NDArray[Any]:
        """(frame, y, x)"""
        if self._array is None:
            self._array = self._ahead.read(self._number)
        return self._array


class _Ahead:
    """Readings in the order in which they will be wanted: read in pieces of several, one piece ahead of the one in use."""

    def __init__(self, later: ReadLater, wanted: list[NDArray[np.int64]], most_frames: int) -> None:
        self._later, self._wanted = later, wanted
        self._starts = np.cumsum([0, *map(len, wanted)])
        self._edges = _edges(self._starts.tolist(), most_frames)
        self._coming: dict[int, Future[NDArray[Any]]] = {}

    def read(self, number: int) -> NDArray[Any]:
        """The counts of reading ``number``."""
        piece = int(np.searchsorted(self._edges, number, side="right")) - 1
        near = range(piece, min(piece + 2, len(self._edges) - 1))
        self._coming = {each: self._coming.get(each) or self._begun(each) for each in near}
        start = self._starts[number] - self._starts[self._edges[piece]]
        return self._coming[piece].result()[start : start + len(self._wanted[number])]

    def _begun(self, piece: int) -> Future[NDArray[Any]]:
        return self._later(np.concatenate(self._wanted[self._edges[piece] : self._edges[piece + 1]]))


def piece_frames(shape: tuple[int, int]) -> int:
    """How many frames of ``shape`` are read at once."""
    return max(_FEWEST, PIECE_PIXELS // (shape[0] * shape[1]))


def block_frames(count: int, shape: tuple[int, int]) -> int:
    """Into blocks of how many frames ``count`` frames of ``shape`` are cut: as few as are read at once, and about equal."""
    return max(1, -(-count // max(1, -(-count // piece_frames(shape)))))


def _edges(starts: Sequence[int], most: int) -> list[int]:
    """Where pieces begin, and the end: each holds at most ``most`` frames, or one reading.

    starts: first frame of each reading, and the end of the last
    """
    edges = [0]
    for number in range(1, len(starts) - 1):
        if starts[number + 1] - starts[edges[-1]] > most:
            edges.append(number)
    return [*edges, len(starts) - 1]
