"""Least-squares steps: what all implementations of the verbs share, and the part of ReferenceVerbs that is about them."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs import Complex, DeviceScalar, Noise, Real


def best_lengths(sums: Real, object_moves: bool = True, probe_moves: bool = True) -> tuple[float, float]:
    """(alpha, beta) >= 0 for steps of two parts, w ~ alpha u + beta v: each the best alone, then both times the best common factor.

    sums: <u, u>, <v, v>, Re <u, v>, Re <u, w>, Re <v, w>, (1, 5). A part that is zero or does not move gets the
    length 0, and the other its own best one.
    """
    uu, vv, uv, uw, vw = (float(number) for number in sums.ravel())
    alpha = max(uw / uu, 0.0) if uu > 0 and object_moves else 0.0
    beta = max(vw / vv, 0.0) if vv > 0 and probe_moves else 0.0
    square = alpha * alpha * uu + beta * beta * vv + 2 * alpha * beta * uv
    factor = (alpha * uw + beta * vw) / square if square > 0 else 0.0
    return factor * alpha, factor * beta


class ReferenceStepVerbs:
    """See ptyplugin.solvers.verbs.Verbs for the equations."""

    _real: np.dtype[Any]
    _tiny: float
    _modulus: Any
    _residual: Any
    _damped: Any

    def likelihood_step(self, A: Complex, b: Batch, noise: Noise) -> DeviceScalar:
        modulus, amplitude = self._modulus(A, b), np.sqrt(b.counts, dtype=self._real)
        residual: DeviceScalar = self._residual(modulus, amplitude, b)
        factor = amplitude / (modulus + self._tiny**0.5) - 1
        if noise == "poisson":
            factor += np.minimum(factor, 0) ** 2 / 2
        A *= np.where(b.good, factor, 0).astype(self._real)[:, None]
        return residual

    def precondition(self, num: Complex, den: Real, damping: float) -> None:
        num /= np.maximum(self._damped(den, damping), self._tiny)

    def step_sums(self, w: Complex, u: Complex, v: Complex, b: Batch) -> Real:
        pairs = (u, u), (v, v), (u, v), (u, w), (v, w)
        return np.array([[np.vdot(x, y).real for x, y in pairs]], dtype=np.float64)

    def add_steps(self, O: Complex, dO: Complex, P: Complex, dP: Complex, sums: Real, object_share: float, probe_share: float) -> None:
        alpha, beta = best_lengths(sums, object_share > 0, probe_share > 0)
        O += self._real.type(object_share * alpha) * dO
        P += self._real.type(probe_share * beta) * dP
