"""The part of the ``cpu`` verbs that is about the likelihood of all frames at once. Conventions of the loops as in ``cpu_kernels``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs import DeviceScalar, Likelihood
from ptyplugin.solvers.verbs.cpu_kernels import _ONE, _ROOT_TINY, Floats, _compiled, _scale_row
from ptyplugin.solvers.verbs.cpu_program import Array, Row, Sum, floats
from ptyplugin.solvers.verbs.line_search import DARK_COUNTS, LineVerbs, trial_lengths

_NOISES: tuple[Likelihood, ...] = ("amplitude", "gaussian", "poisson")
_AMPLITUDE, _GAUSSIAN = 0, 1

_HALF, _TWO, _ZERO = np.float32(0.5), np.float32(2), np.float32(0)
_DARK, _QUARTER, _LOG_TWO = np.float32(DARK_COUNTS), np.float32(0.25), np.float32(np.log(2))
_THIRD, _FIFTH, _SEVENTH, _NINTH, _ELEVENTH = (np.float32(1 / odd) for odd in (3, 5, 7, 9, 11))


@_compiled
def _logarithm(x: Any) -> Any:
    """log x of a positive float32, in instructions that work on many at once"""
    bits = np.float32(x).view(np.int32)
    exponent = (bits - np.int32(0x3F3504F3)) >> np.int32(23)
    mantissa = np.int32(bits - (exponent << np.int32(23))).view(np.float32)
    y = (mantissa - _ONE) / (mantissa + _ONE)
    return np.float32(exponent) * _LOG_TWO + _TWO * (y + _beyond(y))


@_compiled
def _beyond(y: Any) -> Any:
    """artanh y - y, abs(y) <= 1 / 4"""
    t = y * y
    return y * t * (_THIRD + t * (_FIFTH + t * (_SEVENTH + t * (_NINTH + t * _ELEVENTH))))


@_compiled
def _poisson(model: Any, count: Any) -> Any:
    """(model - count - count log(model / count)) / 2"""
    y = (model - count) / (model + count)
    near = _HALF * y * (model - count) - count * _beyond(y)
    far = _HALF * (model - count - count * _logarithm(model / (count if count > _DARK else _DARK)))
    return near if abs(y) < _QUARTER else far


@_compiled
def _counts(row: Floats, A: Floats, i: int, r: int, power: Any, background: Floats) -> None:
    """row = power sum_n |A_in|^2 + background, of row r; background (y, x), or (0, 0) where there is none"""
    for n in range(A.shape[1]):
        wave = A[i, n, r]
        if n == 0:
            for c in range(len(row)):
                row[c] = power * (wave[2 * c] * wave[2 * c] + wave[2 * c + 1] * wave[2 * c + 1])
        else:
            for c in range(len(row)):
                row[c] += power * (wave[2 * c] * wave[2 * c] + wave[2 * c + 1] * wave[2 * c + 1])
    if background.shape[0]:
        dark = background[r]
        for c in range(len(row)):
            row[c] += dark[c]


@_compiled
def _amplitude_factor(row: Floats, counts: Any, good: Floats, scale: Any) -> tuple[float, float]:
    """row <- scale f from modelled counts; the sums of likelihood and residual"""
    total = _ZERO
    for c in range(len(row)):
        modulus, amplitude = np.sqrt(row[c]), np.sqrt(np.float32(counts[c]))
        deviation = good[c] * (modulus - amplitude)
        total += deviation * deviation
        row[c] = scale * good[c] * (amplitude / (modulus + _ROOT_TINY) - _ONE)
    return float(total), float(total)


@_compiled
def _gaussian_factor(row: Floats, counts: Any, good: Floats, scale: Any) -> tuple[float, float]:
    """As _amplitude_factor"""
    total, residual = _ZERO, _ZERO
    for c in range(len(row)):
        count = np.float32(counts[c])
        deviation, factor = np.sqrt(row[c]) - np.sqrt(count), _HALF * good[c] * (count - row[c]) / (count + _ONE)
        residual += good[c] * (deviation * deviation)
        total += _HALF * factor * (count - row[c])
        row[c] = scale * factor
    return float(total), float(residual)


@_compiled
def _poisson_factor(row: Floats, counts: Any, good: Floats, scale: Any) -> tuple[float, float]:
    """As _amplitude_factor"""
    total, residual = _ZERO, _ZERO
    for c in range(len(row)):
        count, model = np.float32(counts[c]), row[c] + _DARK
        deviation = np.sqrt(row[c]) - np.sqrt(count)
        residual += good[c] * (deviation * deviation)
        total += good[c] * _poisson(model, count)
        row[c] = scale * good[c] * _HALF * (count / model - _ONE)
    return float(total), float(residual)


@_compiled
def likelihood_gradient(
    j: int,
    A: Floats,
    row: Floats,
    counts: Any,
    good: Floats,
    likelihoods: Any,
    residuals: Any,
    beam: Floats,
    background: Floats,
    power: Any,
    noise: int,
    scale: Any,
) -> None:
    """A_j <- scale f A_j, f as in Verbs.likelihood_gradient; likelihoods[j], residuals[j]

    row (x,) is scratch; beam: s_j of each frame, or one for all; background as in _counts; power = 1 / c
    """
    total, distance, i, strength = 0.0, 0.0, min(j, A.shape[0] - 1), beam[min(j, beam.shape[0] - 1)]
    scale, power = scale * strength, power * strength
    for r in range(A.shape[2]):
        _counts(row, A, i, r, power, background)
        if noise == _AMPLITUDE:
            sums = _amplitude_factor(row, counts[j, r], good[r], scale)
        elif noise == _GAUSSIAN:
            sums = _gaussian_factor(row, counts[j, r], good[r], scale)
        else:
            sums = _poisson_factor(row, counts[j, r], good[r], scale)
        total += sums[0]
        distance += sums[1]
        _scale_row(A, i, r, row)
    likelihoods[j], residuals[j] = total, distance


@_compiled
def _polynomials(rows: Floats, A: Floats, dA: Floats, ddA: Floats, i: int, r: int, good: Floats, power: Any, background: Floats) -> None:
    """rows[0 .. 4] = the counts of row r as a polynomial in t, from A + t dA + t^2 ddA; those of t are 0 where not good"""
    for n in range(A.shape[1]):
        x, y, z = A[i, n, r], dA[i, n, r], ddA[i, n, r]
        if n == 0:
            rows[:5] = 0
        for c in range(rows.shape[1]):
            a, b, d, e, f, g = x[2 * c], x[2 * c + 1], y[2 * c], y[2 * c + 1], z[2 * c], z[2 * c + 1]
            share = power * good[c]
            rows[0, c] += power * (a * a + b * b)
            rows[1, c] += _TWO * share * (a * d + b * e)
            rows[2, c] += share * (d * d + e * e + _TWO * (a * f + b * g))
            rows[3, c] += _TWO * share * (d * f + e * g)
            rows[4, c] += share * (f * f + g * g)
    if background.shape[0]:
        dark = background[r]
        for c in range(rows.shape[1]):
            rows[0, c] += dark[c]


@_compiled
def _amplitude_start(rows: Floats, counts: Any, good: Floats) -> float:
    """The likelihood of a row at t = 0; rows[5 and 6] = the roots of the model's and of the measured counts"""
    total = _ZERO
    for c in range(rows.shape[1]):
        modulus, amplitude = np.sqrt(rows[0, c]), np.sqrt(np.float32(counts[c]))
        rows[5, c], rows[6, c] = modulus, amplitude
        total += good[c] * (modulus - amplitude) * (modulus - amplitude)
    return float(total)


@_compiled
def _amplitude_gain(rows: Floats, t: Any) -> float:
    """What the likelihood of a row changes by from 0 to t"""
    total = _ZERO
    for c in range(rows.shape[1]):
        change = t * (rows[1, c] + t * (rows[2, c] + t * (rows[3, c] + t * rows[4, c])))
        other = rows[0, c] + change
        roots = rows[5, c] + np.sqrt(other if other > _ZERO else _ZERO) + _ROOT_TINY
        total += (change if other > _ZERO else -rows[0, c]) * (_ONE - _TWO * rows[6, c] / roots)
    return float(total)


@_compiled
def _gaussian_start(rows: Floats, counts: Any, good: Floats) -> float:
    """As _amplitude_start; rows[5 and 6] = 2 (model - counts) and 1 / (4 (counts + 1))"""
    total = _ZERO
    for c in range(rows.shape[1]):
        count = np.float32(counts[c])
        rows[5, c], rows[6, c] = _TWO * (rows[0, c] - count), _QUARTER / (count + _ONE)
        total += _QUARTER * good[c] * rows[5, c] * rows[5, c] * rows[6, c]
    return float(total)


@_compiled
def _gaussian_gain(rows: Floats, t: Any) -> float:
    """As _amplitude_gain"""
    total = _ZERO
    for c in range(rows.shape[1]):
        change = t * (rows[1, c] + t * (rows[2, c] + t * (rows[3, c] + t * rows[4, c])))
        total += change * (change + rows[5, c]) * rows[6, c]
    return float(total)


@_compiled
def _poisson_start(rows: Floats, counts: Any, good: Floats) -> float:
    """As _amplitude_start; rows[6] = counts"""
    total = _ZERO
    for c in range(rows.shape[1]):
        count, model = np.float32(counts[c]), rows[0, c] + _DARK
        rows[0, c], rows[6, c] = model, count
        total += good[c] * _poisson(model, count)
    return float(total)


@_compiled
def _poisson_gain(rows: Floats, t: Any) -> float:
    """As _amplitude_gain, without the difference of two large numbers where the change is small"""
    total = _ZERO
    for c in range(rows.shape[1]):
        change, model, count = t * (rows[1, c] + t * (rows[2, c] + t * (rows[3, c] + t * rows[4, c]))), rows[0, c], rows[6, c]
        other = model + change
        other = other if other > _DARK else _DARK
        change = change if change > _DARK - model else _DARK - model
        y = change / (other + model)
        near = _HALF * y * (other + model - _TWO * count) - count * _beyond(y)
        far = _HALF * (change - count * _logarithm(other / model))
        total += near if abs(y) < _QUARTER else far
    return float(total)


@_compiled
def line_likelihoods(
    j: int,
    sums: Any,
    A: Floats,
    dA: Floats,
    ddA: Floats,
    rows: Floats,
    counts: Any,
    good: Floats,
    beam: Floats,
    background: Floats,
    power: Any,
    noise: int,
    lengths: Floats,
) -> None:
    """sums as in Verbs.line_likelihoods; rows (7 x,) are scratch; lengths (trial,); other arguments as in likelihood_gradient"""
    i, lines = min(j, A.shape[0] - 1), rows.reshape(7, A.shape[3] // 2)
    power = power * beam[min(j, beam.shape[0] - 1)]
    for r in range(A.shape[2]):
        _polynomials(lines, A, dA, ddA, i, r, good[r], power, background)
        if noise == _AMPLITUDE:
            sums[0, 0] += _amplitude_start(lines, counts[j, r], good[r])
            for k in range(len(lengths)):
                sums[0, 1 + k] += _amplitude_gain(lines, lengths[k])
        elif noise == _GAUSSIAN:
            sums[0, 0] += _gaussian_start(lines, counts[j, r], good[r])
            for k in range(len(lengths)):
                sums[0, 1 + k] += _gaussian_gain(lines, lengths[k])
        else:
            sums[0, 0] += _poisson_start(lines, counts[j, r], good[r])
            for k in range(len(lengths)):
                sums[0, 1 + k] += _poisson_gain(lines, lengths[k])


@_compiled
def products(sums: Any, z: Floats, g: Floats, before: Floats, s: Floats) -> None:
    """sums += Re <z, g>, Re <z, before>, Re <g, s>; (mode, y, 2 x)"""
    for m in range(z.shape[0]):
        for r in range(z.shape[1]):
            u, v, w, x = z[m, r], g[m, r], before[m, r], s[m, r]
            a = b = d = _ZERO
            for c in range(len(u)):
                a += u[c] * v[c]
                b += u[c] * w[c]
                d += v[c] * x[c]
            sums[0] += float(a)
            sums[1] += float(b)
            sums[2] += float(d)


class LikelihoodVerbs(LineVerbs):
    """The part of CpuVerbs that is about the likelihood of all frames at once."""

    _real: np.dtype[Any] = np.dtype(np.float32)
    _admit: Any
    _do: Any
    _good_of: Any
    _light_of: Any
    _roots: Any
    _scalar: Any

    def likelihood_gradient(self, A: Any, b: Batch, noise: Likelihood) -> tuple[DeviceScalar, DeviceScalar]:
        likelihoods, residuals = np.zeros(len(b)), np.zeros(len(b))
        self._admit(b, frames=(A,))
        data = (Row(b.good.shape[1]), b.counts, self._good_of(b), likelihoods, residuals)
        self._do(b, likelihood_gradient, A, *data, *self._beam_of(b), _NOISES.index(noise), _ONE)
        return self._scalar(likelihoods), self._scalar(residuals)

    def line_likelihoods(self, sums: Array, A: Any, dA: Any, ddA: Any, b: Batch, noise: Likelihood, line: Array) -> None:
        self._admit(b, frames=(A, dA, ddA), adds=(sums,))
        data = (Row(7 * b.good.shape[1]), b.counts, self._good_of(b), *self._beam_of(b))
        self._do(b, line_likelihoods, Sum(sums), A, dA, ddA, *data, _NOISES.index(noise), trial_lengths(line).astype(np.float32))

    def _beam_of(self, b: Batch) -> tuple[Array, Array, Any]:
        """s_j, background, 1 / c, as the loops take them"""
        background = self._light_of(b)[1]
        return np.ones(1, np.float32) if b.intensities is None else b.intensities, background, self._roots[0] ** 2

    def _products(self, *arrays: Array) -> NDArray[np.float64]:
        sums = np.zeros(3)
        products(sums, *map(floats, arrays))
        return sums
