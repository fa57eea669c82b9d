"""Checkpoints: all that a reconstruction needs to go on, of one rank, between two iterations. Files are somebody else's."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Progress, Recipe, SolverError
from ptyplugin.solvers.algorithms import algorithm_of
from ptyplugin.solvers.state import State, arrays_of, fill_waves
from ptyplugin.solvers.way import Walk, blocks_of

#: Waves of more bytes than this are left out: writing them would take longer than to find them again.
_MOST_WAVES_BYTES = 2 * 10**9
#: What is as it was when the frames were read again, or is not of this reconstruction's numbers.
_NOT_KEPT = {
    "Walk": {"verbs", "ranks", "job_key", "on_progress", "cancelled", "stages", "progress", "started", "recomputes_waves"},
    "RankFrames": {"numbers", "counts", "good"},
    "State": set[str](),
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One rank's share of a reconstruction between two iterations.

    iteration: how many have been done; the same on all ranks
    task: what the reconstruction is; another one cannot go on from here
    arrays: the solver's own, by name: write or copy them before the next iteration
    numbers: all else, as JSON has it
    """

    iteration: int
    task: dict[str, Any]
    arrays: Mapping[str, NDArray[Any]]
    numbers: dict[str, Any]


def task_of(job_key: str, recipe: Recipe, engine: str, rank: int, ranks: int, digest: str) -> dict[str, Any]:
    """What tells one reconstruction from another, for one of its ranks; ``engine``: name of its verbs; ``digest``: of its input"""
    versions = {name: version(name) for name in ("ptyplugin", "numpy", "scipy")}
    return {"job": job_key, "recipe": str(recipe), "engine": engine, "input": digest, "ranks": ranks, "rank": rank, "versions": versions}


def digest_of(*parts: Any) -> str:
    """One text for arrays, and for what else has a repr that says all."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return digest.hexdigest()


def why_not(checkpoint: Checkpoint, task: dict[str, Any]) -> str:
    """Why the reconstruction ``task`` cannot go on from here, in a sentence; nothing if it can."""
    for name, wanted in task.items():
        if checkpoint.task.get(name) != wanted:
            return f"the checkpoint is of another reconstruction: its {name} is {checkpoint.task.get(name)}, not {wanted}."
    return ""


def taken(state: State, way: Walk, task: dict[str, Any], frames: str) -> Checkpoint:
    """The checkpoint after the last iteration. Nothing is copied that is on the host.

    frames: which ones are used, since only who reads them sees that some are broken

    Raises:
        SolverError: something in the state is of a type that cannot be kept.
    """
    arrays: dict[str, NDArray[Any]] = {}
    kept = _waves_are_kept(state, way)
    numbers = {
        "state": _packed(
            _with_arrays(state if kept else dataclasses.replace(state, waves=state.waves[:0]), way.verbs.host), "state", arrays
        ),
        "way": _packed(way, "way", arrays),
        "frames": frames,
        "stages": str(Recipe(way.stages)),
        "progress": [dataclasses.asdict(event) for event in way.progress],
        "waves_are_missing": _needs_waves(way) and not kept,
    }
    return Checkpoint(len(way.progress), task, arrays, numbers)


def put_back(checkpoint: Checkpoint, state: State, way: Walk) -> None:
    """Make ``state`` and ``way``, as they are before the first iteration, what they were at the checkpoint."""
    _unpacked(checkpoint.numbers["way"], way, checkpoint.arrays)
    there = _with_arrays(_unpacked(checkpoint.numbers["state"], state, checkpoint.arrays), way.verbs.array)
    state.object, state.probe, state.waves, state.memory = there.object, there.probe, there.waves, there.memory
    way.stages = Recipe.parse(checkpoint.numbers["stages"]).stages
    way.progress[:] = [Progress(**event) for event in checkpoint.numbers["progress"]]
    way.started = time.monotonic() - way.progress[-1].seconds
    how = f"after iteration {checkpoint.iteration}"
    if checkpoint.numbers["waves_are_missing"]:
        state.memory.clear()
        how += ", with waves made anew from object and probe"
    stage = way.stages[way.begun - 1]
    algorithm, options = algorithm_of(stage)
    if way.done < stage.iterations and not len(state.waves) and algorithm.stores_waves(options, way.recomputes_waves):
        fill_waves(state, blocks_of(state, way), way.verbs)
    way.resumed.append(how)


def _with_arrays(state: State, made: Callable[[Any], Any]) -> State:
    """The state with what is made of each of its arrays that lie where verbs compute."""
    memory = state.memory | {name: made(X) for name, X in arrays_of(state.memory).items()}
    return dataclasses.replace(state, object=made(state.object), probe=made(state.probe), waves=made(state.waves), memory=memory)


def _needs_waves(way: Walk) -> bool:
    """Whether the stage that has begun goes on with the waves that it has."""
    stage = way.stages[way.begun - 1]
    return algorithm_of(stage)[0].keeps_waves is True and way.done < stage.iterations


def _waves_are_kept(state: State, way: Walk) -> bool:
    """The same on all ranks, which call it together."""
    return _needs_waves(way) and way.ranks.largest(state.waves.nbytes) <= _MOST_WAVES_BYTES


def _packed(value: Any, name: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """``value`` as JSON; its arrays go into ``arrays`` under names that begin with ``name``."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.ndarray():
            arrays[name] = value
            return {"array": name}
        case np.generic():
            return _packed(np.asarray(value), name, arrays)
        case slice():
            return {"slice": [value.start, value.stop]}
        case list() | tuple():
            return {type(value).__name__: [_packed(each, f"{name}.{place}", arrays) for place, each in enumerate(value)]}
        case dict():
            return {"dict": {key: _packed(each, f"{name}.{key}", arrays) for key, each in value.items()}}
    if type(value).__name__ not in _NOT_KEPT:
        raise SolverError(f"a checkpoint cannot keep {name}, which is a {type(value).__name__}: use an array, a number or a text.")
    fields = {field.name for field in dataclasses.fields(value)} - _NOT_KEPT[type(value).__name__]
    return {"fields": {field: _packed(getattr(value, field), f"{name}.{field}", arrays) for field in sorted(fields)}}


def _unpacked(packed: Any, there: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """What was packed; a dataclass: ``there`` with those fields, changed in place where it can be."""
    if not isinstance(packed, dict):
        return packed
    ((kind, inner),) = packed.items()
    match kind:
        case "array":
            return arrays[inner]
        case "slice":
            return slice(*inner)
        case "dict":
            return {key: _unpacked(each, None, arrays) for key, each in inner.items()}
        case "list" | "tuple":
            values = [_unpacked(each, None, arrays) for each in inner]
            return values if kind == "list" else tuple(values)
    fields = {name: _unpacked(each, getattr(there, name), arrays) for name, each in inner.items()}
    if type(there).__dataclass_params__.frozen:
        return dataclasses.replace(there, **fields)
    for name, value in fields.items():
        setattr(there, name, value)
    return there
