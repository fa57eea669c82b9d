"""Walk: what a way through a recipe needs, and what is measured on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ptyplugin.model import Progress, Stage
from ptyplugin.solvers.batches import Batches, RankFrames, in_blocks
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs import Verbs


@dataclass(slots=True)
class Walk:
    """What a walk through a recipe needs, and its progress so far.

    counts: sum of all counts in good pixels, over all ranks; power: mean of it per frame, the power that the probe is held at
    stages: what to do; begun: how many of them have begun. Those that have not may be replaced at any time.
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
    progress: list[Progress] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)


def blocks_of(state: State, way: Walk) -> Batches:
    """This rank's frames in batches of the size that the verbs like."""
    waves = len(state.probe) * len(state.object) * way.frames.corners.shape[1]
    rows, columns = way.frames.good.shape
    return in_blocks(way.frames, way.verbs.batch_frames((rows, columns), waves), way.most_frames)


def model_error(state: State, blocks: Batches, way: Walk) -> float:
    """``error``: sum (sqrt(I) - |F(P O_j)|)^2 / sum I over good pixels and all frames of all ranks, object and probe frozen."""
    total = way.verbs.zero()
    for b in blocks:
        total += way.verbs.modulus_residual(way.verbs.to_detector(way.verbs.exit_waves(state.object, state.probe, b), b), b)
    return float(way.ranks.sum(total).read()) / way.counts
