"""Preparation of frames: crop, mask, orientation, and one shift that puts the zero frequency at [0, 0]."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Frames, FramesError, Geometry, GeometryError, Orientation, Placement, Preparation
from ptyplugin.solvers.batches import RankFrames
from ptyplugin.solvers.ranks import Ranks

_LOG = logging.getLogger(__name__)

#: Frames read at once.
_CHUNK = 64
#: A preparation that leaves less than this share of the pixels is a mistake.
_LEAST_GOOD = 0.05


def prepare(
    frames: Frames, numbers: NDArray[np.int64], placement: Placement, geometry: Geometry, preparation: Preparation, ranks: Ranks
) -> RankFrames:
    """Read and prepare the frames ``numbers`` of this rank. All ranks call it together: they agree on centre and mask.

    Counts stay uint16 where they fit (else float32). A pixel that is not finite, negative, at the top of its integer type or
    saturated in any frame is masked in all. In the near field nothing is shifted.

    Raises:
        FramesError: frames that cannot be read, or a mask that leaves next to nothing.
        GeometryError: prepared frames do not have the geometry's shape.
    """
    window = _window(frames, numbers, geometry, preparation, ranks)
    good = _stored_good(frames)
    stack: list[NDArray[Any]] = []
    for start in range(0, len(numbers), _CHUNK):
        chunk = _read(frames, numbers[start : start + _CHUNK])
        bad = _bad(chunk, preparation.saturated_counts)
        good &= ~bad.any(axis=0)
        stack.append(_settled(oriented(cut_out(np.where(bad, 0, chunk), window), preparation.orientation, geometry.near_field)))
    good = oriented(cut_out(_everywhere(good, ranks), window), preparation.orientation, geometry.near_field)
    _check(good, geometry)
    counts = _together(stack, geometry.shape)
    if not geometry.near_field:
        good, counts = np.fft.ifftshift(good), np.fft.ifftshift(counts, axes=(-2, -1))
    return RankFrames(numbers, placement.corners[numbers], placement.rests[numbers], counts, good)


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


def cut_out(frames: NDArray[Any], window: tuple[tuple[int, int], tuple[int, int]]) -> NDArray[Any]:
    """Rows and columns (first, last + 1) of frames (..., y, x); what lies outside of the frame is 0."""
    cut = np.zeros((*frames.shape[:-2], *(stop - start for start, stop in window)), dtype=frames.dtype)
    source, target = [], []
    for (start, stop), size in zip(window, frames.shape[-2:], strict=True):
        first, last = max(start, 0), min(stop, size)
        source.append(slice(first, max(first, last)))
        target.append(slice(first - start, max(first, last) - start))
    cut[..., target[0], target[1]] = frames[..., source[0], source[1]]
    return cut


def _window(
    frames: Frames, numbers: NDArray[np.int64], geometry: Geometry, preparation: Preparation, ranks: Ranks
) -> tuple[tuple[int, int], tuple[int, int]]:
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
    for start in range(0, len(numbers), _CHUNK):
        chunk = _read(frames, numbers[start : start + _CHUNK])
        bad = _bad(chunk, preparation.saturated_counts)
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


def _read(frames: Frames, numbers: NDArray[np.int64]) -> NDArray[Any]:
    chunk = np.asarray(frames.read(numbers))
    if chunk.shape != (len(numbers), *frames.shape):
        raise FramesError(f"frames {numbers[0]} .. {numbers[-1]} came as {chunk.shape}, not as {(len(numbers), *frames.shape)}.")
    return chunk


def _bad(chunk: NDArray[Any], saturated_counts: float | None) -> NDArray[np.bool_]:
    """Pixels that cannot be counts: not finite, negative, the detector's marker (top of the integer type), saturated."""
    if chunk.dtype.kind == "f":
        bad = ~(chunk >= 0) | np.isinf(chunk)
    else:
        top = np.iinfo(chunk.dtype).max if chunk.dtype.kind in "iu" and chunk.dtype.itemsize > 1 else np.inf
        bad = (chunk < 0) | (chunk >= top)
    return bad if saturated_counts is None else np.asarray(bad | (chunk >= saturated_counts))


def _settled(counts: NDArray[Any]) -> NDArray[Any]:
    """uint16 where nothing is lost by it, else float32."""
    fits = counts.size == 0 or (counts.max() <= np.iinfo(np.uint16).max and (counts.dtype.kind != "f" or not np.any(counts % 1)))
    return counts.astype(np.uint16 if fits else np.float32)


def _together(stack: list[NDArray[Any]], shape: tuple[int, int]) -> NDArray[Any]:
    if not stack:
        return np.zeros((0, *shape), dtype=np.uint16)
    kind = np.uint16 if all(part.dtype == np.uint16 for part in stack) else np.float32
    return np.concatenate([part.astype(kind, copy=False) for part in stack])


def _everywhere(good: NDArray[np.bool_], ranks: Ranks) -> NDArray[np.bool_]:
    """Good on every rank."""
    return np.asarray(ranks.sum(np.asarray(~good, dtype=np.int32)) == 0)


def _check(good: NDArray[np.bool_], geometry: Geometry) -> None:
    share = float(good.mean())
    if share < _LEAST_GOOD:
        raise FramesError(
            f"only {share:.1%} of the {geometry.shape[0]} x {geometry.shape[1]} pixels are good in all frames: "
            "check the mask (0 = good), saturated_counts and centre_px, and whether a frame is broken."
        )
