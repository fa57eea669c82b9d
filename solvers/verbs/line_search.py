"""Line search and conjugate directions: what all implementations of the verbs share. Only here numbers of a sweep are looked at."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptyplugin.solvers.verbs import Complex, DeviceScalar, Pair, Real

#: Places in ``line``.
LENGTH, LOWEST, PRODUCT, SLOPE, REJECTED = range(5)

#: Counts that the Poisson likelihood takes for granted in every pixel: else one count in a dark pixel outweighs all others.
DARK_COUNTS = 1e-3

#: Lengths that are tried along a line, in units of the last one.
_TRIALS = np.array([1 / 16, 1 / 4, 1 / 2, 1, 2, 4])
#: How many these are.
TRIALS = len(_TRIALS)
#: With a preconditioner, object and probe alone would step about 1.
_FIRST_LENGTH = 0.5
#: Places between two trials at which a fitted polynomial is looked at.
_RESOLUTION = 1001
#: Share of its limit at which a modulus is held.
AT_LIMIT = 0.999
_SHORTEST, _LONGEST = 1e-9, 1e9


def first_line() -> NDArray[np.float64]:
    """What a line search remembers before its first step."""
    return np.array([_FIRST_LENGTH, np.inf, 0, 0, 0])


def trial_lengths(line: Real) -> NDArray[np.float64]:
    """(trial,) the lengths that ``line_likelihoods`` tries."""
    return np.asarray(line[LENGTH] * _TRIALS)


def best_length(lengths: NDArray[np.float64], gains: NDArray[np.float64], slope: float) -> float:
    """The length at which most is gained, 0 if nothing is gained at any of ``lengths``.

    gains: (trial,) what the likelihood changes by, less than 0 where something is gained; slope: of the likelihood at 0. Between the
    neighbours of the best trial the gain is the polynomial through 0 with ``slope`` and through these trials.
    """
    gains = np.where(np.isfinite(gains), gains, np.inf)
    best = int(gains.argmin())
    if not gains[best] < 0:
        return 0.0
    near = slice(max(best - 1, 0), best + 2)
    t, slope = lengths[near] / lengths[best], slope * lengths[best]
    if best == len(lengths) - 1 or not np.isfinite(gains[near]).all():
        return float(lengths[best])
    powers = np.arange(2, 2 + len(t))
    fitted = np.linalg.solve(t[:, None] ** powers, gains[near] - slope * t)
    between = np.linspace(t[0] if best else 0, t[-1], _RESOLUTION)
    fit = slope * between + between[:, None] ** powers @ fitted
    return float(lengths[best] * (between[fit.argmin()] if fit.min() < gains[best] else 1))


def is_taken_back(line: Real, likelihood: float) -> bool:
    """Whether the last step is: the likelihood is higher than before it, for the first time in a row. ``line`` takes it over."""
    # After a step that was proven to gain, something else than the step has raised it: positions, a background, the probe's support.
    if likelihood <= line[LOWEST] or line[REJECTED]:
        line[REJECTED] = False
        return False
    line[REJECTED] = True
    line[LENGTH] = max(line[LENGTH] / 16, _SHORTEST)
    return True


def conjugate_share(line: Real, steep: float, across: float, along: float) -> float:
    """b, the share of the last direction in the next; ``line`` takes it over.

    steep: Re <steepest, gradient>; across: Re <steepest, last gradient>; along: Re <gradient, last direction>
    """
    share = max((steep - across) / line[PRODUCT], 0.0) if line[PRODUCT] > 0 else 0.0
    if not steep + share * along > 0.1 * steep:
        share = 0.0
    line[PRODUCT], line[SLOPE] = steep, -2 * (steep + share * along)
    return float(share)


def step_length(line: Real, sums: Real) -> float:
    """t, from what ``line_likelihoods`` has summed, 0 if nothing is gained anywhere; ``line`` takes it over."""
    lengths = trial_lengths(line)
    length = best_length(lengths, sums[0, 1:], line[SLOPE])
    line[LENGTH] = min(max(length or lengths[0] / 16, _SHORTEST), _LONGEST)
    line[LOWEST] = sums[0, 0]
    return length


class LineVerbs:
    """Verbs of a line search, over whole objects and probes. See ptyplugin.solvers.verbs.Verbs for the equations."""

    finish: Any
    _real: np.dtype[Any]
    _products: Any

    def line(self) -> Real:
        return first_line()

    def line_sums(self) -> Real:
        return np.zeros((1, 1 + TRIALS))

    def keep_lower(self, line: Real, likelihood: DeviceScalar, X: Pair, kept: Pair, gradient: Pair, kept_gradient: Pair) -> None:
        self.finish()
        if is_taken_back(line, likelihood.read()):
            for now, before in zip((*X, *gradient), (*kept, *kept_gradient), strict=True):
                now[...] = before

    def conjugate(self, line: Real, direction: Pair, steepest: Pair, gradient: Pair, kept_gradient: Pair) -> None:
        self.finish()
        parts = zip(steepest, gradient, kept_gradient, direction, strict=True)
        share = conjugate_share(line, *np.sum([self._products(*part) for part in parts], axis=0))
        for s, z, g, before in zip(direction, steepest, gradient, kept_gradient, strict=True):
            s[...] = z + self._real.type(share) * s if share else z
            before[...] = g

    def inward(self, s: Complex, O: Complex, largest: float) -> None:
        self.finish()
        power = O.real**2 + O.imag**2
        at = power > (AT_LIMIT * largest) ** 2
        if at.any():
            o, step = O[at], s[at]
            s[at] = step - o * np.maximum((o.real * step.real + o.imag * step.imag) / power[at], 0)

    def line_step(self, line: Real, X: Pair, kept: Pair, direction: Pair, sums: Real) -> None:
        self.finish()
        length = step_length(line, sums)
        for x, before, s in zip(X, kept, direction, strict=True):
            before[...] = x
            if length:
                x += self._real.type(length) * s

    def smooth(self, X: Complex, width_px: float) -> None:
        self.finish()
        y, x = (np.exp(-2 * (np.pi * width_px * scipy.fft.fftfreq(size)) ** 2).astype(self._real) for size in X.shape[-2:])
        X[...] = scipy.fft.ifft2(scipy.fft.fft2(X) * (y[:, None] * x), overwrite_x=True)

    def roughness(self, num: Complex, den: Real, O: Complex, weight: float) -> DeviceScalar:
        if not weight:
            return DeviceScalar(np.zeros(()))
        self.finish()
        share, total = _share(den, weight), 0.0
        for axis in (-2, -1):
            difference = np.diff(O, axis=axis)
            total += _inner(difference, difference)
            difference *= self._real.type(share)
            low, high = (np.moveaxis(num, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
            low += np.moveaxis(difference, axis, 0)
            high -= np.moveaxis(difference, axis, 0)
        return DeviceScalar(np.asarray(share * total))

    def line_roughness(self, sums: Real, den: Real, O: Complex, dO: Complex, weight: float, line: Real) -> None:
        if not weight:
            return
        self.finish()
        share, t = _share(den, weight), trial_lengths(line)
        for axis in (-2, -1):
            now, change = np.diff(O, axis=axis), np.diff(dO, axis=axis)
            sums[0, 0] += share * _inner(now, now)
            sums[0, 1:] += share * t * (2 * _inner(now, change) + t * _inner(change, change))


def _share(den: Real, weight: float) -> float:
    return weight * float(den.mean(dtype=np.float64))


def _inner(X: Complex, Y: Complex) -> float:
    """Re <X, Y>; no dot product of BLAS, which would wake threads of its own."""
    return float((X.real * Y.real + X.imag * Y.imag).sum(dtype=np.float64))
