"""A start probe from nothing but the frames."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, fftfreq, fftshift, ifft2

from ptyplugin.model import Geometry, Recipe, SolverError
from ptyplugin.solvers.batches import RankFrames
from ptyplugin.solvers.ranks import OneRank, Ranks
from ptyplugin.solvers.run import walk
from ptyplugin.solvers.state import State, start_object, window_of
from ptyplugin.solvers.verbs.choice import verbs_of
from ptyplugin.solvers.verbs.reference import fresnel_kernel
from ptyplugin.solvers.way import Walk

_LOG = logging.getLogger(__name__)

#: A trial reconstruction: how many frames, of which side, or larger to hold this share of the counts; and what it does.
_TRIAL_FRAMES = 36
_TRIAL_SIDE_PX = 128
_TRIAL_COUNTS = 0.98
_TRIAL = Recipe.parse("ePIE(6)")


def probe_from_data(
    frames: RankFrames, positions_px: NDArray[np.float64], geometry: Geometry, seed: int, ranks: Ranks
) -> NDArray[np.complex128]:
    """The start probe (y, x) that the frames themselves suggest, the same on all ranks. All ranks call it together.

    Near field: the square root of the mean frame, propagated back. Far field: its inverse transform, defocused; the defocus is the
    one with which a short trial reconstruction of some neighbouring frames explains them best. No smaller spot is tried than one
    that overlaps with its neighbours.

    positions_px: (frame, yx) of all frames of the scan, object pixels.
    """
    mean = _mean_frame(frames, len(positions_px), ranks)
    if geometry.near_field:
        return _near_field_probe(mean, geometry)
    trial = _trial_frames(frames, positions_px, mean, ranks)
    step = median_step(positions_px)
    smallest, largest = 0.6 * step, 0.35 * min(geometry.shape)
    count = 2 + max(0, int(np.ceil(np.log(largest / smallest) / np.log(1.2))))
    spots = smallest * 1.2 ** np.arange(count)
    best = _best_spot(np.concatenate([spots, -spots]), mean, trial, geometry, seed, ranks)
    best = _best_spot(best * np.geomspace(0.91, 1.1, 5), mean, trial, geometry, seed, ranks)
    _LOG.info("start probe from the data: a spot of RMS radius %.1f px, scan step %.1f px", best, step)
    return far_field_probe(mean, best)


def far_field_probe(mean: NDArray[np.float64], spot_px: float) -> NDArray[np.complex128]:
    """(y, x): the probe whose far field is the square root of the mean frame, defocused to a spot of RMS radius ``spot_px``.

    The phase of the pupil is a quadratic in frequency; in geometrical optics a ray of frequency f then meets the sample at a
    distance in proportion to f. The sign of ``spot_px`` is the side of the focus on which the sample stands. Where pixels are not
    square, the geometric mean of their sides counts.
    """
    rows, columns = mean.shape
    squares = fftfreq(rows, 1 / rows)[:, None] ** 2 + fftfreq(columns, 1 / columns)[None, :] ** 2
    pupil_squared = float((mean * squares).sum() / mean.sum())
    curvature = np.pi * spot_px / np.sqrt(max(pupil_squared, 1) * rows * columns)
    return np.asarray(fftshift(ifft2(np.sqrt(mean) * np.exp(1j * curvature * squares))), dtype=np.complex128)


def median_step(positions_px: NDArray[np.float64]) -> float:
    """Median distance (px) of a position (frame, yx) to the nearest that is at least half a pixel away; of some 1000 frames.

    1 px where there is no such position.
    """
    nearest = []
    for position in positions_px[:: -(-len(positions_px) // 1000)]:
        distances = np.hypot(*(positions_px - position).T)
        nearest.append(distances[distances >= 0.5].min(initial=np.inf))
    step = float(np.median(nearest))
    return step if np.isfinite(step) else 1.0


def _mean_frame(frames: RankFrames, frame_count: int, ranks: Ranks) -> NDArray[np.float64]:
    """Mean counts (y, x) over the frames of all ranks, 0 at masked pixels, laid out as the prepared counts."""
    total = np.zeros(frames.good.shape)
    for counts in frames.counts:
        total += counts
    return np.asarray(ranks.sum(total) * frames.good / frame_count)


def _near_field_probe(mean: NDArray[np.float64], geometry: Geometry) -> NDArray[np.complex128]:
    filled = np.where(mean > 0, mean, np.median(mean[mean > 0]))
    return np.asarray(ifft2(fft2(np.sqrt(filled)) * fresnel_kernel(geometry).conj()), dtype=np.complex128)


@dataclass(frozen=True, slots=True)
class _Trial:
    """Neighbouring frames, cropped to low frequencies."""

    frames: RankFrames
    object_shape: tuple[int, int]
    reduction: float  # of the object's resolution, geometric mean of y and x


def _trial_frames(frames: RankFrames, positions_px: NDArray[np.float64], mean: NDArray[np.float64], ranks: Ranks) -> _Trial:
    """The neighbouring frames that differ most from the mean frame, gathered on every rank, cropped to low frequencies."""
    chosen = _liveliest_neighbours(_liveliness(frames, mean, len(positions_px), ranks), positions_px)
    side = _trial_side(mean)
    reduction = np.asarray(mean.shape) / side
    counts = np.zeros((len(chosen), side, side), dtype=np.float32)
    for place in np.flatnonzero(np.isin(frames.numbers, chosen)):
        counts[chosen == frames.numbers[place]] = low_frequencies(frames.counts[place], side)
    corners = np.rint((positions_px[chosen] - positions_px[chosen].min(axis=0)) / reduction).astype(np.int32)[:, None]
    shape = (int(corners[:, 0, 0].max()) + side, int(corners[:, 0, 1].max()) + side)
    good = low_frequencies(frames.good, side)
    rests = np.zeros(corners.shape, dtype=np.float32)
    chosen_frames = RankFrames(np.arange(len(chosen)), corners, rests, ranks.sum(counts), good)
    return _Trial(chosen_frames, shape, float(np.sqrt(reduction.prod())))


def _trial_side(mean: NDArray[np.float64]) -> int:
    """The smallest sensible side (px) that holds nearly all counts, so that a trial on large frames stays quick."""
    side: int = min(_TRIAL_SIDE_PX, *mean.shape)
    while side < min(mean.shape) and low_frequencies(mean, side).sum() < _TRIAL_COUNTS * mean.sum():
        side = min(side + 64, *mean.shape)
    return side


def low_frequencies(frame: NDArray[Any], side: int) -> NDArray[Any]:
    """The (side, side) lowest frequencies of a frame (y, x) with zero frequency at [0, 0], laid out the same."""
    rows, columns = (np.rint(fftfreq(side, 1 / side)).astype(int) for _ in range(2))
    return frame[np.ix_(rows % frame.shape[0], columns % frame.shape[1])]


def _liveliness(frames: RankFrames, mean: NDArray[np.float64], frame_count: int, ranks: Ranks) -> NDArray[np.float64]:
    """(frame,): distance of each frame of the scan to the mean frame, in square roots of counts."""
    distances = np.zeros(frame_count)
    for number, counts in zip(frames.numbers, frames.counts, strict=True):
        distances[number] = (((np.sqrt(counts) - np.sqrt(mean)) * frames.good) ** 2).sum()
    return np.asarray(ranks.sum(distances))


def _liveliest_neighbours(liveliness: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers of neighbouring frames with the largest sum of liveliness, around one of at most 100 frames spread over the scan."""
    best = (-1.0, np.arange(min(len(positions), _TRIAL_FRAMES)))
    for frame in range(0, len(positions), -(-len(positions) // 100)):
        near = np.argsort(np.hypot(*(positions - positions[frame]).T), kind="stable")[:_TRIAL_FRAMES]
        best = max(best, (float(liveliness[near].sum()), near), key=lambda pair: pair[0])
    return np.sort(best[1])


def _best_spot(spots: NDArray[np.float64], mean: NDArray[np.float64], trial: _Trial, geometry: Geometry, seed: int, ranks: Ranks) -> float:
    """Which spot explains the trial frames best; the ranks share the work and agree."""
    errors = np.zeros(len(spots))
    for place in range(ranks.rank, len(spots), ranks.size):
        errors[place] = _trial_error(float(spots[place]), mean, trial, geometry, seed)
    errors = ranks.sum(errors)
    _LOG.debug("trial spots %s px gave errors %s", spots, errors)
    return float(spots[int(np.argmin(errors))])


def _trial_error(spot_px: float, mean: NDArray[np.float64], trial: _Trial, geometry: Geometry, seed: int) -> float:
    side = trial.frames.good.shape[0]
    small = Geometry(geometry.energy_ev, geometry.distance_m, geometry.pixel_m, (side, side))
    verbs, frames = verbs_of("cpu", small), trial.frames
    probe = far_field_probe(low_frequencies(mean, side), spot_px / trial.reduction).astype(np.complex64)[None]
    counts = float((frames.counts * frames.good).sum(dtype=np.float64))
    way = Walk(frames, verbs, OneRank(), len(frames), counts, counts / len(frames), seed)
    state = State(
        start_object(trial.object_shape, probe.dtype), probe, np.empty((0, 1, side, side)), window_of(frames.corners, (side, side))
    )
    verbs.fix_power(state.probe, np.ones(1, probe.dtype), way.power)
    try:
        walk(_TRIAL, state, way)
    except SolverError:
        return float("inf")
    return way.progress[-1].errors["error"]
