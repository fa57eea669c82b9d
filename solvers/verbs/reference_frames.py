"""The part of ReferenceVerbs that is about each frame alone."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs import Complex, Real


class ReferenceFrameVerbs:
    """See ptyplugin.solvers.verbs.Verbs for the equations."""

    dtype: np.dtype[Any]
    exit_waves: Any
    _moved: Any
    _object_sums: Any
    _modulus: Any

    def spread(self, num: Complex, psi: Complex, weights: NDArray[np.complex128], P: Complex, b: Batch) -> None:
        self._object_sums(num, psi * weights.astype(self.dtype)[:, None, None, None], self._moved(P, b), b)

    def gather(self, psi: Complex, O: Complex, P: Complex, b: Batch) -> NDArray[np.complex128]:
        model = self.exit_waves(O, P, b)
        model *= psi.conj()
        return np.asarray(model.sum(axis=(1, 2, 3), dtype=np.complex128))

    def frame_powers(self, psi: Complex, b: Batch) -> NDArray[np.float64]:
        return np.asarray((psi.real**2 + psi.imag**2).sum(axis=(1, 2, 3), dtype=np.float64))

    def frame_phases(self, psi: Complex, phases: NDArray[np.complex128], b: Batch) -> None:
        psi *= phases.astype(self.dtype)[:, None, None, None]

    def model_counts(self, A: Complex, b: Batch) -> Real:
        modulus: Real = self._modulus(A, b)
        return np.square(modulus, out=modulus)
