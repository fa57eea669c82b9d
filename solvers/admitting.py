"""Admitting: further frames join a reconstruction between two iterations. Nothing that has been found is lost, and nothing jumps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Placement, Recipe
from ptyplugin.solvers.algorithms import algorithm_of
from ptyplugin.solvers.batches import RankFrames
from ptyplugin.solvers.canvas import on_canvas
from ptyplugin.solvers.fitting import hold_frames
from ptyplugin.solvers.growing import joined
from ptyplugin.solvers.positions import place
from ptyplugin.solvers.state import State, fill_waves, window_of
from ptyplugin.solvers.streaming import StoredCounts
from ptyplugin.solvers.verbs.cuda.device import DeviceMemoryError
from ptyplugin.solvers.way import Walk, blocks_of, light_of, power_of


@dataclass(frozen=True, slots=True)
class Admission:
    """What a rank admits.

    new: its new frames, prepared; the pixels good in these are good in all
    said: (frame, substep, yx) px, where the scan says that these lie
    placement: of all frames of the scan; shift: (y, x) px, how far the earlier ones moved in the object
    stored: gives what stands for the counts of frames by their numbers, where counts are streamed; None: they are in memory
    """

    new: RankFrames
    said: NDArray[np.float64]
    placement: Placement
    shift: NDArray[np.int64]
    stored: Callable[[NDArray[np.int64]], StoredCounts] | None


#: Counts on the host of the frames that are fitted, and of those held out.
HostCounts = tuple[Any, Any]


def admit_frames(state: State, way: Walk, admission: Admission, counts: HostCounts, recipe: Recipe) -> HostCounts:
    """Go on with more frames; gives the counts that there are then. All ranks call it together, between two iterations.

    The recipe is done from its beginning once more, but what is known stays: object and probe, positions, background, and the waves of
    a first stage that goes on.

    counts: of the frames so far; used up

    Raises:
        DeviceMemoryError: they do not fit on the device, even when less of them lies there.
    """
    way.verbs.finish()
    _enlarge_object(state, way, admission)
    counts = _take(state, way, admission, counts)
    state.memory.clear()  # it is of other frames, or of another canvas
    goes_on = once_more(way, recipe)
    hold_frames(way)
    if not (goes_on and _filled(state, way, len(admission.new))):
        state.waves = state.waves[:0].copy()
        way.begun, way.done, way.again = 0, 0, False
    return counts


def once_more(way: Walk, recipe: Recipe) -> bool:
    """Have all iterations of the recipe done once more, from where it stands; whether its first stage goes on as it is.

    Then that begins where its options let it: for what it waited for at first it does not wait again.
    """
    way.since = len(way.progress)
    if not way.begun:
        return False
    stage, wished = way.stages[0], recipe.stages[0].iterations
    goes_on = way.begun == 1 and way.done < stage.iterations
    waits = getattr(algorithm_of(stage)[1], "probe_from", 1) - 1
    way.done = min(way.done, waits) if goes_on and waits < wished else 0
    way.stages = (replace(stage, iterations=way.done + wished), *way.stages[1:])
    way.begun, way.again = int(goes_on), goes_on
    return goes_on


def _take(state: State, way: Walk, admission: Admission, counts: HostCounts) -> HostCounts:
    """Have all frames where they lie now, and what is said and known of them."""
    here, new, good = len(way.frames), admission.new, _good_of(way, admission.new)
    said = way.said + admission.shift
    way.said = np.concatenate([said[:here], admission.said, said[here:]])
    if len(state.shifts):
        state.shifts = np.concatenate([state.shifts[:here], np.zeros((len(new), 2)), state.shifts[here:]])
    _count(way, new, counts, good)
    fitted = np.concatenate([way.frames.numbers, new.numbers])
    unseen = np.empty(0, np.int64) if way.held_out is None else way.held_out.numbers
    if admission.stored is None:
        # What is a part of an array keeps all of it in memory.
        unfitted = counts[1] if counts[1].base is None else counts[1].copy()
        counts = joined(counts[0], np.asarray(new.counts)), unfitted
    else:
        counts = admission.stored(fitted), admission.stored(unseen)
    way.frames = _among(admission, replace(way.frames, numbers=fitted, counts=counts[0], good=good, intensities=_intensities(way, new)))
    if way.held_out is not None:
        way.held_out = _among(admission, replace(way.held_out, counts=counts[1], good=good))
    state.window = window_of(way.frames.corners, good.shape)
    place(state, way)
    way.most_frames = way.ranks.largest(len(way.frames))
    way.power = power_of(way)
    return counts


def _among(admission: Admission, frames: RankFrames) -> RankFrames:
    """The frames where all frames lie now."""
    placement = admission.placement
    return replace(frames, corners=placement.corners[frames.numbers], rests=placement.rests[frames.numbers])


def _good_of(way: Walk, new: RankFrames) -> NDArray[np.bool_]:
    """The pixels that are good in all frames: the same array as long as these are the same."""
    return way.frames.good if np.array_equal(way.frames.good, new.good) else new.good


def _intensities(way: Walk, new: RankFrames) -> NDArray[np.float32] | None:
    """(frame,) of all fitted frames; new ones that no monitor has seen have the mean's."""
    parts = way.frames, new
    if all(part.intensities is None for part in parts):
        return None
    return np.concatenate([np.ones(len(part), np.float32) if part.intensities is None else part.intensities for part in parts])


def _count(way: Walk, new: RankFrames, counts: HostCounts, good: NDArray[np.bool_]) -> None:
    """Bring the sums of counts in good pixels up to date."""
    lost = way.frames.good & ~good
    change = np.zeros(2)
    for frame in new.counts:
        change[0] += frame.sum(where=good, dtype=np.float64)
    if lost.any():
        for place_of, earlier in enumerate(counts):
            for frame in earlier:
                change[place_of] -= frame[lost].sum(dtype=np.float64)
    fitted, held_out = map(float, way.ranks.sum(change))
    way.counts, way.held_out_counts = way.counts + fitted, max(way.held_out_counts + held_out, 0.0)


def _enlarge_object(state: State, way: Walk, admission: Admission) -> None:
    light, before = light_of(state, way), way.verbs.host(state.object)
    state.object = way.verbs.array(on_canvas(before, light, admission.shift, admission.placement.object_shape))


def _filled(state: State, way: Walk, count: int) -> bool:
    """Make waves of the last ``count`` frames, or of all where those of the others are not there, as object and probe have them.

    False: they do not fit on a device; a stage that begins there knows what to do.
    """
    algorithm, options = algorithm_of(way.stages[0])
    here = len(way.frames) - count
    try:
        if not algorithm.stores_waves(options, way.recomputes_waves):
            state.waves = state.waves[:0].copy()
        elif here and len(state.waves) == here and _lengthen(state, way):
            _fill_last(state, way, count)
        else:
            state.waves = state.waves[:0].copy()
            fill_waves(state, blocks_of(state, way), way.verbs)
    except DeviceMemoryError:
        if way.ranks.size > 1:
            raise
        return False
    return True


def _lengthen(state: State, way: Walk) -> bool:
    """Make room for the waves of all frames; False if there is none for old and new ones at the same time."""
    try:
        state.waves = way.verbs.longer(state.waves, len(way.frames))
    except DeviceMemoryError:
        return False
    return True


def _fill_last(state: State, way: Walk, count: int) -> None:
    stop, size = len(way.frames), max(1, min(blocks_of(state, way).size, count))
    for b in way.frames.batches([slice(start, min(start + size, stop)) for start in range(stop - count, stop, size)]):
        psi = state.waves[b.index]
        way.verbs.advance(psi, psi, state.object, state.probe, b, 0, 0, 1)
    way.verbs.finish()
