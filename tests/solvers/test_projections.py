"""DM, RAAR and AP: one projector with three coefficients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ptyplugin.model import Recipe, Stage
from ptyplugin.solvers import solve
from ptyplugin.solvers.algorithms import algorithm_of
from ptyplugin.solvers.batches import RankFrames, in_blocks
from ptyplugin.solvers.ranks import OneRank
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs.reference import ReferenceVerbs


@pytest.mark.parametrize(
    "recipe", ["RAAR(60)", "RAAR(60, beta=0.7, synchronise=10)", "AP(60)", "AP(60, slack=0.2, synchronise=1)", "DM(60, synchronise=10)"]
)
def test_they_find_the_sample_from_the_frames_alone(experiment: Any, recipe: str) -> None:
    result = solve(experiment.frames, experiment.scan, experiment.geometry, recipe=Recipe.parse(recipe))
    assert result is not None
    assert result.quality["error"] < 0.0035
    assert experiment.phase_rms(result.object[0], result.positions_px) < 0.06


@pytest.mark.parametrize("recipe", ["RAAR(20)", "AP(20)"])
def test_near_field_with_two_modes(simulate: Callable[..., Any], recipe: str) -> None:
    experiment = simulate(near_field=True, photons=1e6)
    result = solve(experiment.frames, experiment.scan, experiment.geometry, recipe=Recipe.parse(recipe), probe_modes=2)
    assert result is not None
    assert result.quality["error"] < 0.01


@pytest.mark.parametrize("recipe", ["DM(1, beta=0.7, slack=0.0)", "RAAR(1, beta=0.7)", "AP(1, slack=0.3)", "RAAR(1, slack=0.2)"])
def test_one_iteration_follows_its_equation(experiment: Any, recipe: str) -> None:
    """In double precision, by the formula of each paper; the waves start away from P O."""
    (stage,) = Recipe.parse(recipe).stages
    side, rng = 32, np.random.default_rng(4)
    corners = experiment.corners[:5].astype(np.int32)
    counts = np.fft.ifftshift(experiment.frames.counts[:5], axes=(1, 2))
    good = rng.random((side, side)) > 0.1
    frames = RankFrames(np.arange(5), corners[:, None], np.zeros((5, 1, 2), np.float32), counts, good)
    start = experiment.probe * np.stack([experiment.object[y : y + side, x : x + side] for y, x in corners])
    psi = start + 0.1 * np.abs(start).max() * rng.standard_normal(start.shape)
    do = ReferenceVerbs(experiment.geometry, np.complex128)
    state = State(experiment.object[None].copy(), experiment.probe.copy(), psi[:, None].copy(), (slice(0, None), slice(0, None)))
    algorithm, options = algorithm_of(stage)
    algorithm.sweep(state, in_blocks(frames, 2, 5), do, OneRank(), options, 1)

    def onto_data(waves: Any) -> Any:
        A = np.fft.fft2(waves)
        put = options.slack * A + (1 - options.slack) * A / np.abs(A) * np.sqrt(counts.astype(float)) * side
        return np.fft.ifft2(np.where(good, put, A))

    reflected = 2 * onto_data(2 * start - psi) - (2 * start - psi)
    expected = {
        "DM": lambda: psi + options.beta * (onto_data(2 * start - psi) - start),
        "RAAR": lambda: options.beta / 2 * (reflected + psi) + (1 - options.beta) * start,
        "AP": lambda: onto_data(start),
    }[stage.algorithm]()
    np.testing.assert_allclose(state.waves[:, 0], expected, atol=1e-10 * np.abs(expected).max())


def test_only_what_reflects_has_a_constraint_residual() -> None:
    measured = {name: algorithm_of(Stage(name, 1))[0].measures for name in ("DM", "RAAR", "AP")}
    assert measured == {"DM": "constraint_residual", "RAAR": "constraint_residual", "AP": "running_error"}
