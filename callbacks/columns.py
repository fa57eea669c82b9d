"""Columns of a stream: the numbers of some data keys at each point, from events or rows of files; joined on seq_num, never by arrival."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ptyplugin.callbacks.assets import Asset
from ptyplugin.callbacks.documents import StreamDatum
from ptyplugin.callbacks.reading import MOST_FRAMES
from ptyplugin.callbacks.rows import StreamRows
from ptyplugin.callbacks.samples import Samples, SamplesAt
from ptyplugin.model import FramesError, TiledSource


class Column(NamedTuple):
    """A file that holds the numbers of one data key.

    per_point: samples of each point; factor: from their unit to the stored one; place: what they are called in the catalog
    """

    asset: Asset
    per_point: int
    factor: float
    place: TiledSource


class Told:
    """Numbers that the events of one stream tell. Of several events with one seq_num the later counts."""

    def __init__(self) -> None:
        self._events: dict[int, tuple[tuple[float, str], Mapping[str, tuple[float, ...]]]] = {}

    def add_event(self, seq_num: int, rank: tuple[float, str], numbers: Mapping[str, tuple[float, ...]]) -> None:
        """Take an event; ``rank`` (time, uid) tells which of two is the later.

        Raises:
            FramesError: more events than a run can have.
        """
        known = self._events.get(seq_num)
        if known is None and len(self._events) >= MOST_FRAMES:
            raise FramesError(f"the run has more than {MOST_FRAMES} events with positions: let the detector and the capture write files.")
        if known is None or known[0] < rank:
            self._events[seq_num] = rank, numbers


class Columns(Told):
    """What is known of each point of one stream, from its events and from rows of files; of these see StreamRows."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[str, StreamRows] = {}
        self._files: dict[str, Column] = {}

    def add_rows(self, key: str, datum: StreamDatum, file: Column) -> None:
        """Take the rows of a stream_datum.

        Raises:
            FramesError: more rows than a run can have.
        """
        self._files.setdefault(datum.resource, file)
        self._rows.setdefault(key, StreamRows()).add(datum)

    def of(self, key: str, seq_num: int) -> Samples | None:
        """The samples of a point.

        Raises:
            FramesError: they lie in a file of a kind that is not read.
        """
        held = self._rows[key].of(seq_num) if key in self._rows else None
        if held is None:
            known = self._events.get(seq_num)
            return None if known is None else known[1].get(key)
        file, row = self._files[held[0]], held[1]
        source, first = file.asset.source(row * file.per_point, None, file.place)
        return SamplesAt(source, first, first + file.per_point, file.per_point, file.factor)

    def has(self, keys: Iterable[str], seq_num: int) -> bool:
        """Whether all of these are known of a point."""
        known = self._events.get(seq_num)
        numbers = known[1] if known is not None else ()
        return all(key in numbers or (key in self._rows and self._rows[key].of(seq_num) is not None) for key in keys)

    def points(self) -> set[int]:
        """seq_nums of which anything is known."""
        return self._events.keys() | {seq_num for rows in self._rows.values() for seq_num in rows.points()}
