"""Which frames belong to which position: joined on seq_num, never by arrival.

A repeated seq_num (the RunEngine went back to a checkpoint and took the point again) replaces what was there. Which one is
the later is decided by the documents alone, so that every order of arrival gives the same pairs:

* events by their time, then their uid;
* rows of a resource by their index, the larger one;
* resources that claim the same point by the lowest seq_num that they hold (the one begun later), then index, then uid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptyplugin.callbacks.assets import Asset
from ptyplugin.callbacks.columns import Columns
from ptyplugin.callbacks.documents import Datum, StreamDatum, Wanted
from ptyplugin.callbacks.reading import MOST_FRAMES
from ptyplugin.callbacks.rows import StreamRows
from ptyplugin.callbacks.samples import Captured, Samples, SamplesAt, shared_out
from ptyplugin.model import FramesError, FrameSource, TiledSource

MOST_FRAMES_OF_A_POINT = 100_000


class FrameAt(NamedTuple):
    """A frame in a source, numbered over all leading axes of it together."""

    source: FrameSource
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One frame with its position, or those on its way. A later record with the same ``frame_id`` replaces an earlier one.

    frame_id: (seq_num - 1) * frames per point + number within the point
    positions_m: (y, x) of each sub-step, metres; none while they are known by reference only
    frame: where it lies, or the counts (y, x) themselves
    monitor: what the monitor read at its point; NaN: nothing
    captured: what is known by reference only, None if nothing is
    """

    frame_id: int
    positions_m: tuple[tuple[float, float], ...]
    frame: FrameAt | NDArray[Any]
    monitor: float = math.nan
    captured: Captured | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PointEvent:
    """What an event says about the frames of its point: datum id or frames (frame, y, x)."""

    time: float
    uid: str
    frames: str | NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class Tally:
    """How many points there are: told of, with a position, with frames, with both; and frames that were taken again.

    A position that lies in a file counts as one.
    """

    events: int = 0
    positions: int = 0
    frames: int = 0
    matched: int = 0
    replaced_frames: int = 0


class _Located(NamedTuple):
    """Frames of a point that lie in a resource; ``numbers`` count frames."""

    asset: Asset
    dataset: str | None
    numbers: range


_PointFrames = _Located | NDArray[Any] | None


class Pairing:
    """Events and frames of one detector in one stream of one run. What each ``add`` gives are the records that it completes.

    place: what the detector's frames are called in the catalog
    own, track: what is known of the points of the detector's stream and of the positions' stream, which may be the same
    """

    def __init__(self, place: TiledSource, wanted: Wanted, own: Columns, track: Columns) -> None:
        #: Frames that one index of a stream_datum stands for, where its resource does not say.
        self.frames_per_point = 1
        #: Bytes of all frames that came inside events.
        self.array_bytes = 0
        self._place, self._wanted, self._own, self._track = place, wanted, own, track
        self._sources: dict[FrameSource, FrameSource] = {}
        self._assets: dict[str, Asset] = {}
        self._datums: dict[str, Datum] = {}
        self._events: dict[int, PointEvent] = {}
        self._replaced: dict[str, PointEvent] = {}
        self._rows = StreamRows()
        self._waiting: dict[str, list[int]] = {}

    def add_event(self, seq_num: int, event: PointEvent) -> list[Record]:
        """Take an event; of several with one seq_num the later counts."""
        before = self._events.get(seq_num)
        if event.uid in self._replaced or (before is not None and before.uid == event.uid):
            return []
        self.array_bytes += event.frames.nbytes if isinstance(event.frames, np.ndarray) else 0
        if before is not None and (before.time, before.uid) > (event.time, event.uid):
            self._replaced[event.uid] = event
            return []
        if before is not None:
            self._replaced[before.uid] = before
        self._events[seq_num] = event
        return self.grown([seq_num])

    def add_datum(self, datum: Datum) -> list[Record]:
        """Take a datum (ophyd)."""
        self._datums.setdefault(datum.datum_id, datum)
        return self.grown(self._waiting.pop(datum.datum_id, []))

    def add_asset(self, uid: str, asset: Asset) -> list[Record]:
        """Take a resource."""
        self._assets.setdefault(uid, asset)
        return self.grown(self._waiting.pop(uid, []))

    def add_stream_datum(self, datum: StreamDatum) -> list[Record]:
        """Take a stream_datum (ophyd-async) whose resource was added.

        Raises:
            FramesError: more rows than a run can have.
        """
        self._rows.add(datum)
        return self.grown(datum.seq_nums)

    def knows_datum(self, datum_id: str) -> bool:
        """Whether this datum was added."""
        return datum_id in self._datums

    def tally(self) -> Tally:
        """The number of points of each kind.

        Raises:
            FramesError: a datum that does not say which frames it stands for.
        """
        told = self._rows.points() | self._events.keys()
        with_frames = {seq_num for seq_num in told if self._frames_of(seq_num) is not None}
        found_by_time = self._wanted.frame_time is not None
        with_position = {seq_num for seq_num in (told if found_by_time else self._track.points()) if self._has_position(seq_num)}
        unused = sum(count * self._per_row(self._assets[uid]) for uid, count in self._rows.unused().items())
        replaced = sum(_count(self._frames_of_event(event)) for event in self._replaced.values())
        matched = len(with_frames & with_position)
        return Tally(len(self._events or told | self._own.points()), len(with_position), len(with_frames), matched, unused + replaced)

    def records(self) -> list[Record]:
        """All frames that have a position, by their frame id.

        Raises:
            FramesError: frames of a kind that is not read, too many, or points with different numbers of frames.
        """
        told = self._rows.points() | self._events.keys()
        counts = {seq_num: _count(self._frames_of(seq_num)) for seq_num in told if self._has_position(seq_num)}
        points = sorted(seq_num for seq_num, count in counts.items() if count)
        sizes = {counts[seq_num] for seq_num in points}
        if sum(counts.values()) > MOST_FRAMES:
            raise FramesError(f"the run announces {sum(counts.values())} frames: at most {MOST_FRAMES} are read, split it.")
        if len(sizes) > 1:
            raise FramesError(f"the points of this run have {min(sizes)} to {max(sizes)} frames: take the same number at each point.")
        return [record for seq_num in points for record in self._records_of(seq_num)]

    def grown(self, seq_nums: Iterable[int]) -> list[Record]:
        """The records of these points, as far as they are complete: something has come for them."""
        records: list[Record] = []
        for seq_num in seq_nums:
            missing = self._missing(seq_num)
            if missing is not None:
                self._waiting.setdefault(missing, []).append(seq_num)
                continue
            try:
                records += self._records_of(seq_num)
            # Said once, at the end of the run, by records().
            except FramesError:
                continue
        return records

    def _missing(self, seq_num: int) -> str | None:
        """The datum or resource that this point's event waits for."""
        event = self._events.get(seq_num)
        if event is None or not isinstance(event.frames, str):
            return None
        datum = self._datums.get(event.frames)
        if datum is None:
            return event.frames
        return None if datum.resource in self._assets else datum.resource

    def _records_of(self, seq_num: int) -> list[Record]:
        frames = self._frames_of(seq_num)
        if frames is None or not self._has_position(seq_num):
            return []
        first = (seq_num - 1) * _count(frames)
        if _count(frames) > MOST_FRAMES_OF_A_POINT:
            raise FramesError(f"a point announces {_count(frames)} frames: at most {MOST_FRAMES_OF_A_POINT} are read.")
        places = [self._frame_at(frames, number) for number in frames.numbers] if isinstance(frames, _Located) else list(frames)
        found = [self._samples(name, seq_num, len(places)) for name in Captured._fields]
        known = [Captured(*each) for each in zip(*found, strict=True)]
        return [_record(first + part, place, known[part]) for part, place in enumerate(places)]

    def _has_position(self, seq_num: int) -> bool:
        if self._wanted.frame_time is not None:
            return self._own.has([self._wanted.frame_time], seq_num)
        return self._track.has([self._wanted.y, self._wanted.x], seq_num)

    def _samples(self, name: str, seq_num: int, frames: int) -> list[Samples | None]:
        """For each frame of a point what is known of it for one field of Captured."""
        wanted, by_time = self._wanted, self._wanted.frame_time is not None
        if name == "monitor":
            key = wanted.monitor
            found = None if key is None else self._own.of(key, seq_num) or (None if by_time else self._track.of(key, seq_num))
        elif by_time:
            found = self._own.of(str(wanted.frame_time), seq_num) if name == "time" else None
        else:
            found = None if name == "time" else self._track.of(wanted.y if name == "y" else wanted.x, seq_num)
        return [None] * frames if found is None else list(shared_out(found, frames))

    def _frame_at(self, frames: _Located, number: int) -> FrameAt:
        source, number_there = frames.asset.source(number, frames.dataset, self._place)
        return FrameAt(self._sources.setdefault(source, source), number_there)

    def _frames_of(self, seq_num: int) -> _PointFrames:
        held = self._rows.of(seq_num)
        if held is not None:
            asset = self._assets[held[0]]
            per_row = self._per_row(asset)
            return _Located(asset, None, range(held[1] * per_row, (held[1] + 1) * per_row))
        event = self._events.get(seq_num)
        return None if event is None else self._frames_of_event(event)

    def _frames_of_event(self, event: PointEvent) -> _PointFrames:
        if not isinstance(event.frames, str):
            return event.frames
        datum = self._datums.get(event.frames)
        asset = None if datum is None else self._assets.get(datum.resource)
        if datum is None or asset is None:
            return None
        return _Located(asset, datum.dataset, _numbers(datum, self._per_row(asset)))

    def _per_row(self, asset: Asset) -> int:
        return asset.frames_per_row or self.frames_per_point


def _record(frame_id: int, place: FrameAt | NDArray[Any], known: Captured) -> Record:
    """A record; of what lies in files, the references."""
    y, x, time, monitor = known.y, known.x, known.time, known.monitor
    if time is not None or isinstance(y, SamplesAt) or isinstance(x, SamplesAt) or isinstance(monitor, SamplesAt):
        return Record(frame_id, (), place, captured=known)
    return Record(frame_id, pairs(y or (), x or ()), place, mean(monitor or (math.nan,)))


def pairs(y: tuple[float, ...], x: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """Pairs (y, x) of two readbacks; one that is a single number goes with all of the other. NaN where they do not go together."""
    count = max(len(y), len(x))
    if not {len(y), len(x)} <= {1, count}:
        return ((math.nan, math.nan),)
    return tuple(zip(y * (count // len(y)), x * (count // len(x)), strict=True))


def mean(numbers: tuple[float, ...]) -> float:
    """Their mean; a single one as it is."""
    return numbers[0] if len(numbers) == 1 else math.fsum(numbers) / len(numbers)


def _count(frames: _PointFrames) -> int:
    if frames is None:
        return 0
    return len(frames.numbers) if isinstance(frames, _Located) else len(frames)


def _numbers(datum: Datum, per_row: int) -> range:
    if datum.rows is not None:
        return range(datum.rows.start * per_row, datum.rows.stop * per_row)
    if datum.frame is not None:
        return range(datum.frame, datum.frame + 1)
    raise FramesError(f"datum {datum.datum_id!r:.80} does not say which frames it stands for: point_number, frame or indices are read.")
