"""The part of ReferenceVerbs that is about the detector: background and intensity."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs import Complex, Real


class ReferenceDetectorVerbs:
    """See ptyplugin.solvers.verbs.Verbs for the equations."""

    _real: np.dtype[Any]
    _modulus: Any

    def background_sums(self, num: Real, den: Real, A: Complex, b: Batch, floor: float) -> None:
        model = self._modulus(A, b) ** 2
        weight = b.good / (model + self._real.type(floor))
        num += (np.where(b.good, b.counts - model, 0) * weight).sum(axis=0)
        den += weight.sum(axis=0)

    def intensity_sums(self, A: Complex, b: Batch, floor: float) -> NDArray[np.float64]:
        signal = self._modulus(A, replace(b, background=None)) ** 2
        model = signal if b.background is None else signal + b.background
        weighted = b.good * signal / (model + self._real.type(floor))
        above, below = weighted * np.where(b.good, b.counts - model, 0), weighted * signal
        return np.stack([each.sum(axis=(1, 2), dtype=np.float64) for each in (above, below)], axis=1)
