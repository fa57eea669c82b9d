"""ML: its gradient and line search against brute force, what it finds, that it never climbs, on one rank and on two."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments import run
from numpy.typing import NDArray

from ptyplugin.model import Geometry, MemoryFrames, Recipe, RecipeError, Scan
from ptyplugin.solvers import check_recipe, solve
from ptyplugin.solvers.algorithms.ml import MlOptions, sweep
from ptyplugin.solvers.batches import Batch, RankFrames, in_blocks
from ptyplugin.solvers.ranks import OneRank
from ptyplugin.solvers.state import State, window_of
from ptyplugin.solvers.verbs.line_search import DARK_COUNTS, LENGTH, LOWEST, best_length, trial_lengths
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

SHAPE = (12, 10)
NOISES = ["amplitude", "gaussian", "poisson"]


def random(rng: np.random.Generator, *shape: int) -> NDArray[np.complex128]:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def defocused(experiment: Any) -> NDArray[np.complex128]:
    """A start probe that is wrong."""
    k = np.arange(experiment.probe.shape[-1]) - experiment.probe.shape[-1] // 2
    return np.asarray(experiment.probe * np.exp(0.01j * (k[:, None] ** 2 + k[None, :] ** 2)))


class Problem:
    """4 frames of 12 x 10 px with two sub-steps, two modes of probe and object, rests, masked pixels, a background and a beam that
    is not steady, in float64.
    """

    def __init__(self, near_field: bool = False) -> None:
        rng = np.random.default_rng(4)
        geometry = Geometry(8000.0, 1.0, 75e-6, SHAPE, focus_distance_m=5e-3 if near_field else None)
        self.do, self.c = ReferenceVerbs(geometry, np.complex128), 1 if near_field else SHAPE[0] * SHAPE[1]
        self.O, self.P = random(rng, 2, 22, 20), 3 * random(rng, 2, *SHAPE)
        corners, good = rng.integers(0, 10, (4, 2, 2)).astype(np.int32), rng.random(SHAPE) > 0.2
        rests = rng.uniform(-0.5, 0.5, corners.shape).astype(np.float32) * (not near_field)
        counts = rng.poisson(40, (4, *SHAPE)).astype(np.float32)
        beam = rng.uniform(0.5, 1.5, 4).astype(np.float32)
        self.b = Batch(slice(0, 4), corners, rests, counts, good, rng.uniform(0, 9, SHAPE).astype(np.float32), beam)

    def waves(self, O: NDArray[Any], P: NDArray[Any]) -> NDArray[Any]:
        return self.do.to_detector(self.do.exit_waves(O, P, self.b), self.b)

    def likelihood(self, O: NDArray[Any], P: NDArray[Any], noise: str) -> float:
        """The negative logarithm of a likelihood, in units in which all are alike near the solution."""
        assert self.b.intensities is not None
        assert self.b.background is not None
        power = (np.abs(self.waves(O, P)) ** 2).sum(axis=1) / self.c
        model, counts = self.b.intensities[:, None, None] * power + self.b.background, self.b.counts.astype(float)
        dark = model + DARK_COUNTS
        pixels = {
            "amplitude": (np.sqrt(model) - np.sqrt(counts)) ** 2,
            "gaussian": (model - counts) ** 2 / (4 * (counts + 1)),
            "poisson": (dark - counts - counts * np.log(dark / counts)) / 2,
        }
        return float(pixels[noise][:, self.b.good].sum())

    def gradient(self, noise: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        A = self.waves(self.O, self.P)
        assert self.do.likelihood_gradient(A, self.b, noise)[0].read() == pytest.approx(self.likelihood(self.O, self.P, noise))
        chi, (gO, S), (gP, T) = self.do.to_sample(A, self.b), self.do.sums(self.O), self.do.sums(self.P)
        self.do.object_sums(gO, S, chi, self.P, self.b)
        self.do.probe_sums(gP, T, chi, self.O, self.b)
        return gO, gP


@pytest.mark.parametrize("near_field", [False, True], ids=["far", "near"])
@pytest.mark.parametrize("noise", NOISES)
def test_the_gradient_is_that_of_finite_differences(noise: str, near_field: bool) -> None:
    problem, rng, small = Problem(near_field), np.random.default_rng(5), 1e-5
    gO, gP = problem.gradient(noise)
    for change, turn in ((random(rng, *gO.shape), np.zeros_like(gP)), (np.zeros_like(gO), random(rng, *gP.shape))):
        ends = [problem.likelihood(problem.O + sign * small * change, problem.P + sign * small * turn, noise) for sign in (1, -1)]
        slope = -2 * (np.vdot(change, gO) + np.vdot(turn, gP)).real
        assert (ends[0] - ends[1]) / (2 * small) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("near_field", [False, True], ids=["far", "near"])
@pytest.mark.parametrize("noise", NOISES)
def test_gains_along_a_line_are_those_of_its_points(noise: Any, near_field: bool) -> None:
    problem, rng = Problem(near_field), np.random.default_rng(6)
    do, b, s = problem.do, problem.b, (random(rng, *problem.O.shape), random(rng, *problem.P.shape))
    for length in (1e-4, 1.0):
        line, sums = do.line(), do.line_sums()
        line[LENGTH] = length
        A, dA, ddA = problem.waves(problem.O, problem.P), problem.waves(s[0], problem.P) + problem.waves(problem.O, s[1]), problem.waves(*s)
        do.line_likelihoods(sums, A, dA, ddA, b, noise, line)
        points = [problem.likelihood(problem.O + t * s[0], problem.P + t * s[1], noise) for t in (0, *trial_lengths(line))]
        assert sums[0, 0] == pytest.approx(points[0], rel=1e-9)
        np.testing.assert_allclose(sums[0, 1:], np.array(points[1:]) - points[0], rtol=1e-5)


def test_roughness_its_gradient_and_its_line() -> None:
    problem, rng = Problem(), np.random.default_rng(7)
    do, O, change, light = problem.do, problem.O, random(rng, *problem.O.shape), rng.random(problem.O.shape[1:])

    def roughness(X: NDArray[Any]) -> float:
        return float(0.3 * light.mean() * sum((np.abs(np.diff(X, axis=axis)) ** 2).sum() for axis in (1, 2)))

    num, line, sums = np.zeros_like(O), do.line(), do.line_sums()
    assert do.roughness(num, light, O, 0.3).read() == pytest.approx(roughness(O))
    slope = (roughness(O + 1e-5 * change) - roughness(O - 1e-5 * change)) / 2e-5
    assert -2 * np.vdot(change, num).real == pytest.approx(slope, rel=1e-6)
    do.line_roughness(sums, light, O, change, 0.3, line)
    assert sums[0, 0] == pytest.approx(roughness(O))
    np.testing.assert_allclose(sums[0, 1:], [roughness(O + t * change) - roughness(O) for t in trial_lengths(line)])


@pytest.mark.parametrize("minimum", [0.05, 0.1, 0.3, 0.6, 1.0, 1.9])
def test_the_best_length_is_found_between_those_that_were_tried(minimum: float) -> None:
    lengths = np.array([1 / 16, 1 / 4, 1 / 2, 1, 2, 4])

    def gain(t: Any) -> Any:
        return (t / minimum - 1) ** 2 - 1 + 0.2 * ((t / minimum - 1) ** 4 - 1)

    slope = (gain(1e-6) - gain(-1e-6)) / 2e-6
    found = best_length(lengths, gain(lengths), slope)
    assert gain(found) <= gain(lengths).min()
    assert found == pytest.approx(minimum, rel=0.2)


@pytest.mark.parametrize(
    ("gains", "length"),
    [
        ([1, 2, 3, 4, 5, 6], 0),
        ([0, 0, 0, 0, 0, 0], 0),
        ([np.nan] * 6, 0),
        ([-1, -2, -3, -4, -5, -6], 4),
        ([-1, -2, -3, np.inf, np.nan, -np.inf], 0.5),
        ([np.nan, np.nan, np.nan, -1, 1, 1], 1),
    ],
    ids=["uphill", "flat", "not a number", "ever downhill", "too far", "no neighbour"],
)
def test_of_odd_gains_a_length_that_gains_is_taken_or_none(gains: list[float], length: float) -> None:
    assert best_length(np.array([1 / 16, 1 / 4, 1 / 2, 1, 2, 4]), np.array(gains, dtype=float), -1.0) == length


def test_directions_are_conjugate_and_start_again_when_they_lead_uphill() -> None:
    do, rng = Problem().do, np.random.default_rng(8)
    line, s, before = do.line(), *(tuple(np.zeros((1, 4, 3), complex) for _ in range(2)) for _ in range(2))
    first, second = (tuple(random(rng, 1, 4, 3) for _ in range(2)) for _ in range(2))
    do.conjugate(line, s, first, first, before)
    np.testing.assert_array_equal(s, first)
    np.testing.assert_array_equal(before, first)
    do.conjugate(line, s, second, second, before)
    share = np.vdot(second, np.subtract(second, first)).real / np.vdot(first, first).real
    np.testing.assert_allclose(s, np.array(second) + max(share, 0) * np.array(first))
    for x in s:
        x *= -100
    do.conjugate(line, s, first, first, before)
    np.testing.assert_array_equal(s, first)


class Going:
    """Sweeps of ML on some frames, one after the other, whose likelihood can be looked at."""

    def __init__(self, experiment: Any, options: MlOptions) -> None:
        geometry, counts = experiment.geometry, np.fft.ifftshift(experiment.frames.counts, axes=(1, 2))
        self.do, self.options, self.done = ReferenceVerbs(geometry, np.complex128), options, 0
        corners, good = experiment.corners[:, None].astype(np.int32), np.ones(geometry.shape, bool)
        frames = RankFrames(np.arange(len(corners)), corners, np.zeros(corners.shape, np.float32), counts, good)
        self.batches = in_blocks(frames, 10, len(corners))
        shape = (1, *(corners.max(axis=(0, 1)) + geometry.shape))
        probe, waves = defocused(experiment), np.empty((0, 1, *geometry.shape), complex)
        self.state = State(np.ones(shape, complex), probe, waves, window_of(corners, geometry.shape))

    def sweep(self) -> float:
        """The likelihood before the sweep, by its own formula."""
        O, P = self.state.object, self.state.probe
        waves = (self.do.to_detector(self.do.exit_waves(O, P, b), b) for b in self.batches)
        each = [self.do.likelihood_gradient(A, b, self.options.noise)[0].read() for A, b in zip(waves, self.batches, strict=True)]
        self.done += 1
        with np.errstate(all="ignore"):
            sweep(self.state, self.batches, self.do, OneRank(), self.options, self.done)
        return float(sum(each))


@pytest.mark.parametrize("options", [{}, {"object_max": 0.97}, {"smooth_gradient": 3.0}, {"probe_from": 4}], ids=str)
@pytest.mark.parametrize("noise", NOISES)
def test_the_likelihood_never_climbs(simulate: Callable[..., Any], noise: Any, options: dict[str, Any]) -> None:
    going = Going(simulate(side=24, grid=(5, 5)), MlOptions(noise=noise, **options))
    seen = [going.sweep() for _ in range(25)]
    assert all(later < earlier for earlier, later in itertools.pairwise(seen[:6]))
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(seen))


def test_a_step_that_raises_the_likelihood_is_taken_back_and_the_next_is_along_the_gradient(simulate: Callable[..., Any]) -> None:
    going = Going(simulate(side=24, grid=(5, 5)), MlOptions())
    for _ in range(4):
        going.sweep()
    state, memory = going.state, going.state.memory
    kept, gradient, direction = memory["object kept"].copy(), memory["object gradient"].copy(), memory["object direction"].copy()
    state.object *= 1.2
    going.sweep()
    np.testing.assert_array_equal(memory["object kept"], kept)
    np.testing.assert_array_equal(memory["object gradient"], gradient)
    assert np.abs(np.vdot(memory["object direction"], direction)) < 0.99 * np.linalg.norm(memory["object direction"]) * np.linalg.norm(
        direction
    )
    lowest = memory["line"][LOWEST]
    assert going.sweep() < lowest


def test_numbers_that_are_not_finite_are_taken_back(simulate: Callable[..., Any]) -> None:
    going = Going(simulate(side=24, grid=(5, 5)), MlOptions())
    seen = [going.sweep() for _ in range(4)]
    going.state.object[0, 3, 3] = np.nan
    going.sweep()
    assert going.sweep() <= seen[-1]
    assert going.sweep() < seen[-1]


def test_what_others_do_to_the_probe_between_sweeps_stops_nothing(simulate: Callable[..., Any]) -> None:
    going = Going(simulate(side=24, grid=(5, 5)), MlOptions())
    seen = []
    for _ in range(30):
        seen.append(going.sweep())
        going.state.probe[:, :3] = 0
    assert seen[-1] < 0.4 * seen[1]


@pytest.mark.parametrize(
    ("recipe", "most"),
    [
        ("ML(40)", 0.0026),
        ('ML(50, noise="poisson")', 0.0028),
        ('ML(50, noise="gaussian")', 0.0028),
        ("ML(40, object_damping=0.1, probe_damping=1.0)", 0.0026),
        ("ML(50, smooth_gradient=2.0, regularise=0.001)", 0.0026),
        ("LSQML(10) + ML(20)", 0.0026),
        ("DM(30) + ML(40)", 0.0026),
    ],
)
def test_the_sample_is_found_from_a_wrong_probe(experiment: Any, recipe: str, most: float) -> None:
    result = run(experiment, recipe, start_probe=defocused(experiment))
    assert result.quality["error"] < most
    assert experiment.phase_rms(result.object[0], result.positions_px) < 0.03


def test_the_probe_is_not_touched_before_it_is_asked_for(experiment: Any) -> None:
    wrong = defocused(experiment)
    frozen, moved = (run(experiment, f"ML(8, probe_from={first})", start_probe=wrong) for first in (9, 1))
    scale = np.vdot(wrong, frozen.probe) / np.vdot(wrong, wrong)
    np.testing.assert_allclose(frozen.probe, scale * wrong, atol=1e-5 * np.abs(wrong).max())
    assert moved.quality["error"] < 0.8 * frozen.quality["error"]


def test_modes_substeps_and_the_near_field(simulate: Callable[..., Any]) -> None:
    two = simulate(modes=2)
    assert run(two, "ML(60)", probe_modes=2).quality["error"] < 0.0033 < run(two, "ML(20)").quality["error"]
    assert run(simulate(near_field=True, photons=1e6), "ML(30)").quality["error"] < 0.002
    moving = simulate(substeps=3, photons=1e6)
    blind = replace(moving, scan=Scan(moving.scan.positions_m.mean(axis=1), moving.scan.frame_ids))
    assert 1.5 * run(moving, "ML(40)").quality["error"] < run(blind, "ML(40)").quality["error"]


def test_a_regulariser_makes_a_weak_image_smoother(simulate: Callable[..., Any]) -> None:
    weak = simulate(side=24, grid=(5, 5), photons=2000)
    rough, smooth = (run(weak, f'ML(25, noise="poisson", regularise={weight})').object[0, 12:28, 12:28] for weight in (0.0, 1.0))
    grain = [sum((np.abs(np.diff(np.exp(1j * np.angle(each)), axis=axis)) ** 2).sum() for axis in (0, 1)) for each in (rough, smooth)]
    assert grain[1] < 0.8 * grain[0]


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("options", [", object_damping=0.01, probe_damping=0.01", ", regularise=1.0, smooth_gradient=20.0"])
def test_dark_frames_masked_and_hot_pixels_and_hardly_any_light_leave_it_finite(
    simulate: Callable[..., Any], options: str, noise: str
) -> None:
    weak = simulate(photons=300)
    counts, mask = weak.frames.counts.copy(), np.zeros((32, 32), np.uint8)
    counts[3:9], mask[:, 20], mask[4:9, 4:9], counts[:, 5, 5], counts[12, 30, 2] = 0, 1, 1, 60_000, 300
    frames = MemoryFrames(counts, mask)
    result = solve(frames, weak.scan, weak.geometry, recipe=Recipe.parse(f'ML(30, noise="{noise}"{options})'), probe_modes=2)
    assert result is not None
    assert np.isfinite(result.object).all()
    assert np.isfinite(result.probe).all()
    assert np.abs(result.object).max() < 2.6


def test_500_iterations_do_not_diverge(simulate: Callable[..., Any]) -> None:
    small = simulate(side=16, grid=(5, 5), photons=1e4)
    result = run(small, "ML(500)")
    seen = [event.errors["running_error"] for event in result.progress]
    assert all(later <= earlier * (1 + 1e-5) for earlier, later in itertools.pairwise(seen))
    assert np.abs(result.object).max() < 2.6


def test_what_it_remembers_is_all_that_it_needs(simulate: Callable[..., Any]) -> None:
    """Two that go on from copies of the same state and memory do the same."""
    first, second = (Going(simulate(side=24, grid=(5, 5)), MlOptions()) for _ in range(2))
    for _ in range(5):
        first.sweep()
    second.state = replace(
        first.state,
        object=first.state.object.copy(),
        probe=first.state.probe.copy(),
        memory={name: array.copy() for name, array in first.state.memory.items()},
    )
    second.done = first.done
    for _ in range(3):
        assert first.sweep() == second.sweep()
    np.testing.assert_array_equal(first.state.object, second.state.object)


def test_a_noise_that_does_not_exist_is_answered_with_those_that_do() -> None:
    with pytest.raises(RecipeError, match="noise = 'euclid' is none of amplitude, gaussian, poisson"):
        check_recipe(Recipe.parse('ML(5, noise="euclid")'))


def test_the_page_knows_its_options() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "recipe.md").read_text(encoding="utf-8")
    rows = re.findall(r'^\| `(\w+)` \| `?"?([\w.]+)"?`? \|', page.partition("## ML\n")[2].partition("\n## ")[0], re.MULTILINE)
    assert dict(rows) == {field.name: str(field.default) for field in dataclasses.fields(MlOptions)}


@pytest.mark.system
def test_two_ranks_compute_what_one_does(experiment: Any, ranks_of: Any) -> None:
    recipe = 'ML(12, noise="poisson", regularise=0.001)'
    one, two = (ranks_of(size)(experiment, defocused(experiment), recipe, precision="double").arrays for size in (1, 2))
    assert two["error"] == pytest.approx(float(one["error"]), rel=1e-7)
    assert np.linalg.norm(two["object"] - one["object"]) < 1e-6 * np.linalg.norm(one["object"])
    assert np.linalg.norm(np.abs(two["probe"]) - np.abs(one["probe"])) < 1e-6 * np.linalg.norm(one["probe"])
