"""Positions by time: samples that a box captured at its own rate, and frames with the time of their exposure, on one clock.

Each frame is looked up by its own time: however long the scan, nothing adds up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptyplugin.callbacks.tape import LARGEST_GAP, Floats, Tape
from ptyplugin.callbacks.track import Stretch
from ptyplugin.model import ScanError

if TYPE_CHECKING:
    from ptyplugin.callbacks.locating import PositionReader


class Windows(NamedTuple):
    """Positions of frames (frame, substep, yx), NaN where there are none; known: False where samples are still to come."""

    positions_m: Floats
    known: NDArray[np.bool_]
    monitor: Floats | None


class Clock:
    """Samples with their times, and what lies within the exposure of a frame.

    exposure_s: how long a frame takes; at_end: whether a frame's time is the end of its exposure
    """

    def __init__(self, reader: PositionReader, exposure_s: float, at_end: bool, substeps: int) -> None:
        if not exposure_s > 0:
            raise ScanError(f"positions.clock.exposure is {exposure_s:g} s: give the time that a frame takes, longer than nothing.")
        self._exposure_s, self._at_end, self._substeps = exposure_s, at_end, substeps
        self._tape = Tape(reader)
        self._asked: tuple[float, float] | None = None

    def take(self, track: Sequence[Stretch]) -> bool:
        """Read what has come of the track; whether that is all of it.

        Raises:
            FramesError: it cannot be read.
            ScanError: as many times, y and x are not there.
        """
        return self._tape.take(track)

    def at(self, times: Floats, ended: bool) -> Windows:
        """What was captured during the exposures of frames with these times (frame,); ``ended``: no sample will be added.

        Raises:
            FramesError: samples cannot be read any more.
        """
        begin = times - self._exposure_s if self._at_end else times
        finite = np.flatnonzero(np.isfinite(begin))
        if finite.size:
            self._asked = float(begin[finite].min()), float(begin[finite].max()) + self._exposure_s
        edges = begin[:, None] + self._exposure_s * np.linspace(0.0, 1.0, self._substeps + 1)
        if self._tape.count < 2:
            return Windows(np.full((len(times), self._substeps, 2), np.nan), np.full(len(times), ended), None)
        values = np.full((len(times), self._substeps, self._tape.columns), np.nan)
        for rows in self._portions(finite[np.argsort(begin[finite], kind="stable")], edges):
            values[rows] = self._values(edges[rows])
        values[self._is_told_twice(edges[:, 0], edges[:, -1])] = np.nan
        known = ended | ~(edges[:, -1] > self._tape.last_s)
        monitor = values[..., 2].mean(axis=1) if values.shape[-1] > 2 else None
        return Windows(values[..., :2], known, monitor)

    def outside(self) -> str:
        """Where frames and samples lie on the clock, in words."""
        if self._asked is None or not self._tape.count:
            return "Their times, or those of the samples, did not come: look at positions.clock of the profile."
        frames, samples = self._asked, (self._tape.first_s, self._tape.last_s)
        if len(self._tape.twice[0]):
            return "The samples' clock was set back, or began anew, during the capture: it has the same times more than once."
        if frames[0] >= samples[0] and frames[1] <= samples[1]:
            return "The capture has gaps that are longer than the exposure."
        return (
            f"The frames' times run from {frames[0]:.6f} to {frames[1]:.6f} s, those of the samples from {samples[0]:.6f} to "
            f"{samples[1]:.6f} s: are both on one clock, and are their units right?"
        )

    def _portions(self, rows: NDArray[np.intp], edges: Floats) -> Iterator[NDArray[np.intp]]:
        """The frames ``rows``, which are in the order of their times, in portions whose samples can be in memory together."""
        if len(rows) > 1 and not self._tape.fits(edges[rows[0], 0], edges[rows[-1], -1]):
            for half in np.array_split(rows, 2):
                yield from self._portions(half, edges)
        elif len(rows):
            yield rows

    def _values(self, edges: Floats) -> Floats:
        """Means (frame, substep, column) between these times (frame, edge)."""
        times, values = self._tape.between(edges[0, 0], edges[-1, -1])
        return np.stack([self._means(times, values, edges[:, part], edges[:, part + 1]) for part in range(self._substeps)], axis=1)

    def _is_told_twice(self, begin: Floats, end: Floats) -> NDArray[np.bool_]:
        """Whether what was captured between these times (frame,) may be of another moment."""
        first, latest = self._tape.twice
        before = np.searchsorted(first, end)
        return np.concatenate([[-np.inf], latest])[before] > begin

    def _means(self, times: Floats, values: Floats, begin: Floats, end: Floats) -> Floats:
        """Means (frame, column) of the samples in [begin, end); between two samples if there are none."""
        low, high = np.searchsorted(times, begin), np.searchsorted(times, end)
        count = high - low
        # Summed window by window: in sums from the begin on, one absurd sample would take the last digits of all that come after it.
        ends = np.stack([low, high], axis=1).ravel()
        means: Floats = np.add.reduceat(values, ends, axis=0)[::2] / np.maximum(count, 1)[:, None]
        empty = count == 0
        if empty.any():
            means[empty] = self._between(times, values, (begin[empty] + end[empty]) / 2)
        step_s = self._tape.step_s
        means[~((begin >= self._tape.first_s - step_s) & (end <= self._tape.last_s + step_s))] = np.nan
        return means

    def _between(self, times: Floats, values: Floats, moments: Floats) -> Floats:
        if len(times) < 2:
            return np.full((len(moments), values.shape[1]), np.nan)
        after = np.clip(np.searchsorted(times, moments), 1, len(times) - 1)
        step = times[after] - times[after - 1]
        share = (moments - times[after - 1]) / np.where(step > 0, step, 1.0)
        between: Floats = values[after - 1] + share[:, None] * (values[after] - values[after - 1])
        between[~((share >= 0) & (share <= 1) & (step <= LARGEST_GAP * self._tape.step_s))] = np.nan
        return between
