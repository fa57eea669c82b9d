"""Copies of documents, so that whoever made them may change theirs, in a time that the RunEngine does not notice.

bluesky hands the same document to all subscribers, and its own (BufferingWrapper) keep it without a copy. A device may all the same
fill its array anew for the next point: only a copy made before the call returns is safe.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PLAIN = frozenset({str, int, float, bool, type(None)})
#: Arrays from this size on, bytes, are copied into memory from the stock: the system gives it afresh for each, and the first touch of
#: its pages costs ten times as much as the copy.
_SMALLEST = 128 << 10
_LARGEST = 16 << 20
#: How much is in stock for arrays of one size: bytes, and pieces at the least and at the most.
_STOCK, _FEWEST, _MOST = 8 << 20, 2, 16
#: Sizes that have a stock; of more the one that was wanted least lately loses it.
_MOST_SIZES = 4


class Copier:
    """Copies documents; ``refill``, called by another thread now and then, makes copies of large arrays cheap."""

    def __init__(self) -> None:
        self._stock: dict[int, deque[NDArray[np.uint8]]] = {}

    def __call__(self, value: Any) -> Any:
        """A copy of the dictionaries, lists and arrays in ``value``. A row of numbers is copied at once."""
        if isinstance(value, dict):
            return {key: item if type(item) in _PLAIN else self(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            if value and type(value[0]) in (int, float):
                return list(value)
            return [item if type(item) in _PLAIN else self(item) for item in value]
        return self._array(value) if isinstance(value, np.ndarray) else value

    def refill(self) -> None:
        """Take memory for the next arrays, and touch it."""
        for size, pieces in list(self._stock.items()):
            for _ in range(min(max(_STOCK // size, _FEWEST), _MOST) - len(pieces)):
                piece = np.empty(size, np.uint8)
                # Writing lets the other threads run.
                piece.fill(0)
                pieces.append(piece)

    def _array(self, array: NDArray[Any]) -> NDArray[Any]:
        piece = self._piece(array.nbytes) if type(array) is np.ndarray and not array.dtype.hasobject else None
        if piece is None:
            return array.copy()
        copy = piece.view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy

    def _piece(self, size: int) -> NDArray[np.uint8] | None:
        if not _SMALLEST <= size <= _LARGEST:
            return None
        # The size that was wanted last stands last, the first one goes.
        pieces = self._stock[size] = self._stock.pop(size, deque())
        if len(self._stock) > _MOST_SIZES:
            self._stock.pop(next(iter(self._stock)), None)
        try:
            return pieces.popleft()
        except IndexError:
            return None
