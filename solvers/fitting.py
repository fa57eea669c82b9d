"""What does not fit on a device after all: frames are held in another way, and the stage is begun once more."""

from __future__ import annotations

import gc
import logging

from ptyplugin.solvers.algorithms import algorithm_of
from ptyplugin.solvers.divergence import Start, put_back_start
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs.cuda.device import DeviceMemoryError
from ptyplugin.solvers.way import Walk

_LOG = logging.getLogger(__name__)
_HOW = "its counts come from the host's memory now, in smaller batches"


def hold_frames(way: Walk) -> None:
    """Have the verbs hold all frames; if they do not fit on a device, in the way that needs less. All ranks call it together.

    Raises:
        DeviceMemoryError: they do not fit in that way either.
    """
    trouble = _hold(way)
    if way.ranks.largest(int(bool(trouble))):
        trouble = trouble or "those of another rank"
        if not way.verbs.use_less_memory():
            raise DeviceMemoryError(f"the frames do not fit on the device: {trouble}.")
        _note(way, f"All counts did not fit on the card ({trouble}); {_HOW}.")
        again = _hold(way)
        if again:
            raise DeviceMemoryError(f"the frames do not fit on the device: {again}.")


def _hold(way: Walk) -> str:
    """Why the frames cannot be held; nothing if they are."""
    try:
        way.frames = way.verbs.hold(way.frames)
        way.held_out = None if way.held_out is None else way.verbs.hold(way.held_out)
    except DeviceMemoryError as error:
        return _shortly(error)
    return ""


def begin_smaller(state: State, way: Walk, number: int, start: Start, reason: DeviceMemoryError) -> None:
    """Put everything back to where stage ``number`` began, and use less of the device's memory, also by waves that are recomputed where its
    algorithm can; a note says so.

    Raises:
        DeviceMemoryError: ``reason``, where there is nothing to save. With several ranks, too: the others wait for what this one failed in.
    """
    algorithm, options = algorithm_of(way.stages[number])
    drops_waves = algorithm.stores_waves(options, way.recomputes_waves) and not algorithm.stores_waves(options, True)
    if way.ranks.size > 1 or not (way.verbs.use_less_memory() or drops_waves):
        raise reason
    way.recomputes_waves |= drops_waves
    put_back_start(state, way, start)
    gc.collect()
    trouble = _hold(way)
    if trouble:
        raise reason
    how = f"its waves are recomputed, {_HOW}" if drops_waves else _HOW
    _note(way, f"{way.stages[number].algorithm} did not fit on the card ({_shortly(reason)}); it was begun again: {how}.")


def _shortly(error: DeviceMemoryError) -> str:
    return str(error).rstrip(".")


def _note(way: Walk, sentence: str) -> None:
    way.refitted.append(sentence)
    _LOG.warning("%s", sentence)
