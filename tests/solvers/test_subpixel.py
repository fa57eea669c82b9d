"""Positions between pixels: the probe is moved by what rounding leaves over."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import Geometry, MemoryFrames, Recipe, Scan
from ptyplugin.model.geometry import HC_EV_M
from ptyplugin.sim.camera import Camera
from ptyplugin.solvers import solve
from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cpu import CpuVerbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

FAR = Geometry(8000.0, 1.0, 75e-6, (24, 18))
NEAR = Geometry(8000.0, 1.0, 75e-6, (24, 18), focus_distance_m=5e-3)


def random(rng: np.random.Generator, *shape: int) -> NDArray[np.complex128]:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def moved(X: NDArray[Any], rest: NDArray[Any]) -> NDArray[Any]:
    """X (..., y, x), its content moved by ``rest`` (yx) px."""
    y, x = (np.fft.fftfreq(size) for size in X.shape[-2:])
    return np.fft.ifft2(np.fft.fft2(X) * np.exp(-2j * np.pi * (y[:, None] * rest[0] + x[None] * rest[1])))


class Case:
    """4 frames with rests, 2 probe modes, 2 sub-steps, one object of 34 x 28 px."""

    def __init__(self, dtype: Any = np.complex128, shape: tuple[int, int] = (24, 18), substeps: int = 2) -> None:
        rng = np.random.default_rng(4)
        self.O, self.P = (random(rng, *size).astype(dtype) for size in ((1, 34, 28), (2, *shape)))
        self.psi, self.other = (random(rng, 4, 2 * substeps, *shape).astype(dtype) for _ in range(2))
        self.dO, self.dP = (random(rng, *X.shape).astype(dtype) for X in (self.O, self.P))
        corners = rng.integers(0, 10, (4, substeps, 2)).astype(np.int32)
        rests = rng.uniform(-0.5, 0.5, corners.shape).astype(np.float32)
        self.b = Batch(slice(0, 4), corners, rests, rng.poisson(30, (4, *shape)).astype(np.uint16), rng.random(shape) > 0.2)

    def plain_waves(self) -> NDArray[Any]:
        """P_j O_j, probe mode by probe mode, sub-step by sub-step."""
        waves, (rows, columns) = np.empty_like(self.psi), self.b.good.shape
        for j in range(4):
            for m in range(2):
                for s, (y, x) in enumerate(self.b.corners[j]):
                    patch = self.O[0, y : y + rows, x : x + columns]
                    waves[j, 2 * m + s] = moved(self.P[m], self.b.rests[j, s]) * patch / np.sqrt(2)
        return waves


def test_the_probe_is_moved_by_the_rest_of_each_sub_step() -> None:
    case = Case()
    np.testing.assert_allclose(ReferenceVerbs(FAR, np.complex128).exit_waves(case.O, case.P, case.b), case.plain_waves())


def test_the_near_field_moves_back_and_there_again() -> None:
    case, do = Case(), ReferenceVerbs(NEAR, np.complex128)
    A = do.to_detector(case.psi.copy(), case.b)
    without = do.to_detector(case.psi.copy(), replace(case.b, rests=0 * case.b.rests))
    for j in range(4):
        for wave in range(4):
            np.testing.assert_allclose(A[j, wave], moved(without[j, wave], -case.b.rests[j, wave % 2]), atol=1e-12)
    np.testing.assert_allclose(do.to_sample(A, case.b), case.psi, atol=1e-12)


@pytest.mark.parametrize("geometry", [FAR, NEAR])
@pytest.mark.parametrize("frames", [4, 1])
@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_sums_and_transforms_are_adjoints(implementation: str, frames: int, geometry: Geometry) -> None:
    dtype, rtol = (np.complex128, 1e-10) if implementation == "reference" else (np.complex64, 1e-4)
    case, do = Case(dtype), ReferenceVerbs(geometry, dtype) if implementation == "reference" else CpuVerbs(geometry, 2, "scipy")
    b = replace(case.b, index=slice(0, frames), corners=case.b.corners[:frames], rests=case.b.rests[:frames], counts=case.b.counts[:frames])
    psi, other = case.psi[:frames], case.other[:frames]
    num, den = do.sums(case.O)
    do.object_sums(num, den, psi, case.P, b)
    waves = np.array(do.exit_waves(case.dO, case.P, b))
    do.finish()
    np.testing.assert_allclose(np.vdot(case.dO, num), np.vdot(waves, psi), rtol=rtol)
    num, den = do.sums(case.P)
    do.probe_sums(num, den, psi, case.O, b)
    waves = np.array(do.exit_waves(case.O, case.dP, b))
    do.finish()
    np.testing.assert_allclose(np.vdot(case.dP, num), np.vdot(waves, psi), rtol=rtol)
    there, back = np.array(do.to_detector(psi.copy(), b)), np.array(do.to_sample(other.copy(), b))
    scale = 1 if geometry.near_field else psi.shape[-2] * psi.shape[-1]
    np.testing.assert_allclose(np.vdot(other, there), scale * np.vdot(back, psi), rtol=rtol)


def results(do: Any, case: Case, b: Batch) -> list[NDArray[Any]]:
    """What verbs with a probe give on the frames of ``b``: also twice, one after the other, and after a step of the probe."""
    O, P, psi = case.O.copy(), case.P.copy(), case.psi[b.index].copy()
    gave = [np.array(do.exit_waves(O, P, b)), np.array(do.reflect(psi, O, P, b, 2, -1))]
    gave.append(np.array(do.to_sample(do.to_detector(do.exit_waves(O, P, b), b), b)))
    do.advance(psi, 3 * psi, O, P, b, 0.5, 0.2, 0.3)
    sums = [*do.sums(O), *do.sums(P)]
    do.object_sums(sums[0], sums[1], psi, P, b)
    do.probe_sums(sums[2], sums[3], psi, O, b)
    do.finish()
    gave += [psi, *sums]
    for _ in range(2):
        patches, d = do.cut(O, b), do.reflect(psi, O, P, b, -1, 1)
        do.object_step(O, P, d, b, 0.3, 0.5)
        do.probe_step(P, patches, d, b, 0.3, 0.5)
        gave.append(np.array(do.exit_waves(O, P, b)))
    do.fix_power(P, O, 300.0)
    do.finish()
    return [*gave, np.array(do.exit_waves(O, P, b)), O, P]


@pytest.mark.parametrize(
    "fft", ["scipy", pytest.param("pyfftw", marks=pytest.mark.skipif(find_spec("pyfftw") is None, reason="pyFFTW is not installed"))]
)
@pytest.mark.parametrize("geometry", [FAR, NEAR])
@pytest.mark.parametrize("substeps", [1, 2])
def test_processors_agree_with_the_reference(geometry: Geometry, substeps: int, fft: Any) -> None:
    case = Case(np.complex64, substeps=substeps)
    one = replace(case.b, index=slice(2, 3), corners=case.b.corners[2:3], rests=case.b.rests[2:3], counts=case.b.counts[2:3])
    for b in (case.b, one):
        for mine, judge in zip(results(CpuVerbs(geometry, 2, fft), case, b), results(ReferenceVerbs(geometry), case, b), strict=True):
            assert mine.dtype == judge.dtype
            np.testing.assert_allclose(mine, judge, atol=2e-5 * np.abs(judge).max())


def test_a_step_put_off_is_there_when_somebody_looks() -> None:
    case, do = Case(np.complex64, substeps=1), CpuVerbs(FAR, 1, "scipy")
    one = replace(case.b, index=slice(0, 1), corners=case.b.corners[:1], rests=case.b.rests[:1], counts=case.b.counts[:1])
    P = case.P.copy()
    do.probe_step(P, do.cut(case.O, one), case.psi[:1].copy(), one, 1.0, 1.0)
    without_rests = replace(one, rests=0 * one.rests)
    stepped = case.P.copy()
    judge = ReferenceVerbs(FAR)
    judge.probe_step(stepped, judge.cut(case.O, one), case.psi[:1].copy(), one, 1.0, 1.0)
    seen = np.array(do.exit_waves(case.O, P, without_rests))
    np.testing.assert_allclose(seen, judge.exit_waves(case.O, stepped, without_rests), atol=1e-4)
    do.probe_step(P, do.cut(case.O, one), case.psi[:1].copy(), one, 1.0, 1.0)
    judge.probe_step(stepped, judge.cut(case.O, one), case.psi[:1].copy(), one, 1.0, 1.0)
    do.finish()
    np.testing.assert_allclose(P, stepped, atol=1e-4)


def exact_scan(simulate: Callable[..., Any], near_field: bool = False) -> tuple[MemoryFrames, Scan, Any]:
    """The small experiment with its positions moved off the pixels by up to half of one (rounded down as to the nearest); no noise."""
    experiment = simulate(noise=False, grid=(6, 6), near_field=near_field)
    at = experiment.corners + np.random.default_rng(7).uniform(0, 0.49, experiment.corners.shape) * (experiment.corners > 0)
    positions_m = at * np.asarray(experiment.geometry.object_pixel_m)
    if near_field:
        counts = np.stack([near_field_counts(experiment, position) for position in at])
    else:
        camera = Camera(experiment.object, experiment.probe, experiment.geometry, (0.0, 0.0), np.random.default_rng(0))
        counts = np.stack([camera.expected(position) for position in positions_m])
    return MemoryFrames(counts.astype(np.float32)), Scan(positions_m, np.arange(len(at))), experiment


def near_field_counts(experiment: Any, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts of one frame: the beam stands still, the object moves; |K (P O(. + at))|^2 with the wave moved as a whole."""
    geometry, (y, x) = experiment.geometry, np.rint(at).astype(int)
    rows, columns = geometry.shape
    O = np.pad(experiment.object, 2, mode="edge")[y + 2 : y + 2 + rows, x + 2 : x + 2 + columns]
    wave = moved(moved(experiment.probe, at - (y, x)) * O, (y, x) - at)
    f = np.fft.fftfreq(rows, geometry.object_pixel_m[0])
    wavelength_m = HC_EV_M / geometry.energy_ev
    kernel = np.exp(-1j * np.pi * wavelength_m * geometry.effective_distance_m * (f[:, None] ** 2 + f[None, :] ** 2))
    return np.asarray((np.abs(np.fft.ifft2(np.fft.fft2(wave) * kernel)) ** 2).sum(axis=0))


@pytest.mark.parametrize("near_field", [False, True], ids=["far", "near"])
@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_the_truth_of_an_exact_scan_between_pixels_has_no_error(
    simulate: Callable[..., Any], implementation: str, near_field: bool
) -> None:
    frames, scan, experiment = exact_scan(simulate, near_field)
    geometry, shape = experiment.geometry, experiment.geometry.shape
    placement = scan.place(geometry)
    axes = () if near_field else (-2, -1)
    b = Batch(
        slice(0, len(frames)), placement.corners, placement.rests, np.fft.ifftshift(frames.counts, axes=axes), np.ones(shape, dtype=bool)
    )
    margin = placement.corners.min()
    truth = np.pad(experiment.object, margin, mode="edge")[None].astype(np.complex64)
    probe = experiment.probe.astype(np.complex64)
    do: Any = ReferenceVerbs(geometry) if implementation == "reference" else CpuVerbs(geometry)

    def error(b: Batch) -> float:
        return float(do.modulus_residual(do.to_detector(do.exit_waves(truth, probe, b), b), b).read() / frames.counts.sum())

    assert error(b) < 1e-9
    assert error(replace(b, rests=0 * b.rests)) > 1e-4


@pytest.mark.parametrize("near_field", [False, True], ids=["far", "near"])
@pytest.mark.parametrize("recipe", ["DM(60)", "ePIE(60)"])
def test_an_exact_scan_between_pixels_is_explained(simulate: Callable[..., Any], recipe: str, near_field: bool) -> None:
    frames, scan, experiment = exact_scan(simulate, near_field)

    def error(subpixel: Any) -> float:
        result = solve(frames, scan, experiment.geometry, recipe=Recipe.parse(recipe), start_probe=experiment.probe, subpixel=subpixel)
        assert result is not None
        left = result.positions_px - scan.positions_m[:, 0] / np.asarray(experiment.geometry.object_pixel_m)
        assert np.ptp(left, axis=0).max() < (1.01 if subpixel == "none" else 1e-5)
        return result.quality["error"]

    assert error("probe") < 0.5 * error("none")


def test_a_scan_on_pixels_gives_the_same_bits_either_way(experiment: Any) -> None:
    recipe = Recipe.parse("DM(3) + ePIE(2)")
    probe, none = (
        solve(experiment.frames, experiment.scan, experiment.geometry, recipe=recipe, start_probe=experiment.probe, subpixel=subpixel)
        for subpixel in ("probe", "none")
    )
    assert probe is not None
    assert none is not None
    np.testing.assert_array_equal(probe.object, none.object)
    np.testing.assert_array_equal(probe.probe, none.probe)
    np.testing.assert_array_equal(probe.positions_px, np.rint(probe.positions_px))


def test_the_near_field_star_is_explained_better_than_on_pixels(shared: Path) -> None:
    """The bound is what other packages need more iterations for; on pixels the same recipe ends at 0.0059."""
    with h5py.File(shared / "data" / "petra3_p25_nearfield_siemens.cxi") as h:
        detector, source = h["entry_1/instrument_1/detector_1"], h["entry_1/instrument_1/source_1"]
        frames = MemoryFrames(detector["data"][()], detector["mask"][()].astype(np.uint8))
        positions = h["entry_1/sample_1/geometry_1/translation"][()][:, [1, 0]]
        numbers = (float(source["energy"][()]) / 1.602176634e-19, float(detector["distance"][()]), float(detector["y_pixel_size"][()]))
        geometry = Geometry(*numbers, frames.shape, float(source["focus_to_sample_distance"][()]))
    result = solve(frames, Scan(positions, np.arange(len(positions))), geometry, recipe=Recipe.parse("DM(30) + ePIE(12)"))
    assert result is not None
    assert result.quality["error"] < 0.0046
