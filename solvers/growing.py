"""Counts that come bit by bit, kept as small as they can be."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class GrowingCounts:
    """An array of counts that is filled from its beginning: uint16 as long as nothing is lost by it, else float32.

    It never needs more than the memory of one array, and touches no more than what it holds.
    """

    def __init__(self, shape: tuple[int, ...], stored: np.dtype[Any]) -> None:
        """``stored``: type of what will come."""
        self._memory = np.empty(shape, counts_dtype(stored))
        self._counts: NDArray[Any] = self._memory.reshape(-1).view(np.uint16)[: self._memory.size].reshape(shape)
        self._filled = 0

    @property
    def there(self) -> NDArray[Any]:
        """The array."""
        return self._counts

    def add(self, chunk: NDArray[Any]) -> None:
        """Append ``chunk`` (some, ...)."""
        if self._counts is not self._memory and not fits_uint16(chunk):
            self._widen(len(chunk))
        self._counts[self._filled : self._filled + len(chunk)] = chunk
        self._filled += len(chunk)

    def _widen(self, step: int) -> None:
        """From the end, since what is wider lies further behind."""
        for start in reversed(range(0, self._filled, max(step, 1))):
            stop = min(start + step, self._filled)
            self._memory[start:stop] = self._counts[start:stop]
        self._counts = self._memory


def lengthened(array: NDArray[Any], count: int) -> NDArray[Any]:
    """An array that begins as ``array`` and has ``count`` rows, the new ones 0. Nobody may look at ``array`` or a part of it any more.

    Memory that it alone has is made longer where it lies, as far as the system can: mostly no row is copied, and none is there twice.
    """
    shape = (count, *array.shape[1:])
    if array.flags.owndata and array.flags.c_contiguous:
        array.resize(shape, refcheck=False)
        return array
    longer = np.zeros(shape, array.dtype)
    longer[: len(array)] = array
    return longer


def joined(counts: NDArray[Any], more: NDArray[Any]) -> NDArray[Any]:
    """Counts and more of them, of the type that both need; ``counts`` is used up as by ``lengthened``."""
    dtype = np.result_type(counts.dtype, more.dtype)
    start = counts.astype(dtype, copy=False)
    both = lengthened(start, len(counts) + len(more))
    both[len(both) - len(more) :] = more
    return both


def counts_dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    """What counts of this type need at most."""
    return np.dtype(np.uint16 if stored.kind in "biu" and stored.itemsize <= 2 else np.float32)


def fits_uint16(counts: NDArray[Any]) -> bool:
    """Whether nothing is lost by keeping counts, which are not negative, as uint16."""
    whole = counts.dtype.kind != "f" or not np.any(counts % 1)
    return counts.size == 0 or bool(whole and counts.max() <= np.iinfo(np.uint16).max)
