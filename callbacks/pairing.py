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
from ptyplugin.callbacks.documents import Datum, StreamDatum
from ptyplugin.callbacks.reading import MOST_FRAMES
from ptyplugin.callbacks.rows import StreamRows
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
    positions_m: (y, x) of each sub-step, metres
    frame: where it lies, or the counts (y, x) themselves
    monitor: what the monitor read at its point; NaN: nothing
    """

    frame_id: int
    positions_m: tuple[tuple[float, float], ...]
    frame: FrameAt | NDArray[Any]
    monitor: float = math.nan


@dataclass(frozen=True, slots=True, eq=False)
class PointEvent:
    """What an event says about its point: positions (y, x) in metres, datum id or frames (frame, y, x), reading of the monitor."""

    time: float
    uid: str
    positions_m: tuple[tuple[float, float], ...] | None
    frames: str | NDArray[Any] | None
    monitor: float = math.nan


@dataclass(frozen=True, slots=True)
class Tally:
    """How many points there are: with an event, with a position, with frames, with both; and frames that were taken again."""

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
    """

    def __init__(self, place: TiledSource) -> None:
        #: Frames that one index of a stream_datum stands for, where its resource does not say.
        self.frames_per_point = 1
        #: Bytes of all frames that came inside events.
        self.array_bytes = 0
        self._place = place
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
        return self._grown([seq_num])

    def add_datum(self, datum: Datum) -> list[Record]:
        """Take a datum (ophyd)."""
        self._datums.setdefault(datum.datum_id, datum)
        return self._grown(self._waiting.pop(datum.datum_id, []))

    def add_asset(self, uid: str, asset: Asset) -> list[Record]:
        """Take a resource."""
        self._assets.setdefault(uid, asset)
        return self._grown(self._waiting.pop(uid, []))

    def add_stream_datum(self, datum: StreamDatum) -> list[Record]:
        """Take a stream_datum (ophyd-async) whose resource was added.

        Raises:
            FramesError: more rows than a run can have.
        """
        self._rows.add(datum)
        return self._grown(datum.seq_nums)

    def knows_datum(self, datum_id: str) -> bool:
        """Whether this datum was added."""
        return datum_id in self._datums

    def tally(self) -> Tally:
        """The number of points of each kind.

        Raises:
            FramesError: a datum that does not say which frames it stands for.
        """
        with_position = {seq_num for seq_num, event in self._events.items() if event.positions_m is not None}
        with_frames = {seq_num for seq_num in self._rows.points() | self._events.keys() if self._frames_of(seq_num) is not None}
        unused = sum(count * self._per_row(self._assets[uid]) for uid, count in self._rows.unused().items())
        replaced = sum(_count(self._frames_of_event(event)) for event in self._replaced.values())
        matched = len(with_frames & with_position)
        return Tally(len(self._events), len(with_position), len(with_frames), matched, unused + replaced)

    def records(self) -> list[Record]:
        """All frames that have a position, by their frame id.

        Raises:
            FramesError: frames of a kind that is not read, too many, or points with different numbers of frames.
        """
        counts = {seq_num: _count(self._frames_of(seq_num)) for seq_num, event in self._events.items() if event.positions_m is not None}
        points = sorted(seq_num for seq_num, count in counts.items() if count)
        sizes = {counts[seq_num] for seq_num in points}
        if sum(counts.values()) > MOST_FRAMES:
            raise FramesError(f"the run announces {sum(counts.values())} frames: at most {MOST_FRAMES} are read, split it.")
        if len(sizes) > 1:
            raise FramesError(f"the points of this run have {min(sizes)} to {max(sizes)} frames: take the same number at each point.")
        return [record for seq_num in points for record in self._records_of(seq_num)]

    def _grown(self, seq_nums: Iterable[int]) -> list[Record]:
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
        event, frames = self._events.get(seq_num), self._frames_of(seq_num)
        if event is None or event.positions_m is None or frames is None:
            return []
        first = (seq_num - 1) * _count(frames)
        if _count(frames) > MOST_FRAMES_OF_A_POINT:
            raise FramesError(f"a point announces {_count(frames)} frames: at most {MOST_FRAMES_OF_A_POINT} are read.")
        at, found = _shared_out(event.positions_m, _count(frames)), event.monitor
        if isinstance(frames, _Located):
            return [Record(first + part, at[part], self._frame_at(frames, number), found) for part, number in enumerate(frames.numbers)]
        return [Record(first + part, at[part], counts, found) for part, counts in enumerate(frames)]

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


def _shared_out(positions_m: tuple[tuple[float, float], ...], frames: int) -> list[tuple[tuple[float, float], ...]]:
    """The positions of each frame of a point: one for all, or as many for each, in their order.

    Raises:
        FramesError: they cannot be shared out evenly.
    """
    if len(positions_m) == 1:
        return [positions_m] * frames
    each = len(positions_m) // max(frames, 1)
    if frames and each * frames != len(positions_m):
        raise FramesError(f"a point has {frames} frames and {len(positions_m)} positions: record one, or the same number for each frame.")
    return [positions_m[part * each : (part + 1) * each] for part in range(frames)]


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
