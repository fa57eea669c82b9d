"""The camera counts what the model's convention says: patch at (+y, +x), |FFT(P O)|^2, Poisson noise."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats

from ptyplugin.model import Geometry
from ptyplugin.sim.camera import Camera
from ptyplugin.sim.optics import annular_probe, coherent_modes, far_field
from ptyplugin.sim.sample import make_sample

GEOMETRY = Geometry(energy_ev=8000.0, distance_m=3.0, pixel_m=75e-6, shape=(128, 128))
PIXEL_M = np.asarray(GEOMETRY.object_pixel_m)
ORIGIN_PX = (30.0, 40.0)


def camera(sample: NDArray[np.complex128] | None = None, photons: float = 1e6, modes: int = 2) -> Camera:
    return Camera(
        sample=make_sample((220, 240), seed=1) if sample is None else sample,
        probe=np.sqrt(photons) * coherent_modes(annular_probe(128), modes),
        geometry=GEOMETRY,
        origin_px=ORIGIN_PX,
        noise=np.random.default_rng(2),
    )


def by_the_book(probe: NDArray[np.complex128], patch: NDArray[np.complex128]) -> NDArray[np.float64]:
    """|FFT(P O)|^2 / pixels, zero frequency in the middle, mode by mode."""
    return np.fft.fftshift(sum(np.abs(np.fft.fft2(mode * patch)) ** 2 for mode in probe)) / patch.size


def test_patch_starts_at_plus_y_plus_x() -> None:
    eye = camera()
    expected = by_the_book(eye.probe, eye.sample[37 : 37 + 128, 29 : 29 + 128])
    np.testing.assert_allclose(eye.expected(np.array([7, -11]) * PIXEL_M), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(eye.position_px(np.array([7, -11]) * PIXEL_M), (37, 29))


def test_fractions_of_a_pixel_are_exact() -> None:
    """Probe moved on a still sample shows the same far field as a sample moved under a still probe."""
    smooth = ndimage.gaussian_filter(make_sample((220, 240), seed=1), 2.0, mode="wrap")
    moved = np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(smooth), (-0.37, -0.81)))
    here = camera(smooth).expected(np.array([5.37, 8.81]) * PIXEL_M)
    there = camera(moved).expected(np.array([5.0, 8.0]) * PIXEL_M)
    coarse = camera(smooth).expected(np.array([5.0, 8.0]) * PIXEL_M)
    assert np.abs(here - there).sum() < 1e-3 * here.sum()
    assert np.abs(here - coarse).sum() > 1e-2 * here.sum(), "the fraction must matter, or this test shows nothing"


def test_power_is_that_of_the_exit_wave() -> None:
    eye = camera(photons=5e5)
    exit_power = (np.abs(eye.probe * eye.sample[30:158, 40:168]) ** 2).sum()
    assert eye.expected(np.zeros(2)).sum() == pytest.approx(exit_power, rel=1e-9)
    assert 0.5 * 5e5 < exit_power < 5e5, "the sample absorbs some"


@pytest.mark.parametrize("at_px", [(500, 0), (0, -500), (-300, 300)])
def test_beside_the_sample_is_empty_space(at_px: tuple[int, int]) -> None:
    eye = camera()
    np.testing.assert_allclose(eye.expected(np.array(at_px) * PIXEL_M), far_field(eye.probe), atol=1e-6)


def test_half_beside_the_sample_sees_its_edge() -> None:
    eye = camera()
    patch = np.ones((128, 128), dtype=complex)
    patch[20:, 30:] = eye.sample[:108, :98]
    at = np.array([-20 - ORIGIN_PX[0], -30 - ORIGIN_PX[1]]) * PIXEL_M
    np.testing.assert_allclose(eye.expected(at), by_the_book(eye.probe, patch), rtol=1e-6, atol=1e-6)


def test_noise_is_poisson() -> None:
    eye = camera(photons=1e6)
    expected = eye.expected(np.zeros(2))
    lit = expected > 20
    counts = np.array([eye.expose(np.zeros(2)) for _ in range(20)])
    assert counts.dtype == np.uint16
    chi_square = ((counts[:, lit] - expected[lit]) ** 2 / expected[lit]).sum()
    assert 1e-4 < stats.chi2.cdf(chi_square, counts[:, lit].size) < 1 - 1e-4
    assert counts[:, ~lit].mean() == pytest.approx(expected[~lit].mean(), rel=0.02)


def test_bright_pixels_saturate() -> None:
    frame = camera(photons=1e9).expose(np.zeros(2))
    assert frame.max() == 65535
    assert frame.min() < 65535
