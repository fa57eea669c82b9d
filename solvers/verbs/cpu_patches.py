"""Sums into an object by patches: for batches that are small beside the object.

Threads that add their frames to copies of the object pay for clearing and adding the copies. Where a batch is small beside them, what each
frame adds is laid down instead, and each thread adds all of that to a band of rows of its own. Conventions as in ``cpu_kernels``.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cpu_kernels import Corners, Floats, _compiled, coverage_sums, object_sums
from ptyplugin.solvers.verbs.cpu_program import Array, Crew, floats

#: Patches of a batch have so many pixels at most: more leave the cache.
#: A program does as many in one round, after which all are added.
_MOST_PIXELS = 2**22


@_compiled
def lay_waves(j: int, patches: Floats, inner: Corners, psi: Floats, P: Floats) -> None:
    """patches_j = sum_m P_m* psi_jm; patches (frame, object mode, y, 2 x), inner: corners in them"""
    patches[j] = 0
    object_sums(j, patches[j], inner, psi, P)


@_compiled
def lay_light(j: int, patches: Floats, inner: Corners, power: Floats) -> None:
    """patches_j = power / substeps; patches (frame, y, x)"""
    patches[j] = 0
    coverage_sums(j, patches[j], inner, power)


@_compiled
def add_band(first: int, stop: int, total: Floats, low: Corners, sides: Corners, patches: Floats, numbers: int) -> None:
    """total[low_j] += patches_j for all j, in rows first .. stop; total (mode, Y, numbers X), patches (frame, mode, y, numbers x)"""
    for j in range(patches.shape[0]):
        y, x, columns = low[j, 0], numbers * low[j, 1], numbers * sides[j, 1]
        for k in range(patches.shape[1]):
            for r in range(max(first - y, 0), min(stop - y, sides[j, 0])):
                row, patch = total[k, y + r, x : x + columns], patches[j, k, r]
                for c in range(columns):
                    row[c] += patch[c]


@dataclass(frozen=True, slots=True)
class Patches:
    """Where the patches of a batch lie: low (frame, yx) first pixel, sides (frame, yx), inner (frame, substep, yx) corners in them."""

    low: NDArray[np.int32]
    sides: NDArray[np.int32]
    inner: NDArray[np.int32]

    def room(self, crew: Crew, name: tuple[str, int], modes: int, dtype: Any) -> Array:
        """(frame, mode, y, x), kept from batch to batch."""
        rows, columns = self.sides.max(axis=0).tolist()
        return crew.threads[0].scratch(name, (len(self.low), modes, rows, columns), dtype)

    def add(self, crew: Crew, total: Array, patches: Array) -> None:
        """total += patches, the threads side by side; total (mode, Y, X)"""
        first, stop = int(self.low[:, 0].min()), int((self.low + self.sides)[:, 0].max())
        count = len(crew.threads)
        bands = list(itertools.pairwise(first + (stop - first) * number // count for number in range(count + 1)))
        numbers = 2 if total.dtype == np.complex64 else 1
        crew.all_do(lambda band: add_band(*bands[band], floats(total), self.low, self.sides, floats(patches), numbers), count)


def patches_of(b: Batch) -> Patches:
    """The smallest rectangle of each frame that holds all its sub-steps."""
    low = b.corners.min(axis=1)
    sides = b.corners.max(axis=1) - low + np.array(b.good.shape, dtype=np.int32)
    return Patches(low, sides.astype(np.int32), np.ascontiguousarray(b.corners - low[:, None]))


def are_cheaper(b: Batch, threads: int) -> bool:
    """Whether patches of all frames take less than copies for all threads but the first, which are cleared, read and added."""
    count, shape = len(b), np.array(b.good.shape)
    if threads == 1 or not threads <= count <= _MOST_PIXELS // shape.prod():
        return False
    copies = 0
    for number in range(1, threads):
        corners = b.corners[count * number // threads : count * (number + 1) // threads]
        copies += int((np.ptp(corners, axis=(0, 1)) + shape).prod())
    return bool(count * shape.prod() < 2 * copies)
