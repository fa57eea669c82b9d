"""The tape: samples of a capture with their times, of which only some are in memory; the others are read anew where they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ptyplugin.callbacks.samples import Samples, SamplesAt
from ptyplugin.callbacks.track import Stretch
from ptyplugin.model import FramesError, FrameSource, Hdf5Source, ScanError

if TYPE_CHECKING:
    from ptyplugin.callbacks.locating import PositionReader

Floats = NDArray[np.float64]

#: A gap between two samples may be so many usual ones for a position between them to be believed.
LARGEST_GAP = 3.0
#: Samples of a block, which is read at once; and of all blocks that are in memory, about 100 MB with what is made of them.
BLOCK, MOST_KEPT = 100_000, 1_000_000
#: A clock that goes back more often is none.
_MOST_RUNS = 10_000


@dataclass(slots=True, eq=False)
class _Block:
    """Samples ``start`` to ``stop`` of a stretch; low_s, high_s: of their times; step_s: from one to the next, usually."""

    start: int
    stop: int
    low_s: float = np.inf
    high_s: float = -np.inf
    step_s: float = np.nan

    def measure(self, times: Floats) -> None:
        finite = times[np.isfinite(times)]
        if len(finite):
            self.low_s, self.high_s = float(finite.min()), float(finite.max())
        # A clock that was set back tells times twice: sorted, they would lie closer.
        steps = np.diff(finite)
        if np.any(steps > 0):
            self.step_s = float(np.median(steps[steps > 0]))


@dataclass(slots=True)
class _Lying:
    """A stretch that lies in files, as far as it has been read. runs: [first, latest] time of each part in which the clock went on."""

    at: list[SamplesAt]
    blocks: list[_Block] = field(default_factory=list)
    runs: list[list[float]] = field(default_factory=list)

    @property
    def stop(self) -> int:
        return self.blocks[-1].stop if self.blocks else 0

    def follow(self, times: Floats, least_s: float) -> None:
        """Take note of where the clock goes back for over ``least_s``."""
        left = times[np.isfinite(times)]
        while len(left):
            before = self.runs[-1][1] if self.runs else left[0]
            latest = np.maximum(np.maximum.accumulate(left), before)
            back = np.flatnonzero(left < latest - least_s)
            stop = int(back[0]) if len(back) else len(left)
            if not self.runs:
                self.runs.append([float(left[0]), float(left[0])])
            if stop:
                self.runs[-1][1] = float(latest[stop - 1])
            if len(back):
                self.runs.append([float(left[stop]), float(left[stop])])
            if len(self.runs) > _MOST_RUNS:
                raise ScanError(
                    f"the samples' clock goes back more than {_MOST_RUNS} times: is positions.clock.samples of the profile one?"
                )
            left = left[stop:] if stop else left[1:]


class Tape:
    """All samples of a capture: columns of times, y and x, and of the monitor where all have it.

    first_s, last_s: of all times; step_s: from one sample to the next, usually
    twice: begins, and latest end so far, of what the clock tells twice
    """

    def __init__(self, reader: PositionReader) -> None:
        self._reader = reader
        self._lying: dict[tuple[FrameSource, int], _Lying] = {}
        #: Columns of blocks, those used last at the end.
        self._kept: dict[_Block, list[Floats]] = {}
        self._told: list[Floats] = []
        self._width = 3
        self._all: tuple[Floats, Floats] | None = None
        self.count, self.step_s, self.first_s, self.last_s = 0, 0.0, np.nan, np.nan
        self.twice: tuple[Floats, Floats] = (np.empty(0), np.empty(0))

    @property
    def columns(self) -> int:
        """How many there are beside the times."""
        return self._width - 1

    def take(self, track: Sequence[Stretch]) -> bool:
        """Hear what has come of the track; whether that is all of it.

        Raises:
            FramesError: it cannot be read.
            ScanError: as many times, y and x are not there.
        """
        told = [[_plain(each, stretch.time) for each in stretch if each is not None] for stretch in track if not _lies(stretch)]
        lying = [[each for each in stretch if isinstance(each, SamplesAt)] for stretch in track if _lies(stretch)]
        self._width = min([*(len(part) for part in told), *(len(part) for part in lying)], default=3)
        self._told = [np.concatenate([part[place] for part in told]) for place in range(self._width)] if told else []
        before, self._lying = self._lying, {}
        for at in lying:
            key = at[0].source, at[0].start
            known = before.get(key)
            fits = known is not None and len(known.at) == len(at) and known.stop <= _length(at)
            self._lying[key] = known if known is not None and fits else _Lying(at)
            self._lying[key].at = at
        there = {block for stretch in self._lying.values() for block in stretch.blocks}
        self._kept = {block: columns for block, columns in self._kept.items() if block in there}
        whole = [self._read_on(stretch) for stretch in self._lying.values()]
        self._sum_up()
        return all(whole)

    def between(self, low_s: float, high_s: float) -> tuple[Floats, Floats]:
        """Times (sample,) in their order, and values (sample + 1, column) with one row more, of these moments and a little around them.

        Raises:
            FramesError: they cannot be read any more.
        """
        if self._all is not None:
            return self._all
        return self._sorted([self._told, *(self._columns(stretch, block) for stretch, block in self._near(low_s, high_s))])

    def fits(self, low_s: float, high_s: float) -> bool:
        """Whether what ``between`` gives takes no more memory than it may."""
        return self._all is not None or sum(block.stop - block.start for _, block in self._near(low_s, high_s)) <= MOST_KEPT

    def _near(self, low_s: float, high_s: float) -> Iterator[tuple[_Lying, _Block]]:
        around_s = (LARGEST_GAP + 1) * self.step_s
        for stretch in self._lying.values():
            for block in stretch.blocks:
                if block.low_s <= high_s + around_s and block.high_s >= low_s - around_s:
                    yield stretch, block

    def _read_on(self, stretch: _Lying) -> bool:
        """Read what is new, as far as all columns show it; whether that is all of it."""
        length = _length(stretch.at)
        while stretch.stop < length:
            last = stretch.blocks[-1] if stretch.blocks and stretch.stop - stretch.blocks[-1].start < BLOCK else None
            block = last or _Block(stretch.stop, stretch.stop)
            stop = min(length, block.start + BLOCK)
            new = self._read(stretch, block.stop, stop)
            common = min(map(len, new))
            if not common:
                return False
            old = self._columns(stretch, block) if last else [np.empty(0)] * len(new)
            columns = [np.concatenate([earlier, later[:common]]) for earlier, later in zip(old, new, strict=True)]
            block.stop += common
            block.measure(columns[0])
            if not last:
                stretch.blocks.append(block)
            stretch.follow(new[0][:common], LARGEST_GAP * _or(block.step_s, self.step_s))
            self._keep(block, columns)
            if block.stop < stop:
                return False
        return True

    def _read(self, stretch: _Lying, start: int, stop: int) -> list[Floats]:
        return [self._reader.read(each.source, each.start + start, each.start + stop, each.per_point) * each.factor for each in stretch.at]

    def _columns(self, stretch: _Lying, block: _Block) -> list[Floats]:
        columns = self._kept.pop(block, None)
        if columns is None:
            columns = self._read(stretch, block.start, block.stop)
            again = _Block(block.start, block.stop)
            again.measure(columns[0])
            if min(map(len, columns)) < block.stop - block.start or (again.low_s, again.high_s) != (block.low_s, block.high_s):
                source = stretch.at[0].source
                where = source.uri if isinstance(source, Hdf5Source) else "the catalog"
                raise FramesError(
                    f"the capture in {where} is another one than a moment ago, or gone: let it write a file of its own for each run."
                )
        self._keep(block, columns)
        return columns

    def _keep(self, block: _Block, columns: list[Floats]) -> None:
        self._kept[block] = columns
        while len(self._kept) > 1 and sum(len(each[0]) for each in self._kept.values()) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]

    def _sum_up(self) -> None:
        blocks = [block for stretch in self._lying.values() for block in stretch.blocks]
        told = _Block(0, len(self._told[0]) if self._told else 0)
        if self._told:
            told.measure(self._told[0])
        every = [block for block in (told, *blocks) if block.low_s <= block.high_s]
        self.count = sum(block.stop - block.start for block in every)
        self.first_s, self.last_s = (
            min((each.low_s for each in every), default=np.nan),
            max((each.high_s for each in every), default=np.nan),
        )
        self._all = None
        if len(self._kept) == len(blocks) and self.count <= MOST_KEPT:
            self._all = self._sorted([self._told, *(self._kept[block] for block in blocks)])
            self.count = len(self._all[0])
            self.first_s, self.last_s = (self._all[0][0], self._all[0][-1]) if self.count else (np.nan, np.nan)
        self.step_s = _usual([(block.step_s, block.stop - block.start) for block in every])
        self.twice = _told_twice([run for stretch in self._lying.values() for run in stretch.runs], LARGEST_GAP * self.step_s)

    def _sorted(self, parts: list[list[Floats]]) -> tuple[Floats, Floats]:
        columns = [np.concatenate([np.empty(0), *(part[place] for part in parts if part)]) for place in range(self._width)]
        usable = np.isfinite(columns[0]) & np.isfinite(columns[1]) & np.isfinite(columns[2])
        order = np.argsort(columns[0][usable], kind="stable")
        # One row more than times, where the last window may end.
        values = np.pad(np.stack([column[usable][order] for column in columns[1:]], axis=1), ((0, 1), (0, 0)))
        return columns[0][usable][order], values


def _lies(stretch: Stretch) -> bool:
    return isinstance(stretch.time, SamplesAt)


def _length(at: list[SamplesAt]) -> int:
    lengths = {each.stop - each.start for each in at}
    if len(lengths) > 1:
        raise ScanError("the capture has different numbers of samples for time, y and x: capture all of them together.")
    return lengths.pop()


def _or(value: float, other: float) -> float:
    return value if np.isfinite(value) else other


def _usual(steps: list[tuple[float, int]]) -> float:
    """The median of steps that blocks of so many samples have."""
    known = sorted((step, count) for step, count in steps if np.isfinite(step))
    if not known:
        return 0.0
    counts = np.cumsum([count for _, count in known])
    return known[int(np.searchsorted(counts, counts[-1] / 2))][0]


def _told_twice(runs: list[list[float]], least_s: float) -> tuple[Floats, Floats]:
    """Begins, and latest end so far, of what these runs [first, latest] cover twice for over ``least_s``."""
    if not runs:
        return np.empty(0), np.empty(0)
    begin, end = np.array(sorted(runs)).T
    latest = np.maximum.accumulate(end)
    until = np.minimum(end[1:], latest[:-1])
    twice = until - begin[1:] > least_s
    return begin[1:][twice], np.maximum.accumulate(until[twice])


def _plain(samples: Samples, like: Samples) -> Floats:
    """Numbers that events tell: as many as there are times, or one for all of them."""
    if isinstance(samples, SamplesAt) or isinstance(like, SamplesAt) or len(samples) not in (1, len(like)):
        raise ScanError("the events have different numbers of times and positions: record as many of both.")
    return np.broadcast_to(np.asarray(samples, dtype=np.float64), (len(like),))
