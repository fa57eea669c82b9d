"""Which sweeps may be done again without asking the algorithm."""

from __future__ import annotations

import pytest

from ptyplugin.model import Recipe
from ptyplugin.solvers.algorithms import _ALGORITHMS, algorithm_of


def phases_of(recipe: str, iterations: int) -> list[object]:
    algorithm, options = algorithm_of(Recipe.parse(recipe).stages[0])
    assert algorithm.phase is not None
    return [algorithm.phase(options, iteration) for iteration in range(1, iterations + 1)]


def test_all_but_ml_can_be_repeated() -> None:
    assert {name for name, algorithm in _ALGORITHMS.items() if algorithm.phase is None} == {"ML"}


@pytest.mark.parametrize("name", ["DM", "RAAR", "AP", "LSQML", "ePIE", "rPIE"])
def test_the_probe_begins_a_phase(name: str) -> None:
    free, fixed = (phases_of(f"{name}(9, {options})", 6) for options in ("probe_from=3", "probe='fixed'"))
    assert len(set(free[:2])) == len(set(free[2:])) == 1
    assert free[0] == fixed[0] != free[2]
    assert len(set(fixed)) == 1


def test_an_iteration_that_synchronises_is_not_done_again() -> None:
    phases = phases_of("DM(9, synchronise=3)", 7)
    assert [phase is None for phase in phases] == [False, False, True, False, False, True, False]


def test_steps_that_shrink_are_not_those_before() -> None:
    phases = phases_of("mPIE(9, slow_from=4)", 7)
    assert len(set(phases[:4])) == 1
    assert len(set(phases)) == 4
