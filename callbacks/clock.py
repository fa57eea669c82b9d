"""Positions by time: samples that a box captured at its own rate, and frames with the time of their exposure, on one clock.

Each frame is looked up by its own time: however long the scan, nothing adds up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptyplugin.callbacks.samples import Samples, SamplesAt
from ptyplugin.callbacks.track import Stretch
from ptyplugin.model import FrameSource, ScanError

if TYPE_CHECKING:
    from ptyplugin.callbacks.locating import PositionReader

Floats = NDArray[np.float64]

#: A gap between two samples may be so many usual ones for a position between them to be believed.
_LARGEST_GAP = 3.0


class Windows(NamedTuple):
    """Positions of frames (frame, substep, yx), NaN where there are none; known: False where samples are still to come."""

    positions_m: Floats
    known: NDArray[np.bool_]
    monitor: Floats | None


class _Read(NamedTuple):
    stop: int
    columns: list[Floats]


class Clock:
    """Samples with their times, and what lies within the exposure of a frame.

    exposure_s: how long a frame takes; at_end: whether a frame's time is the end of its exposure
    """

    def __init__(self, reader: PositionReader, exposure_s: float, at_end: bool, substeps: int) -> None:
        if not exposure_s > 0:
            raise ScanError(f"positions.clock.exposure is {exposure_s:g} s: give the time that a frame takes, longer than nothing.")
        self._reader, self._exposure_s, self._at_end, self._substeps = reader, exposure_s, at_end, substeps
        self._read: dict[tuple[FrameSource, int], _Read] = {}
        self._sort([], [])
        self._asked: tuple[float, float] | None = None

    def take(self, track: Sequence[Stretch]) -> bool:
        """Read what has come of the track; whether that is all of it.

        Raises:
            FramesError: it cannot be read.
            ScanError: as many times, y and x are not there.
        """
        parts, whole = [], True
        told = [stretch for stretch in track if not isinstance(stretch.time, SamplesAt)]
        lying = [stretch for stretch in track if isinstance(stretch.time, SamplesAt)]
        for stretch in told:
            parts.append([_plain(samples, stretch.time) for samples in stretch if samples is not None])
        for stretch in lying:
            columns, all_there = self._columns(stretch)
            parts.append(columns)
            whole &= all_there
        self._sort(parts, [columns[0] for columns in parts[len(told) :]])
        return whole

    def at(self, times: Floats, ended: bool) -> Windows:
        """What was captured during the exposures of frames with these times (frame,); ``ended``: no sample will be added."""
        begin = times - self._exposure_s if self._at_end else times
        if times.size and np.isfinite(times).any():
            self._asked = float(np.nanmin(begin)), float(np.nanmax(begin)) + self._exposure_s
        edges = begin[:, None] + self._exposure_s * np.linspace(0.0, 1.0, self._substeps + 1)
        if len(self._time) < 2:
            return Windows(np.full((len(times), self._substeps, 2), np.nan), np.full(len(times), ended), None)
        values = np.stack([self._means(edges[:, part], edges[:, part + 1]) for part in range(self._substeps)], axis=1)
        values[self._is_told_twice(edges[:, 0], edges[:, -1])] = np.nan
        known = ended | ~(edges[:, -1] > self._time[-1])
        monitor = values[..., 2].mean(axis=1) if values.shape[-1] > 2 else None
        return Windows(values[..., :2], known, monitor)

    def outside(self) -> str:
        """Where frames and samples lie on the clock, in words."""
        if self._asked is None or not len(self._time):
            return "Their times, or those of the samples, did not come: look at positions.clock of the profile."
        frames, samples = self._asked, (self._time[0], self._time[-1])
        if len(self._twice[0]):
            return "The samples' clock was set back, or began anew, during the capture: it has the same times more than once."
        if frames[0] >= samples[0] and frames[1] <= samples[1]:
            return "The capture has gaps that are longer than the exposure."
        return (
            f"The frames' times run from {frames[0]:.6f} to {frames[1]:.6f} s, those of the samples from {samples[0]:.6f} to "
            f"{samples[1]:.6f} s: are both on one clock, and are their units right?"
        )

    def _columns(self, stretch: Stretch) -> tuple[list[Floats], bool]:
        """Samples of all columns of a stretch, as far as all of them show them; only what is new is read."""
        at = [samples for samples in stretch if isinstance(samples, SamplesAt)]
        length = at[0].stop - at[0].start
        if any(each.stop - each.start != length for each in at):
            raise ScanError("the capture has different numbers of samples for time, y and x: capture all of them together.")
        key = at[0].source, at[0].start
        known = self._read.get(key, _Read(0, [np.empty(0)] * len(at)))
        if known.stop < length:
            new = [self._reader.read(each.source, each.start + known.stop, each.stop, each.per_point) * each.factor for each in at]
            common = min(map(len, new))
            columns = [np.concatenate([old, more[:common]]) for old, more in zip(known.columns, new, strict=True)]
            known = self._read[key] = _Read(known.stop + common, columns)
        return [column[:length] for column in known.columns], known.stop >= length

    def _sort(self, parts: list[list[Floats]], captured: list[Floats]) -> None:
        """Bring the samples of all parts in the order of their times; ``captured``: times that files have in the order of the capture."""
        least = min(map(len, parts), default=3)
        columns = [np.concatenate([part[place] for part in parts] or [np.empty(0)]) for place in range(least)]
        usable = np.isfinite(columns[0]) & np.isfinite(columns[1]) & np.isfinite(columns[2])
        order = np.argsort(columns[0][usable], kind="stable")
        self._time = columns[0][usable][order]
        #: One row more than times, where the last window may end.
        self._values = np.pad(np.stack([column[usable][order] for column in columns[1:]], axis=1), ((0, 1), (0, 0)))
        steps = np.diff(self._time)
        self._step_s = float(np.median(steps)) if len(steps) else 0.0
        self._twice = _told_twice(captured, _LARGEST_GAP * self._step_s)

    def _is_told_twice(self, begin: Floats, end: Floats) -> NDArray[np.bool_]:
        """Whether what was captured between these times (frame,) may be of another moment."""
        first, latest = self._twice
        before = np.searchsorted(first, end)
        return np.concatenate([[-np.inf], latest])[before] > begin

    def _means(self, begin: Floats, end: Floats) -> Floats:
        """Means (frame, column) of the samples in [begin, end); between two samples if there are none."""
        low, high = np.searchsorted(self._time, begin), np.searchsorted(self._time, end)
        count = high - low
        # Summed window by window: in sums from the begin on, one absurd sample would take the last digits of all that come after it.
        ends = np.stack([low, high], axis=1).ravel()
        means: Floats = np.add.reduceat(self._values, ends, axis=0)[::2] / np.maximum(count, 1)[:, None]
        empty = count == 0
        if empty.any():
            means[empty] = self._between((begin[empty] + end[empty]) / 2)
        beyond = ~((begin >= self._time[0] - self._step_s) & (end <= self._time[-1] + self._step_s))
        means[beyond] = np.nan
        return means

    def _between(self, moments: Floats) -> Floats:
        after = np.clip(np.searchsorted(self._time, moments), 1, len(self._time) - 1)
        step = self._time[after] - self._time[after - 1]
        share = (moments - self._time[after - 1]) / np.where(step > 0, step, 1.0)
        between: Floats = self._values[after - 1] + share[:, None] * (self._values[after] - self._values[after - 1])
        between[~((share >= 0) & (share <= 1) & (step <= _LARGEST_GAP * self._step_s))] = np.nan
        return between


def _told_twice(times: list[Floats], least_s: float) -> tuple[Floats, Floats]:
    """Begins, and latest end so far, of what these times (sample,), in the order of the capture, cover twice for over ``least_s``."""
    begins, ends = [np.empty(0)], [np.empty(0)]
    for each in times:
        finite = each[np.isfinite(each)]
        turns = np.flatnonzero(np.diff(finite) < 0)
        begins.append(finite[[0, *(turns + 1)][: len(finite)]])
        ends.append(finite[[*turns, -1][: len(finite)]])
    begin, end = np.concatenate(begins), np.concatenate(ends)
    order = np.argsort(begin, kind="stable")
    begin, end = begin[order], end[order]
    until = np.minimum(end[1:], np.maximum.accumulate(end)[:-1])
    twice = until - begin[1:] > least_s
    return begin[1:][twice], np.maximum.accumulate(until[twice])


def _plain(samples: Samples, like: Samples) -> Floats:
    """Numbers that events tell: as many as there are times, or one for all of them."""
    if isinstance(samples, SamplesAt) or isinstance(like, SamplesAt) or len(samples) not in (1, len(like)):
        raise ScanError("the events have different numbers of times and positions: record as many of both.")
    return np.broadcast_to(np.asarray(samples, dtype=np.float64), (len(like),))
