"""The part of the ``cpu`` verbs that is about each frame alone; shapes as in cpu_kernels, complex ``weights`` (2 frames,)."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cpu_kernels import Floats, _compiled, _modulus
from ptyplugin.solvers.verbs.cpu_program import Array, Corners, Sum


@_compiled
def spread(j: int, num: Floats, at: NDArray[np.int32], psi: Floats, weights: Floats, P: Floats) -> None:
    """num[at_j] += weight_j sum_m P_m* psi_jm"""
    substeps, modes, rows, columns = at.shape[1], num.shape[0], P.shape[2], P.shape[3] // 2
    scale, h = np.float32(1 / math.sqrt(substeps)), min(j, psi.shape[0] - 1)
    e, f = scale * weights[2 * j], scale * weights[2 * j + 1]
    for s in range(substeps):
        y, x = at[j, s, 0], 2 * at[j, s, 1]
        for k in range(modes):
            for r in range(rows):
                total = num[k, y + r, x : x + 2 * columns]
                for m in range(P.shape[0]):
                    p, wave = P[m, min(s, P.shape[1] - 1), r], psi[h, (m * modes + k) * substeps + s, r]
                    for c in range(columns):
                        g, i, u, v = p[2 * c], p[2 * c + 1], wave[2 * c], wave[2 * c + 1]
                        a, b = g * u + i * v, g * v - i * u
                        total[2 * c] += e * a - f * b
                        total[2 * c + 1] += e * b + f * a


@_compiled
def gather(j: int, products: NDArray[np.float64], psi: Floats, O: Floats, P: Floats, corners: NDArray[np.int32]) -> None:
    """products_j = sum of psi_j* P O_j; products (frame, real and imaginary part)"""
    substeps, modes, rows, columns = corners.shape[1], O.shape[0], P.shape[2], P.shape[3] // 2
    h, real, imaginary = min(j, psi.shape[0] - 1), 0.0, 0.0
    for m in range(P.shape[0]):
        for s in range(substeps):
            y, x = corners[j, s, 0], 2 * corners[j, s, 1]
            for k in range(modes):
                n = (m * modes + k) * substeps + s
                for r in range(rows):
                    p, o, wave = P[m, min(s, P.shape[1] - 1), r], O[k, y + r, x : x + 2 * columns], psi[h, n, r]
                    even, odd = np.float32(0), np.float32(0)
                    for c in range(columns):
                        a, b, u, v = p[2 * c], p[2 * c + 1], o[2 * c], o[2 * c + 1]
                        g, i = a * u - b * v, a * v + b * u
                        even += wave[2 * c] * g + wave[2 * c + 1] * i
                        odd += wave[2 * c] * i - wave[2 * c + 1] * g
                    real += float(even)
                    imaginary += float(odd)
    products[j, 0], products[j, 1] = real / math.sqrt(substeps), imaginary / math.sqrt(substeps)


@_compiled
def powers(j: int, power: NDArray[np.float64], psi: Floats) -> None:
    """power_j = sum |psi_j|^2"""
    h, total = min(j, psi.shape[0] - 1), 0.0
    for n in range(psi.shape[1]):
        for r in range(psi.shape[2]):
            wave, part = psi[h, n, r], np.float32(0)
            for c in range(psi.shape[3]):
                part += wave[c] * wave[c]
            total += float(part)
    power[j] = total


@_compiled
def turn(j: int, psi: Floats, phases: Floats) -> None:
    """psi_j <- phase_j psi_j"""
    a, b = phases[2 * j], phases[2 * j + 1]
    for n in range(psi.shape[1]):
        for r in range(psi.shape[2]):
            wave = psi[j, n, r]
            for c in range(psi.shape[3] // 2):
                u, v = wave[2 * c], wave[2 * c + 1]
                wave[2 * c] = a * u - b * v
                wave[2 * c + 1] = a * v + b * u


@_compiled
def model_counts(j: int, counts: Floats, A: Floats, roots: Floats, background: Floats) -> None:
    """counts_j = root_j^2 sum_m |A_jm|^2 + background; roots, background as in _modulus"""
    for r in range(A.shape[2]):
        row = counts[j, r]
        _modulus(j, row, A, r, roots, background)
        for c in range(row.size):
            row[c] *= row[c]


class FrameVerbs:
    """The part of CpuVerbs that is about each frame alone."""

    _admit: Any
    _do: Any
    _moved: Any
    _light_of: Any

    def spread(self, num: Array, psi: Array, weights: Array, P: Array, b: Batch) -> None:
        self._admit(b, frames=(psi,), reads=(P,), adds=(num,))
        total = Sum(num, b.corners, b.good.shape)
        self._do(b, spread, total, Corners(total), psi, weights.astype(np.complex64), self._moved(P, b))

    def gather(self, psi: Array, O: Array, P: Array, b: Batch) -> Array:
        products = np.zeros((len(b), 2))
        self._admit(b, frames=(psi,), reads=(O, P))
        self._do(b, gather, products, psi, O, self._moved(P, b), b.corners)
        return products.view(np.complex128)[:, 0]

    def frame_powers(self, psi: Array, b: Batch) -> Array:
        power = np.zeros(len(b))
        self._admit(b, frames=(psi,))
        self._do(b, powers, power, psi)
        return power

    def frame_phases(self, psi: Array, phases: Array, b: Batch) -> None:
        self._admit(b, frames=(psi,))
        self._do(b, turn, psi, phases.astype(np.complex64))

    def model_counts(self, A: Array, b: Batch) -> Array:
        counts = np.zeros((len(b), *b.good.shape), dtype=np.float32)
        self._admit(b, frames=(A,))
        self._do(b, model_counts, counts, A, *self._light_of(b))
        return counts
