"""The light: probe, partial coherence, far field. Plain float64 NumPy and SciPy, on purpose not the solvers' code.

The solvers are judged against frames made here; so nothing of theirs may be used, and clarity goes before speed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ptyplugin.model.errors import DeviceError

Wave = NDArray[np.complex128]

_NODES = 5
#: The most coherent modes that the simulated source can be split into.
MOST_MODES = _NODES**2


def annular_probe(side_px: int, *, pupil_px: float = 22.0, spot_px: float = 38.0, astigmatism: float = 0.08) -> Wave:
    """Probe (y, x) of a zone plate with central stop, out of focus, with power 1.

    pupil_px: radius of the pupil in detector pixels; the stop has 0.3 of it
    spot_px: radius of the defocused spot in object pixels, horizontally and vertically apart by ``astigmatism``
    """
    frequency = np.arange(side_px) - side_px // 2
    ky, kx = frequency[:, None], frequency[None, :]
    radius = np.hypot(ky, kx)
    pupil = _soft_disc(radius, pupil_px) * (1.0 - _soft_disc(radius, 0.3 * pupil_px))
    # A ray at pupil radius r lands at (side / 2 pi) d(phase)/dr: a r^2 with a = pi spot / (side pupil) puts the rim at the spot's radius.
    curvature = np.pi * spot_px / (side_px * pupil_px)
    phase = curvature * ((1.0 + astigmatism) * ky**2 + (1.0 - astigmatism) * kx**2)
    probe = fft.fftshift(fft.ifft2(fft.ifftshift(pupil * np.exp(1j * phase))))
    return np.asarray(probe / np.linalg.norm(probe))


def _soft_disc(radius: NDArray[np.float64], edge: float) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp((radius - edge) / 0.6)))


def coherent_modes(probe: Wave, count: int, *, source_px: tuple[float, float] = (0.4, 0.9)) -> Wave:
    """Modes (mode, y, x) of the probe seen from an extended incoherent source, the strongest first, power 1 in all.

    source_px: standard deviation (y, x) of the source's image in object pixels. The probe is shifted over the nodes of a
    Gauss-Hermite rule; the singular vectors of these copies are the modes (Wolf 1982, coherent-mode representation).

    Raises:
        DeviceError: fewer modes than 1 or more than the rule has nodes.
    """
    if not 1 <= count <= MOST_MODES:
        raise DeviceError(f"{count} probe modes were asked for; the simulated source has 1 .. {MOST_MODES}: choose a number in this range.")
    if count == 1:
        return probe[None]
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    copies = [
        np.sqrt(weights[i] * weights[j]) * shifted(probe[None], (source_px[0] * nodes[i], source_px[1] * nodes[j])).ravel()
        for i in range(_NODES)
        for j in range(_NODES)
    ]
    _, strength, waves = np.linalg.svd(np.asarray(copies), full_matrices=False)
    modes = (strength[:count, None] * waves[:count]).reshape(count, *probe.shape)
    return np.asarray(modes / np.linalg.norm(modes))


def shifted(waves: Wave, by_px: tuple[float, float]) -> Wave:
    """Waves (mode, y, x) moved by (y, x) pixels, fractions too: exact for waves without the highest frequency (Fourier shift)."""
    ramps = [np.exp(-2j * np.pi * by * fft.fftfreq(side)) for by, side in zip(by_px, waves.shape[-2:], strict=True)]
    return np.asarray(fft.ifft2(fft.fft2(waves) * (ramps[0][:, None] * ramps[1])))


def far_field(waves: Wave) -> NDArray[np.float64]:
    """Intensity (y, x) of exit waves (mode, y, x) on the detector, zero frequency at [N // 2, N // 2].

    Modes add incoherently; the sum over the detector is the power of the waves (Parseval).
    """
    amplitude = fft.fft2(waves, norm="ortho")
    return np.asarray(fft.fftshift((amplitude.real**2 + amplitude.imag**2).sum(axis=0)))
