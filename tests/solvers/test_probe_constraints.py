"""What is known of the probe: kept as it is, dark beyond a disc, in the middle of its frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from experiments import run
from numpy.typing import NDArray

from ptyplugin.model import Recipe, RecipeError
from ptyplugin.solvers import Solver, algorithms
from ptyplugin.solvers.probe_constraints import centre_of_mass, centre_probe, off_middle
from ptyplugin.solvers.verbs.least_squares import best_lengths
from ptyplugin.solvers.way import model_errors

ALGORITHMS = sorted(algorithms._ALGORITHMS)


def assert_scaled(probe: NDArray[Any], start: NDArray[Any]) -> None:
    """The probe is the start, times one real factor."""
    factor = np.linalg.norm(probe) / np.linalg.norm(start)
    np.testing.assert_allclose(probe, factor * start, rtol=0, atol=3e-7 * np.abs(probe).max())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_known_probe_is_kept(simulate: Any, name: str) -> None:
    """Given modes too are kept, and not made orthogonal; the probe is wrong, so that every algorithm would like to change it."""
    experiment = simulate(modes=2)
    k = np.arange(32) - 16
    wrong = (
        experiment.probe * np.exp(0.003j * (k[:, None] ** 2 + k[None, :] ** 2)) + np.array([0, 0.3])[:, None, None] * experiment.probe[:1]
    )
    wrong = wrong[np.argsort(-(np.abs(wrong) ** 2).sum(axis=(1, 2)))]
    free, fixed = (run(experiment, f'{name}(12, probe="{word}")', start_probe=wrong, probe_modes=2) for word in ("free", "fixed"))
    assert_scaled(fixed.probe, wrong)
    assert (np.abs(fixed.probe) ** 2).sum() == pytest.approx(experiment.frames.counts.sum() / 49, rel=0.1)
    assert np.abs(free.probe / np.linalg.norm(free.probe) - fixed.probe / np.linalg.norm(fixed.probe)).max() > 1e-3


@pytest.mark.parametrize("name", ALGORITHMS)
def test_with_the_right_probe_kept_the_sample_is_found(experiment: Any, name: str) -> None:
    result = run(experiment, f'{name}(40, probe="fixed")', start_probe=experiment.probe)
    assert_scaled(result.probe, experiment.probe)
    assert result.quality["error"] < 0.005
    assert experiment.phase_rms(result.object[0], result.positions_px) < 0.06


def test_a_stage_keeps_what_the_one_before_has_found(experiment: Any) -> None:
    recipe = Recipe.parse('DM(10) + LSQML(5, probe="fixed")')
    going = Solver(experiment.frames, experiment.scan, experiment.geometry, recipe, start_probe=experiment.probe)
    probes = [going.probe for _ in going]
    assert np.abs(probes[9] - probes[8]).max() > 1e-6 * np.abs(probes[9]).max()
    for later in probes[10:]:
        np.testing.assert_array_equal(later, probes[9])


@pytest.mark.system
def test_ranks_keep_a_known_probe(experiment: Any, ranks_of: Any) -> None:
    two = ranks_of(2)(experiment, experiment.probe, 'mPIE(4, probe="fixed") + LSQML(3, probe="fixed")')
    assert_scaled(two.arrays["probe"], experiment.probe)


def test_a_part_that_does_not_move_does_not_shorten_the_others_step() -> None:
    sums = np.array([[4.0, 5.0, 1.0, 2.0, 3.0]])
    both = best_lengths(sums)
    assert best_lengths(sums, probe_moves=False) == (0.5, 0)
    assert best_lengths(sums, object_moves=False) == (0, 0.6)
    assert 0 < both[0] < 0.5
    assert 0 < both[1] < 0.6


@pytest.mark.parametrize(
    ("recipe", "modes", "start", "sentence"),
    [
        ('DM(5, probe="fixed")', 1, False, r"of its 1 mode\(s\) 0 are known: give a start probe"),
        ('DM(5, probe="fixed") + LSQML(2, probe="fixed")', 2, True, r"of its 2 mode\(s\) 1 are known"),
        ('DM(5, probe="fixed", probe_support=0.5)', 1, True, r"probe=\"fixed\" keeps the probe as it is: leave out probe_support"),
        ('DM(5, probe="fixed", centre_probe=5)', 1, True, r"leave out probe_support and centre_probe"),
        ('DM(5, probe="known")', 1, True, r"DM: probe = 'known' is none of free, fixed"),
        ("ePIE(5, probe_support=2.0)", 1, True, r"ePIE: probe_support = 2 is outside 0 .. 1.5"),
    ],
)
def test_wishes_that_contradict_each_other_are_told(experiment: Any, recipe: str, modes: int, start: bool, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        run(experiment, recipe, probe_modes=modes, start_probe=experiment.probe if start else None)


def test_a_near_field_probe_is_not_centred(simulate: Any) -> None:
    near = simulate(near_field=True, grid=(3, 3))
    with pytest.raises(RecipeError, match="in the near field the detector sees where the probe stands"):
        run(near, "DM(5, centre_probe=5)")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_probe_ends_where_its_support_does(experiment: Any, name: str) -> None:
    result = run(experiment, f"{name}(15, probe_support=0.8)", start_probe=experiment.probe)
    y, x = np.indices((32, 32)) - np.reshape(centre_of_mass(experiment.probe), (2, 1, 1))
    outside = np.hypot(y, x) > 0.8 * 16 + 1
    assert not result.probe[:, outside].any()
    assert result.probe[:, np.hypot(y, x) < 0.8 * 16 - 1].all()
    assert (np.abs(result.probe) ** 2).sum() == pytest.approx(experiment.frames.counts.sum() / 49, rel=0.1)
    assert result.quality["error"] < 0.05


def off_centre(simulate: Any, recipe: str) -> tuple[Any, Solver]:
    """A solver that starts from a probe which stands 5 px and 4 px beside the middle."""
    experiment = simulate(side=48, grid=(6, 6))
    start = np.roll(experiment.probe * (1 + 0.1 * np.hanning(48)), (5, -4), axis=(-2, -1))
    return experiment, Solver(experiment.frames, experiment.scan, experiment.geometry, Recipe.parse(recipe), start_probe=start)


@pytest.mark.parametrize("recipe", ["DM", "LSQML", "mPIE", "ML"])
def test_moving_the_probe_to_the_middle_changes_nothing_else(simulate: Any, recipe: str) -> None:
    """Not then, where the probe is dark at the frame's edge, and hardly in the iterations after it: waves and velocities went along."""
    (_, going), (_, still) = (off_centre(simulate, f"{recipe}(12, probe_support=0.6)") for _ in range(2))
    for _ in range(8):
        next(going)
        next(still)
    begun = going._begun
    assert begun is not None
    state, way = begun.state, begun.way
    before = model_errors(state, way)["error"]
    arrays = {"object": state.object, "probe": state.probe, "waves": state.waves} | state.memory
    copies = {name: array.copy() for name, array in arrays.items() if array.dtype.kind == "c"}
    off = off_middle(state.probe)
    assert max(map(abs, off)) > 3
    centre_probe(state, way)
    for name, copy in copies.items():
        np.testing.assert_array_equal(arrays[name], np.roll(copy, (-round(off[0]), -round(off[1])), axis=(-2, -1)), err_msg=name)
    assert max(map(abs, off_middle(state.probe))) <= 0.5
    assert model_errors(state, way)["error"] == pytest.approx(before, rel=1e-4)
    for first, (moved, stayed) in enumerate(zip(going, still, strict=True)):
        for name, value in stayed.errors.items():
            assert moved.errors[name] == pytest.approx(value, rel=0.1 if first else 2e-3)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_probe_is_kept_in_the_middle(simulate: Any, name: str) -> None:
    _, going = off_centre(simulate, f"{name}(10, centre_probe=5)")
    for _ in going:
        pass
    result = going.result()
    assert result is not None
    assert np.abs(off_middle(result.probe)).max() <= 1
    assert result.quality["error"] < 0.1


def test_a_probe_in_the_middle_is_left_there(experiment: Any) -> None:
    recipe = Recipe.parse("ePIE(2)")
    going = Solver(experiment.frames, experiment.scan, experiment.geometry, recipe, start_probe=experiment.probe)
    next(going)
    begun = going._begun
    assert begun is not None
    object_before, probe_before = begun.state.object.copy(), begun.state.probe.copy()
    centre_probe(begun.state, begun.way)
    np.testing.assert_array_equal(begun.state.object, object_before)
    np.testing.assert_array_equal(begun.state.probe, probe_before)
