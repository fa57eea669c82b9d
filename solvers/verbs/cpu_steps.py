"""Loops of the ``cpu`` verbs over whole objects: steps and momentum. Conventions as in ``cpu_kernels``."""

from __future__ import annotations

from typing import Any

from ptyplugin.solvers.verbs.cpu_kernels import Floats, _compiled


@_compiled
def add_weighted(X: Floats, step: Floats, weight: Floats) -> None:
    """X <- X + weight step; X, step (mode, y, 2 x), weight (y, x)"""
    for m in range(X.shape[0]):
        for r in range(X.shape[1]):
            x, d, f = X[m, r], step[m, r], weight[r]
            for c in range(weight.shape[1]):
                x[2 * c] += f[c] * d[2 * c]
                x[2 * c + 1] += f[c] * d[2 * c + 1]


@_compiled
def momentum(X: Floats, before: Floats, velocity: Floats, friction: Any) -> None:
    """velocity <- friction velocity + (X - before); X <- X + friction velocity; before <- X; all (mode, y, 2 x)"""
    for m in range(X.shape[0]):
        for r in range(X.shape[1]):
            x, old, v = X[m, r], before[m, r], velocity[m, r]
            for c in range(X.shape[2]):
                v[c] = friction * v[c] + (x[c] - old[c])
                x[c] += friction * v[c]
                old[c] = x[c]
