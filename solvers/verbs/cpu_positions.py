"""The part of the ``cpu`` verbs that is about positions. Conventions of the loops as in ``cpu_kernels``."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs import cpu_kernels as kernels
from ptyplugin.solvers.verbs import cpu_moving
from ptyplugin.solvers.verbs.cpu_kernels import _ROOT_TINY, Floats, _compiled, _modulus
from ptyplugin.solvers.verbs.cpu_program import Array, FftOf, Row, backward, forward
from ptyplugin.solvers.verbs.positions import best_shifts, derivative


@_compiled
def position_gradient(
    j: int, sums: Any, A: Floats, Ay: Floats, Ax: Floats, row: Floats, counts: Any, good: Floats, roots: Floats, background: Floats
) -> None:
    """sums_j = sums over good pixels of y y, x x, y x, y r, x r, r r; r = sqrt(I) - modulus, y and x its derivatives

    row (3 x,) is scratch
    """
    i, g, h, columns = min(j, A.shape[0] - 1), min(j, Ay.shape[0] - 1), min(j, Ax.shape[0] - 1), A.shape[3] // 2
    moduli, along_y, along_x = row[:columns], row[columns : 2 * columns], row[2 * columns :]
    yy = xx = yx = yr = xr = rr = 0.0
    root = roots[min(j, roots.shape[0] - 1)]
    for r in range(A.shape[2]):
        _modulus(j, moduli, A, r, roots, background)
        along_y[:], along_x[:] = 0, 0
        for n in range(A.shape[1]):
            wave, down, right = A[i, n, r], Ay[g, n, r], Ax[h, n, r]
            for c in range(columns):
                along_y[c] += wave[2 * c] * down[2 * c] + wave[2 * c + 1] * down[2 * c + 1]
                along_x[c] += wave[2 * c] * right[2 * c] + wave[2 * c + 1] * right[2 * c + 1]
        measured, believed = counts[j, r], good[r]
        a = b = d = e = f = k = np.float32(0)
        for c in range(columns):
            weight = believed[c] * root * root / (moduli[c] + _ROOT_TINY)
            left = np.sqrt(np.float32(measured[c])) - moduli[c] if believed[c] > 0 else np.float32(0)
            y, x = weight * along_y[c], weight * along_x[c]
            a += y * y
            b += x * x
            d += y * x
            e += y * left
            f += x * left
            k += left * left
        yy += float(a)
        xx += float(b)
        yx += float(d)
        yr += float(e)
        xr += float(f)
        rr += float(k)
    sums[j, 0], sums[j, 1], sums[j, 2], sums[j, 3], sums[j, 4], sums[j, 5] = yy, xx, yx, yr, xr, rr


@_compiled
def move(j: int, w: Floats, shifts: Floats, scale: Any) -> None:
    """w_jn <- scale w_jn moved by shifts_jn, both as Fourier transforms; shifts (frame, wave, yx)"""
    i = min(j, w.shape[0] - 1)
    for n in range(w.shape[1]):
        cpu_moving._multiply(w[i, n], w[i, n], shifts[j, n, 0], shifts[j, n, 1], False)
        for r in range(w.shape[2]):
            wave = w[i, n, r]
            for c in range(w.shape[3]):
                wave[c] *= scale


class PositionVerbs:
    """The part of CpuVerbs that is about positions."""

    cut: Any
    finish: Any
    _admit: Any
    _do: Any
    _good_of: Any
    _own: Any
    _light_of: Any

    def derivatives(self, O: Array) -> tuple[Array, Array]:
        self.finish()
        return derivative(O, -2), derivative(O, -1)

    def frame_residuals(self, A: Any, b: Batch) -> NDArray[np.float64]:
        residuals = np.zeros(len(b))
        self._admit(b, frames=(A,))
        self._do(b, kernels.modulus_residual, A, Row(b.good.shape[1]), b.counts, self._good_of(b), residuals, *self._light_of(b))
        return residuals

    def position_gradient(self, A: Any, Ay: Any, Ax: Any, b: Batch) -> NDArray[np.float64]:
        sums = np.zeros((len(b), 6))
        self._admit(b, frames=(A, Ay, Ax))
        self._do(b, position_gradient, sums, A, Ay, Ax, Row(3 * b.good.shape[1]), b.counts, self._good_of(b), *self._light_of(b))
        return sums

    def correlate(self, psi: Any, O: Array, P: Array, b: Batch, reach: float) -> NDArray[np.float64]:
        waves, patches = np.asarray(psi), self.cut(O, b)
        self.finish()
        return best_shifts(waves, patches, P, b, reach)

    def move_waves(self, psi: Array, shifts: Array, b: Batch) -> None:
        self._admit(b, frames=(psi,))
        self._do(b, forward, psi, FftOf())
        self._do(b, move, psi, np.ascontiguousarray(shifts, dtype=np.float32), np.float32(self._own.fft.backward_scale))
        self._do(b, backward, psi, FftOf())
