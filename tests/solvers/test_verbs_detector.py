"""Background and intensities in the verbs: against their equations in plain float64, and ``cpu`` against the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import Geometry
from ptyplugin.solvers.batches import Batch, RankFrames
from ptyplugin.solvers.verbs.cpu import CpuVerbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

FLOOR = 0.3


def geometry_of(shape: tuple[int, int], near_field: bool) -> Geometry:
    return Geometry(8000.0, 1.0, 75e-6, shape, focus_distance_m=5e-3 if near_field else None)


class Case:
    """5 frames of 2 waves, a sixth of their pixels masked and of absurd counts, about as many counts as the model has."""

    def __init__(self, shape: tuple[int, int], near_field: bool, background: bool, intensities: bool) -> None:
        rng = np.random.default_rng(shape[0])
        self.c = 1 if near_field else shape[0] * shape[1]
        self.A = (rng.standard_normal((5, 2, *shape)) + 1j * rng.standard_normal((5, 2, *shape))) * self.c**0.5
        corners, good = np.zeros((5, 1, 2), np.int32), rng.random(shape) > 1 / 6
        counts = rng.poisson(4, (5, *shape)).astype(np.uint16)
        counts[:, ~good] = 60_000
        dark = (rng.random(shape) * 3).astype(np.float32) if background else None
        beam = rng.uniform(0.5, 2, 5).astype(np.float32) if intensities else None
        self.b = Batch(slice(0, 5), corners, np.zeros(corners.shape, np.float32), counts, good, dark, beam)

    def model(self, A: NDArray[np.complex128]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Counts of these waves, and with the background."""
        beam = 1.0 if self.b.intensities is None else self.b.intensities[:, None, None].astype(np.float64)
        waves = (np.abs(A) ** 2).sum(axis=1) / self.c * beam
        return waves, waves + (0 if self.b.background is None else self.b.background)


def results(do: Any, case: Case, b: Batch) -> dict[str, Any]:
    """What the verbs that meet counts give on the frames of ``b``."""
    A, gave = case.A[b.index].astype(do.dtype), {}
    for name, verb, how in (
        ("onto_modulus", do.onto_modulus, 0.0),
        ("onto_modulus with slack", do.onto_modulus, 0.2),
        ("gaussian", do.likelihood_step, "gaussian"),
        ("poisson", do.likelihood_step, "poisson"),
    ):
        changed = A.copy()
        gave[f"{name} residual"] = verb(changed, b, how).read()
        do.finish()
        gave[name] = changed
    gave["modulus_residual"] = do.modulus_residual(A, b).read()
    num, den = (np.zeros(b.good.shape, np.float32 if do.dtype == np.complex64 else np.float64) for _ in range(2))
    do.background_sums(num, den, A, b, FLOOR)
    sums, counts = do.intensity_sums(A, b, FLOOR), do.model_counts(A, b)
    do.finish()
    return gave | {"model_counts": counts, "background num": num, "background den": den, "intensity_sums": sums}


def equations(case: Case) -> dict[str, Any]:
    waves, model = case.model(case.A)
    A, good, counts = case.A, case.b.good, case.b.counts.astype(np.float64)
    ratio = np.sqrt(counts / model)
    residual = ((np.sqrt(counts) - np.sqrt(model)) ** 2)[:, good].sum()
    change = np.where(good, counts - model, 0) / (model + FLOOR)
    gave: dict[str, Any] = {f"{name} residual": residual for name in ("onto_modulus", "onto_modulus with slack", "gaussian", "poisson")}
    poisson = np.where(ratio < 1, (ratio**2 - 1) / 2, ratio - 1)
    return gave | {
        "onto_modulus": A * np.where(good, ratio, 1)[:, None],
        "onto_modulus with slack": A * np.where(good, 0.2 + 0.8 * ratio, 1)[:, None],
        "gaussian": A * np.where(good, ratio - 1, 0)[:, None],
        "poisson": A * np.where(good, poisson, 0)[:, None],
        "modulus_residual": residual,
        "model_counts": model,
        "background num": change.sum(axis=0),
        "background den": (good / (model + FLOOR)).sum(axis=0),
        "intensity_sums": np.stack([(change * waves).sum(axis=(1, 2)), (good * waves**2 / (model + FLOOR)).sum(axis=(1, 2))], axis=1),
    }


ALL = [(False, False), (True, False), (False, True), (True, True)]


@pytest.mark.parametrize(("background", "intensities"), ALL)
@pytest.mark.parametrize("near_field", [False, True], ids=["far", "near"])
def test_verbs_follow_their_equations(near_field: bool, background: bool, intensities: bool) -> None:
    case = Case((12, 10), near_field, background, intensities)
    expected = equations(case)
    for name, value in results(ReferenceVerbs(geometry_of((12, 10), near_field), np.complex128), case, case.b).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("background", "intensities"), ALL)
@pytest.mark.parametrize(("shape", "threads", "kind"), [((64, 64), 1, np.uint16), ((65, 81), 2, np.float32)])
def test_verbs_for_processors_agree_with_the_reference(
    shape: tuple[int, int], threads: int, kind: Any, background: bool, intensities: bool
) -> None:
    case = Case(shape, False, background, intensities)
    all_frames = replace(case.b, counts=case.b.counts.astype(kind))
    mine, judge = CpuVerbs(geometry_of(shape, False), threads), ReferenceVerbs(geometry_of(shape, False))
    one = RankFrames(
        np.arange(5), *(getattr(all_frames, name) for name in ("corners", "rests", "counts", "good", "background", "intensities"))
    )
    for b in (all_frames, one.chosen(np.array([3]))):
        expected = results(judge, case, b)
        for name, value in results(mine, case, b).items():
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-5 * scale, err_msg=f"{name} of {len(b)} frames")


def test_a_background_of_zero_and_intensities_of_one_change_nothing() -> None:
    case = Case((64, 64), False, False, False)
    trivial = replace(case.b, background=np.zeros((64, 64), np.float32), intensities=np.ones(5, np.float32))
    do = CpuVerbs(geometry_of((64, 64), False))
    expected = results(do, case, case.b)
    for name, value in results(do, case, trivial).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)


def test_frames_that_are_chosen_bring_their_intensity() -> None:
    case = Case((12, 10), False, True, True)
    fields = ("corners", "rests", "counts", "good", "background", "intensities")
    frames = RankFrames(np.arange(5), *(getattr(case.b, name) for name in fields))
    for b, numbers in ((frames.chosen(np.array([1, 4])), [1, 4]), (frames.batch(2, 5), [2, 3, 4]), (frames.chosen(np.array([2])), [2])):
        np.testing.assert_array_equal(b.intensities, case.b.intensities[numbers])
        assert b.background is case.b.background


@pytest.mark.parametrize("near_field", [False, True], ids=["far", "near"])
def test_the_gradient_of_positions_is_that_of_the_modulus(near_field: bool) -> None:
    case = Case((12, 10), near_field, True, True)
    rng = np.random.default_rng(1)
    Ay, Ax = (rng.standard_normal((2, *case.A.shape)) + 1j * rng.standard_normal((2, *case.A.shape))) * case.c**0.5
    steps = (1e-6 * Ay, -1e-6 * Ay, 1e-6 * Ax, -1e-6 * Ax)
    roots = [np.sqrt(case.model(case.A + step)[1]) for step in steps]
    y, x = ((roots[0] - roots[1]) / 2e-6)[:, case.b.good], ((roots[2] - roots[3]) / 2e-6)[:, case.b.good]
    r = (np.sqrt(case.b.counts) - np.sqrt(case.model(case.A)[1]))[:, case.b.good]
    expected = np.stack([(f * g).sum(axis=1) for f, g in ((y, y), (x, x), (y, x), (y, r), (x, r), (r, r))], axis=1)
    geometry = geometry_of((12, 10), near_field)
    for do, tolerance in ((ReferenceVerbs(geometry, np.complex128), 1e-6), (CpuVerbs(geometry), 1e-4)):
        waves = (each.astype(do.dtype) for each in (case.A, Ay, Ax))
        sums = do.position_gradient(*waves, case.b)
        do.finish()
        np.testing.assert_allclose(sums, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
