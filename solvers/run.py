"""The only loop: stages, sweeps, progress, votes."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Generator, Hashable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ptyplugin.model import Cancelled, Progress, Recipe, SolverError, Stage
from ptyplugin.solvers.algorithms import algorithm_of, refinements_of
from ptyplugin.solvers.batches import Batches, in_compact_batches, in_random_batches, open_size
from ptyplugin.solvers.divergence import Diverged, begin_again, check, start_of
from ptyplugin.solvers.fitting import begin_smaller
from ptyplugin.solvers.plugins import Algorithm
from ptyplugin.solvers.positions import place
from ptyplugin.solvers.ranks import AfterVerbs
from ptyplugin.solvers.refining import refine
from ptyplugin.solvers.state import State, fill_waves, set_lengths
from ptyplugin.solvers.verbs import Complex, DeviceScalar
from ptyplugin.solvers.verbs.cuda.device import DeviceMemoryError
from ptyplugin.solvers.way import Walk, blocks_of, model_errors

_LOG = logging.getLogger(__name__)

#: ``error`` is measured every so many iterations, and at the end of each stage.
_ERROR_EVERY = 10


def walk(recipe: Recipe, state: State, way: Walk) -> None:
    """Do all stages of a recipe on ``state``, in place. All ranks call it together. Raises what ``steps`` does."""
    way.stages = recipe.stages
    for _ in steps(state, way):
        pass


def steps(state: State, way: Walk) -> Generator[Progress]:
    """Do the stages that have not begun, on ``state``, in place, one iteration after the other. All ranks take each step together.

    Raises:
        Cancelled: ``way.cancelled`` said so on any rank.
        SolverError: a stage diverged, and once more when it was begun again with safer steps; or another rank's failure.
        DeviceMemoryError: a stage does not fit on the device, and neither when less of it lies there.
    """
    place(state, way)
    within = way.begun > 0 and (way.again or way.done > 0) and way.done < way.stages[way.begun - 1].iterations
    for number in itertools.count(way.begun - within):
        if number == len(way.stages):
            return
        if not within:
            way.begun, way.done, way.begun_after = number + 1, 0, len(way.progress)
        within = False
        yield from _done_somehow(state, way, number)


def _done_somehow(state: State, way: Walk, number: int) -> Iterator[Progress]:
    """Stage ``number``: begun again once if it diverges, and once if it does not fit on a device."""
    met: set[type[SolverError]] = set()
    while True:
        start = start_of(state, way)
        try:
            yield from _stage(state, way, number, start.done)
            return
        except (Diverged, DeviceMemoryError) as error:
            if type(error) in met:
                raise
            # Anew, since its traceback, and those of its causes, keep the arrays of what failed.
            reason = type(error)(str(error))
        met.add(type(reason))
        if isinstance(reason, Diverged):
            begin_again(state, way, number, algorithm_of(way.stages[number])[1], start, reason)
            _LOG.warning("%s", way.notes[-1])
        else:
            begin_smaller(state, way, number, start, reason)


def _stage(state: State, way: Walk, number: int, begun_after: int) -> Iterator[Progress]:
    """All iterations of stage ``number`` that have not been done; ``begun_after`` iterations were done before it."""
    if not (way.done or way.again):
        make_ready(state, way)
    way.again = False
    for iteration in range(way.done + 1, way.stages[number].iterations + 1):
        event = _iterate(state, way, number, iteration, begun_after)
        way.done = iteration
        yield event
    state.waves = state.waves[:0].copy()  # a view would keep them all


def make_ready(state: State, way: Walk) -> None:
    """Make the state ready for the stage that has begun."""
    algorithm, options = algorithm_of(way.stages[way.begun - 1])
    state.memory.clear()
    if algorithm.stores_waves(options, way.recomputes_waves):
        fill_waves(state, blocks_of(state, way), way.verbs)


def _iterate(state: State, way: Walk, number: int, iteration: int, begun_after: int) -> Progress:
    """One iteration of stage ``number``."""
    stage = way.stages[number]
    (algorithm, options), refinements = algorithm_of(stage), refinements_of(stage)
    done = len(way.progress) + 1
    in_order = algorithm.walks == "blocks"
    batches = blocks_of(state, way) if in_order else _drawn_batches(way, number, iteration, algorithm, options)
    with np.errstate(all="ignore"):  # what is not finite is found by _report, in every implementation alike
        kept = way.verbs.copy(state.probe) if refinements.probe == "fixed" else None
        total = _swept(state, way, number, iteration, batches)
        _settle_probe(state, way, kept)
        errors = {algorithm.measures: total.read() / way.counts}
        refine(state, way, refinements, iteration)
        if iteration == stage.iterations or done % _ERROR_EVERY == 0:
            errors |= model_errors(state, way)
    return _report(stage, done, done + _left(way, number, iteration), errors, way, begun_after)


def _swept(state: State, way: Walk, number: int, iteration: int, batches: Batches) -> DeviceScalar:
    """One sweep: done, or, where the verbs can, done again."""
    algorithm, options = algorithm_of(way.stages[number])
    key = _repeatable(way, number, algorithm, options, iteration)
    if algorithm.lengths:
        set_lengths(state, algorithm.lengths(options, iteration), way.verbs)
    sweep = partial(algorithm.sweep, state, batches, way.verbs, AfterVerbs(way.ranks, way.verbs.finish), options, iteration)
    return sweep() if key is None else way.verbs.repeat(key, batches, sweep)


def _repeatable(way: Walk, number: int, algorithm: Algorithm, options: Any, iteration: int) -> Hashable:
    """What a sweep depends on, as ``Verbs.repeat`` takes it; None: it cannot be done again."""
    if algorithm.phase is None or way.ranks.size > 1:  # what several ranks merge depends on where their frames lie
        return None
    phase = algorithm.phase(options, iteration)
    return None if phase is None else (number, options, phase)


def _settle_probe(state: State, way: Walk, kept: Complex | None) -> None:
    """After a sweep: the probe is what was kept, to the last bit (merges of ranks' copies round it), or has the power of the mean frame."""
    if kept is None:
        way.verbs.fix_power(state.probe, state.object, way.power)
    else:
        way.verbs.put(state.probe, kept)


def _drawn_batches(way: Walk, stage: int, iteration: int, algorithm: Algorithm, options: Any) -> Batches:
    compact = algorithm.walks == "chosen batches" and options.batches == "compact"
    draw = in_compact_batches if compact else in_random_batches
    size = options.batch or open_size(way.most_frames)
    return draw(way.frames, size, way.most_frames, (way.seed, stage, iteration, way.ranks.rank))


def _left(way: Walk, number: int, iteration: int) -> int:
    """How many iterations there are still to do after this one of stage ``number``."""
    return sum(stage.iterations for stage in way.stages[number:]) - iteration


def _report(stage: Stage, iteration: int, iterations: int, errors: dict[Any, float], way: Walk, begun_after: int) -> Progress:
    """Check the numbers, tell the world, vote."""
    check(stage, iteration, errors, way.progress, begun_after, way.since)
    event = Progress(way.job_key, stage.algorithm, iteration, iterations, time.monotonic() - way.started, errors)
    way.progress.append(event)
    _LOG.debug("%s %d/%d %s", stage.algorithm, iteration, iterations, errors)
    if way.on_progress is not None and way.ranks.rank == 0:
        way.on_progress(event)
    if way.ranks.vote(way.cancelled is not None and way.cancelled()):
        raise Cancelled(f"the reconstruction was stopped in iteration {iteration} of {iterations}.")
    return event
