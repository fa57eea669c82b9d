"""Refining: what is done after each sweep, whatever the algorithm: a step of everything that is neither object nor probe."""

from __future__ import annotations

from dataclasses import dataclass

from ptyplugin.solvers.state import State
from ptyplugin.solvers.way import Walk


@dataclass(frozen=True, slots=True)
class Refinements:
    """Options of every stage, beside those of its algorithm; made as those are."""


def refine(state: State, way: Walk, options: Refinements, iteration: int) -> None:
    """Refine what ``options`` ask for, in place, after iteration ``iteration`` of the stage. All ranks call it together."""
