"""The part of the ``cpu`` verbs that is about least-squares steps. Conventions of the loops as in ``cpu_kernels``."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs import DeviceScalar, Noise
from ptyplugin.solvers.verbs.cpu_kernels import _ONE, _ROOT_TINY, _TINY, Floats, _compiled, _modulus, _scale_row
from ptyplugin.solvers.verbs.cpu_program import Array, Row, Sum, floats
from ptyplugin.solvers.verbs.least_squares import best_lengths

_TWO, _HALF = np.float32(2), np.float32(0.5)


@_compiled
def likelihood_step(
    j: int, A: Floats, row: Floats, counts: Any, good: Floats, residuals: Any, roots: Floats, background: Floats, poisson: bool, scale: Any
) -> None:
    """A_j <- scale f A_j, f as in Verbs.likelihood_step, 0 where not good; other arguments as in onto_modulus"""
    total, i = 0.0, min(j, A.shape[0] - 1)
    for r in range(A.shape[2]):
        _modulus(j, row, A, r, roots, background)
        measured, believed, part = counts[j, r], good[r], np.float32(0)
        for c in range(A.shape[3] // 2):
            modulus, amplitude = row[c], np.sqrt(np.float32(measured[c]))
            deviation = modulus - amplitude if believed[c] > 0 else np.float32(0)
            part += deviation * deviation
            factor = amplitude / (modulus + _ROOT_TINY) - _ONE
            if poisson:
                factor = factor * (factor + _TWO) * _HALF if factor < 0 else factor
            row[c] = scale * factor if believed[c] > 0 else np.float32(0)
        total += float(part)
        _scale_row(A, i, r, row)
    residuals[j] = total


@_compiled
def step_sums(j: int, sums: Any, w: Floats, u: Floats, v: Floats) -> None:
    """sums += <u_j, u_j>, <v_j, v_j>, Re <u_j, v_j>, Re <u_j, w_j>, Re <v_j, w_j>; sums (1, 5)"""
    g, h, i = min(j, w.shape[0] - 1), min(j, u.shape[0] - 1), min(j, v.shape[0] - 1)
    for n in range(u.shape[1]):
        for r in range(u.shape[2]):
            x, y, z = w[g, n, r], u[h, n, r], v[i, n, r]
            uu = vv = uv = uw = vw = np.float32(0)
            for c in range(u.shape[3]):
                uu += y[c] * y[c]
                vv += z[c] * z[c]
                uv += y[c] * z[c]
                uw += y[c] * x[c]
                vw += z[c] * x[c]
            sums[0, 0] += float(uu)
            sums[0, 1] += float(vv)
            sums[0, 2] += float(uv)
            sums[0, 3] += float(uw)
            sums[0, 4] += float(vw)


@_compiled
def precondition(num: Floats, den: Floats, damping: Any) -> None:
    """num <- num / ((1 - damping) den + damping max den); num (mode, y, 2 x), den (y, x)"""
    largest = _TINY
    for r in range(den.shape[0]):
        for c in range(den.shape[1]):
            largest = den[r, c] if den[r, c] > largest else largest
    for m in range(num.shape[0]):
        for r in range(num.shape[1]):
            x, below = num[m, r], den[r]
            for c in range(den.shape[1]):
                factor = _ONE / ((_ONE - damping) * below[c] + damping * largest)
                x[2 * c] *= factor
                x[2 * c + 1] *= factor


@_compiled
def add(X: Floats, step: Floats, length: Any) -> None:
    """X <- X + length step; X, step (mode, y, 2 x)"""
    for m in range(X.shape[0]):
        for r in range(X.shape[1]):
            x, d = X[m, r], step[m, r]
            for c in range(X.shape[2]):
                x[c] += length * d[c]


class StepVerbs:
    """The part of CpuVerbs that is about least-squares steps."""

    finish: Any
    _admit: Any
    _do: Any
    _good_of: Any
    _light_of: Any
    _scalar: Any

    def likelihood_step(self, A: Any, b: Batch, noise: Noise) -> DeviceScalar:
        residuals = np.zeros(len(b))
        numbers = (*self._light_of(b), noise == "poisson", _ONE)
        self._admit(b, frames=(A,))
        self._do(b, likelihood_step, A, Row(b.good.shape[1]), b.counts, self._good_of(b), residuals, *numbers)
        seen: DeviceScalar = self._scalar(residuals)
        return seen

    def precondition(self, num: Array, den: Array, damping: float) -> None:
        self.finish()
        precondition(floats(num), den, np.float32(damping))

    def step_sums(self, w: Any, u: Any, v: Any, b: Batch) -> Array:
        sums = np.zeros((1, 5))
        self._admit(b, frames=(w, u, v), adds=(sums,))
        self._do(b, step_sums, Sum(sums), w, u, v)
        return sums

    def add_steps(self, O: Array, dO: Array, P: Array, dP: Array, sums: Array, object_share: float, probe_share: float) -> None:
        self.finish()
        alpha, beta = best_lengths(sums, object_share > 0, probe_share > 0)
        add(floats(O), floats(dO), np.float32(object_share * alpha))
        add(floats(P), floats(dP), np.float32(probe_share * beta))
