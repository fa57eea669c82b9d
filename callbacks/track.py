"""The track: samples of the positions that were captured at a rate of their own, whatever frame they belong to."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from ptyplugin.callbacks.columns import Column, Told
from ptyplugin.callbacks.documents import StreamDatum
from ptyplugin.callbacks.samples import Samples, SamplesAt
from ptyplugin.model import FramesError

#: More samples than this in one run are a mistake, or somebody who wants to fill the memory.
MOST_SAMPLES = 50_000_000


class Stretch(NamedTuple):
    """Samples that were captured together: as many times, y, x; and of the monitor, if it is captured with them."""

    time: Samples
    y: Samples
    x: Samples
    monitor: Samples | None


class Track(Told):
    """Samples of some keys of one stream. Rows of files are kept as ranges: there may be millions.

    keys: data keys of time, y, x; and of the monitor, or None
    """

    def __init__(self, keys: tuple[str, str, str, str | None]) -> None:
        super().__init__()
        self._keys = keys
        self._ranges: dict[str, dict[str, _Ranges]] = {}
        self._files: dict[str, Column] = {}

    def add_rows(self, key: str, datum: StreamDatum, file: Column) -> None:
        """Take the rows of a stream_datum.

        Raises:
            FramesError: more samples than a run can have.
        """
        self._files.setdefault(datum.resource, file)
        ranges = self._ranges.setdefault(key, {}).setdefault(datum.resource, _Ranges())
        ranges.add(datum.indices, datum.seq_nums.start)
        samples = sum(each.count() * self._files[uid].per_point for uid, each in self._ranges[key].items())
        if samples > MOST_SAMPLES:
            raise FramesError(f"the run announces {samples} samples of {key!r}: at most {MOST_SAMPLES} are read, split it.")

    def stretches(self) -> list[Stretch]:
        """All that is known of all keys: of events first, then of the files in their order.

        Raises:
            FramesError: the files are of a kind that is not read.
        """
        time, y, x, monitor = self._keys
        told = [numbers for _, (_, numbers) in sorted(self._events.items()) if {time, y, x} <= numbers.keys()]
        found = [Stretch(each[time], each[y], each[x], each.get(monitor) if monitor else None) for each in told]
        files = {key: sorted(of_key.items(), key=lambda each: (each[1].first, each[0])) for key, of_key in self._ranges.items()}
        with_monitor = monitor is not None and monitor in files
        named = [files.get(key, []) for key in (time, y, x, *([monitor] if with_monitor and monitor else []))]
        for together in zip(*named, strict=False):
            for part in _common([ranges for _, ranges in together]):
                samples = [self._at(uid, part) for uid, _ in together]
                found.append(Stretch(samples[0], samples[1], samples[2], samples[3] if with_monitor else None))
        return found

    def _at(self, uid: str, rows: range) -> SamplesAt:
        file = self._files[uid]
        source, first = file.asset.source(rows.start * file.per_point, None, file.place)
        return SamplesAt(source, first, first + len(rows) * file.per_point, file.per_point, file.factor)


class _Ranges:
    """Numbers as sorted ranges that neither touch nor overlap. ``first``: the lowest seq_num that came with them."""

    def __init__(self) -> None:
        self.first = MOST_SAMPLES
        self.parts: list[range] = []

    def add(self, numbers: range, first: int) -> None:
        self.first = min(self.first, first)
        if not numbers:
            return
        low = bisect_left(self.parts, numbers.start, key=lambda part: part.stop)
        high = bisect_right(self.parts, numbers.stop, key=lambda part: part.start)
        touched = self.parts[low:high]
        start = min([numbers.start, *(part.start for part in touched)])
        stop = max([numbers.stop, *(part.stop for part in touched)])
        self.parts[low:high] = [range(start, stop)]

    def count(self) -> int:
        return sum(map(len, self.parts))


def _common(several: list[_Ranges]) -> list[range]:
    """What all of them have."""
    common = several[0].parts
    for other in several[1:]:
        common = list(_both(common, other.parts))
    return common


def _both(one: list[range], two: list[range]) -> Iterator[range]:
    first = second = 0
    while first < len(one) and second < len(two):
        part = range(max(one[first].start, two[second].start), min(one[first].stop, two[second].stop))
        if part:
            yield part
        if one[first].stop < two[second].stop:
            first += 1
        else:
            second += 1
