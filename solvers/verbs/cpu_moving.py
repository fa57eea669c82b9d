"""Sub-pixel positions of the ``cpu`` verbs: phase ramps on Fourier transforms, and a memory of what was moved last."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.verbs.cpu_fft import Fft
from ptyplugin.solvers.verbs.cpu_program import Array, floats

Floats = NDArray[np.float32]

_compiled = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


@_compiled
def _ramp(size: int, rest: float) -> Floats:
    """exp(-2 pi i rest f) on the frequencies f of an FFT of ``size``, (2 size,)"""
    ramp = np.empty(2 * size, np.float32)
    angle = -2 * math.pi * rest / size
    a, b, u, v = 1.0, 0.0, math.cos(angle), math.sin(angle)
    for k in range(size // 2 + 1):
        if k:
            ramp[2 * (size - k)], ramp[2 * (size - k) + 1] = a, -b
        if 2 * k < size:
            ramp[2 * k], ramp[2 * k + 1] = a, b
        a, b = a * u - b * v, a * v + b * u
    return ramp


@_compiled
def _multiply(out: Floats, spectrum: Floats, rest_y: float, rest_x: float, add: bool) -> None:
    """out = spectrum moved by (rest_y, rest_x), or added to; (y, 2 x)"""
    rows, columns = out.shape[0], out.shape[1] // 2
    ramp_y, ramp_x = _ramp(rows, rest_y), _ramp(columns, rest_x)
    for r in range(rows):
        e, f, to, of = ramp_y[2 * r], ramp_y[2 * r + 1], out[r], spectrum[r]
        for c in range(columns):
            g, h, u, v = ramp_x[2 * c], ramp_x[2 * c + 1], of[2 * c], of[2 * c + 1]
            a, b = e * g - f * h, e * h + f * g
            if add:
                to[2 * c] += a * u - b * v
                to[2 * c + 1] += a * v + b * u
            else:
                to[2 * c], to[2 * c + 1] = a * u - b * v, a * v + b * u


@_compiled
def moved_spectra(j: int, moved: Floats, spectrum: Floats, rests: Floats) -> None:
    """moved_ms = spectrum_m moved by rests_js; moved (1, mode * sub-step, y, 2 x), spectrum (mode, y, 2 x), rests (frame, sub-step, yx)"""
    substeps = rests.shape[1]
    for m in range(spectrum.shape[0]):
        for s in range(substeps):
            _multiply(moved[0, m * substeps + s], spectrum[m], rests[j, s, 0], rests[j, s, 1], False)


@_compiled
def add_moved_back(j: int, spectrum: Floats, moved: Floats, rests: Floats) -> None:
    """spectrum_m += sum_s moved_ms moved back by rests_js: the adjoint of moved_spectra"""
    substeps = rests.shape[1]
    for m in range(spectrum.shape[0]):
        for s in range(substeps):
            _multiply(spectrum[m], moved[0, m * substeps + s], -rests[j, s, 0], -rests[j, s, 1], True)


@_compiled
def move_waves(j: int, w: Floats, rests: Floats) -> None:
    """w_j <- w_j moved by rests_j, both as Fourier transforms: a sub-step is the last index of a wave"""
    i, substeps = min(j, w.shape[0] - 1), rests.shape[1]
    for n in range(w.shape[1]):
        _multiply(w[i, n], w[i, n], rests[j, n % substeps, 0], rests[j, n % substeps, 1], False)


@_compiled
def clear(j: int, w: Floats) -> None:
    """w = 0; any j"""
    w[:] = 0


class Moving:
    """The probe moved by the rests of one frame, and steps moved back.

    It knows what it moved last by its content: verbs one after another ask for the same. Steps change the Fourier transform first, the
    probe itself when somebody needs it (``flush``).
    """

    def __init__(self, fft: Fft) -> None:
        self._fft = fft
        self.scale = np.float32(fft.backward_scale)
        self._behind: Array | None = None
        self._probe: Array = np.empty(0, np.complex64)
        self._spectrum: Array = self._probe
        self._rests: Array = np.empty(0, np.float32)
        self._moved: Array = self._rests

    def forget(self) -> None:
        """Know nothing, after ``flush``: what follows depends on the arrays alone, whatever was done before."""
        self._probe = self._probe[:0]

    def spectrum(self, P: Array) -> Array:
        """What ``backward`` of an FFT makes P again, (mode, y, x)."""
        if P is self._behind:
            return self._spectrum
        self.flush()
        if not np.array_equal(P.view(np.uint64), self._probe.view(np.uint64)):
            self._probe, self._rests = P.copy(), self._rests[:0]
            self._spectrum = self._fft.empty(P.shape)
            self._spectrum[...] = P
            self._fft.forward(self._spectrum)
            self._spectrum *= self.scale
        return self._spectrum

    def moved(self, P: Array, rests: NDArray[np.float32]) -> Array:
        """P moved by each of ``rests`` (sub-step, yx): (mode, sub-step, y, 2 x)."""
        spectrum = self.spectrum(P)
        if not np.array_equal(rests, self._rests):
            moved = self._fft.empty((1, len(P) * len(rests), *P.shape[-2:]))
            moved_spectra(0, floats(moved), floats(spectrum), rests[None])
            self._fft.backward(moved)
            self._rests, self._moved = rests.copy(), floats(moved).reshape(len(P), len(rests), P.shape[1], -1)
        return self._moved

    def add_inverse(self, X: Array, spectrum: Array) -> None:
        """X += the inverse transform of ``spectrum``, (mode, y, x), which is 0 afterwards."""
        self._fft.backward(spectrum)
        spectrum *= self.scale
        X += spectrum
        spectrum[...] = 0

    def step_back(self, P: Array, step: Array, rests: NDArray[np.float32]) -> None:
        """P_m += step_ms moved back by ``rests``, after ``flush``.

        step: (1, mode * sub-step, y, x), times ``scale``; used up
        """
        spectrum = self.spectrum(P)
        self._fft.forward(step)
        add_moved_back(0, floats(spectrum), floats(step), rests[None])
        self._behind, self._rests = P, self._rests[:0]

    def flush(self) -> None:
        """Make the probe what its Fourier transform says."""
        P, self._behind = self._behind, None
        if P is not None:
            P[...] = self._spectrum
            self._fft.backward(P)
            self._probe[...] = P
