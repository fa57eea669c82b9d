"""Preparation of frames: crop, mask, orientation, and one shift that puts the zero frequency at [0, 0]."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Frames, FramesError, Geometry, GeometryError, Orientation, Placement, Preparation
from ptyplugin.solvers.batches import RankFrames
from ptyplugin.solvers.believing import BrokenFrames, Looked
from ptyplugin.solvers.growing import GrowingCounts, fits_uint16
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.streaming import StoredCounts

_LOG = logging.getLogger(__name__)

Window = tuple[tuple[int, int], tuple[int, int]]

#: Frames read at once: so many, and of so many bytes.
_CHUNK = 64
CHUNK_BYTES = 2**24
#: A preparation that leaves less than this share of the pixels is a mistake.
_LEAST_GOOD = 0.05


@dataclass(frozen=True, slots=True)
class Known:
    """What frames have shown, for those that come after them; the same on all ranks.

    window: rows and columns of a stored frame that are kept; good: (y, x) as stored; sums: (frame,) counts of each
    """

    window: Window
    good: NDArray[np.bool_]
    sums: NDArray[np.float64]


def prepare(
    frames: Frames,
    numbers: NDArray[np.int64],
    placement: Placement,
    geometry: Geometry,
    preparation: Preparation,
    ranks: Ranks,
    streamed: bool = False,
    say: Callable[[str], object] = _LOG.warning,
) -> tuple[RankFrames, Known]:
    """Read and prepare the frames ``numbers`` of this rank. All ranks call it together: they agree on centre and mask.

    Counts are uint16 where they fit (else float32). A pixel that is not finite, negative, at the top of its integer type or
    saturated in any frame is masked in all; negative fractions, as a subtracted background leaves them, are zero. In the near field
    nothing is shifted.

    streamed: counts stay where they are stored and are read whenever they are needed; now they are looked at, for their mask
    say: called with sentences for people about what was found

    Raises:
        BrokenFrames: some frames are broken or dark: prepare the others.
        FramesError: frames that cannot be read, or a mask that leaves next to nothing.
        GeometryError: prepared frames do not have the geometry's shape.
    """
    stored = _Stored(frames, _window(frames, numbers, geometry, preparation, ranks), preparation, geometry.near_field)
    looked = Looked(_stored_good(frames), stored.inside, len(placement.corners))
    counts = (_looked_at if streamed else _read_all)(stored, numbers, looked)
    sums = looked.judge(ranks, say)
    good = stored.laid_out(looked.good)
    _check(good, looked)
    known = Known(stored.window, looked.good, sums)
    return RankFrames(numbers, placement.corners[numbers], placement.rests[numbers], counts, good), known


class Further:
    """Frames ``numbers`` of this rank that came after those which ``known`` is of: read first, then judged.

    Arguments as of ``prepare``. What a pixel is in these frames, it is in the earlier ones too.

    Raises:
        FramesError: they cannot be read. Only this rank knows.
    """

    def __init__(
        self,
        frames: Frames,
        numbers: NDArray[np.int64],
        geometry: Geometry,
        preparation: Preparation,
        known: Known,
        streamed: bool,
    ) -> None:
        self._stored = _Stored(frames, known.window, preparation, geometry.near_field)
        self._looked = Looked(known.good & _stored_good(frames), self._stored.inside, len(frames), known.sums)
        self._numbers, self._window = numbers, known.window
        self.counts = (_looked_at if streamed else _read_all)(self._stored, numbers, self._looked)

    def judged(self, placement: Placement, ranks: Ranks) -> tuple[RankFrames, Known, NDArray[np.int64]]:
        """These frames, prepared; what is known now; numbers of frames of all ranks that are broken, and not to be used.

        All ranks call it together. What was seen is logged.

        Raises:
            FramesError: most frames so far are broken, or next to no pixel is good in all frames. All ranks raise it.
        """
        broken, sums = np.empty(0, np.int64), np.empty(0)
        try:
            sums = self._looked.judge(ranks, _LOG.warning)
        except BrokenFrames as error:
            _LOG.warning("%s", error)
            broken, sums = error.numbers, error.sums
        good = self._stored.laid_out(self._looked.good)
        _check(good, self._looked)
        kept = ~np.isin(self._numbers, broken)
        numbers = self._numbers[kept]
        counts = self.counts if kept.all() else self.counts[np.flatnonzero(kept)]
        made = RankFrames(numbers, placement.corners[numbers], placement.rests[numbers], counts, good)
        return made, Known(self._window, self._looked.good, np.delete(sums, broken)), broken


def stored_counts(
    frames: Frames, geometry: Geometry, preparation: Preparation, known: Known, dtype: np.dtype[Any], numbers: NDArray[np.int64]
) -> StoredCounts:
    """What stands for the prepared counts of frames that have been looked at, to be read whenever they are needed."""
    return _standing_for(_Stored(frames, known.window, preparation, geometry.near_field), numbers, dtype)


@dataclass(frozen=True, slots=True)
class _Stored:
    """Frames as stored, and how they become prepared ones."""

    frames: Frames
    window: Window
    preparation: Preparation
    near_field: bool

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of a prepared frame."""
        rows, columns = (stop - start for start, stop in self.window)
        return (columns, rows) if self.preparation.orientation.transposes else (rows, columns)

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which pixels of a stored frame are kept."""
        kept = np.zeros(self.frames.shape, dtype=bool)
        kept[tuple(slice(max(start, 0), max(stop, 0)) for start, stop in self.window)] = True
        return kept

    def chunks(self, numbers: NDArray[np.int64], looked: Looked | None = None) -> Iterator[NDArray[Any]]:
        """Some prepared frames after the other, not yet of their final type; ``looked`` sees them as they are stored."""
        done = 0
        for chunk, bad in _chunks(self.frames, numbers, self.preparation.saturated_counts):
            if looked is not None:
                looked.see(numbers[done : done + len(chunk)], chunk, bad)
            done += len(chunk)
            counts = cut_out(chunk, self.window)
            counts[cut_out(bad, self.window)] = 0
            if counts.dtype.kind == "f":
                np.maximum(counts, 0, out=counts)
            yield self._turned(counts)

    def laid_out(self, good: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Good pixels of stored frames as those of prepared ones."""
        return np.ascontiguousarray(self._turned(cut_out(good, self.window)))

    def _turned(self, frames: NDArray[Any]) -> NDArray[Any]:
        frames = oriented(frames, self.preparation.orientation, self.near_field)
        return frames if self.near_field else np.fft.ifftshift(frames, axes=(-2, -1))


def _read_all(stored: _Stored, numbers: NDArray[np.int64], looked: Looked) -> NDArray[np.uint16] | NDArray[np.float32]:
    """Prepared counts (frame, y, x)."""
    counts = GrowingCounts((len(numbers), *stored.shape), stored.frames.dtype)
    for chunk in stored.chunks(numbers, looked):
        counts.add(chunk)
    return counts.there


def _looked_at(stored: _Stored, numbers: NDArray[np.int64], looked: Looked) -> StoredCounts:
    """What stands for the prepared counts."""
    small = True
    for chunk in stored.chunks(numbers, looked):
        small = small and fits_uint16(chunk)
    return _standing_for(stored, numbers, np.dtype(np.uint16 if small else np.float32))


def _standing_for(stored: _Stored, numbers: NDArray[np.int64], dtype: np.dtype[Any]) -> StoredCounts:
    def read(some: NDArray[np.int64]) -> NDArray[Any]:
        counts, done = np.empty((len(some), *stored.shape), dtype), 0
        for chunk in stored.chunks(some):
            counts[done : done + len(chunk)] = chunk
            done += len(chunk)
        return counts

    return StoredCounts(read, numbers, stored.shape, dtype)


def oriented(frames: NDArray[Any], orientation: Orientation, near_field: bool = False) -> NDArray[Any]:
    """Frames (..., y, x) turned so that their axes run as the positions do: transposed first, then flipped.

    In the far field a flip is k -> -k of the frequencies: the zero frequency stays at [N // 2, N // 2].
    """
    if orientation.transposes:
        frames = np.swapaxes(frames, -2, -1)
    for axis, flips in zip((-2, -1), orientation.flips, strict=True):
        if flips:
            frames = np.flip(frames, axis)
            if not near_field and frames.shape[axis] % 2 == 0:
                frames = np.roll(frames, 1, axis)
    return frames


def cut_out(frames: NDArray[Any], window: Window) -> NDArray[Any]:
    """Rows and columns (first, last + 1) of frames (..., y, x); what lies outside of the frame is 0."""
    cut = np.zeros((*frames.shape[:-2], *(stop - start for start, stop in window)), dtype=frames.dtype)
    source, target = [], []
    for (start, stop), size in zip(window, frames.shape[-2:], strict=True):
        first, last = max(start, 0), min(stop, size)
        source.append(slice(first, max(first, last)))
        target.append(slice(first - start, max(first, last) - start))
    cut[..., target[0], target[1]] = frames[..., source[0], source[1]]
    return cut


def _window(frames: Frames, numbers: NDArray[np.int64], geometry: Geometry, preparation: Preparation, ranks: Ranks) -> Window:
    """Which rows and columns of a stored frame are kept, zero frequency in their middle."""
    stored = frames.shape
    sides = (preparation.crop_px, preparation.crop_px) if preparation.crop_px else stored
    kept = (sides[1], sides[0]) if preparation.orientation.transposes else (sides[0], sides[1])
    if kept != tuple(geometry.shape):
        raise GeometryError(
            f"frames of {stored[0]} x {stored[1]} px become {kept[0]} x {kept[1]} px by the preparation, but the geometry says "
            f"{geometry.shape[0]} x {geometry.shape[1]} px: make crop_px and the geometry's shape agree."
        )
    centre = preparation.centre_px
    if centre == "auto":
        centre = _centre_of_mass(frames, numbers, preparation, ranks)
        _LOG.info("centre of the frames found at y = %.1f px, x = %.1f px", *centre)
    middle = [size // 2 if centre is None else round(centre[axis]) for axis, size in enumerate(stored)]
    rows, columns = ((at - side // 2, at - side // 2 + side) for at, side in zip(middle, sides, strict=True))
    return rows, columns


def _centre_of_mass(frames: Frames, numbers: NDArray[np.int64], preparation: Preparation, ranks: Ranks) -> tuple[float, float]:
    """Centre of mass (y, x) of the mean frame as stored, px, the same on all ranks."""
    total, good = np.zeros(frames.shape), _stored_good(frames)
    for chunk, bad in _chunks(frames, numbers, preparation.saturated_counts):
        good &= ~bad.any(axis=0)
        total += np.where(bad, 0, chunk).sum(axis=0, dtype=np.float64)
    total = ranks.sum(total) * _everywhere(good, ranks)
    if not total.any():
        raise FramesError("all frames are empty: no centre can be found. Give centre_px, or check the detector.")
    y, x = (float((total.sum(axis=1 - axis) * np.arange(total.shape[axis])).sum() / total.sum()) for axis in (0, 1))
    return y, x


def _stored_good(frames: Frames) -> NDArray[np.bool_]:
    if frames.mask is None:
        return np.ones(frames.shape, dtype=bool)
    if frames.mask.shape != tuple(frames.shape):
        raise FramesError(f"the mask has shape {frames.mask.shape}, but the frames have {tuple(frames.shape)} px.")
    return np.asarray(frames.mask == 0)


def _chunks(frames: Frames, numbers: NDArray[np.int64], saturated_counts: float | None) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """Some stored frames after the other, and which of their pixels are bad."""
    size = int(np.clip(CHUNK_BYTES // (frames.shape[0] * frames.shape[1] * frames.dtype.itemsize), 1, _CHUNK))
    for start in range(0, len(numbers), size):
        chunk = _read(frames, numbers[start : start + size])
        yield chunk, _bad(chunk, saturated_counts)


def _read(frames: Frames, numbers: NDArray[np.int64]) -> NDArray[Any]:
    chunk = np.asarray(frames.read(numbers))
    if chunk.shape != (len(numbers), *frames.shape):
        raise FramesError(f"frames {numbers[0]} .. {numbers[-1]} came as {chunk.shape}, not as {(len(numbers), *frames.shape)}.")
    return chunk


def _bad(chunk: NDArray[Any], saturated_counts: float | None) -> NDArray[np.bool_]:
    """Pixels that cannot be counts: not finite, a detector's marker (negative and whole, top of the integer type), saturated."""
    if chunk.dtype.kind == "f":
        bad = ~np.isfinite(chunk)
        bad |= (chunk < 0) & (np.floor(chunk) == chunk)
    else:
        top = np.iinfo(chunk.dtype).max if chunk.dtype.kind in "iu" and chunk.dtype.itemsize > 1 else np.inf
        bad = (chunk < 0) | (chunk >= top)
    return bad if saturated_counts is None else np.asarray(bad | (chunk >= saturated_counts))


def _everywhere(good: NDArray[np.bool_], ranks: Ranks) -> NDArray[np.bool_]:
    """Good on every rank."""
    return np.asarray(ranks.sum(np.asarray(~good, dtype=np.int32)) == 0)


def _check(good: NDArray[np.bool_], looked: Looked) -> None:
    share, masked = float(good.mean()), np.count_nonzero(looked.masked) / good.size
    if share < _LEAST_GOOD:
        inverted = " (is it inverted?)" if masked > 0.5 else ""
        raise FramesError(
            f"only {share:.1%} of the {good.shape[0]} x {good.shape[1]} pixels are good in all frames: {masked:.1%} are masked{inverted}, "
            "the others are not finite, negative or saturated in some frame, or outside of it. Check the mask (0 = good), "
            "saturated_counts and centre_px."
        )
