"""The algorithms: one file, one ``sweep`` for each family."""

from __future__ import annotations

import dataclasses
from typing import Any

from ptyplugin.model import Recipe, RecipeError, Stage
from ptyplugin.solvers.algorithms import lsqml, ml, pie, projections
from ptyplugin.solvers.options import read_options
from ptyplugin.solvers.plugins import Algorithm, check_only_one, installed, load
from ptyplugin.solvers.refining import Refinements

#: Those that come with this package. More are found through entry points (ptyplugin.solvers.plugins).
_ALGORITHMS = {
    "DM": Algorithm(projections.sweep, projections.DifferenceMapOptions, "blocks", True, "constraint_residual", projections.phase),
    "RAAR": Algorithm(projections.sweep, projections.RaarOptions, "blocks", True, "constraint_residual", projections.phase),
    "AP": Algorithm(
        projections.sweep, projections.AlternatingProjectionOptions, "blocks", "where they fit", "running_error", projections.phase
    ),
    "LSQML": Algorithm(lsqml.sweep, lsqml.LsqmlOptions, "chosen batches", False, "running_error", lsqml.phase),
    "ML": Algorithm(ml.sweep, ml.MlOptions, "blocks", False, "running_error"),
    "ePIE": Algorithm(pie.sweep, pie.EpieOptions, "random batches", False, "running_error", pie.phase, pie.lengths),
    "rPIE": Algorithm(pie.sweep, pie.RpieOptions, "random batches", False, "running_error", pie.phase, pie.lengths),
    "mPIE": Algorithm(pie.sweep, pie.MpieOptions, "random batches", False, "running_error", pie.phase, pie.lengths),
}

#: An iteration that no stage has.
_NEVER = 1_000_001
#: Options that every stage has.
_REFINED = {field.name for field in dataclasses.fields(Refinements)}


def algorithm_of(stage: Stage) -> tuple[Algorithm, Any]:
    """The algorithm that a stage names, and its options.

    Raises:
        RecipeError: unknown algorithm or option, or a value out of range; the message names those that exist. Or an installed package
            that provides the algorithm is broken, or is not the only one.
    """
    name = stage.algorithm
    if name not in _ALGORITHMS and name not in installed():
        raise RecipeError(f"there is no algorithm {name!r}: the recipe can use {', '.join([*_ALGORITHMS, *sorted(installed())])}.")
    check_only_one(name, name in _ALGORITHMS)
    algorithm = _ALGORITHMS[name] if name in _ALGORITHMS else load(name)
    options = read_options(algorithm.options, name, {key: stage.options[key] for key in stage.options if key not in _REFINED}, Refinements)
    return algorithm, _keeping_the_probe(name, options) if refinements_of(stage).probe == "fixed" else options


def refinements_of(stage: Stage) -> Refinements:
    """What a stage asks for beside its algorithm.

    Raises:
        RecipeError: a value of the wrong type or out of its range, or values that contradict each other.
    """
    refinements: Refinements = read_options(
        Refinements, stage.algorithm, {key: stage.options[key] for key in stage.options if key in _REFINED}
    )
    if refinements.probe == "fixed" and (refinements.probe_support or refinements.centre_probe):
        raise RecipeError(f'{stage}: probe="fixed" keeps the probe as it is: leave out probe_support and centre_probe.')
    return refinements


def _keeping_the_probe(name: str, options: Any) -> Any:
    """The options of an algorithm that leaves the probe as it is."""
    if "probe_from" not in {field.name for field in dataclasses.fields(options)}:
        raise RecipeError(f'{name} cannot be told to keep the probe, since it has no option probe_from: leave out probe="fixed".')
    return dataclasses.replace(options, probe_from=_NEVER)


def check_recipe(recipe: Recipe) -> None:
    """Check that every algorithm and option of a recipe exists and is in range.

    Raises:
        RecipeError: the first that does not; the message names those that exist.
    """
    for stage in recipe.stages:
        algorithm_of(stage)
        refinements_of(stage)
