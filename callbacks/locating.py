"""Locating: frames whose positions are known by reference get them, as soon as the files show them. By number, or by time (see clock.py).

What is done here may read files; it is asked for by whoever has a thread for it, and the collector never does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ptyplugin.callbacks.clock import Clock
from ptyplugin.callbacks.pairing import Record
from ptyplugin.callbacks.quantities import in_stored_unit
from ptyplugin.callbacks.run import CollectedRun
from ptyplugin.callbacks.samples import Samples, SamplesAt, count_of
from ptyplugin.callbacks.track import MOST_SAMPLES, Stretch
from ptyplugin.model import FramesError, FrameSource, OutsideDataRoots, Profile, ScanError
from ptyplugin.model.profile import TIME_UNITS_S

#: How long samples that were announced, but that no file shows yet, are waited for, seconds.
DEADLINE_S = 10.0
#: Records whose samples are read at once.
_BLOCK = 10_000


class PositionReader(Protocol):
    """Reads samples of positions, times and monitors."""

    def read(self, source: FrameSource, start: int, stop: int, per_point: int) -> NDArray[np.float64]:
        """Samples ``start`` to ``stop`` of a source; fewer while it shows no more. See ptyplugin.io.hdf5_samples.

        Raises:
            FramesError: they cannot be read, now or at all.
            CatalogAway: they lie in the catalog, which does not answer.
            OutsideDataRoots: the site does not allow it.
        """
        ...


@dataclass(slots=True)
class Located:
    """found: records with their positions; waiting: those whose samples no file shows yet; lost: the number of those that have none

    outside: of those that were looked for by time, how many lie before the first or after the last sample
    """

    found: list[Record] = field(default_factory=list)
    waiting: list[Record] = field(default_factory=list)
    lost: int = 0
    outside: str = ""


class _Values(NamedTuple):
    """values (record, sample), NaN where ``known`` (record,) is False."""

    values: NDArray[np.float64]
    known: NDArray[np.bool_]


class Locator:
    """Finds positions for the records of one run. Of a track it keeps what it has read.

    with_monitor: whether what the monitor read is looked for, too

    Raises:
        ProfileError: the documents do not say how long a frame takes, where positions are found by time.
    """

    def __init__(self, run: CollectedRun, profile: Profile, reader: PositionReader, with_monitor: bool) -> None:
        self._reader, self._substeps, self._with_monitor = reader, profile.positions.substeps or 1, with_monitor
        self._clock: Clock | None = None
        clock = profile.positions.clock
        if clock is not None:
            numbers = run.start, run.configuration, run.readings
            exposure_s = in_stored_unit(clock.exposure, "positions.clock.exposure", TIME_UNITS_S, *numbers)
            self._clock = Clock(reader, exposure_s, clock.stamped == "end", self._substeps)

    def locate(self, records: Sequence[Record], track: Sequence[Stretch], ended: bool, is_last: bool = False) -> Located:
        """Positions for these records; those that have theirs already go through.

        track: all that is known of it by now; ended: nothing will be added to it
        is_last: frames that have their position do not wait for what the monitor read

        Raises:
            FramesError: files that cannot be read, now or at all.
            ScanError: samples that do not fit together.
        """
        result = Located([record for record in records if record.captured is None])
        asked = [record for record in records if record.captured is not None]
        whole = self._clock is None or self._clock.take(track)
        for first in range(0, len(asked), _BLOCK):
            self._locate(asked[first : first + _BLOCK], whole and ended, is_last, result)
        if self._clock is not None and result.lost:
            result.outside = self._clock.outside()
        return result

    def _locate(self, records: Sequence[Record], ended: bool, is_last: bool, result: Located) -> None:
        captured = [record.captured for record in records if record.captured]
        y, x, times = (_values(self._reader, [each[part] for each in captured]) for part in range(3))
        monitor = _values(self._reader, _filled([each.monitor for each in captured])) if self._with_monitor else None
        if self._clock is not None and times is not None:
            found = self._clock.at(times.values[:, 0], ended)
            if found.monitor is not None:
                monitor = _Values(found.monitor[:, None], np.ones(len(records), dtype=bool))
            known, positions = times.known & found.known, found.positions_m
        else:
            known, positions = _together(y, x, self._substeps)
        there: list[bool] = (known if monitor is None or is_last else known & monitor.known).tolist()
        finite = np.isfinite(positions.sum(axis=(1, 2)))
        means = np.full(len(records), np.nan) if monitor is None else monitor.values.mean(axis=1)
        for row, record in enumerate(records):
            if not there[row]:
                result.waiting.append(record)
            elif not finite[row]:
                result.lost += 1
            else:
                at = tuple((y, x) for y, x in positions[row].tolist())
                result.found.append(replace(record, positions_m=at, monitor=float(means[row]), captured=None))


class LatePositions:
    """The positions of a run that has ended. Those in files may be there a moment later: whoever asks need not wait here for them.

    Raises:
        FramesError: they lie in files, and there is nobody to read them.
        ProfileError: as Locator.
    """

    def __init__(self, run: CollectedRun, profile: Profile, reader: PositionReader | None) -> None:
        self._run, self._key = run, profile.detector.key
        self._until_s = time.monotonic() + DEADLINE_S
        self._locator: Locator | None = None
        if not any(record.captured for record in run.records):
            return
        if reader is None:
            raise FramesError("the positions lie in files, which nobody here may read: let a service or a session with a site file do it.")
        self._locator = Locator(run, profile, reader, with_monitor=True)

    def look(self) -> CollectedRun | None:
        """The run with its positions; None as long as some may still come. Those that no file shows in time count as frames without one.

        Raises:
            FramesError, OutsideDataRoots: a file cannot be read.
            ScanError, ProfileError: no frame has a position; samples or exposure do not make sense.
        """
        if self._locator is None:
            return self._run
        is_last = time.monotonic() >= self._until_s
        located = self._tried(self._locator, is_last)
        return None if located is None or (located.waiting and not is_last) else self._with(located)

    def _tried(self, locator: Locator, is_last: bool) -> Located | None:
        try:
            return locator.locate(self._run.records, self._run.track, ended=True, is_last=is_last)
        except OutsideDataRoots:
            raise
        except FramesError:
            if is_last:
                raise
            return None

    def _with(self, located: Located) -> CollectedRun:
        run, lost = self._run, located.lost + len(located.waiting)
        if not located.found:
            raise ScanError(f"no frame of {self._key!r} has a position in the files that were captured. {located.outside}".strip())
        points = -(-lost * run.tally.matched // len(run.records))
        tally = replace(run.tally, positions=run.tally.positions - points, matched=run.tally.matched - points)
        return replace(run, records=tuple(sorted(located.found, key=lambda record: record.frame_id)), tally=tally, track=())


def _filled(samples: Sequence[Samples | None]) -> Sequence[Samples | None]:
    """NaN where nothing came, if anything did: the others are told nevertheless."""
    nothing = (math.nan,) * max((count_of(each) for each in samples if each is not None), default=0)
    return [nothing if each is None and nothing else each for each in samples]


def _values(reader: PositionReader, samples: Sequence[Samples | None]) -> _Values | None:
    """The numbers of these samples, or None where there is nothing to be known.

    Raises:
        FramesError: they cannot be read.
        ScanError: some have more samples than others.
    """
    asked = [each for each in samples if each is not None]
    if not asked:
        return None
    counts = {count_of(each) for each in asked}
    if len(counts) > 1 or len(asked) < len(samples):
        raise ScanError(f"the frames have {min(counts)} to {max(counts)} samples on their way: capture the same number for each.")
    values = np.full((len(samples), counts.pop()), np.nan)
    known = np.zeros(len(samples), dtype=bool)
    places: dict[tuple[FrameSource, int, float], list[int]] = {}
    for row, each in enumerate(asked):
        if isinstance(each, SamplesAt):
            places.setdefault((each.source, each.per_point, each.factor), []).append(row)
        else:
            values[row], known[row] = each, True
    for (source, per_point, factor), rows in places.items():
        starts = np.array([each.start for row in rows if isinstance(each := asked[row], SamplesAt)])
        read = read_all(reader, source, int(starts.min()), int(starts.max()) + values.shape[1], per_point)
        there = starts - starts.min() + values.shape[1] <= len(read)
        chosen = np.array(rows)[there]
        values[chosen] = read[(starts[there] - starts.min())[:, None] + np.arange(values.shape[1])] * factor
        known[chosen] = True
    return _Values(values, known)


def read_all(reader: PositionReader, source: FrameSource, start: int, stop: int, per_point: int) -> NDArray[np.float64]:
    """Samples ``start`` to ``stop``, as far as they are there.

    Raises:
        FramesError: they cannot be read, or are absurdly many.
    """
    if stop - start > MOST_SAMPLES:
        raise FramesError(f"the positions of neighbouring frames lie {stop - start} samples apart: at most {MOST_SAMPLES} are read.")
    return reader.read(source, start, stop, per_point)


def _together(y: _Values | None, x: _Values | None, substeps: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """known (record,) and positions (record, substep, yx).

    Raises:
        ScanError: y and x have different numbers of samples, or fewer than ``substeps``.
    """
    if y is None or x is None:
        raise ScanError("positions of one motor are missing: capture both.")
    counts = {y.values.shape[1], x.values.shape[1]}
    most = max(counts)
    if not counts <= {1, most}:
        raise ScanError(f"a frame has {y.values.shape[1]} samples of y and {x.values.shape[1]} of x: capture as many of both.")
    both = np.stack([np.broadcast_to(each.values, (len(each.values), most)) for each in (y, x)], axis=-1)
    return y.known & x.known, parted(both, substeps)


def parted(positions: NDArray[np.float64], substeps: int) -> NDArray[np.float64]:
    """Positions (frame, sample, yx) as means (frame, substep, yx) of equal parts of each frame.

    Raises:
        ScanError: fewer samples than ``substeps``.
    """
    samples = positions.shape[1]
    if samples < substeps:
        raise ScanError(
            f"a frame has {samples} positions on its way, and positions.substeps asks for {substeps}: capture more, or ask less."
        )
    if samples == substeps:
        return positions
    return np.stack([part.mean(axis=1) for part in np.array_split(positions, substeps, axis=1)], axis=1)
