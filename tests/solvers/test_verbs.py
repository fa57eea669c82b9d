"""Each verb against its equation, written out in plain float64."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import Geometry
from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs import DeviceScalar
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

SHAPE = (12, 10)
FAR = Geometry(8000.0, 1.0, 75e-6, SHAPE)
NEAR = Geometry(8000.0, 1.0, 75e-6, SHAPE, focus_distance_m=5e-3)


def random(rng: np.random.Generator, *shape: int) -> NDArray[np.complex128]:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


class Case:
    """3 frames of 12 x 10 px, 2 probe modes, 2 sub-steps, one object of 30 x 28 px; in double precision."""

    def __init__(self, geometry: Geometry = FAR, object_modes: int = 2) -> None:
        rng = np.random.default_rng(1)
        self.do = ReferenceVerbs(geometry, np.complex128)
        self.O, self.P = random(rng, object_modes, 30, 28), random(rng, 2, *SHAPE)
        corners = rng.integers(0, 18, (3, 2, 2)).astype(np.int32)
        good = rng.random(SHAPE) > 0.2
        counts = rng.poisson(30, (3, *SHAPE)).astype(np.uint16)
        self.b = Batch(slice(0, 3), corners, np.zeros(corners.shape, np.float32), counts, good)
        self.psi = random(rng, 3, 2 * 2 * object_modes, *SHAPE)

    def wave(self, frame: int, number: int) -> tuple[int, int, int]:
        """(probe mode, sub-step, object mode) of a wave."""
        modes = len(self.O)
        return number // (2 * modes), number % 2, number // 2 % modes

    def plain_exit_waves(self) -> NDArray[np.complex128]:
        waves = np.empty_like(self.psi)
        for frame in range(3):
            for number in range(waves.shape[1]):
                m, substep, k = self.wave(frame, number)
                y, x = self.b.corners[frame, substep]
                waves[frame, number] = self.P[m] * self.O[k, y : y + SHAPE[0], x : x + SHAPE[1]] / np.sqrt(2)
        return waves


@pytest.fixture
def case() -> Case:
    return Case()


def test_exit_waves_reflect_and_advance_follow_their_equations(case: Case) -> None:
    plain = case.plain_exit_waves()
    np.testing.assert_allclose(case.do.exit_waves(case.O, case.P, case.b), plain)
    for overlap, wave in ((2, -1), (-1, 1), (1, 0), (0.7, 0.4)):
        np.testing.assert_allclose(case.do.reflect(case.psi, case.O, case.P, case.b, overlap, wave), overlap * plain + wave * case.psi)
    for wave, data, overlap in ((1, 1, -1), (1, 0.6, -0.6), (0.5, 0.2, 0.3)):
        psi, w = case.psi.copy(), 3 * case.psi[::-1].copy()
        expected = wave * psi + data * w + overlap * plain
        case.do.advance(psi, w, case.O, case.P, case.b, wave, data, overlap)
        np.testing.assert_allclose(psi, expected)


@pytest.mark.parametrize("geometry", [FAR, NEAR])
def test_detector_transform_is_undone_and_has_its_adjoint(geometry: Geometry) -> None:
    case = Case(geometry)
    there = case.do.to_detector(case.psi.copy(), case.b)
    np.testing.assert_allclose(case.do.to_sample(there.copy(), case.b), case.psi, atol=1e-12)
    scale = 1 if geometry.near_field else SHAPE[0] * SHAPE[1]
    other = case.psi[::-1]
    np.testing.assert_allclose(np.vdot(other, there), scale * np.vdot(case.do.to_sample(other.copy(), case.b), case.psi))


def test_far_field_is_numpys_unscaled_fft(case: Case) -> None:
    np.testing.assert_allclose(case.do.to_detector(case.psi.copy(), case.b), np.fft.fft2(case.psi), atol=1e-10)


def test_sums_are_the_adjoints_of_exit_waves(case: Case) -> None:
    rng = np.random.default_rng(2)
    num, den = case.do.sums(case.O)
    case.do.object_sums(num, den, case.psi, case.P, case.b)
    dO = random(rng, *case.O.shape)
    np.testing.assert_allclose(np.vdot(dO, num), np.vdot(case.do.exit_waves(dO, case.P, case.b), case.psi))
    num, _ = case.do.sums(case.P)
    case.do.probe_sums(num, np.zeros(SHAPE), case.psi, case.O, case.b)
    dP = random(rng, *case.P.shape)
    np.testing.assert_allclose(np.vdot(dP, num), np.vdot(case.do.exit_waves(case.O, dP, case.b), case.psi))


def test_denominators_are_the_illumination_and_the_transmission(case: Case) -> None:
    den, probe_den = np.zeros((30, 28)), np.zeros(SHAPE)
    case.do.object_sums(np.zeros_like(case.O), den, case.psi, case.P, case.b)
    case.do.probe_sums(np.zeros_like(case.P), probe_den, case.psi, case.O, case.b)
    expected, probe_expected = np.zeros((30, 28)), np.zeros(SHAPE)
    for y, x in case.b.corners.reshape(-1, 2):
        window = (slice(y, y + SHAPE[0]), slice(x, x + SHAPE[1]))
        expected[window] += (np.abs(case.P) ** 2).sum(axis=0) / 2
        probe_expected += (np.abs(case.O[(slice(None), *window)]) ** 2).sum(axis=0) / 2
    np.testing.assert_allclose(den, expected)
    np.testing.assert_allclose(probe_den, probe_expected)


def test_quotient_of_the_sums_recovers_the_object_where_there_is_light() -> None:
    case = Case(object_modes=1)
    truth, psi = case.O.copy(), case.plain_exit_waves()
    num, den = case.do.sums(case.O)
    case.do.object_sums(num, den, psi, case.P, case.b)
    guess = np.ones_like(truth)
    case.do.quotient(guess, num, den, 1e-12)
    lit = den > 1e-3
    np.testing.assert_allclose(guess[:, lit], truth[:, lit], rtol=1e-6)
    np.testing.assert_allclose(guess[:, den == 0], 1)


@pytest.mark.parametrize("geometry", [FAR, NEAR])
@pytest.mark.parametrize("slack", [0.0, 0.25])
def test_onto_modulus_projects_good_pixels_and_leaves_bad_ones(geometry: Geometry, slack: float) -> None:
    case = Case(geometry)
    A = case.do.to_detector(case.psi.copy(), case.b)
    before, c = A.copy(), 1 if geometry.near_field else SHAPE[0] * SHAPE[1]
    modulus = np.sqrt((np.abs(before) ** 2).sum(axis=1) / c)
    residual = case.do.onto_modulus(A, case.b, slack)
    wanted = slack * modulus + (1 - slack) * np.sqrt(case.b.counts)
    after = np.sqrt((np.abs(A) ** 2).sum(axis=1) / c)
    np.testing.assert_allclose(after[:, case.b.good], wanted[:, case.b.good])
    np.testing.assert_array_equal(A[:, :, ~case.b.good], before[:, :, ~case.b.good])
    np.testing.assert_allclose(np.angle(A), np.angle(before), atol=1e-9)
    deviation = (modulus - np.sqrt(case.b.counts))[:, case.b.good]
    assert residual.read() == pytest.approx((deviation**2).sum())
    assert case.do.modulus_residual(before, case.b).read() == pytest.approx((deviation**2).sum())


def test_onto_modulus_of_darkness_is_finite(case: Case) -> None:
    A = np.zeros_like(case.psi)
    case.do.onto_modulus(A, case.b, 0)
    assert np.isfinite(A).all()


@pytest.mark.parametrize("damping", [1.0, 0.1])
def test_pie_steps_follow_their_equations(damping: float) -> None:
    case = Case(object_modes=1)
    corners = case.b.corners[:1, :1]
    b = Batch(slice(0, 1), corners, case.b.rests[:1, :1], case.b.counts[:1], case.b.good)
    w, (y, x) = case.psi[:1, :2], corners[0, 0]
    patches = case.do.cut(case.O, b)
    O, P, patch = case.O.copy(), case.P.copy(), patches[0, 0, 0]
    illumination, transmission = (np.abs(P) ** 2).sum(axis=0), np.abs(patch) ** 2
    case.do.object_step(O, P, w, b, 0.7, damping)
    expected = case.O.copy()
    damped = (1 - damping) * illumination + damping * illumination.max()
    expected[0, y : y + SHAPE[0], x : x + SHAPE[1]] += 0.7 * (P.conj() * w[0]).sum(axis=0) / damped
    np.testing.assert_allclose(O, expected)
    case.do.probe_step(P, patches, w, b, 0.3, damping)
    damped = (1 - damping) * transmission + damping * transmission.max()
    np.testing.assert_allclose(P, case.P + 0.3 * patch.conj() * w[0] / damped)


def test_an_empty_batch_changes_nothing(case: Case) -> None:
    b = Batch(slice(3, 3), case.b.corners[:0], case.b.rests[:0], case.b.counts[:0], case.b.good)
    O, P = case.O.copy(), case.P.copy()
    A = case.do.to_detector(case.do.exit_waves(O, P, b), b)
    assert case.do.onto_modulus(A, b, 0).read() == 0
    w = case.do.reflect(case.do.to_sample(A, b), O, P, b, -1, 1)
    case.do.object_step(O, P, w, b, 1, 1)
    case.do.probe_step(P, case.do.cut(O, b), w, b, 1, 1)
    num, den = case.do.sums(O)
    case.do.object_sums(num, den, w, P, b)
    case.do.probe_sums(np.zeros_like(P), np.zeros(SHAPE), w, O, b)
    np.testing.assert_array_equal(O, case.O)
    np.testing.assert_array_equal(P, case.P)
    assert not num.any()
    assert not den.any()


def test_clip_and_power(case: Case) -> None:
    O, P = case.O.copy(), case.P.copy()
    case.do.clip_modulus(O, 1.2)
    np.testing.assert_allclose(np.abs(O), np.minimum(np.abs(case.O), 1.2))
    np.testing.assert_allclose(np.angle(O), np.angle(case.O))
    before = P[0, 3, 3] * O[0, 5, 5]
    case.do.fix_power(P, O, 500.0)
    assert (np.abs(P) ** 2).sum() == pytest.approx(500)
    assert P[0, 3, 3] * O[0, 5, 5] == pytest.approx(before)


def test_weighed_means_of_copies_are_the_copy_where_nobody_has_been(case: Case) -> None:
    weight = np.zeros((30, 28))
    weight[:10] = 4
    num, den = case.do.sums(case.O)
    case.do.weigh(num, den, case.O, weight)
    merged = np.zeros_like(case.O)
    case.do.quotient(merged, 2 * num, 2 * den, 0)
    np.testing.assert_allclose(merged, case.O)


def test_single_precision_agrees_with_double() -> None:
    case, single = Case(), ReferenceVerbs(FAR, np.complex64)
    A = case.do.to_detector(case.psi.copy(), case.b)
    A32 = single.to_detector(case.psi.astype(np.complex64), case.b)
    assert A32.dtype == np.complex64
    case.do.onto_modulus(A, case.b, 0)
    single.onto_modulus(A32, case.b, 0)
    assert A32.dtype == np.complex64
    np.testing.assert_allclose(A32, A, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("look", [float, bool, np.asarray, int, lambda scalar: [0][scalar]])
def test_a_device_scalar_is_not_looked_at(look: Any) -> None:
    scalar = DeviceScalar(np.full((), 3.0)) + DeviceScalar(np.full((), 4.0))
    with pytest.raises(TypeError, match="not read inside a sweep"):
        look(scalar)
    assert scalar.read() == 7
