"""Batches: which frames a verb sees at once, and which rank owns which frames."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.streaming import Index, Reading, StoredCounts, block_frames

#: Where options leave it open: frames of a batch at least, batches of a sweep at most.
_FRAMES, _BATCHES = 20, 15


@dataclass(frozen=True, slots=True)
class Batch:
    """Some frames of one rank. May be empty, so that every rank walks the same number of batches.

    index: where their waves lie in ``State.waves``; the numbers of the frames in a random batch
    corners: (frame, substep, yx) int32, first pixel of each patch in the object
    rests: (frame, substep, yx) float32, px, what rounding to corners left over
    counts: (frame, y, x) as prepared, zero frequency at [0, 0] in the far field; given as a Reading, they are read when somebody looks
    good: (y, x) bool, the pixels that are to be believed, laid out as the counts
    background: (y, x) float32 >= 0, counts that every frame has beside its waves, laid out as the counts; None: there are none
    intensities: (frame,) float32, how strong the beam was in each frame, relative to its mean; None: always the same
    frames: all frames of the rank, of which these are some; None: corners and rests of these are their own
    order: (frame,) numbers of the frames of all batches, one batch after the other, ascending in each: the same array for all of them;
        None: as the rank's frames lie
    first: place of the first of these frames in that order
    """

    index: slice | NDArray[np.int64]
    corners: NDArray[np.int32]
    rests: NDArray[np.float32]
    counts: NDArray[np.uint16] | NDArray[np.float32]
    good: NDArray[np.bool_]
    background: NDArray[np.float32] | None = None
    intensities: NDArray[np.float32] | None = None
    frames: RankFrames | None = field(default=None, repr=False, compare=False)
    order: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    first: int = 0
    _reading: Reading | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.counts, Reading):
            object.__setattr__(self, "_reading", self.counts)
            object.__delattr__(self, "counts")

    def __getattr__(self, name: str) -> Any:
        """Asked for what is not there yet."""
        if name != "counts" or self._reading is None:
            raise AttributeError(name)
        object.__setattr__(self, "counts", self._reading.array())
        return self.counts

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def host_counts(self) -> NDArray[Any]:
        """The counts as an array, wherever they are held."""
        return np.asarray(self.counts)

    def has_counts_of(self, other: Batch) -> bool:
        """Whether both have their counts at the same place in memory."""
        if self._reading or other._reading:
            return self._reading is other._reading
        return _place(self.counts) == _place(other.counts)


@dataclass(frozen=True, slots=True)
class RankFrames:
    """All frames of one rank, prepared; fields as in Batch. ``numbers`` (frame,) are their numbers in the scan.

    Verbs that hold the frames (``Verbs.hold``) may have put something else in the place of the counts: it has their length, shape and
    dtype, and what it gives for an index becomes the counts of a batch, which ``np.asarray`` makes an array.
    """

    numbers: NDArray[np.int64]
    corners: NDArray[np.int32]
    rests: NDArray[np.float32]
    counts: NDArray[np.uint16] | NDArray[np.float32] | StoredCounts
    good: NDArray[np.bool_]
    background: NDArray[np.float32] | None = None
    intensities: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def are_stored(self) -> bool:
        """Whether counts are read when they are needed, and not in memory."""
        return isinstance(self.counts, StoredCounts)

    def batches(self, indices: Sequence[Index], order: NDArray[np.int64] | None = None, first: int = 0) -> Iterator[Batch]:
        """Batches of these frames, one after the other; copies, if they are neither neighbours nor one only.

        order: the frames of these batches, from place ``first`` on, where they are not neighbours
        """
        stored = self.counts.readings(indices) if hasattr(self.counts, "readings") else None
        for index in indices:
            b = self._batch(index, next(stored) if stored else self.counts[index], order, first)
            first += len(b)
            yield b

    def batch(self, start: int, stop: int) -> Batch:
        """The frames start .. stop of this rank; fewer or none where the rank has no more."""
        return next(self.batches([slice(min(start, len(self)), min(stop, len(self)))]))

    def chosen(self, numbers: NDArray[np.int64]) -> Batch:
        """These frames of this rank; copies, if they are not one only."""
        return next(self.batches([_index_of(numbers)], numbers))

    def part(self, start: int, stop: int) -> RankFrames:
        """The frames start .. stop of this rank, as if it had no others."""
        some = slice(start, stop)
        intensities = None if self.intensities is None else self.intensities[some]
        cut = {name: getattr(self, name)[some] for name in ("numbers", "corners", "rests", "counts")}
        return replace(self, **cut, intensities=intensities)

    def _batch(self, index: Index, counts: Any, order: NDArray[np.int64] | None, first: int) -> Batch:
        intensities = None if self.intensities is None else self.intensities[index]
        first = index.start if order is None and isinstance(index, slice) else first
        mine = self.corners[index], self.rests[index]
        return Batch(index, *mine, counts, self.good, self.background, intensities, self, order, first)


@dataclass(frozen=True, slots=True)
class Batches:
    """What a sweep walks over, as often as it likes: ``number`` batches of ``size`` frames, in ``order``.

    ``number`` is the same on every rank. ``order``: numbers of the rank's frames, each once at most; sorted inside each batch. Else they
    come as they lie.
    """

    frames: RankFrames
    size: int
    number: int
    order: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.order is not None:
            parts = [np.sort(self.order[start : start + self.size]) for start in range(0, len(self.order), self.size)]
            object.__setattr__(self, "order", np.concatenate([self.order[:0], *parts]))

    def __iter__(self) -> Iterator[Batch]:
        return self._walk(0, self.number)

    def parts(self, count: int) -> Iterator[Iterator[Batch]]:
        """The same batches in ``count`` parts of equal length, one of them at least; as many parts on every rank."""
        count = min(count, max(self.number, 1))
        edges = [self.number * part // count for part in range(count + 1)]
        return (self._walk(start, stop) for start, stop in itertools.pairwise(edges))

    def _walk(self, start: int, stop: int) -> Iterator[Batch]:
        first = min(start * self.size, len(self.frames))
        return self.frames.batches([self._index(position) for position in range(start, stop)], self.order, first)

    def _index(self, position: int) -> Index:
        """The frames of a batch; fewer or none where the rank has no more."""
        low, high = (min(edge * self.size, len(self.frames)) for edge in (position, position + 1))
        if self.order is None or low == high:
            return slice(low, high)
        return _index_of(self.order[low:high])

    @property
    def frame_count(self) -> int:
        """Frames of this rank."""
        return len(self.frames)


def in_blocks(frames: RankFrames, size: int, most_frames: int) -> Batches:
    """Fixed-size batches in the order of the frames; ``most_frames`` is the largest number of frames on any rank.

    They are smaller than ``size`` if counts are stored and no more are read at once.
    """
    size = min(size, block_frames(most_frames, frames.counts.shape[1:])) if isinstance(frames.counts, StoredCounts) else size
    return Batches(frames, size, -(-most_frames // size))


def in_random_batches(frames: RankFrames, size: int, most_frames: int, seed: tuple[int, ...]) -> Batches:
    """All frames once, in batches drawn at random; ``seed`` fixes how."""
    order = np.random.default_rng(seed).permutation(len(frames)).astype(np.int64)
    return Batches(frames, size, -(-most_frames // size), order)


def in_compact_batches(frames: RankFrames, size: int, most_frames: int, seed: tuple[int, ...]) -> Batches:
    """All frames once, in batches of neighbours that come in random order; ``seed`` fixes how.

    They are stretches of a Hilbert curve through the scan, cut elsewhere for each seed.
    """
    random = np.random.default_rng(seed)
    order = hilbert_order(frames.corners.mean(axis=1)) if len(frames) else np.empty(0, np.int64)
    order = np.roll(order, random.integers(max(len(frames), 1)))
    whole = len(frames) // size * size
    order[:whole] = random.permutation(order[:whole].reshape(-1, size)).ravel()
    return Batches(frames, size, -(-most_frames // size), order)


def open_size(most_frames: int) -> int:
    """Frames per batch where options leave it open; ``most_frames`` is the largest number of frames on any rank."""
    return max(_FRAMES, -(-most_frames // _BATCHES))


def block_size(side_px: tuple[int, int], waves: int, itemsize: int) -> int:
    """Frames per batch such that the waves of one batch stay in the cache of a core: 1 .. 32."""
    cache_bytes = 2_500_000
    return int(np.clip(cache_bytes // (side_px[0] * side_px[1] * waves * itemsize), 1, 32))


def frames_of_rank(positions_m: NDArray[np.float64], rank: int, size: int) -> NDArray[np.int64]:
    """Numbers of the frames that ``rank`` of ``size`` owns: a compact patch of the scan, equal shares within one frame.

    positions_m: (frame, yx) m. The frames are cut into equal stretches along a Hilbert curve through the scanned area.
    """
    return np.flatnonzero(owners_of(positions_m, size) == rank).astype(np.int64)


def owners_of(positions_m: NDArray[np.float64], size: int, have: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """(frame,): which of ``size`` ranks gets each of the frames at ``positions_m`` (frame, yx) m, as ``frames_of_rank`` tells.

    have: (rank,) how many frames each has already; then all have equal shares with these, within one frame where that can be
    """
    count = len(positions_m)
    if size == 1 or not count:
        return np.zeros(count, np.int64)
    filled = (np.zeros(size, np.int64) if have is None else have) + np.arange(count)[:, None]
    fewest_first = np.argsort(filled.ravel(), kind="stable")[:count] % size
    owners = np.empty(count, np.int64)
    owners[hilbert_order(positions_m)] = np.repeat(np.arange(size), np.bincount(fewest_first, minlength=size))
    return owners


def hilbert_order(positions: NDArray[np.float64]) -> NDArray[np.int64]:
    """The numbers of the positions (frame, yx) in their order along a Hilbert curve through them."""
    return np.argsort(_hilbert_index(positions), kind="stable").astype(np.int64)


def _hilbert_index(positions_m: NDArray[np.float64], bits: int = 10) -> NDArray[np.int64]:
    """Place of each position (frame, yx) along a Hilbert curve of 2**bits squared cells (Hamilton & Rau-Chaplin 2008)."""
    low = positions_m.min(axis=0)
    cells = 2**bits - 1
    span = float(np.ptp(positions_m, axis=0).max())
    y, x = (((positions_m - low) * (cells / span)).astype(np.int64)).T if span > 0 else np.zeros((2, len(positions_m)), np.int64)
    index = np.zeros(len(positions_m), dtype=np.int64)
    for bit in range(bits - 1, -1, -1):
        side = 1 << bit
        in_y, in_x = (y & side) > 0, (x & side) > 0
        index += side * side * ((3 * in_x) ^ in_y)
        mirrored = ~in_y & in_x
        y, x = (
            np.where(mirrored, side - 1 - (y & (side - 1)), y & (side - 1)),
            np.where(mirrored, side - 1 - (x & (side - 1)), x & (side - 1)),
        )
        y, x = np.where(in_y, y, x), np.where(in_y, x, y)
    return index


def _index_of(numbers: NDArray[np.int64]) -> Index:
    return slice(int(numbers[0]), int(numbers[0]) + 1) if len(numbers) == 1 else numbers


def _place(array: NDArray[Any]) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return array.__array_interface__["data"][0], array.shape, array.strides
