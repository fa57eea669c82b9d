"""A reconstruction that runs away is caught, begun again once with safer steps, and says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import Progress, Recipe, SolverError
from ptyplugin.solvers import Solver
from ptyplugin.solvers.algorithms import algorithm_of
from ptyplugin.solvers.divergence import Diverged, check, safer_stage
from ptyplugin.solvers.verbs.cpu import CpuVerbs

#: Steps and momentum as long as the options allow, and nothing that clips the object.
RUNS_AWAY = "mPIE(20, friction=0.98, object_max=1000000, object_step=2, probe_step=1)"


def solver_of(experiment: Any, recipe: str) -> Solver:
    return Solver(experiment.frames, experiment.scan, experiment.geometry, Recipe.parse(recipe), start_probe=experiment.probe)


def run(solver: Solver) -> list[Progress]:
    return list(solver)


def spoiling(monkeypatch: pytest.MonkeyPatch, sweeps: set[int]) -> None:
    """Let a pixel of the object be no number after these sweeps, counted from 1."""
    done = []

    def clip_modulus(self: CpuVerbs, X: NDArray[Any], largest: float) -> None:
        done.append(1)
        if len(done) in sweeps:
            X[0, 18, 18] = np.nan

    monkeypatch.setattr(CpuVerbs, "clip_modulus", clip_modulus)


def test_steps_that_run_away_are_halved_once(experiment: Any) -> None:
    going = solver_of(experiment, RUNS_AWAY)
    run(going)
    result = going.result()
    assert result is not None
    assert result.quality["error"] < 0.004
    (reason,) = [reason for reason in result.verdict.reasons if "diverged" in reason]
    assert "mPIE(20, friction=0.49, object_damping=1, object_max=1000000, object_step=1, probe_step=0.5)" in reason
    assert result.verdict.word == "doubtful"


def test_a_stage_begins_again_where_it_began(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = solver_of(
        experiment, "LSQML(3) + LSQML(4, momentum=0.35, object_damping=1.0, object_step=0.5, probe_damping=1.0, probe_step=0.5)"
    )
    run(plain)
    spoiling(monkeypatch, {5})
    spoiled = solver_of(experiment, "LSQML(3) + LSQML(4)")
    seen = [event.iteration for event in run(spoiled)]
    assert seen == [1, 2, 3, 4, 5, 4, 5, 6, 7]
    result = spoiled.result()
    assert result is not None
    assert [event.iteration for event in result.progress] == [1, 2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose(spoiled.object, plain.object, atol=2e-4)


@pytest.mark.parametrize(
    "options",
    [
        *(f'positions="{search}", positions_every=1, positions_from=1' for search in ("gradient", "correlation", "trials")),
        'background="smooth", intensities="fitted"',
        "centre_probe=1, probe_support=0.9",
    ],
)
def test_what_is_refined_begins_again_too(simulate: Any, monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    """Numbers that are none neither stop nor spoil what is refined beside object and probe; what was found before is forgotten."""
    experiment = simulate(grid=(8, 8))
    spoiling(monkeypatch, {6})
    spoiled = solver_of(experiment, f"LSQML(7, {options})")
    run(spoiled)
    plain = solver_of(experiment, str(spoiled._there().way.stages[0]))
    run(plain)
    np.testing.assert_allclose(spoiled.object, plain.object, atol=1e-3)
    made, wanted = spoiled.result(), plain.result()
    assert made is not None
    assert wanted is not None
    assert any("diverged in iteration" in reason for reason in made.verdict.reasons)
    assert made.quality["error"] == pytest.approx(wanted.quality["error"], rel=1e-3)
    assert made.quality["probe_power"] == pytest.approx(wanted.quality["probe_power"], rel=1e-4)
    np.testing.assert_allclose(made.positions_px, wanted.positions_px, atol=0.01)


def test_what_diverges_twice_is_an_error(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spoiling(monkeypatch, {4, 7})
    going = solver_of(experiment, "ePIE(8)")
    with pytest.raises(SolverError, match=r"ePIE diverged in iteration 3: its running_error is nan\. Use smaller steps"):
        run(going)


def test_a_recipe_that_is_changed_meanwhile_keeps_the_safer_steps(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spoiling(monkeypatch, {2})
    going = solver_of(experiment, "LSQML(6)")
    for _ in range(4):
        next(going)
    going.recipe = "LSQML(6) + LSQML(2)"
    assert [event.iteration for event in run(going)][-1] == 8
    stages = going._there().way.stages
    assert [str(stage) for stage in stages] == [
        "LSQML(6, momentum=0.35, object_damping=1, object_step=0.5, probe_damping=1, probe_step=0.5)",
        "LSQML(2)",
    ]


@pytest.mark.parametrize(
    ("errors", "how"),
    [
        ({"running_error": float("inf")}, "its running_error is inf"),
        ({"error": 0.25}, "its error climbed from 0.02 to 0.25"),
        ({"running_error": 0.9}, "its running_error climbed from 0.1 to 0.9"),
        ({"error": 0.09}, ""),
        ({"running_error": 0.3, "error": 0.03}, ""),
        ({"constraint_residual": 5.0}, ""),
    ],
)
def test_what_counts_as_divergence(errors: dict[Any, float], how: str) -> None:
    names: list[Any] = ["running_error", "error", "constraint_residual"]
    values = [(0.01, 0.02, 0.01), (0.1, 0.04, 0.01)]
    earlier = [Progress("", "DM", n, 9, 0.0, dict(zip(names, each, strict=True))) for n, each in enumerate(values, start=1)]
    stage = Recipe.parse("ePIE(3)").stages[0]
    if not how:
        check(stage, 3, errors, earlier, 1)
        return
    with pytest.raises(Diverged, match=f"ePIE diverged in iteration 3: {how}"):
        check(stage, 3, errors, earlier, 1)
    with pytest.raises(Diverged, match="that of darkness is 1"):
        check(stage, 1, {"error": 1.5}, [], 0)


@pytest.mark.parametrize(
    ("stage", "safer"),
    [
        ("DM(5)", "DM(5, object_inertia=1, probe_inertia=0.1)"),
        ("LSQML(5, momentum=0.9)", "LSQML(5, momentum=0.45, object_damping=1, object_step=0.5, probe_damping=1, probe_step=0.5)"),
        ("ML(5)", "ML(5, object_damping=1, probe_damping=1)"),
        ("DM(5, object_inertia=1.0, probe_inertia=10.0)", "DM(5, object_inertia=1, probe_inertia=10)"),
    ],
)
def test_what_is_safer(stage: str, safer: str) -> None:
    (given,) = Recipe.parse(stage).stages
    assert str(safer_stage(given, algorithm_of(given)[1])) == safer


@pytest.mark.system
def test_two_ranks_begin_again_together(experiment: Any, ranks_of: Any) -> None:
    two = ranks_of(2)(experiment, experiment.probe, RUNS_AWAY)
    assert "it was begun again as mPIE(20, friction=0.49" in two.log
    assert two.arrays["error"] < 0.006
