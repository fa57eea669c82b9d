"""Positions: what all implementations of the verbs share, and the part of ReferenceVerbs that is about them."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs import Complex, Real

#: Points of the fine search for a peak, per axis, and how far they reach to either side, px.
FINE_POINTS, FINE_REACH_PX = 31, 1.5


def derivative(X: Complex, axis: int) -> Complex:
    """dX / d(y or x), per px, by central differences of fourth order; 0 in the two outermost lines. axis: -2 or -1"""
    X, made = np.moveaxis(X, axis, -1), np.zeros_like(X)
    near, far = X[..., 3:-1] - X[..., 1:-3], X[..., 4:] - X[..., :-4]
    np.moveaxis(made, axis, -1)[..., 2:-2] = (8 * near - far) / 12
    return made


class ReferencePositionVerbs:
    """See ptyplugin.solvers.verbs.Verbs for the equations."""

    _real: np.dtype[Any]
    _root: Any
    _tiny: float
    _modulus: Any
    cut: Any

    def derivatives(self, O: Complex) -> tuple[Complex, Complex]:
        return derivative(O, -2), derivative(O, -1)

    def frame_residuals(self, A: Complex, b: Batch) -> NDArray[np.float64]:
        deviation = (self._modulus(A, b) - np.sqrt(b.counts, dtype=self._real)) * b.good
        return np.asarray((deviation**2).sum(axis=(1, 2), dtype=np.float64))

    def position_gradient(self, A: Complex, Ay: Complex, Ax: Complex, b: Batch) -> NDArray[np.float64]:
        modulus = self._modulus(A, b)
        r = (np.sqrt(b.counts, dtype=self._real) - modulus) * b.good
        weight = b.good / ((modulus + self._tiny**0.5) * self._root**2)
        if b.intensities is not None:
            weight *= b.intensities[:, None, None]
        y, x = ((A.real * D.real + A.imag * D.imag).sum(axis=1) * weight for D in (Ay, Ax))
        return np.stack([(f * g).sum(axis=(1, 2), dtype=np.float64) for f, g in ((y, y), (x, x), (y, x), (y, r), (x, r), (r, r))], axis=1)

    def move_waves(self, psi: Complex, shifts: Real, b: Batch) -> None:
        if len(psi):
            psi[...] = scipy.fft.ifft2(scipy.fft.fft2(psi) * _ramps(shifts, b.good.shape)).astype(psi.dtype)

    def correlate(self, psi: Complex, O: Complex, P: Complex, b: Batch, reach: float) -> NDArray[np.float64]:
        return best_shifts(psi, self.cut(O, b), P, b, reach)


def _ramps(shifts: Real, shape: tuple[int, int]) -> NDArray[np.complex128]:
    """(..., y, x): what multiplies the Fourier transform of something that is moved by ``shifts`` (..., yx) px."""
    y, x = (
        np.exp(-2j * np.pi * shift[..., None] * scipy.fft.fftfreq(size))
        for shift, size in zip(np.moveaxis(np.asarray(shifts, dtype=np.float64), -1, 0), shape, strict=True)
    )
    return np.asarray(y[..., :, None] * x[..., None, :])


def best_shifts(psi: Complex, patches: Complex, P: Complex, b: Batch, reach: float) -> NDArray[np.float64]:
    """(frame, yx) px: the shift r, at most ``reach`` along each axis, for which sum_m |psi_jm - P O_j(. + r)|^2 is smallest.

    Up to a constant that is a sum of cross-correlations, sum |P|^2 |O(. + r)|^2 - 2 Re psi* P O(. + r). It is computed at whole pixels by
    one FFT, then around its lowest by a discrete Fourier transform of a few points (Guizar-Sicairos, Thurman & Fienup, Opt. Lett. 33, 156
    (2008)). psi: (frame, wave, y, x); patches: (frame, sub-step, object mode, y, x)
    """
    modes, substeps, objects = len(P), patches.shape[1], patches.shape[2]
    found = np.zeros((len(psi), 2))
    for j, wave in enumerate(psi.reshape(len(psi), modes, objects, substeps, *psi.shape[-2:]).swapaxes(2, 3)):
        moved = scipy.fft.ifft2(scipy.fft.fft2(P)[:, None] * _ramps(b.rests[j], b.good.shape)) if b.rests.any() else P[:, None]
        light = (moved.real**2 + moved.imag**2).sum(axis=0)[:, None] / substeps
        onto = (moved.conj()[:, :, None] * wave).sum(axis=0) / np.sqrt(substeps)
        intensity, spectra = np.abs(patches[j]) ** 2, [scipy.fft.fft2(each) for each in (onto, patches[j])]
        product = scipy.fft.fft2(light).conj() * scipy.fft.fft2(intensity) - 2 * spectra[0].conj() * spectra[1]
        found[j] = _lowest(product.sum(axis=(0, 1)), reach)
    return found


def _lowest(spectrum: Complex, reach: float) -> NDArray[np.float64]:
    """(yx,) where the real part of the inverse Fourier transform of ``spectrum`` (y, x) is smallest, within ``reach`` px of [0, 0]."""
    whole = int(reach)
    window = np.arange(-whole, whole + 1)
    coarse = scipy.fft.ifft2(spectrum).real[np.ix_(window % spectrum.shape[0], window % spectrum.shape[1])]
    at, fine = lowest_whole(coarse), _fine()
    y, x = (
        np.exp(2j * np.pi * (middle + fine)[:, None] * scipy.fft.fftfreq(size)) for middle, size in zip(at, spectrum.shape, strict=True)
    )
    # No BLAS: it would wake its own threads, which then stand in the way of the verbs'.
    return lowest_between(np.einsum("ar,rb->ab", y, np.einsum("rc,bc->rb", spectrum, x)).real, at, reach)


def lowest_whole(coarse: Real) -> NDArray[np.float64]:
    """(yx,) px: the place of the smallest number of ``coarse``, at whole pixels around no shift, from its middle."""
    return np.array(np.unravel_index(coarse.argmin(), coarse.shape)).astype(np.float64) - len(coarse) // 2


def lowest_between(surface: NDArray[np.float64], at: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """(yx,) px: where ``surface``, on the fine grid around ``at``, is smallest, by parabolas through its smallest number; within reach."""
    fine = _fine()
    row, column = np.unravel_index(surface.argmin(), surface.shape)
    best = at + fine[[row, column]] + (fine[1] - fine[0]) * np.array([_vertex(surface[:, column], row), _vertex(surface[row], column)])
    return np.asarray(np.clip(best, -reach, reach))


def _fine() -> NDArray[np.float64]:
    return np.linspace(-FINE_REACH_PX, FINE_REACH_PX, FINE_POINTS)


def _vertex(line: NDArray[np.float64], at: Any) -> float:
    """Where the parabola through the points around ``at`` is smallest, from it; 0 at an end."""
    if not 0 < at < len(line) - 1:
        return 0.0
    before, here, after = line[at - 1 : at + 2]
    bend = before - 2 * here + after
    return float((before - after) / (2 * bend)) if bend > 0 else 0.0
