"""The verbs in NumPy and SciPy, float32 or float64: plain, and the judge of every other implementation."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptyplugin.model import Geometry
from ptyplugin.solvers.batches import Batch, block_size
from ptyplugin.solvers.verbs import Complex, DeviceScalar, Real
from ptyplugin.solvers.verbs.host import HostArrays, number
from ptyplugin.solvers.verbs.least_squares import ReferenceStepVerbs
from ptyplugin.solvers.verbs.positions import ReferencePositionVerbs
from ptyplugin.solvers.verbs.reference_detector import ReferenceDetectorVerbs
from ptyplugin.solvers.verbs.reference_frames import ReferenceFrameVerbs
from ptyplugin.solvers.verbs.reference_ml import ReferenceLikelihoodVerbs


class ReferenceVerbs(
    HostArrays, ReferenceFrameVerbs, ReferenceStepVerbs, ReferenceLikelihoodVerbs, ReferencePositionVerbs, ReferenceDetectorVerbs
):
    """See ptyplugin.solvers.verbs.Verbs for the equations.

    Args:
        geometry: far or near field, and the shape of a frame.
        dtype: complex64 or complex128.
        workers: threads of an FFT over several frames.
    """

    def __init__(self, geometry: Geometry, dtype: Any = np.complex64, workers: int = 1) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._real: np.dtype[Any] = np.dtype(np.float32 if self.dtype == np.complex64 else np.float64)
        self.near_field = geometry.near_field
        self._tiny = float(np.finfo(np.float32).tiny)
        self._workers = workers
        self._kernel = fresnel_kernel(geometry).astype(self.dtype) if geometry.near_field else None
        pixels = 1 if geometry.near_field else geometry.shape[0] * geometry.shape[1]
        self._root = self._real.type(np.sqrt(pixels))

    def finish(self) -> None:
        """Nothing is ever put off."""

    def batch_frames(self, shape: tuple[int, int], waves: int) -> int:
        return block_size(shape, waves, self.dtype.itemsize)

    def zero(self) -> DeviceScalar:
        return DeviceScalar(np.zeros(()))

    def cut(self, O: Complex, b: Batch) -> Complex:
        y, x = b.good.shape
        patches = np.empty((len(b), b.corners.shape[1], len(O), y, x), dtype=self.dtype)
        for frame, corners in enumerate(b.corners.tolist()):
            for substep, (row, column) in enumerate(corners):
                patches[frame, substep] = O[:, row : row + y, column : column + x]
        return patches

    def exit_waves(self, O: Complex, P: Complex, b: Batch) -> Complex:
        patches = self.cut(O, b)
        moved = self._moved(P, b)
        if patches.shape[1] > 1:
            patches *= self._real.type(patches.shape[1] ** -0.5)
        if len(P) == 1 and patches.shape[1] * patches.shape[2] == 1:
            patches *= moved[:, 0, :, None]
            return patches[:, 0]
        waves = moved[:, :, None] * patches.swapaxes(1, 2)[:, None]
        return waves.reshape(len(b), len(P) * patches.shape[1] * patches.shape[2], *b.good.shape)

    def reflect(self, psi: Complex, O: Complex, P: Complex, b: Batch, overlap: float, wave: float) -> Complex:
        w = self.exit_waves(O, P, b)
        if overlap != 1:
            w *= self._real.type(overlap)
        if wave == -1:
            w -= psi
        elif wave == 1:
            w += psi
        elif wave != 0:
            w += self._real.type(wave) * psi
        return w

    def to_detector(self, w: Complex, b: Batch) -> Complex:
        if not len(w):
            return w
        A = scipy.fft.fft2(w, overwrite_x=True, workers=self._threads(w))
        if self._kernel is None:
            return A
        self._multiply(A, self._kernel, b, back=True)
        return scipy.fft.ifft2(A, overwrite_x=True, workers=self._threads(w))

    def to_sample(self, A: Complex, b: Batch) -> Complex:
        if not len(A):
            return A
        if self._kernel is None:
            return scipy.fft.ifft2(A, overwrite_x=True, workers=self._threads(A))
        w = scipy.fft.fft2(A, overwrite_x=True, workers=self._threads(A))
        self._multiply(w, self._kernel.conj(), b, back=False)
        return scipy.fft.ifft2(w, overwrite_x=True, workers=self._threads(A))

    def onto_modulus(self, A: Complex, b: Batch, slack: float) -> DeviceScalar:
        modulus, amplitude = self._modulus(A, b), np.sqrt(b.counts, dtype=self._real)
        residual = self._residual(modulus, amplitude, b)
        modulus += self._tiny**0.5
        amplitude /= modulus
        if slack:
            amplitude *= self._real.type(1 - slack)
            amplitude += self._real.type(slack)
        amplitude[:, ~b.good] = 1
        A *= amplitude[:, None]
        return residual

    def modulus_residual(self, A: Complex, b: Batch) -> DeviceScalar:
        return self._residual(self._modulus(A, b), np.sqrt(b.counts, dtype=self._real), b)

    def advance(self, psi: Complex, w: Complex, O: Complex, P: Complex, b: Batch, wave: float, data: float, overlap: float) -> None:
        model = self.exit_waves(O, P, b)
        if wave != 1:
            psi *= self._real.type(wave)
        if data == -overlap:
            w -= model
            if data != 1:
                w *= self._real.type(data)
            psi += w
            return
        psi += self._real.type(data) * w
        psi += self._real.type(overlap) * model

    def sums(self, X: Complex) -> tuple[Complex, Real]:
        return np.zeros_like(X), np.zeros(X.shape[-2:], dtype=self._real)

    def object_sums(self, num: Complex, den: Real, psi: Complex, P: Complex, b: Batch) -> None:
        moved = self._moved(P, b)
        self._object_sums(num, psi, moved, b)
        self._light_sums(den, moved, b)

    def probe_sums(self, num: Complex, den: Real, psi: Complex, O: Complex, b: Batch) -> None:
        patches = self.cut(O, b)
        num += self._onto_probe(psi, patches, len(num), b)
        den += _abs2(patches).sum(axis=(0, 1, 2)) * self._real.type(1 / patches.shape[1])

    def coverage_sums(self, den: Real, P: Complex, b: Batch) -> None:
        self._light_sums(den, P[None, :, None], b)

    def weigh(self, num: Complex, den: Real, X: Complex, weight: Real | SupportsIndex) -> None:
        den[...] = weight
        np.maximum(den, 1e-6 * max(den.max(), self._tiny), out=den)
        np.multiply(X, den, out=num)

    def quotient(self, X: Complex, num: Complex, den: Real, inertia: float) -> None:
        floor = self._real.type(inertia) * den.max()
        X *= floor
        X += num
        X /= np.maximum(den + floor, self._tiny)

    def object_step(self, O: Complex, P: Complex, w: Complex, b: Batch, step: float | Real, damping: float) -> None:
        light, moved = np.zeros(O.shape[-2:], dtype=self._real), self._moved(P, b)
        self._light_sums(light, moved, b)
        weight = self._real.type(number(step)) / np.maximum(self._damped(light, damping), self._tiny)
        change = self.sums(O)[0]
        self._object_sums(change, w, moved, b)
        O += weight * change

    def probe_step(self, P: Complex, patches: Complex, w: Complex, b: Batch, step: float | Real, damping: float) -> None:
        if not len(patches):
            return
        intensity = _abs2(patches).sum(axis=(1, 2)) * self._real.type(1 / patches.shape[1])
        weight = self._real.type(number(step) / len(patches)) / self._damped(intensity, damping)
        P += self._onto_probe(w, patches * weight[:, None, None], len(P), b)

    def copy(self, X: Complex) -> Complex:
        return X.copy()

    def momentum(self, X: Complex, before: Complex, velocity: Complex, friction: float) -> None:
        velocity *= self._real.type(friction)
        velocity += X - before
        X += self._real.type(friction) * velocity
        before[...] = X

    def clip_modulus(self, X: Complex, largest: float) -> None:
        intensity = _abs2(X)
        above = intensity > largest**2
        if above.any():
            X[above] *= self._real.type(largest) / np.sqrt(intensity[above])

    def fix_power(self, P: Complex, O: Complex, power: float) -> None:
        scale = np.sqrt(power / max(float(_abs2(P).sum(dtype=np.float64)), self._tiny))
        P *= self._real.type(scale)
        O *= self._real.type(1 / scale)

    def _threads(self, w: Complex) -> int:
        return min(self._workers, int(w.shape[0] * w.shape[1]))

    def _modulus(self, A: Complex, b: Batch) -> Real:
        """sqrt(s_j sum_m |A_jm|^2 / c + B)"""
        power = _abs2(A)
        modulus: Real = power[:, 0] if power.shape[1] == 1 else power.sum(axis=1)
        if b.background is not None:
            modulus *= self._real.type(1 / self._root**2)
            if b.intensities is not None:
                modulus *= b.intensities[:, None, None]
            modulus += b.background
            return np.sqrt(modulus, out=modulus)
        np.sqrt(modulus, out=modulus)
        modulus /= self._root
        if b.intensities is not None:
            modulus *= np.sqrt(b.intensities, dtype=self._real)[:, None, None]
        return modulus

    def _residual(self, modulus: Real, amplitude: Real, b: Batch) -> DeviceScalar:
        deviation = modulus - amplitude
        deviation *= b.good
        return DeviceScalar(np.asarray(np.vdot(deviation, deviation), dtype=np.float64))

    def _damped(self, intensity: Real, damping: float) -> Real:
        largest = np.maximum(intensity.max(axis=(-2, -1), keepdims=True), self._tiny)
        damped: Real = self._real.type(1 - damping) * intensity + self._real.type(damping) * largest
        return damped

    def _split(self, psi: Complex, probe_modes: int, b_substeps: int) -> Complex:
        """(frame, probe mode, object mode, substep, y, x)"""
        return psi.reshape(len(psi), probe_modes, psi.shape[1] // (probe_modes * b_substeps), b_substeps, *psi.shape[-2:])

    def _moved(self, P: Complex, b: Batch) -> Complex:
        """(frame, probe mode, sub-step, y, x): P moved by the rests; its axes of frames and sub-steps are 1 long where there are none."""
        if not b.rests.any():
            return P[None, :, None]
        spectrum = scipy.fft.fft2(P)[None, :, None] * self._ramps(b)
        return scipy.fft.ifft2(spectrum, overwrite_x=True, workers=self._threads(spectrum))

    def _ramps(self, b: Batch) -> Complex:
        """(frame, 1, sub-step, y, x): what multiplies the Fourier transform of something that is moved by the rests."""
        y, x = (
            np.exp(-2j * np.pi * rest[..., None] * scipy.fft.fftfreq(size))
            for rest, size in zip(np.moveaxis(b.rests.astype(np.float64), -1, 0), b.good.shape, strict=True)
        )
        return np.asarray((y[..., :, None] * x[..., None, :])[:, None], dtype=self.dtype)

    def _multiply(self, spectra: Complex, kernel: Complex, b: Batch, back: bool) -> None:
        """spectra <- kernel spectra, and moved by the rests, or back."""
        spectra *= kernel
        if b.rests.any():
            ramps = self._ramps(b)
            by_substep = spectra.reshape(len(b), -1, b.corners.shape[1], *b.good.shape)
            by_substep *= ramps.conj() if back else ramps

    def _light_sums(self, den: Real, moved: Complex, b: Batch) -> None:
        (y, x), substeps = b.good.shape, b.corners.shape[1]
        intensity = _abs2(moved).sum(axis=1) * self._real.type(1 / substeps)
        light = np.broadcast_to(intensity, (len(b), substeps, y, x))
        for frame, corners in enumerate(b.corners.tolist()):
            for substep, (row, column) in enumerate(corners):
                den[row : row + y, column : column + x] += light[frame, substep]

    def _object_sums(self, num: Complex, psi: Complex, moved: Complex, b: Batch) -> None:
        y, x = b.good.shape
        substeps = b.corners.shape[1]
        back = moved.conj()[:, :, None] * self._split(psi, moved.shape[1], substeps)
        onto = back[:, 0] if moved.shape[1] == 1 else back.sum(axis=1)
        if substeps > 1:
            onto *= self._real.type(substeps**-0.5)
        for frame, corners in enumerate(b.corners.tolist()):
            for substep, (row, column) in enumerate(corners):
                num[:, row : row + y, column : column + x] += onto[frame, :, substep]

    def _onto_probe(self, psi: Complex, patches: Complex, probe_modes: int, b: Batch) -> Complex:
        substeps = patches.shape[1]
        back = patches.conj().swapaxes(1, 2)[:, None] * self._split(psi, probe_modes, substeps)
        if b.rests.any():
            spectra = scipy.fft.fft2(back.sum(axis=2), workers=self._threads(psi)) * self._ramps(b).conj()
            onto: Complex = scipy.fft.ifft2(spectra.sum(axis=(0, 2)))
        else:
            onto = back.sum(axis=(0, 2, 3))
        onto *= self._real.type(substeps**-0.5)
        return onto


def fresnel_kernel(geometry: Geometry) -> NDArray[np.complex128]:
    """exp(-i pi wavelength distance f^2) on the frequencies of fft2, (y, x), with the effective distance (Goodman, eq. 4-21)."""
    (y, x), (dy, dx) = geometry.shape, geometry.object_pixel_m
    squares = np.fft.fftfreq(y, dy)[:, None] ** 2 + np.fft.fftfreq(x, dx)[None, :] ** 2
    return np.asarray(np.exp(-1j * np.pi * geometry.wavelength_m * geometry.effective_distance_m * squares), dtype=np.complex128)


def _abs2(X: Complex) -> Real:
    intensity: Real = X.real**2
    intensity += X.imag**2
    return intensity
