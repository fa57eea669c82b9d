"""A start probe from nothing but the frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ptyplugin.model import MemoryFrames, Preparation
from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.prepare import prepare
from ptyplugin.solvers.ranks import OneRank
from ptyplugin.solvers.start import far_field_probe, low_frequencies, median_step, probe_from_data
from ptyplugin.solvers.state import given_probe, orthogonal_modes, weak_modes
from ptyplugin.solvers.verbs.reference import ReferenceVerbs


def spot_radius(probe: Any) -> float:
    power = np.abs(probe) ** 2 / (np.abs(probe) ** 2).sum()
    y, x = np.indices(power.shape)
    return float(np.sqrt((power * ((y - (power * y).sum()) ** 2 + (x - (power * x).sum()) ** 2)).sum()))


def from_data(experiment: Any) -> Any:
    placement = experiment.scan.place(experiment.geometry)
    mine, _ = prepare(experiment.frames, np.arange(len(experiment.scan)), placement, experiment.geometry, Preparation(), OneRank())
    return probe_from_data(mine, placement.corners.mean(axis=1), experiment.geometry, 0, OneRank())


@pytest.mark.parametrize("conjugate", [False, True])
def test_defocus_and_its_sign_are_found(experiment: Any, conjugate: bool) -> None:
    """A frame turned by 180 degrees is the frame of the conjugate wave: the defocus changes its sign."""
    if conjugate:
        turned = np.roll(experiment.frames.counts[:, ::-1, ::-1], (1, 1), (1, 2))
        experiment = replace(experiment, frames=MemoryFrames(turned))
    found, truth = from_data(experiment), experiment.probe[0]
    right, wrong = (truth.conj(), truth) if conjugate else (truth, truth.conj())
    likeness = [np.abs(np.fft.ifft2(np.fft.fft2(found) * np.fft.fft2(p).conj())).max() for p in (right, wrong)]
    assert likeness[0] > 1.3 * likeness[1]
    assert spot_radius(found) == pytest.approx(spot_radius(truth), rel=0.2)


@pytest.mark.parametrize("spot", [8.0, -14.0])
def test_a_probe_has_the_spot_that_was_asked_for_and_the_mean_frame_as_far_field(spot: float) -> None:
    k = np.fft.fftfreq(96, 1 / 96)
    mean = 1e4 * np.exp(-(k[:, None] ** 2 + k[None, :] ** 2) / (2 * 9.0**2))
    probe = far_field_probe(mean, spot)
    assert spot_radius(probe) == pytest.approx(abs(spot), rel=0.1)
    np.testing.assert_allclose(np.abs(np.fft.fft2(probe)) ** 2, mean, rtol=1e-6, atol=1e-6)


def test_near_field_probe_gives_the_mean_frame_back(simulate: Callable[..., Any]) -> None:
    experiment = simulate(near_field=True, photons=1e6)
    verbs = ReferenceVerbs(experiment.geometry, np.complex128)
    b = Batch(slice(0, 1), np.zeros((1, 1, 2), np.int32), np.zeros((1, 1, 2), np.float32), np.empty((1, 0, 0)), np.empty((0, 0), bool))
    there = verbs.to_detector(from_data(experiment)[None, None], b)[0, 0]
    mean = experiment.frames.counts.mean(axis=0)
    np.testing.assert_allclose(np.abs(there[mean > 0]) ** 2, mean[mean > 0])


def test_low_frequencies_keep_the_zero_frequency() -> None:
    frame = np.fft.ifftshift(np.arange(64).reshape(8, 8))
    np.testing.assert_array_equal(np.fft.fftshift(low_frequencies(frame, 4)), np.arange(64).reshape(8, 8)[2:6, 2:6])


def test_step_of_a_scan_with_several_frames_per_point() -> None:
    line = np.repeat(np.arange(6.0) * 5, 2)
    assert median_step(np.stack([line, 0 * line], axis=1)) == 5
    assert median_step(np.zeros((3, 2))) == 1


def test_weak_modes_are_orthogonal_and_weak(experiment: Any) -> None:
    probe = experiment.probe
    modes = np.concatenate([probe, weak_modes(probe, 3)]).reshape(4, -1)
    gram = modes.conj() @ modes.T
    np.testing.assert_allclose(np.diag(gram).real / gram[0, 0].real, [1, 0.05, 0.05, 0.05], rtol=1e-6)
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-9 * gram[0, 0].real


def test_a_given_probe_is_kept_and_filled_up(experiment: Any) -> None:
    np.testing.assert_array_equal(given_probe(experiment.probe[0], (32, 32), 3)[0], experiment.probe[0])
    assert given_probe(np.stack([experiment.probe[0]] * 4), (32, 32), 2).shape == (2, 32, 32)


def test_modes_of_a_given_probe_come_by_power_and_dark_ones_are_replaced(experiment: Any) -> None:
    strong, dark = experiment.probe[0], np.zeros((32, 32))
    weak = 0.1 * np.roll(strong, 3, axis=0)
    np.testing.assert_array_equal(given_probe(np.stack([weak, strong]), (32, 32), 1)[0], strong)
    filled = given_probe(np.stack([dark, weak, strong]), (32, 32), 4)
    np.testing.assert_array_equal(filled[:2], [strong, weak])
    assert np.isfinite(filled).all()
    assert filled.any(axis=(1, 2)).all()


def test_orthogonal_modes_leave_the_incoherent_sum_as_it_is() -> None:
    rng = np.random.default_rng(0)
    modes = rng.standard_normal((3, 8, 8)) + 1j * rng.standard_normal((3, 8, 8))
    modes[1] += 2 * modes[0]
    better = orthogonal_modes(modes)
    np.testing.assert_allclose((np.abs(np.fft.fft2(better)) ** 2).sum(axis=0), (np.abs(np.fft.fft2(modes)) ** 2).sum(axis=0))
    gram = better.reshape(3, -1).conj() @ better.reshape(3, -1).T
    np.testing.assert_allclose(gram, np.diag(np.sort(np.diag(gram).real)[::-1]), atol=1e-10 * np.abs(gram).max())
