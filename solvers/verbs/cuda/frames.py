"""The part of CudaVerbs that is about each frame alone, and about whole arrays between sweeps."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cuda.base import BLOCKS, MOST_BLOCKS, blocks_for, parts, sides_of
from ptyplugin.solvers.verbs.cuda.device import NULL, Array
from ptyplugin.solvers.verbs.cuda.frame_sums import FrameSums
from ptyplugin.solvers.verbs.cuda.half import HalfWaves, is_half

#: Of the copy that an array is rolled from, bytes: all waves may fill the memory.
_ROLLED_BYTES = 2**28


class FrameVerbs(FrameSums):
    """See ptyplugin.solvers.verbs.Verbs for the equations."""

    _detector: Any
    _model: Any
    _onto_object: Any

    def spread(self, num: Array, psi: Any, weights: NDArray[np.complex128], P: Array, b: Batch) -> None:
        self._settle()
        array, owed = parts(psi)
        if len(b):
            self._onto_object(num, NULL, array, owed, P, b, self.device.put(weights.astype(np.complex64)))

    def gather(self, psi: Any, O: Array, P: Array, b: Batch) -> NDArray[np.complex128]:
        self._settle()
        array, owed = parts(psi)
        sums = self._frame_sums("gather", self._placing.placed(b), 2, array, *self._model(O, P, b), PSI_HALF=is_half(array))
        return owed * sums.view(np.complex128)[:, 0]

    def frame_powers(self, psi: Any, b: Batch) -> NDArray[np.float64]:
        self._settle()
        array, owed = parts(psi)
        each = np.int64(array.shape[1] * array.shape[2] * array.shape[3])
        return owed**2 * self._frame_sums("frame_powers", self._placing.placed(b), 1, array, each, PSI_HALF=is_half(array))[:, 0]

    def frame_phases(self, psi: Any, phases: NDArray[np.complex128], b: Batch) -> None:
        self._settle()
        array, _ = parts(psi)
        if len(b):
            each = array.shape[1] * array.shape[2] * array.shape[3]
            by = self.device.put(phases.astype(np.complex64))
            self._run("frame_phases", (blocks_for(each), len(b)), array, by, np.int64(each), PSI_HALF=is_half(array))

    def model_counts(self, A: Any, b: Batch) -> NDArray[np.float32]:
        self._settle()
        p, (array, owed) = self._placing.placed(b), parts(A)
        counts = self._new((p.count, *p.shape), np.float32)
        self._run("model_counts", self._over_frames(p), counts, array, *self._detector(array, owed, p), COUNTS_FLOAT=p.is_float)
        return self.device.get(counts)

    def frame_residuals(self, A: Any, b: Batch) -> NDArray[np.float64]:
        self._settle()
        p, (array, owed) = self._placing.placed(b), parts(A)
        partials = self._new((p.count, blocks_for(p.pixels), 1), np.float64)
        arguments = array, partials, *self._detector(array, owed, p)
        self._run("modulus_residual", self._over_frames(p), *arguments, COUNTS_FLOAT=p.is_float)
        return self._added(partials)[:, 0]

    def all_finite(self, *X: Any) -> bool:
        self._settle()
        found = self._new((len(X), BLOCKS), np.float32)
        for number, each in enumerate(X):
            array = each.halves if isinstance(each, HalfWaves) else self._array(each)
            numbers = array if array.flags.c_contiguous else self._copy(array)
            numbers = numbers.view(np.float32) if array.dtype == np.complex64 else numbers
            self._run("all_finite", (BLOCKS,), found[number], numbers, np.int64(numbers.size), PSI_HALF=is_half(numbers))
        return not self.device.get(found).any()

    def roll(self, X: Any, shift: tuple[int, int]) -> None:
        self._settle()
        (rows, columns), (array, _) = X.shape[-2:], parts(X)
        layers = array.reshape((X.size // (rows * columns), rows, columns, *array.shape[X.ndim :]))
        size = min(max(1, _ROLLED_BYTES // (rows * columns * X.dtype.itemsize)), MOST_BLOCKS, len(layers))
        before = self._new((size, *layers.shape[1:]), layers.dtype)
        by = np.int32(shift[0] % rows), np.int32(shift[1] % columns)
        for start in range(0, len(layers), max(size, 1)):
            part = layers[start : start + size]
            self.device.fill(before[: len(part)], part)
            self._run("roll", (blocks_for(rows * columns), len(part)), part, before, *sides_of(X), *by, PSI_HALF=is_half(array))
        self._written(array)
