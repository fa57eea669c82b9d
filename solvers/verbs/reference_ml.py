"""The part of ReferenceVerbs that is about the likelihood of all frames at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs import Complex, DeviceScalar, Likelihood, Real
from ptyplugin.solvers.verbs.line_search import DARK_COUNTS, LineVerbs, trial_lengths


class ReferenceLikelihoodVerbs(LineVerbs):
    """See ptyplugin.solvers.verbs.Verbs for the equations."""

    _tiny: float
    _root: Any

    def likelihood_gradient(self, A: Complex, b: Batch, noise: Likelihood) -> tuple[DeviceScalar, DeviceScalar]:
        model, counts = self._model(A, b), b.counts.astype(self._real)
        modulus, amplitude = np.sqrt(model), np.sqrt(counts)
        residual = (modulus - amplitude) ** 2
        if noise == "poisson":
            model += self._real.type(DARK_COUNTS)
        if noise == "amplitude":
            factor = amplitude / (modulus + self._tiny**0.5) - 1
        elif noise == "gaussian":
            factor = (counts - model) / (2 * (counts + 1))
        else:
            factor = (counts / model - 1) / 2
        likelihood = _total(_likelihood(model, counts, noise), b)
        if b.intensities is not None:
            factor *= b.intensities[:, None, None]
        A *= np.where(b.good, factor, 0).astype(self._real)[:, None]
        return likelihood, _total(residual, b)

    def line_likelihoods(self, sums: Real, A: Complex, dA: Complex, ddA: Complex, b: Batch, noise: Likelihood, line: Real) -> None:
        model, counts = self._model(A, b), b.counts.astype(self._real)
        dark = self._real.type(DARK_COUNTS if noise == "poisson" else 0)
        model += dark
        first, second = 2 * self._overlap(A, dA, b), self._overlap(dA, dA, b) + 2 * self._overlap(A, ddA, b)
        third, fourth = 2 * self._overlap(dA, ddA, b), self._overlap(ddA, ddA, b)
        sums[0, 0] += _total(_likelihood(model, counts, noise), b).read()
        for number, length in enumerate(trial_lengths(line).astype(self._real), 1):
            change = length * (first + length * (second + length * (third + length * fourth)))
            sums[0, number] += _total(_gain(model, np.maximum(change, dark - model), counts, noise), b).read()

    def _model(self, A: Complex, b: Batch) -> Real:
        """(frame, y, x) counts"""
        counts = self._overlap(A, A, b)
        return counts if b.background is None else counts + b.background

    def _overlap(self, A: Complex, B: Complex, b: Batch) -> Real:
        """(frame, y, x) counts: s_j sum_n Re A_n* B_n / c"""
        counts = (A.real * B.real + A.imag * B.imag).sum(axis=1) / self._root**2
        return np.asarray(counts if b.intensities is None else counts * b.intensities[:, None, None], dtype=self._real)

    def _products(self, z: Complex, g: Complex, before: Complex, s: Complex) -> Real:
        pairs = (z, g), (z, before), (g, s)
        return np.array([(x.real * y.real + x.imag * y.imag).sum(dtype=np.float64) for x, y in pairs])


def _likelihood(model: Real, counts: Real, noise: Likelihood) -> Real:
    if noise == "amplitude":
        terms = (np.sqrt(model) - np.sqrt(counts)) ** 2
    elif noise == "gaussian":
        terms = (model - counts) ** 2 / (4 * (counts + 1))
    else:
        terms = (model - counts - counts * np.log(model / np.maximum(counts, DARK_COUNTS))) / 2
    return np.asarray(terms)


def _gain(model: Real, change: Real, counts: Real, noise: Likelihood) -> Real:
    """What the likelihood changes by with the model, without the difference of two large numbers."""
    if noise == "amplitude":
        moduli = np.sqrt(model) + np.sqrt(model + change)
        terms = change * (1 - 2 * np.sqrt(counts) / np.maximum(moduli, np.finfo(np.float32).tiny ** 0.5))
    elif noise == "gaussian":
        terms = change * (change + 2 * (model - counts)) / (4 * (counts + 1))
    else:
        share = change / model
        logarithm = np.where(share > -0.5, np.log1p(np.maximum(share, -0.5)), np.log(np.maximum(model + change, DARK_COUNTS) / model))
        terms = (change - counts * logarithm) / 2
    return np.asarray(terms)


def _total(terms: Real, b: Batch) -> DeviceScalar:
    return DeviceScalar(np.asarray(terms.sum(where=b.good, dtype=np.float64)))
