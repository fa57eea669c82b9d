"""LSQML: its steps against brute force and finite differences, what it finds, what it survives, on one rank and on two."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from experiments import run
from numpy.typing import NDArray

from ptyplugin.model import Geometry, MemoryFrames, Recipe, RecipeError, Scan
from ptyplugin.solvers import check_recipe, solve
from ptyplugin.solvers.batches import Batch, RankFrames, in_compact_batches
from ptyplugin.solvers.verbs.least_squares import best_lengths
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

SHAPE = (12, 10)


def random(rng: np.random.Generator, *shape: int) -> NDArray[np.complex128]:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


class Problem:
    """4 frames of 12 x 10 px, two probe modes, rests, a fifth of the pixels masked, in float64."""

    def __init__(self, near_field: bool) -> None:
        rng = np.random.default_rng(4)
        geometry = Geometry(8000.0, 1.0, 75e-6, SHAPE, focus_distance_m=5e-3 if near_field else None)
        self.do, self.c = ReferenceVerbs(geometry, np.complex128), 1 if near_field else SHAPE[0] * SHAPE[1]
        self.O, self.P = random(rng, 1, 22, 20), 3 * random(rng, 2, *SHAPE)
        corners, good = rng.integers(0, 10, (4, 1, 2)).astype(np.int32), rng.random(SHAPE) > 0.2
        rests = rng.uniform(-0.5, 0.5, corners.shape).astype(np.float32)
        self.b = Batch(slice(0, 4), corners, rests, rng.poisson(20, (4, *SHAPE)).astype(np.float32), good)

    def waves(self, O: NDArray[Any], P: NDArray[Any]) -> NDArray[Any]:
        return self.do.to_detector(self.do.exit_waves(O, P, self.b), self.b)

    def likelihood(self, O: NDArray[Any], P: NDArray[Any], noise: str) -> float:
        """The negative logarithm, apart from what does not depend on the model."""
        counts = (np.abs(self.waves(O, P)) ** 2).sum(axis=1) / self.c
        pixels = (np.sqrt(counts) - np.sqrt(self.b.counts)) ** 2 if noise == "gaussian" else (counts - self.b.counts * np.log(counts)) / 2
        return float(pixels[:, self.b.good].sum())

    def directions(self, noise: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        A = self.waves(self.O, self.P)
        self.do.likelihood_step(A, self.b, noise)
        chi = self.do.to_sample(A, self.b)
        dO, dP = self.do.sums(self.O)[0], self.do.sums(self.P)[0]
        self.do.object_sums(dO, self.do.sums(self.O)[1], chi, self.P, self.b)
        self.do.probe_sums(dP, self.do.sums(self.P)[1], chi, self.O, self.b)
        return dO, dP


@pytest.mark.parametrize("near_field", [False, True], ids=["far", "near"])
@pytest.mark.parametrize("noise", ["gaussian", "poisson"])
def test_directions_are_the_gradient_of_the_likelihood(noise: str, near_field: bool) -> None:
    problem, rng, small = Problem(near_field), np.random.default_rng(5), 1e-5
    if noise == "poisson":  # where there are more counts than modelled the Poisson step is held back
        problem.b.counts[...] = 0.7 * (np.abs(problem.waves(problem.O, problem.P)) ** 2).sum(axis=1) / problem.c
    dO, dP = problem.directions(noise)
    for change in (random(rng, *dO.shape), np.zeros_like(dO)):
        turn = random(rng, *dP.shape) if not change.any() else np.zeros_like(dP)
        ends = [problem.likelihood(problem.O + sign * small * change, problem.P + sign * small * turn, noise) for sign in (1, -1)]
        slope = -2 * (np.vdot(change, dO) + np.vdot(turn, dP)).real
        assert (ends[0] - ends[1]) / (2 * small) == pytest.approx(slope, rel=1e-6)


def test_poisson_steps_never_pass_the_minimum_of_a_pixel() -> None:
    problem = Problem(False)
    before = problem.waves(problem.O, problem.P)
    gaussian, poisson = before.copy(), before.copy()
    residuals = [problem.do.likelihood_step(A, problem.b, noise).read() for A, noise in ((gaussian, "gaussian"), (poisson, "poisson"))]
    expected = problem.do.modulus_residual(before, problem.b).read()
    assert residuals == pytest.approx([expected, expected])
    good = problem.b.good
    assert not gaussian[:, :, ~good].any()
    assert not poisson[:, :, ~good].any()
    np.testing.assert_allclose((np.abs(before + gaussian) ** 2).sum(axis=1)[:, good] / problem.c, problem.b.counts[:, good])
    share = poisson[:, :, good] / gaussian[:, :, good]
    np.testing.assert_allclose(share.imag, 0, atol=1e-12)
    assert share.real.min() >= 0.5 - 1e-9
    assert share.real.max() <= 1 + 1e-9
    assert (share.real < 0.99).any()


def test_step_lengths_are_the_minimum_that_brute_force_finds() -> None:
    problem = Problem(False)
    do, b = problem.do, problem.b
    A = problem.waves(problem.O, problem.P)
    do.likelihood_step(A, b, "gaussian")
    chi, (dO, dP) = do.to_sample(A, b), problem.directions("gaussian")
    u, v = do.exit_waves(dO, problem.P, b), do.exit_waves(problem.O, dP, b)

    def distance(alpha: float, beta: float) -> float:
        return float((np.abs(chi - alpha * u - beta * v) ** 2).sum())

    def smallest(along: Callable[[float], float]) -> float:
        return float(scipy.optimize.minimize_scalar(along, bracket=(0, 1), tol=1e-12).x)

    alone = smallest(lambda t: distance(t, 0)), smallest(lambda t: distance(0, t))
    factor = smallest(lambda t: distance(t * alone[0], t * alone[1]))
    alpha, beta = best_lengths(do.step_sums(chi, u, v, b))
    assert (alpha, beta) == pytest.approx((factor * alone[0], factor * alone[1]), rel=1e-6)
    assert distance(alpha, beta) < min(distance(alone[0], 0), distance(0, alone[1])) < distance(0, 0)
    O, P = problem.O.copy(), problem.P.copy()
    do.add_steps(O, dO, P, dP, do.step_sums(chi, u, v, b), 1.0, 0.5)
    np.testing.assert_allclose(O, problem.O + alpha * dO)
    np.testing.assert_allclose(P, problem.P + 0.5 * beta * dP)


@pytest.mark.parametrize(
    ("sums", "lengths"),
    [
        ([0, 0, 0, 0, 0], (0, 0)),
        ([4, 0, 0, 2, 0], (0.5, 0)),
        ([0, 4, 0, 0, -2], (0, 0)),
        ([1, 1, 1, 1, 1], (0.5, 0.5)),
        ([1, 1, -1, 1, -1], (1, 0)),
    ],
    ids=["darkness", "object only", "uphill", "parallel", "against each other"],
)
def test_step_lengths_of_odd_systems_are_finite(sums: list[float], lengths: tuple[float, float]) -> None:
    assert best_lengths(np.array([sums], dtype=float)) == pytest.approx(lengths)


@pytest.mark.parametrize(
    "recipe",
    [
        "LSQML(40)",
        'LSQML(40, noise="poisson")',
        'LSQML(40, batches="compact", batch=10)',
        "LSQML(40, batch=1, momentum=0.0)",
        "LSQML(60, batch=1000, momentum=0.9)",
    ],
)
def test_the_sample_is_found_from_a_wrong_probe(experiment: Any, recipe: str) -> None:
    k = np.arange(32) - 16
    wrong = experiment.probe * np.exp(0.01j * (k[:, None] ** 2 + k[None, :] ** 2))
    result = run(experiment, recipe, start_probe=wrong)
    assert result.quality["error"] < 0.0045
    assert experiment.phase_rms(result.object[0], result.positions_px) < 0.06


def test_small_steps_at_the_end_average_the_noise_out(experiment: Any) -> None:
    long, short = (
        run(experiment, f"LSQML(30, batch=5) + LSQML(15, batch=5, object_step={share}, probe_step={share})").quality["error"]
        for share in (1.0, 0.1)
    )
    assert short < 0.95 * long


def test_the_probe_is_not_touched_before_it_is_asked_for(experiment: Any) -> None:
    k = np.arange(32) - 16
    wrong = experiment.probe * np.exp(0.02j * (k[:, None] ** 2 + k[None, :] ** 2))
    frozen, moved = (run(experiment, f"LSQML(8, probe_from={first}, momentum=0.0)", start_probe=wrong) for first in (9, 1))
    scale = np.vdot(wrong, frozen.probe) / np.vdot(wrong, wrong)
    np.testing.assert_allclose(frozen.probe, scale * wrong, atol=1e-5 * np.abs(wrong).max())
    assert moved.quality["error"] < 0.8 * frozen.quality["error"]


@pytest.mark.parametrize("batches", ["sparse", "compact"])
def test_modes_substeps_and_the_near_field(simulate: Callable[..., Any], batches: str) -> None:
    recipe = f'LSQML(40, batches="{batches}")'
    two = simulate(modes=2)
    assert run(two, recipe, probe_modes=2).quality["error"] < 0.0033 < run(two, recipe).quality["error"]
    assert run(simulate(near_field=True, photons=1e6), recipe).quality["error"] < 0.002
    moving = simulate(substeps=3, photons=1e6)
    blind = replace(moving, scan=Scan(moving.scan.positions_m.mean(axis=1), moving.scan.frame_ids))
    assert 1.5 * run(moving, recipe).quality["error"] < run(blind, recipe).quality["error"]


@pytest.mark.parametrize("noise", ["gaussian", "poisson"])
@pytest.mark.parametrize("options", ["", ", momentum=0.98", ', batches="compact", batch=5, momentum=0.98', ", batch=500, momentum=0.98"])
def test_dark_frames_masked_pixels_and_hardly_any_light_leave_it_finite(simulate: Callable[..., Any], options: str, noise: str) -> None:
    weak = simulate(photons=300)
    counts, mask = weak.frames.counts.copy(), np.zeros((32, 32), np.uint8)
    counts[3:9], mask[:, 20], mask[4:9, 4:9], counts[:, 5, 5] = 0, 1, 1, 60_000
    result = solve(
        MemoryFrames(counts, mask), weak.scan, weak.geometry, recipe=Recipe.parse(f'LSQML(60, noise="{noise}"{options})'), probe_modes=2
    )
    assert result is not None
    assert np.isfinite(result.object).all()
    assert np.isfinite(result.probe).all()
    assert np.abs(result.object).max() < 2.6
    assert result.quality["error"] < 0.8


def test_the_same_seed_gives_the_same_bits(experiment: Any) -> None:
    first, second, other = (run(experiment, "LSQML(3, batch=8)", start_probe=experiment.probe, seed=seed).object for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 1e-4


def test_a_word_that_does_not_exist_is_answered_with_those_that_do() -> None:
    with pytest.raises(RecipeError, match="batches = 'dense' is none of sparse, compact"):
        check_recipe(Recipe.parse('LSQML(5, batches="dense")'))
    with pytest.raises(RecipeError, match="noise = 2 is none of gaussian, poisson"):
        check_recipe(Recipe.parse("LSQML(5, noise=2)"))


def test_compact_batches_hold_neighbours_and_every_frame_once() -> None:
    y, x = np.meshgrid(np.arange(10) * 5, np.arange(10) * 5, indexing="ij")
    corners = np.stack([y.ravel(), x.ravel()], axis=1)[:, None].astype(np.int32)
    frames = RankFrames(
        np.arange(100), corners, np.zeros(corners.shape, np.float32), np.zeros((100, 2, 2), np.uint16), np.ones((2, 2), bool)
    )
    first, second = (list(in_compact_batches(frames, 9, 120, (0, seed))) for seed in (1, 2))
    assert [len(b) for b in first] == [9] * 11 + [1] + [0] * 2
    assert sorted(np.concatenate([np.atleast_1d(np.arange(100)[b.index]) for b in first]).tolist()) == list(range(100))
    spread = [float(np.ptp(b.corners[:, 0], axis=0).max()) for b in first[:11]]
    assert np.median(spread) <= 15
    assert any(not np.array_equal(b.index, other.index) for b, other in zip(first[:11], second[:11], strict=True))


@pytest.mark.system
def test_two_ranks_find_what_one_finds(experiment: Any, phase_difference: Callable[..., float], ranks_of: Any) -> None:
    k = np.arange(32) - 16
    wrong = experiment.probe * np.exp(0.01j * (k[:, None] ** 2 + k[None, :] ** 2))
    one, two = (ranks_of(size)(experiment, wrong, "LSQML(40, batch=10)").arrays for size in (1, 2))
    assert two["error"] == pytest.approx(float(one["error"]), rel=0.1)
    middle = (0, slice(16, 36), slice(16, 36))
    assert phase_difference(one["object"][middle], two["object"][middle]) < 0.03
