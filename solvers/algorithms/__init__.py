"""The algorithms: one file, one ``sweep`` each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ptyplugin.model import ErrorName, Recipe, RecipeError, Stage
from ptyplugin.solvers.algorithms import difference_map, epie
from ptyplugin.solvers.options import read_options
from ptyplugin.solvers.verbs import DeviceScalar


@dataclass(frozen=True, slots=True)
class Algorithm:
    """An algorithm as the runner knows it.

    sweep(state, batches, verbs, ranks, options, iteration) does one iteration and gives the sum, over all ranks, behind ``measures``
    walks: fixed blocks of frames, or single frames in random order
    keeps_waves: whether State.waves is filled before its first sweep
    """

    sweep: Callable[..., DeviceScalar]
    options: type[Any]
    walks: Literal["blocks", "single frames"]
    keeps_waves: bool
    measures: ErrorName


_ALGORITHMS = {
    "DM": Algorithm(difference_map.sweep, difference_map.DifferenceMapOptions, "blocks", True, "constraint_residual"),
    "ePIE": Algorithm(epie.sweep, epie.EpieOptions, "single frames", False, "running_error"),
}


def algorithm_of(stage: Stage) -> tuple[Algorithm, Any]:
    """The algorithm that a stage names, and its options.

    Raises:
        RecipeError: unknown algorithm or option, or a value out of range; the message names those that exist.
    """
    algorithm = _ALGORITHMS.get(stage.algorithm)
    if algorithm is None:
        raise RecipeError(f"there is no algorithm {stage.algorithm!r}: the recipe can use {', '.join(_ALGORITHMS)}.")
    return algorithm, read_options(algorithm.options, stage.algorithm, stage.options)


def check_recipe(recipe: Recipe) -> None:
    """Check that every algorithm and option of a recipe exists and is in range.

    Raises:
        RecipeError: the first that does not; the message names those that exist.
    """
    for stage in recipe.stages:
        algorithm_of(stage)
