"""A reconstruction that was interrupted ends as one that was not."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from ptyplugin.model import MemoryFrames, Recipe, SolverError
from ptyplugin.solvers import Checkpoint, Solver
from ptyplugin.solvers import checkpoint as module
from ptyplugin.solvers.algorithms import _ALGORITHMS


def solver_of(experiment: Any, recipe: str, **how: Any) -> Solver:
    given = {"fft": "scipy", "start_probe": experiment.probe} | how
    return Solver(experiment.frames, experiment.scan, experiment.geometry, Recipe.parse(recipe), **given)


def carried(checkpoint: Checkpoint) -> Checkpoint:
    """As a file brings it to another process."""
    task, numbers = (json.loads(json.dumps(part)) for part in (checkpoint.task, checkpoint.numbers))
    return Checkpoint(checkpoint.iteration, task, {name: array.copy() for name, array in checkpoint.arrays.items()}, numbers)


def interrupted(experiment: Any, recipe: str, after: int, **how: Any) -> Solver:
    first = solver_of(experiment, recipe, **how)
    for progress in first:
        if progress.iteration == after:
            break
    kept = carried(first.checkpoint())
    next(first, None)  # what the first goes on to do must not reach the second
    second = solver_of(experiment, recipe, **how)
    second.resume(kept)
    assert next(second).iteration == after + 1
    for _ in second:
        pass
    return second


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptyplugin.solvers.solver._threads", lambda ranks: 2)


RECIPES = [
    ("DM(7)", 3),
    ("RAAR(7, synchronise=2)", 3),
    ("ePIE(5)", 2),
    ("mPIE(5, batch=4)", 2),
    ("LSQML(6, batch=10)", 3),
    ('LSQML(6, positions="gradient", positions_from=1)', 3),
    ('ePIE(5, positions="trials", positions_from=1)', 3),
    ("DM(5, probe_support=0.8, centre_probe=2)", 3),
    ('LSQML(5, probe="fixed")', 3),
    ('DM(12, background="smooth", intensities="fitted")', 8),
    ("DM(2) + LSQML(3) + ePIE(2)", 2),
    ("DM(2) + LSQML(3) + ePIE(2)", 4),
    *((f"{name}(4)", 2) for name in _ALGORITHMS if name not in ("DM", "ePIE")),
]


@pytest.mark.parametrize(("recipe", "after"), RECIPES)
def test_the_end_is_the_same_to_the_last_bit(experiment: Any, recipe: str, after: int) -> None:
    whole = solver_of(experiment, recipe)
    for _ in whole:
        pass
    resumed = interrupted(experiment, recipe, after)
    np.testing.assert_array_equal(resumed.object, whole.object)
    np.testing.assert_array_equal(resumed.probe, whole.probe)
    results = [each.result() for each in (whole, resumed)]
    assert results[0] is not None
    assert results[1] is not None
    np.testing.assert_array_equal(results[1].positions_px, results[0].positions_px)
    assert [event.errors for event in results[1].progress] == [event.errors for event in results[0].progress]
    assert [event.iteration for event in results[1].progress] == list(range(1, len(results[0].progress) + 1))
    assert results[1].progress[-1].seconds >= results[1].progress[after - 1].seconds
    assert results[1].provenance["resumed"] == [f"after iteration {after}"]
    assert "resumed" not in results[0].provenance


def test_with_another_fft_it_agrees_for_some_iterations(experiment: Any) -> None:
    pytest.importorskip("pyfftw")
    whole = solver_of(experiment, "DM(8)", fft="pyfftw")
    for _ in whole:
        pass
    resumed = interrupted(experiment, "DM(8)", 5, fft="pyfftw")
    assert np.linalg.norm(resumed.object - whole.object) < 1e-5 * np.linalg.norm(whole.object)


def test_too_many_waves_are_left_out_and_the_result_says_so(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WAVES_BYTES", 1000)
    resumed = interrupted(experiment, "RAAR(30)", 15)
    result = resumed.result()
    assert result is not None
    assert result.provenance["resumed"] == ["after iteration 15, with waves made anew from object and probe"]
    whole = solver_of(experiment, "RAAR(30)")
    for _ in whole:
        pass
    reference = whole.result()
    assert reference is not None
    assert result.quality["error"] == pytest.approx(reference.quality["error"], rel=0.05)


def test_waves_are_kept_only_where_they_are_needed(experiment: Any) -> None:
    kept = {}
    for progress in (going := solver_of(experiment, "DM(2) + ePIE(1)")):
        kept[progress.iteration] = carried(going.checkpoint()).arrays["state.waves"].shape[0]
    assert kept[1] >= 45
    assert kept[2] == kept[3] == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recipe": "ePIE(4)"}, "its recipe is"),
        ({"seed": 3}, "its input is"),
        ({"job_key": "other"}, "its job is"),
        ({"probe_modes": 2}, "input"),
    ],
)
def test_a_wrong_checkpoint_is_refused(experiment: Any, change: dict[str, Any], named: str) -> None:
    first = solver_of(experiment, "ePIE(3)")
    next(first)
    kept = carried(first.checkpoint())
    second = solver_of(experiment, change.pop("recipe", "ePIE(3)"), **change)
    with pytest.raises(SolverError, match=f"another reconstruction: .*{named}"):
        second.resume(kept)
    next(second)
    with pytest.raises(SolverError, match="has begun"):
        second.resume(kept)


def test_other_frames_and_ranks_are_refused(experiment: Any) -> None:
    first = solver_of(experiment, "ePIE(3)")
    next(first)
    kept = first.checkpoint()
    fewer = dataclasses.replace(
        experiment,
        frames=MemoryFrames(experiment.frames.counts[:48]),
        scan=type(experiment.scan)(experiment.scan.positions_m[:48], experiment.scan.frame_ids[:48]),
    )
    assert "its input is" in solver_of(fewer, "ePIE(3)").refuses(kept)
    other = dataclasses.replace(kept, task={**kept.task, "ranks": 2})
    assert "its ranks is 2, not 1" in solver_of(experiment, "ePIE(3)").refuses(other)
    assert solver_of(experiment, "ePIE(3)").refuses(kept) == ""


def test_with_other_broken_frames_it_begins_again(experiment: Any) -> None:
    def without(number: int) -> Solver:
        counts = experiment.frames.counts.copy()
        counts[number] = 65535
        return solver_of(dataclasses.replace(experiment, frames=MemoryFrames(counts)), "ePIE(3)")

    first, same, other = without(7), without(7), without(9)
    next(first)
    for solver in (same, other):
        solver.resume(carried(first.checkpoint()))
    assert next(same).iteration == 2
    assert next(other).iteration == 1
    assert list(other) == other.result().progress[1:]
    assert "It began again: other frames are broken now than at the checkpoint." in other.result().provenance["notes"]
    assert "resumed" not in other.result().provenance


def test_before_the_first_iteration_there_is_none(experiment: Any) -> None:
    with pytest.raises(SolverError, match="before the first iteration"):
        solver_of(experiment, "ePIE(3)").checkpoint()


def test_an_engine_goes_on_from_its_own_checkpoints_only(experiment: Any) -> None:
    """Their numbers differ in the last digits, and what they remember need not be the same."""
    first = solver_of(experiment, "DM(2)", verbs="reference")
    next(first)
    kept = carried(first.checkpoint())
    assert solver_of(experiment, "DM(2)", verbs="reference").refuses(kept) == ""
    assert solver_of(experiment, "DM(2)", verbs="cpu").refuses(kept).endswith(": its engine is reference, not cpu.")
