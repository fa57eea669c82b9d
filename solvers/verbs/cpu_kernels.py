"""The loops of the ``cpu`` verbs, compiled by numba, running without the interpreter's lock.

A kernel ``kernel(j, ...)`` works on frame j of a batch. Complex arrays come as float32 with real and imaginary part side by side, so
their last axis is 2 x long: compilers vectorise that, and not complex64. The loop over modes lies outside of the loop over pixels. Waves
are (frame, wave, y, 2 x), and wave = (probe mode * object modes + object mode) * substeps + sub-step; scratch that holds the waves of one
frame, (1, wave, y, 2 x), stands for any frame. ``at`` and ``corners`` are (frame, substep, yx). ``P`` is (probe mode, sub-step or 1,
y, 2 x): where frames have rests, it is the probe moved by those of frame j (see cpu_moving).

``fastmath`` leaves out the two flags that assume that nothing is NaN or infinite: a run that diverges has to be seen.
"""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Corners = NDArray[np.int32]

_HOW: Any = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "arcp", "nsz"}}
_compiled = numba.njit(**_HOW)
_inlined = numba.njit(forceinline=True, **_HOW)

_ONE = np.float32(1)
_TINY = np.float32(np.finfo(np.float32).tiny)
_ROOT_TINY = np.float32(math.sqrt(np.finfo(np.float32).tiny))


@_compiled
def cut(j: int, patches: Floats, O: Floats, corners: Corners) -> None:
    """patches_j = O_j; patches (frame, substep, object mode, y, 2 x)"""
    rows, columns = patches.shape[3], patches.shape[4]
    for s in range(corners.shape[1]):
        y, x = corners[j, s, 0], 2 * corners[j, s, 1]
        for k in range(O.shape[0]):
            for r in range(rows):
                patch, o = patches[j, s, k, r], O[k, y + r, x : x + columns]
                for c in range(columns):
                    patch[c] = o[c]


@_compiled
def exit_waves(j: int, w: Floats, O: Floats, P: Floats, corners: Corners) -> None:
    """w_j = P O_j"""
    substeps, modes, rows, columns = corners.shape[1], O.shape[0], P.shape[2], P.shape[3] // 2
    scale, i = np.float32(1 / math.sqrt(substeps)), min(j, w.shape[0] - 1)
    for m in range(P.shape[0]):
        for s in range(substeps):
            y, x = corners[j, s, 0], 2 * corners[j, s, 1]
            for k in range(modes):
                n = (m * modes + k) * substeps + s
                for r in range(rows):
                    p, o, new = P[m, min(s, P.shape[1] - 1), r], O[k, y + r, x : x + 2 * columns], w[i, n, r]
                    for c in range(columns):
                        a, b, u, v = scale * p[2 * c], scale * p[2 * c + 1], o[2 * c], o[2 * c + 1]
                        new[2 * c] = a * u - b * v
                        new[2 * c + 1] = a * v + b * u


@_compiled
def reflect(j: int, w: Floats, psi: Floats, O: Floats, P: Floats, corners: Corners, overlap: Any, wave: Any) -> None:
    """w_j = overlap P O_j + wave psi_j"""
    substeps, modes, rows, columns = corners.shape[1], O.shape[0], P.shape[2], P.shape[3] // 2
    scale, i, h = overlap * np.float32(1 / math.sqrt(substeps)), min(j, w.shape[0] - 1), min(j, psi.shape[0] - 1)
    for m in range(P.shape[0]):
        for s in range(substeps):
            y, x = corners[j, s, 0], 2 * corners[j, s, 1]
            for k in range(modes):
                n = (m * modes + k) * substeps + s
                for r in range(rows):
                    p, o, old, new = P[m, min(s, P.shape[1] - 1), r], O[k, y + r, x : x + 2 * columns], psi[h, n, r], w[i, n, r]
                    for c in range(columns):
                        a, b, u, v = scale * p[2 * c], scale * p[2 * c + 1], o[2 * c], o[2 * c + 1]
                        new[2 * c] = a * u - b * v + wave * old[2 * c]
                        new[2 * c + 1] = a * v + b * u + wave * old[2 * c + 1]


@_compiled
def advance(j: int, psi: Floats, w: Floats, O: Floats, P: Floats, corners: Corners, wave: Any, data: Any, overlap: Any) -> None:
    """psi_j <- wave psi_j + data w_j + overlap P O_j"""
    substeps, modes, rows, columns = corners.shape[1], O.shape[0], P.shape[2], P.shape[3] // 2
    scale, i, h = overlap * np.float32(1 / math.sqrt(substeps)), min(j, w.shape[0] - 1), min(j, psi.shape[0] - 1)
    for m in range(P.shape[0]):
        for s in range(substeps):
            y, x = corners[j, s, 0], 2 * corners[j, s, 1]
            for k in range(modes):
                n = (m * modes + k) * substeps + s
                for r in range(rows):
                    p, o, old, new = P[m, min(s, P.shape[1] - 1), r], O[k, y + r, x : x + 2 * columns], psi[h, n, r], w[i, n, r]
                    for c in range(columns):
                        a, b, u, v = scale * p[2 * c], scale * p[2 * c + 1], o[2 * c], o[2 * c + 1]
                        old[2 * c] = wave * old[2 * c] + data * new[2 * c] + (a * u - b * v)
                        old[2 * c + 1] = wave * old[2 * c + 1] + data * new[2 * c + 1] + (a * v + b * u)


@_compiled
def multiply(j: int, w: Floats, factor: Floats) -> None:
    """w_j <- factor w_j, factor (y, 2 x) complex"""
    i = min(j, w.shape[0] - 1)
    for n in range(w.shape[1]):
        for r in range(w.shape[2]):
            wave, f = w[i, n, r], factor[r]
            for c in range(w.shape[3] // 2):
                a, b, u, v = f[2 * c], f[2 * c + 1], wave[2 * c], wave[2 * c + 1]
                wave[2 * c] = a * u - b * v
                wave[2 * c + 1] = a * v + b * u


@_compiled
def scale_waves(j: int, w: Floats, factor: Any) -> None:
    """w_j <- factor w_j, factor real"""
    i = min(j, w.shape[0] - 1)
    for n in range(w.shape[1]):
        for r in range(w.shape[2]):
            wave = w[i, n, r]
            for c in range(w.shape[3]):
                wave[c] *= factor


@_compiled
def _scale_row(A: Floats, i: int, r: int, row: Floats) -> None:
    """A_in <- row A_in in row r, all waves n"""
    for n in range(A.shape[1]):
        wave = A[i, n, r]
        for c in range(A.shape[3] // 2):
            wave[2 * c] *= row[c]
            wave[2 * c + 1] *= row[c]


@_compiled
def onto_modulus(
    j: int, A: Floats, row: Floats, counts: Any, good: Floats, residuals: Any, roots: Floats, background: Floats, slack: Any, scale: Any
) -> None:
    """A_j <- scale A_j (slack + (1 - slack) sqrt(I_j) / modulus) where good, scale A_j elsewhere; residuals[j] as in modulus_residual

    modulus as in _modulus; good (y, x) is 1 or 0; row (x,) is scratch.
    """
    total, i = 0.0, min(j, A.shape[0] - 1)
    for r in range(A.shape[2]):
        _modulus(j, row, A, r, roots, background)
        measured, believed, part = counts[j, r], good[r], np.float32(0)
        for c in range(A.shape[3] // 2):
            modulus, amplitude = row[c], np.sqrt(np.float32(measured[c]))
            deviation = modulus - amplitude if believed[c] > 0 else np.float32(0)
            part += deviation * deviation
            factor = slack + (_ONE - slack) * amplitude / (modulus + _ROOT_TINY)
            row[c] = scale * (factor if believed[c] > 0 else _ONE)
        total += float(part)
        _scale_row(A, i, r, row)
    residuals[j] = total


@_compiled
def modulus_residual(j: int, A: Floats, row: Floats, counts: Any, good: Floats, residuals: Any, roots: Floats, background: Floats) -> None:
    """residuals[j] = sum over good pixels of (sqrt(I_j) - modulus)^2"""
    total = 0.0
    for r in range(A.shape[2]):
        _modulus(j, row, A, r, roots, background)
        measured, believed, part = counts[j, r], good[r], np.float32(0)
        for c in range(A.shape[3] // 2):
            deviation = row[c] - np.sqrt(np.float32(measured[c])) if believed[c] > 0 else np.float32(0)
            part += deviation * deviation
        total += float(part)
    residuals[j] = total


@_inlined
def _modulus(j: int, row: Floats, A: Floats, r: int, roots: Floats, background: Floats) -> None:
    """row = sqrt(root_j^2 sum_m |A_jm|^2 + background) of row r

    roots: sqrt(s_j / c) of each frame, or one for all; background (y, x), or (0, 0) where there is none
    """
    i, root = min(j, A.shape[0] - 1), roots[min(j, roots.shape[0] - 1)]
    for n in range(A.shape[1]):
        wave = A[i, n, r]
        if n == 0:
            for c in range(A.shape[3] // 2):
                row[c] = wave[2 * c] * wave[2 * c] + wave[2 * c + 1] * wave[2 * c + 1]
        else:
            for c in range(A.shape[3] // 2):
                row[c] += wave[2 * c] * wave[2 * c] + wave[2 * c + 1] * wave[2 * c + 1]
    if background.shape[0] == 0:
        for c in range(A.shape[3] // 2):
            row[c] = root * np.sqrt(row[c])
    else:
        dark = background[r]
        for c in range(A.shape[3] // 2):
            row[c] = np.sqrt(root * root * row[c] + dark[c])


@_compiled
def coverage_sums(j: int, den: Floats, at: Corners, power: Floats) -> None:
    """den[at_j] += power / substeps; power (sub-step or 1, y, x)"""
    share, columns = np.float32(1 / at.shape[1]), power.shape[2]
    for s in range(at.shape[1]):
        for r in range(power.shape[1]):
            light, total = power[min(s, power.shape[0] - 1), r], den[at[j, s, 0] + r, at[j, s, 1] : at[j, s, 1] + columns]
            for c in range(columns):
                total[c] += share * light[c]


@_compiled
def object_sums(j: int, num: Floats, at: Corners, psi: Floats, P: Floats) -> None:
    """num[at_j] += sum_m P_m* psi_jm"""
    substeps, modes, rows, columns = at.shape[1], num.shape[0], P.shape[2], P.shape[3] // 2
    scale, h = np.float32(1 / math.sqrt(substeps)), min(j, psi.shape[0] - 1)
    for s in range(substeps):
        y, x = at[j, s, 0], 2 * at[j, s, 1]
        for k in range(modes):
            for r in range(rows):
                total = num[k, y + r, x : x + 2 * columns]
                for m in range(P.shape[0]):
                    p, wave = P[m, min(s, P.shape[1] - 1), r], psi[h, (m * modes + k) * substeps + s, r]
                    for c in range(columns):
                        a, b, u, v = scale * p[2 * c], scale * p[2 * c + 1], wave[2 * c], wave[2 * c + 1]
                        total[2 * c] += a * u + b * v
                        total[2 * c + 1] += a * v - b * u


@_compiled
def probe_sums(j: int, num: Floats, den: Floats, psi: Floats, O: Floats, corners: Corners) -> None:
    """num_m += O_j* psi_jm; den += |O_j|^2"""
    substeps, modes, rows, columns = corners.shape[1], O.shape[0], num.shape[2], num.shape[3] // 2
    scale, share, h = np.float32(1 / math.sqrt(substeps)), np.float32(1 / substeps), min(j, psi.shape[0] - 1)
    for s in range(substeps):
        y, x = corners[j, s, 0], 2 * corners[j, s, 1]
        for k in range(modes):
            for r in range(rows):
                o, light = O[k, y + r, x : x + 2 * columns], den[r]
                for c in range(columns):
                    light[c] += share * (o[2 * c] * o[2 * c] + o[2 * c + 1] * o[2 * c + 1])
                for m in range(num.shape[0]):
                    total, wave = num[m, min(s, num.shape[1] - 1), r], psi[h, (m * modes + k) * substeps + s, r]
                    for c in range(columns):
                        a, b, u, v = scale * o[2 * c], scale * o[2 * c + 1], wave[2 * c], wave[2 * c + 1]
                        total[2 * c] += a * u + b * v
                        total[2 * c + 1] += a * v - b * u


@_compiled
def intensity(j: int, power: Floats, X: Floats) -> None:
    """power_s = sum_m |X_ms|^2; power (sub-step or 1, y, x), X (mode, sub-step or 1, y, 2 x); any j"""
    for s in range(power.shape[0]):
        for r in range(power.shape[1]):
            total = power[s, r]
            for m in range(X.shape[0]):
                x = X[m, s, r]
                if m == 0:
                    for c in range(power.shape[2]):
                        total[c] = x[2 * c] * x[2 * c] + x[2 * c + 1] * x[2 * c + 1]
                else:
                    for c in range(power.shape[2]):
                        total[c] += x[2 * c] * x[2 * c] + x[2 * c + 1] * x[2 * c + 1]


@_compiled
def step_weight(power: Floats, step: Any, damping: Any) -> None:
    """power_s <- step / ((1 - damping) power_s + damping max power_s); power (sub-step or 1, y, x)"""
    for s in range(power.shape[0]):
        most, largest = np.full(power.shape[2], _TINY), _TINY  # the largest of each column: a row of comparisons is one instruction
        for r in range(power.shape[1]):
            light = power[s, r]
            for c in range(power.shape[2]):
                most[c] = light[c] if light[c] > most[c] else most[c]
        for c in range(power.shape[2]):
            largest = most[c] if most[c] > largest else largest
        for r in range(power.shape[1]):
            light = power[s, r]
            for c in range(power.shape[2]):
                light[c] = step / ((_ONE - damping) * light[c] + damping * largest)


@_compiled
def object_step(j: int, O: Floats, P: Floats, w: Floats, corners: Corners, weight: Floats) -> None:
    """O_j += weight sum_m P_m* w_jm; weight (sub-step or 1, y, x)"""
    substeps, modes, rows, columns = corners.shape[1], O.shape[0], P.shape[2], P.shape[3] // 2
    scale = np.float32(1 / math.sqrt(substeps))
    for s in range(substeps):
        y, x = corners[j, s, 0], 2 * corners[j, s, 1]
        for k in range(modes):
            for r in range(rows):
                o, f = O[k, y + r, x : x + 2 * columns], weight[min(s, weight.shape[0] - 1), r]
                for m in range(P.shape[0]):
                    p, wave = P[m, min(s, P.shape[1] - 1), r], w[j, (m * modes + k) * substeps + s, r]
                    for c in range(columns):
                        a, b, u, v = p[2 * c], p[2 * c + 1], wave[2 * c], wave[2 * c + 1]
                        o[2 * c] += scale * f[c] * (a * u + b * v)
                        o[2 * c + 1] += scale * f[c] * (a * v - b * u)


@_compiled
def probe_step(j: int, P: Floats, patches: Floats, w: Floats, weight: Floats) -> None:
    """P_m += weight O_j* w_jm; patches (frame, substep, object mode, y, 2 x), weight (y, x)"""
    substeps, modes, rows, columns = patches.shape[1], patches.shape[2], P.shape[2], P.shape[3] // 2
    scale = np.float32(1 / math.sqrt(substeps))
    for s in range(substeps):
        for k in range(modes):
            for m in range(P.shape[0]):
                for r in range(rows):
                    p, f, o, wave = P[m, min(s, P.shape[1] - 1), r], weight[r], patches[j, s, k, r], w[j, (m * modes + k) * substeps + s, r]
                    for c in range(columns):
                        a, b, u, v = o[2 * c], o[2 * c + 1], wave[2 * c], wave[2 * c + 1]
                        p[2 * c] += scale * f[c] * (a * u + b * v)
                        p[2 * c + 1] += scale * f[c] * (a * v - b * u)


@_compiled
def quotient(X: Floats, num: Floats, den: Floats, floor: Any) -> None:
    """X <- (num + floor X) / (den + floor); X, num (mode, y, 2 x), den (y, x)"""
    for m in range(X.shape[0]):
        for r in range(X.shape[1]):
            x, above, below = X[m, r], num[m, r], den[r]
            for c in range(den.shape[1]):
                divisor = below[c] + floor
                factor = _ONE / (divisor if divisor > _TINY else _TINY)
                x[2 * c] = (above[2 * c] + floor * x[2 * c]) * factor
                x[2 * c + 1] = (above[2 * c + 1] + floor * x[2 * c + 1]) * factor


@_compiled
def clip_modulus(X: Floats, largest: Any) -> None:
    """X <- X min(1, largest / |X|); X (mode, y, 2 x)"""
    for m in range(X.shape[0]):
        for r in range(X.shape[1]):
            x = X[m, r]
            for c in range(X.shape[2] // 2):
                power = x[2 * c] * x[2 * c] + x[2 * c + 1] * x[2 * c + 1]
                factor = largest / np.sqrt(power) if power > largest * largest else _ONE
                x[2 * c] *= factor
                x[2 * c + 1] *= factor
