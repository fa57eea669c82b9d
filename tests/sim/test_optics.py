"""Probe, coherence and far field against what physics says."""

import numpy as np
import pytest
from scipy import ndimage

from ptyplugin.model import DeviceError
from ptyplugin.sim.optics import MOST_MODES, annular_probe, coherent_modes, far_field, shifted

SIDE = 128


def width_px(line: np.ndarray) -> int:
    """Pixels between the first and the last that reach a tenth of the maximum."""
    lit = np.flatnonzero(line > 0.1 * line.max())
    return int(lit[-1] - lit[0] + 1)


def test_probe_has_power_one_and_a_disc_of_about_76_px() -> None:
    intensity = np.abs(annular_probe(SIDE)) ** 2
    assert intensity.sum() == pytest.approx(1.0, rel=1e-12)
    widths = width_px(intensity.sum(axis=1)), width_px(intensity.sum(axis=0))
    assert np.mean(widths) == pytest.approx(76, abs=8)
    assert abs(widths[0] - widths[1]) > 4, "astigmatism: the spot is longer in one direction"


def test_probe_is_lit_through_a_ring() -> None:
    pupil = far_field(annular_probe(SIDE)[None])
    radius = np.hypot(*(np.indices(pupil.shape) - SIDE // 2))
    ring = pupil[(radius > 9) & (radius < 20)]
    assert pupil[radius < 4].max() < 0.01 * ring.mean()
    assert pupil[radius > 28].max() < 0.01 * ring.mean()
    assert ring.std() < 0.1 * ring.mean()


def test_far_field_keeps_the_power() -> None:
    rng = np.random.default_rng(0)
    waves = rng.standard_normal((3, 32, 40)) + 1j * rng.standard_normal((3, 32, 40))
    assert far_field(waves).sum() == pytest.approx((np.abs(waves) ** 2).sum(), rel=1e-12)


def test_far_field_has_zero_frequency_in_the_middle_and_numpys_sign() -> None:
    y, x = np.indices((32, 32))
    wave = np.exp(2j * np.pi * (3 * y - 5 * x) / 32)
    assert np.unravel_index(np.argmax(far_field(wave[None])), (32, 32)) == (16 + 3, 16 - 5)


def test_far_field_adds_modes_as_intensities() -> None:
    modes = coherent_modes(annular_probe(SIDE), 3)
    np.testing.assert_allclose(far_field(modes), sum(far_field(mode[None]) for mode in modes), atol=1e-15)


def test_shift_by_whole_pixels_rolls() -> None:
    probe = annular_probe(SIDE)[None]
    np.testing.assert_allclose(shifted(probe, (3.0, -7.0)), np.roll(probe, (3, -7), axis=(1, 2)), atol=1e-14)


def test_shift_by_fractions_gives_the_wave_in_between() -> None:
    y, x = np.indices((64, 64)) - 32.0
    wave, between = (np.exp(-((y - dy) ** 2 + (x - dx) ** 2) / 50 + 0.3j * (y - dy)) for dy, dx in ((0.0, 0.0), (0.3, -0.4)))
    np.testing.assert_allclose(shifted(wave[None], (0.3, -0.4))[0], between, atol=1e-8)


def test_one_mode_is_the_probe() -> None:
    probe = annular_probe(SIDE)
    np.testing.assert_array_equal(coherent_modes(probe, 1), probe[None])


def test_modes_are_orthogonal_and_sorted_with_power_one() -> None:
    modes = coherent_modes(annular_probe(SIDE), 4).reshape(4, -1)
    gram = modes @ modes.conj().T
    power = np.diag(gram).real
    np.testing.assert_allclose(gram - np.diag(power), 0, atol=1e-12)
    assert power.sum() == pytest.approx(1.0)
    assert (np.diff(power) < 0).all()
    assert 0.5 < power[0] < 0.95


def test_all_modes_together_are_the_probe_blurred_by_the_source() -> None:
    probe = annular_probe(SIDE)
    modes = coherent_modes(probe, MOST_MODES, source_px=(0.5, 0.8))
    blurred = ndimage.gaussian_filter(np.abs(probe) ** 2, (0.5, 0.8), mode="wrap")
    together = (np.abs(modes) ** 2).sum(axis=0)
    np.testing.assert_allclose(together, blurred, atol=0.02 * blurred.max())
    assert np.abs(together - blurred).max() < 0.2 * np.abs(np.abs(probe) ** 2 - blurred).max()


@pytest.mark.parametrize("count", [0, -1, MOST_MODES + 1])
def test_modes_that_cannot_be_are_refused(count: int) -> None:
    with pytest.raises(DeviceError, match=f"{count} probe modes"):
        coherent_modes(annular_probe(SIDE), count)
