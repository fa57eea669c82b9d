"""Walk: what a way through a recipe needs, and what is measured on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import ErrorName, Progress, Stage
from ptyplugin.solvers.batches import Batches, RankFrames, in_blocks
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs import Verbs

#: What is left of the mean frame without its background, as a share of it, at least.
_LEAST_SHARE = 0.05


@dataclass(slots=True)
class Walk:
    """What a walk through a recipe needs, and its progress so far.

    counts: sum of all counts in good pixels, over all ranks; power: mean of it per frame, the power that the probe is held at
    held_out: frames that no sweep sees, or None; held_out_counts: the sum of their counts, over all ranks
    said: (frame, substep, yx) px, float64, where the scan said that the fitted frames, then those held out, lie in the object; rounds:
        whether frames are used at the nearest pixel
    notes: sentences about what did not go as it should have; resumed: where it went on from a checkpoint, and how
    refitted: what did not fit on a device, and how it was done then
    recomputes_waves: whether algorithms that keep waves where they fit do without
    stages: what to do; begun: how many of them have begun. Those that have not may be replaced at any time.
    done: iterations of the stage that began last; again: it goes on with the state that it has, although there may be none
    begun_after: iterations before that stage; since: iterations before the frames were all that they are now
    """

    frames: RankFrames
    verbs: Verbs
    ranks: Ranks
    most_frames: int
    counts: float
    power: float
    seed: int = 0
    job_key: str = ""
    on_progress: Callable[[Progress], None] | None = None
    cancelled: Callable[[], bool] | None = None
    stages: tuple[Stage, ...] = ()
    begun: int = 0
    done: int = 0
    again: bool = False
    begun_after: int = 0
    since: int = 0
    held_out: RankFrames | None = None
    held_out_counts: float = 0.0
    said: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 1, 2)))
    rounds: bool = False
    progress: list[Progress] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    refitted: list[str] = field(default_factory=list)
    recomputes_waves: bool = False
    started: float = field(default_factory=time.monotonic)


def power_of(way: Walk) -> float:
    """What the probe is held at: the power of the mean frame, of mean intensity, without its background. All ranks call it together."""
    light = np.ones(len(way.frames)) if way.frames.intensities is None else way.frames.intensities.astype(np.float64)
    mean = way.counts / float(way.ranks.sum(np.array([light.sum()]))[0])
    background = way.frames.background
    return mean if background is None else max(mean - float(background.sum(where=way.frames.good, dtype=np.float64)), _LEAST_SHARE * mean)


def light_of(state: State, way: Walk) -> NDArray[Any]:
    """(y, x), on the host: sum_j |P|^2 over the frames of all ranks, which call it together."""
    total = way.verbs.sums(state.object)[1]
    for b in blocks_of(state, way):
        way.verbs.coverage_sums(total, state.probe, b)
    way.verbs.finish()
    return way.verbs.host(way.ranks.sum(total))


def blocks_of(state: State, way: Walk) -> Batches:
    """This rank's frames in batches of the size that the verbs like."""
    return _blocks(way.frames, way.most_frames, state, way)


def model_errors(state: State, way: Walk) -> dict[ErrorName, float]:
    """``error`` and, if held-out frames have counts, ``held_out_error``, with object and probe frozen. All ranks call it together."""
    fitted = _residual(blocks_of(state, way), state, way)
    if way.held_out is None or not way.held_out_counts:
        return {"error": fitted / way.counts}
    unseen = _residual(_blocks(way.held_out, len(way.held_out), state, way), state, way)
    return {"error": (fitted + unseen) / (way.counts + way.held_out_counts), "held_out_error": unseen / way.held_out_counts}


def _blocks(frames: RankFrames, most_frames: int, state: State, way: Walk) -> Batches:
    waves = len(state.probe) * len(state.object) * frames.corners.shape[1]
    rows, columns = frames.good.shape
    return in_blocks(frames, way.verbs.batch_frames((rows, columns), waves), most_frames)


def _residual(blocks: Batches, state: State, way: Walk) -> float:
    """sum (sqrt(I) - |F(P O_j)|)^2 over good pixels and the frames of all ranks."""
    total = way.verbs.zero()
    for b in blocks:
        total += way.verbs.modulus_residual(way.verbs.to_detector(way.verbs.exit_waves(state.object, state.probe, b), b), b)
    return float(way.ranks.sum(total).read())
