"""Verbs about positions: the cpu ones against the reference, and the reference against what the words mean."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from ptyplugin.model import Geometry
from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cpu import CpuVerbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

FAR, NEAR = (Geometry(8000.0, 1.0, 75e-6, (36, 30), focus_distance_m=focus) for focus in (None, 5e-3))


class Case:
    """5 frames with rests on a smooth object, and counts of the same frames moved by ``moved`` (frame, yx) px."""

    def __init__(self, geometry: Geometry, modes: int, objects: int, substeps: int, rests: bool = True) -> None:
        rng = np.random.default_rng(5)
        self.shape = geometry.shape
        self.O = np.stack([smooth(rng, (60, 56), 2.0) for _ in range(objects)]).astype(np.complex64)
        y, x = (np.arange(size) - size / 2 for size in self.shape)
        beam = np.exp(-((y[:, None] ** 2 + x[None] ** 2) / 90))
        self.P = np.stack([3e2 * beam * smooth(rng, self.shape, 3.0) for _ in range(modes)]).astype(np.complex64)
        corners = rng.integers(6, 15, (5, substeps, 2)).astype(np.int32)
        at = rng.uniform(-0.5, 0.5, corners.shape).astype(np.float32) * rests
        self.moved = rng.uniform(-0.15, 0.15, (5, 2))
        do = ReferenceVerbs(geometry, np.complex128)
        empty = np.zeros((5, *self.shape), np.float32)
        good = rng.random(self.shape) > 0.1
        there = Batch(slice(0, 5), corners, at + self.moved[:, None], empty, good)
        A = do.to_detector(do.exit_waves(self.O.astype(np.complex128), self.P.astype(np.complex128), there), there)
        counts = (np.abs(A) ** 2).sum(axis=1) / (1 if geometry.near_field else A[0, 0].size)
        self.b = replace(there, rests=at, counts=counts.astype(np.float32))
        self.waves = A.shape[1]


def smooth(rng: np.random.Generator, shape: tuple[int, int], width: float) -> NDArray[np.complex128]:
    phase = ndimage.gaussian_filter(rng.standard_normal(shape), width)
    return np.exp(1j * phase / phase.std())


def of(do: Any, case: Case, b: Batch, O: Any, P: Any) -> NDArray[np.float64]:
    A, Ay, Ax = (do.to_detector(do.exit_waves(X, P, b), b) for X in (O, *do.derivatives(O)))
    sums = do.position_gradient(A, Ay, Ax, b)
    do.finish()
    return np.asarray(sums)


CASES = [(FAR, 1, 1, 1), (FAR, 2, 1, 2), (FAR, 2, 2, 1), (FAR, 1, 2, 3), (NEAR, 1, 1, 1), (NEAR, 2, 1, 2)]


@pytest.mark.parametrize(("geometry", "modes", "objects", "substeps"), CASES)
def test_the_gradient_points_to_where_the_frame_was_taken(geometry: Geometry, modes: int, objects: int, substeps: int) -> None:
    case = Case(geometry, modes, objects, substeps)
    sums = of(ReferenceVerbs(geometry, np.complex128), case, case.b, case.O.astype(np.complex128), case.P.astype(np.complex128))
    yy, xx, yx, yr, xr, rr = sums.T
    steps = np.stack([xx * yr - yx * xr, yy * xr - yx * yr], axis=1) / (yy * xx - yx**2)[:, None]
    np.testing.assert_allclose(steps, case.moved, atol=0.03)
    left = rr - steps[:, 0] * yr - steps[:, 1] * xr
    assert np.all(left < 0.2 * rr)


@pytest.mark.parametrize(("geometry", "modes", "objects", "substeps"), CASES)
@pytest.mark.parametrize("frames", [5, 1])
@pytest.mark.parametrize("rests", [True, False])
def test_cpu_gives_what_the_reference_gives(geometry: Geometry, modes: int, objects: int, substeps: int, frames: int, rests: bool) -> None:
    case = Case(geometry, modes, objects, substeps, rests)
    b = case.b
    b = replace(b, index=slice(0, frames), corners=b.corners[:frames], rests=b.rests[:frames], counts=b.counts[:frames])
    judge, cpu = ReferenceVerbs(geometry), CpuVerbs(geometry, 2)
    np.testing.assert_allclose(of(cpu, case, b, case.O, case.P), of(judge, case, b, case.O, case.P), rtol=2e-3, atol=1e-3)
    gave = []
    for do in (judge, cpu):
        A = do.to_detector(do.exit_waves(case.O, case.P, b), b)
        gave.append(do.frame_residuals(A, b))
        do.finish()
    np.testing.assert_allclose(gave[1], gave[0], rtol=1e-3)
    rng = np.random.default_rng(1)
    psi, shifts = (rng.standard_normal((frames, case.waves, *size)) for size in (case.shape, (2,)))
    waves = [psi.astype(np.complex64) for _ in range(2)]
    for do, wave in zip((judge, cpu), waves, strict=True):
        do.move_waves(wave, shifts, b)
        do.finish()
    np.testing.assert_allclose(waves[1], waves[0], atol=1e-5)
    psi = judge.exit_waves(case.O, case.P, b)
    np.testing.assert_allclose(cpu.correlate(psi, case.O, case.P, b, 4.0), judge.correlate(psi, case.O, case.P, b, 4.0), atol=1e-3)


def test_waves_are_moved_by_whole_pixels_as_numpy_rolls_them() -> None:
    case, do = Case(FAR, 2, 1, 1), ReferenceVerbs(FAR, np.complex128)
    psi = do.exit_waves(case.O.astype(np.complex128), case.P.astype(np.complex128), case.b)
    moved = psi.copy()
    do.move_waves(moved, np.broadcast_to([2.0, -3.0], (5, 2, 2)), case.b)
    np.testing.assert_allclose(moved, np.roll(psi, (2, -3), (-2, -1)), atol=1e-9)


@pytest.mark.parametrize(("geometry", "modes", "objects", "substeps"), CASES)
def test_correlation_finds_a_wave_of_another_place(geometry: Geometry, modes: int, objects: int, substeps: int) -> None:
    case, do = Case(geometry, modes, objects, substeps), ReferenceVerbs(geometry, np.complex128)
    O, P, b = case.O.astype(np.complex128), case.P.astype(np.complex128), case.b
    shift = np.array([2, -3], np.int32)
    psi = do.exit_waves(O, P, replace(b, corners=b.corners + shift))
    np.testing.assert_allclose(do.correlate(psi, O, P, b, 5.0), np.broadcast_to(shift, (5, 2)), atol=0.05)
    near = do.correlate(psi, O, P, b, 1.0)
    assert np.abs(near).max() <= 1.0


def test_derivatives_of_a_wave() -> None:
    rows, columns = np.indices((40, 50))
    O = np.exp(1j * (0.3 * rows - 0.2 * columns))[None]
    along_y, along_x = ReferenceVerbs(FAR, np.complex128).derivatives(O)
    inner = (slice(None), slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(along_y[inner], 0.3j * O[inner], atol=1e-3)
    np.testing.assert_allclose(along_x[inner], -0.2j * O[inner], atol=1e-3)
    assert not along_y[:, :2].any()
    assert not along_x[:, :, -2:].any()
