"""Arrays and frames of verbs that compute on the host: what all of these share."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batches, RankFrames
from ptyplugin.solvers.growing import lengthened
from ptyplugin.solvers.verbs import Complex, DeviceScalar, Real


def number(step: float | Real) -> float:
    """A number that may lie in an array (1,)."""
    return float(step[0]) if isinstance(step, np.ndarray) else step


class HostArrays:
    """See ptyplugin.solvers.verbs.Verbs for the equations."""

    finish: Any

    def hold(self, frames: RankFrames) -> RankFrames:
        return frames

    def use_less_memory(self) -> bool:
        return False

    def repeat(self, key: Hashable, batches: Batches, sweep: Callable[[], DeviceScalar]) -> DeviceScalar:
        return sweep()

    def array(self, host: NDArray[Any]) -> Complex:
        return host

    def host(self, X: Complex) -> NDArray[Any]:
        self.finish()
        return X

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Complex:
        return np.zeros(shape, dtype)

    def longer(self, X: Complex, count: int) -> Complex:
        self.finish()
        return lengthened(X, count)

    def put(self, X: Complex, value: Complex | complex) -> None:
        self.finish()
        X[...] = value

    def all_finite(self, *X: Complex) -> bool:
        self.finish()
        return all(bool(np.isfinite(each).all()) for each in X)

    def roll(self, X: Complex, shift: tuple[int, int]) -> None:
        self.finish()
        for part in X if X.ndim > 3 else (X,):  # frame by frame: a copy of all waves may not fit
            part[...] = np.roll(part, shift, axis=(-2, -1))
