"""Samples: the numbers of one data key at one point, as the events tell them, or where they lie."""

from __future__ import annotations

from typing import NamedTuple

from ptyplugin.model import FramesError, FrameSource


class SamplesAt(NamedTuple):
    """Samples ``start`` to ``stop`` of a source, numbered over all its axes together; times ``factor`` they are in the stored unit.

    per_point: how many samples the documents announce for a point
    """

    source: FrameSource
    start: int
    stop: int
    per_point: int
    factor: float


#: Numbers in the stored unit, or where they lie.
Samples = tuple[float, ...] | SamplesAt


class Captured(NamedTuple):
    """What is known of a frame by reference only: of its positions, its time (where positions are found by time), and the monitor."""

    y: Samples | None = None
    x: Samples | None = None
    time: Samples | None = None
    monitor: Samples | None = None


def count_of(samples: Samples) -> int:
    """How many samples these are."""
    return samples.stop - samples.start if isinstance(samples, SamplesAt) else len(samples)


def shared_out(samples: Samples, frames: int) -> list[Samples]:
    """The samples of each frame of a point: one for all, or as many for each, in their order.

    Raises:
        FramesError: they cannot be shared out evenly.
    """
    count = count_of(samples)
    if count == 1 or frames == 1:
        return [samples] * frames
    each = count // max(frames, 1)
    if frames and each * frames != count:
        raise FramesError(f"a point has {frames} frames and {count} positions: record one, or the same number for each frame.")
    return [_part(samples, part * each, (part + 1) * each) for part in range(frames)]


def _part(samples: Samples, start: int, stop: int) -> Samples:
    if isinstance(samples, SamplesAt):
        return samples._replace(start=samples.start + start, stop=samples.start + stop)
    return samples[start:stop]
