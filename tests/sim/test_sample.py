"""The sample: reproducible, believable, with structure at several scales."""

import numpy as np
import pytest

from ptyplugin.sim.sample import make_sample

SHAPE = (300, 340)


def test_same_seed_same_sample() -> None:
    np.testing.assert_array_equal(make_sample(SHAPE, 3), make_sample(SHAPE, 3))
    assert not np.array_equal(make_sample(SHAPE, 3), make_sample(SHAPE, 4))


def test_amplitude_and_phase_are_believable() -> None:
    sample = make_sample(SHAPE, 3)
    assert sample.shape == SHAPE
    assert np.abs(sample).min() >= 0.6
    assert np.abs(sample).max() <= 1.0 + 1e-12
    assert 1.0 < np.ptp(np.angle(sample)) < np.pi


def test_amplitude_does_not_follow_from_phase() -> None:
    sample = make_sample(SHAPE, 3)
    correlation = np.corrcoef(np.abs(sample).ravel(), np.angle(sample).ravel())[0, 1]
    assert abs(correlation) < 0.9


@pytest.mark.parametrize("period_px", [(3, 6), (6, 15), (15, 40), (40, 120)])
def test_structure_at_every_scale(period_px: tuple[int, int]) -> None:
    phase = np.angle(make_sample(SHAPE, 3))
    frequency = np.hypot(np.fft.fftfreq(SHAPE[0])[:, None], np.fft.fftfreq(SHAPE[1]))
    band = (frequency >= 1 / period_px[1]) & (frequency < 1 / period_px[0])
    assert np.fft.ifft2(np.where(band, np.fft.fft2(phase), 0)).real.std() > 0.03
