"""A start probe from nothing but the frames."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
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

#: A trial reconstruction: how many frames, of which side, or larger by such steps to hold this share of the counts.
_TRIAL_FRAMES = 36
_TRIAL_SIDE_PX, _TRIAL_SIDE_STEP_PX = 64, 32
_TRIAL_COUNTS = 0.98
#: What it does: with spots of all sizes, each so many times the one before; then with so many about the best of them.
_COARSE, _RATIO = Recipe.parse("ePIE(2)"), 1.44
_FINE, _NEAR = Recipe.parse("ePIE(3)"), 8


def probe_from_data(
    frames: RankFrames, positions_px: NDArray[np.float64], geometry: Geometry, seed: int, ranks: Ranks
) -> NDArray[np.complex128]:
    """The start probe (y, x) that the frames themselves suggest, the same on all ranks. All ranks call it together.

    Near field: the square root of the mean frame, propagated back. Far field: its inverse transform, defocused; the defocus is the
    one with which a short trial reconstruction of some neighbouring frames explains them best (decision record 0021). No smaller spot
    is tried than one that overlaps with its neighbours.

    positions_px: (frame, yx) of all frames of the scan, object pixels.
    """
    mean = _mean_frame(frames, len(positions_px), ranks)
    if geometry.near_field:
        return _near_field_probe(mean, geometry)
    trial = _trial_of(frames, positions_px, mean, geometry, ranks)
    step = median_step(positions_px)
    smallest, largest = 0.6 * step, 0.35 * min(geometry.shape)
    count = max(2, 1 + int(np.ceil(np.log(largest / smallest) / np.log(_RATIO))))
    spots = smallest * _RATIO ** np.arange(count)
    best = _best_spot(np.concatenate([spots, -spots]), _COARSE, trial, seed, ranks)
    best = _best_spot(best * np.geomspace(_RATIO**-0.5, _RATIO**0.5, _NEAR), _FINE, trial, seed, ranks)
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
    """Neighbouring frames, and the mean frame (y, x), cropped to low frequencies."""

    frames: RankFrames
    mean: NDArray[np.float64]
    geometry: Geometry
    object_shape: tuple[int, int]
    reduction: float  # of the object's resolution, geometric mean of y and x


def _trial_of(frames: RankFrames, positions_px: NDArray[np.float64], mean: NDArray[np.float64], geometry: Geometry, ranks: Ranks) -> _Trial:
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
    small = replace(geometry, shape=(side, side))
    return _Trial(chosen_frames, low_frequencies(mean, side), small, shape, float(np.sqrt(reduction.prod())))


def _trial_side(mean: NDArray[np.float64]) -> int:
    """The smallest sensible side (px) that holds nearly all counts, so that a trial on large frames stays quick."""
    side: int = min(_TRIAL_SIDE_PX, *mean.shape)
    while side < min(mean.shape) and low_frequencies(mean, side).sum() < _TRIAL_COUNTS * mean.sum():
        side = min(side + _TRIAL_SIDE_STEP_PX, *mean.shape)
    return side


def low_frequencies(frame: NDArray[Any], side: int) -> NDArray[Any]:
    """The (side, side) lowest frequencies of a frame (y, x) with zero frequency at [0, 0], laid out the same."""
    rows, columns = (np.rint(fftfreq(side, 1 / side)).astype(int) for _ in range(2))
    return frame[np.ix_(rows % frame.shape[0], columns % frame.shape[1])]


def _liveliness(frames: RankFrames, mean: NDArray[np.float64], frame_count: int, ranks: Ranks) -> NDArray[np.float64]:
    """(frame,): distance of each frame of the scan to the mean frame, in square roots of counts."""
    distances, middle = np.zeros(frame_count), np.sqrt(mean)
    for number, counts in zip(frames.numbers, frames.counts, strict=True):
        distances[number] = (((np.sqrt(counts) - middle) * frames.good) ** 2).sum()
    return np.asarray(ranks.sum(distances))


def _liveliest_neighbours(liveliness: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers of neighbouring frames with the largest sum of liveliness, around one of at most 100 frames spread over the scan."""
    best = (-1.0, np.arange(min(len(positions), _TRIAL_FRAMES)))
    for frame in range(0, len(positions), -(-len(positions) // 100)):
        near = np.argsort(np.hypot(*(positions - positions[frame]).T), kind="stable")[:_TRIAL_FRAMES]
        best = max(best, (float(liveliness[near].sum()), near), key=lambda pair: pair[0])
    return np.sort(best[1])


def _best_spot(spots: NDArray[np.float64], recipe: Recipe, trial: _Trial, seed: int, ranks: Ranks) -> float:
    """With which spot ``recipe`` explains the trial frames best; the ranks share the work and agree."""
    errors = np.zeros(len(spots))
    for place in range(ranks.rank, len(spots), ranks.size):
        errors[place] = _trial_error(float(spots[place]), recipe, trial, seed)
    errors = ranks.sum(errors)
    _LOG.debug("%s with spots of %s px gave errors %s", recipe, spots, errors)
    return float(spots[int(np.argmin(errors))])


def _trial_error(spot_px: float, recipe: Recipe, trial: _Trial, seed: int) -> float:
    # SciPy has nothing to plan: pyFFTW spends 0.1 to 0.3 s on a side that it has not seen.
    verbs, frames, shape = verbs_of("cpu", trial.geometry, fft="scipy"), trial.frames, trial.geometry.shape
    probe = far_field_probe(trial.mean, spot_px / trial.reduction).astype(np.complex64)[None]
    counts = float((frames.counts * frames.good).sum(dtype=np.float64))
    way = Walk(frames, verbs, OneRank(), len(frames), counts, counts / len(frames), seed)
    state = State(start_object(trial.object_shape, probe.dtype), probe, np.empty((0, 1, *shape)), window_of(frames.corners, shape))
    verbs.fix_power(state.probe, np.ones(1, probe.dtype), way.power)
    try:
        walk(recipe, state, way)
    except SolverError:
        return float("inf")
    return way.progress[-1].errors["error"]
