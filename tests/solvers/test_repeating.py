"""Which sweeps may be done again without asking the algorithm."""

from __future__ import annotations

import numpy as np
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


def test_steps_that_shrink_are_of_one_phase() -> None:
    assert len(set(phases_of("mPIE(9, slow_from=4)", 7))) == 1
    algorithm, options = algorithm_of(Recipe.parse("mPIE(9, slow_from=4, object_step=0.5, probe_step=0.1)").stages[0])
    assert algorithm.lengths is not None
    lengths = [algorithm.lengths(options, iteration) for iteration in (1, 4, 5, 8)]
    np.testing.assert_allclose(lengths, [(0.5, 0.1), (0.5, 0.1), (0.4, 0.08), (0.25, 0.05)])
