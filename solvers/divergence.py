"""Divergence: noticed while it happens; then the stage is begun once more, with safer steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptyplugin.model import ErrorName, Option, Progress, SolverError, Stage
from ptyplugin.solvers.batches import RankFrames
from ptyplugin.solvers.state import State
from ptyplugin.solvers.way import Walk

#: Options by which steps get safer, whatever algorithm has them, and the factor: shorter steps and less momentum, along the gradient rather
#: than more where little light falls, and more weight of what was.
_SAFER = {
    "object_step": 0.5,
    "probe_step": 0.5,
    "momentum": 0.5,
    "friction": 0.5,
    "object_damping": 2.0,
    "probe_damping": 2.0,
    "object_inertia": 10.0,
    "probe_inertia": 10.0,
}
#: An error above this, and so many times the smallest so far, is one that runs away. A difference map wanders below it.
_LEAST, _TIMES = 0.1, 4.0
#: An ``error`` above this is worse than that of darkness.
_WORST = 1.0


class Diverged(SolverError):
    """A stage runs away. All ranks raise it in the same iteration: they share the errors that show it."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a stage begins with: copies of all that it changes."""

    state: Mapping[str, Any]
    frames: RankFrames
    held_out: RankFrames | None
    power: float
    done: int


def start_of(state: State, way: Walk) -> Start:
    """What there is before the first iteration of a stage; where one goes on from a checkpoint, or with more frames: there, without its
    waves."""
    copies: dict[str, Any] = {
        name: way.verbs.copy(X) for name, X in (("object", state.object), ("probe", state.probe), ("waves", state.waves[:0]))
    }
    copies |= {"shifts": state.shifts.copy(), "window": state.window}
    return Start(copies, way.frames, way.held_out, way.power, max(way.begun_after, way.since))


def check(
    stage: Stage, iteration: int, errors: Mapping[ErrorName, float], earlier: list[Progress], begun_after: int, since: int = 0
) -> None:
    """Look at what iteration ``iteration`` of the run measured.

    earlier: all iterations before; begun_after: how many of them there were before this stage; since: and before the frames were all

    Raises:
        Diverged: a number is not finite, an error has climbed far above the smallest so far (``running_error``: of this stage), or
            darkness would explain the frames better.
    """
    for name, value in errors.items():
        if not math.isfinite(value):
            raise _diverged(stage, iteration, f"its {name} is {value}")
        first = {"error": since, "running_error": max(begun_after, since)}.get(name, len(earlier))
        best = min((one.errors[name] for one in earlier[first:] if name in one.errors), default=math.inf)
        if value > max(_LEAST, _TIMES * best):
            raise _diverged(stage, iteration, f"its {name} climbed from {best:.3g} to {value:.3g}")
        if name == "error" and value > _WORST:
            raise _diverged(stage, iteration, f"its error is {value:.3g}, that of darkness is 1")


def begin_again(state: State, way: Walk, number: int, options: Any, start: Start, reason: Diverged) -> None:
    """Put everything back to where stage ``number`` began, and make its steps safer; a note says so.

    Raises:
        Diverged: ``reason``, where the stage has no option that could make it safer.
    """
    stage, safer = way.stages[number], safer_stage(way.stages[number], options)
    if safer == stage:
        raise reason
    put_back_start(state, way, start)
    way.stages = (*way.stages[:number], safer, *way.stages[number + 1 :])
    way.notes.append(f"{str(reason).partition('. ')[0]}; it was begun again as {safer}.")


def put_back_start(state: State, way: Walk, start: Start) -> None:
    """Make everything what it was when the stage began. The start is used up by it."""
    for name, value in start.state.items():
        setattr(state, name, value)
    state.memory.clear()
    way.frames, way.held_out, way.power = start.frames, start.held_out, start.power
    way.done, way.again = 0, False
    del way.progress[start.done :]


def safer_stage(stage: Stage, options: Any) -> Stage:
    """The stage with shorter steps, as far as its algorithm's ``options`` know of any."""
    safer: dict[str, Option] = {}
    for field in dataclasses.fields(options):
        if field.name in _SAFER:
            wanted = _SAFER[field.name] * getattr(options, field.name)
            safer[field.name] = float(np.clip(wanted, field.metadata["lowest"], field.metadata["highest"]))
    changed = {name: value for name, value in safer.items() if value != getattr(options, name)}
    return dataclasses.replace(stage, options={**stage.options, **changed})


def _diverged(stage: Stage, iteration: int, how: str) -> Diverged:
    return Diverged(
        f"{stage.algorithm} diverged in iteration {iteration}: {how}. Use smaller steps, check the start probe, and look for wrong pixels "
        "that the mask leaves in."
    )
