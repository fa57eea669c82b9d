"""The part of the ``cpu`` verbs that is about the detector: background and intensity. Conventions of the loops as in ``cpu_kernels``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cpu_kernels import Floats, _compiled, _modulus
from ptyplugin.solvers.verbs.cpu_program import Array, Row, Sum


@_compiled
def background_sums(
    j: int, num: Floats, den: Floats, A: Floats, row: Floats, counts: Any, good: Floats, roots: Floats, background: Floats, floor: Any
) -> None:
    """num += (I_j - modulus^2) / v, den += 1 / v where good; v = modulus^2 + floor; num, den (y, x)"""
    for r in range(A.shape[2]):
        _modulus(j, row, A, r, roots, background)
        measured, believed, above, below = counts[j, r], good[r], num[r], den[r]
        for c in range(A.shape[3] // 2):
            model = row[c] * row[c]
            weight = believed[c] / (model + floor)
            # What a masked pixel holds may be anything.
            above[c] += weight * (np.float32(measured[c]) - model) if believed[c] > 0 else np.float32(0)
            below[c] += weight


@_compiled
def intensity_sums(
    j: int, sums: NDArray[np.float64], A: Floats, row: Floats, counts: Any, good: Floats, roots: Floats, background: Floats, floor: Any
) -> None:
    """sums_j = sum over good pixels of (I_j - modulus^2) a / v and of a^2 / v; a = modulus^2 - background, v = modulus^2 + floor"""
    above, below, none = 0.0, 0.0, np.empty((0, 0), np.float32)
    for r in range(A.shape[2]):
        _modulus(j, row, A, r, roots, none)
        measured, believed, residual, square = counts[j, r], good[r], np.float32(0), np.float32(0)
        for c in range(A.shape[3] // 2):
            a = row[c] * row[c]
            model = a + background[r, c]
            if believed[c] > 0:
                residual += (np.float32(measured[c]) - model) * a / (model + floor)
                square += a * a / (model + floor)
        above += float(residual)
        below += float(square)
    sums[j, 0], sums[j, 1] = above, below


class DetectorVerbs:
    """The part of CpuVerbs that is about background and intensity."""

    _admit: Any
    _do: Any
    _good_of: Any
    _light_of: Any

    def background_sums(self, num: Array, den: Array, A: Any, b: Batch, floor: float) -> None:
        self._admit(b, frames=(A,), adds=(num, den))
        shared = (Row(b.good.shape[1]), b.counts, self._good_of(b), *self._light_of(b), np.float32(floor))
        self._do(b, background_sums, Sum(num), Sum(den), A, *shared)

    def intensity_sums(self, A: Any, b: Batch, floor: float) -> Array:
        sums, (roots, _) = np.zeros((len(b), 2)), self._light_of(b)
        background = np.zeros(b.good.shape, np.float32) if b.background is None else b.background
        self._admit(b, frames=(A,))
        self._do(b, intensity_sums, sums, A, Row(b.good.shape[1]), b.counts, self._good_of(b), roots, background, np.float32(floor))
        return sums
