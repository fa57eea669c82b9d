"""Positions: where frames were taken rather than where the scan said, found from the frames.

What the frames cannot tell is left as the scan said: where the scan as a whole lies, since object and probe would move along; and, as long
as the probe is free, its scale and shear, since the curvature of the probe's phase makes up for them.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Reconstruction
from ptyplugin.solvers.batches import RankFrames, in_blocks
from ptyplugin.solvers.position_search import Search, at_positions, step_of
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.state import State, window_of
from ptyplugin.solvers.way import Walk

_LOG = logging.getLogger(__name__)

#: Trials per frame and search; the share of a stage in which their radius shrinks from the largest allowed to the least, px.
_TRIALS, _ANNEALING, _LEAST_PX = 8, 0.8, 1.0
#: Fewer frames than this have no trend.
_TREND_FRAMES = 8
#: What merges of ranks' copies remember of the positions.
_REMEMBERED = ("light", "overlaps")


def refine_positions(state: State, way: Walk, search: Search, farthest_px: float, done: float, probe_is_known: bool = False) -> None:
    """Move the frames towards where their data want them, by one step. All ranks call it together.

    farthest_px: how far from where the scan said, along each axis; done: share of the stage that is done
    """
    if not len(state.shifts):
        state.shifts = np.zeros((len(way.said), 2))
    parts, steps, variances, start = _parts(way), [], [], 0
    trials = _trials(state, way, farthest_px, done) if search == "trials" else np.zeros((len(way.said), 0, 2))
    limits = _limits(state, way, farthest_px)
    for frames in parts:
        rows = slice(start, start + len(frames))
        there = at_positions(frames, way.said[rows] + state.shifts[rows, None])
        found = step_of(there, state, way.verbs, search, trials[rows], limits[rows] - state.shifts[rows, None])
        steps.append(found.steps)
        variances.append(found.variances)
        start = rows.stop
    settled = _settled(way, state.shifts, np.concatenate(steps), np.concatenate(variances), probe_is_known)
    move(state, way, np.clip(settled, limits[:, 0], limits[:, 1]))
    for name in _REMEMBERED:
        state.memory.pop(name, None)
    _LOG.debug("positions: frames of rank %d lie %.3g px RMS from where the scan said", way.ranks.rank, _rms(state.shifts))


def move(state: State, way: Walk, shifts: NDArray[np.float64]) -> None:
    """Put the frames ``shifts`` (frame, yx) px away from where the scan said.

    Exit waves go along: they keep what the data have told about them, which is a wave around its probe, and the probe lies in each frame
    where the frame's rest says.
    """
    state.shifts, before = shifts, way.frames.rests
    place(state, way)
    if len(state.waves) and not way.rounds:
        _move_waves(state, way, way.frames.rests - before)


def place(state: State, way: Walk) -> None:
    """Put the frames where ``state.shifts`` say, if they say anything."""
    if not len(state.shifts):
        return
    fitted, positions = len(way.frames), way.said + state.shifts[:, None]
    way.frames = at_positions(way.frames, positions[:fitted], way.rounds)
    if way.held_out is not None:
        way.held_out = at_positions(way.held_out, positions[fitted:], way.rounds)
    state.window = window_of(way.frames.corners, way.frames.good.shape)


def with_positions(made: Reconstruction, state: State, way: Walk) -> Reconstruction:
    """The result with the positions that were found, if any were looked for. All ranks call it together.

    quality: ``positions_moved_px``, RMS distance of the frames from where the scan said
    """
    searched = way.ranks.largest(len(state.shifts))
    if not searched:
        return made
    shifts = state.shifts if len(state.shifts) else np.zeros((len(way.said), 2))
    known = everywhere(np.concatenate([way.said.mean(axis=1), shifts], axis=1), numbers_of(way), way.ranks)
    said, moved = known[:, :2], known[:, 2:]
    return replace(
        made,
        positions_px=said + moved,
        positions_start_px=said,
        positions_m=made.positions_m + moved * np.asarray(made.geometry.object_pixel_m),
        quality=made.quality | {"positions_moved_px": _rms(moved)},
    )


def everywhere(values: NDArray[np.float64], numbers: NDArray[np.int64], ranks: Ranks) -> NDArray[np.float64]:
    """What all ranks know of their frames, (frame of the scan, ...)."""
    known = np.zeros((ranks.largest(int(numbers.max(initial=-1)) + 1), *values.shape[1:]))
    known[numbers] = values
    return ranks.sum(known)


def numbers_of(way: Walk) -> NDArray[np.int64]:
    """(frame,) numbers in the scan of this rank's frames, in the order of ``State.shifts``."""
    return np.concatenate([frames.numbers for frames in _parts(way)])


def _parts(way: Walk) -> list[RankFrames]:
    return [way.frames] if way.held_out is None else [way.frames, way.held_out]


def _limits(state: State, way: Walk, farthest_px: float) -> NDArray[np.float64]:
    """(frame, 2, yx) px: the lowest and the highest shift of each frame, within ``farthest_px`` and the object."""
    last = np.asarray(state.object.shape[-2:]) - np.asarray(way.frames.good.shape)
    low = np.maximum(-way.said.min(axis=1), -farthest_px)
    return np.stack([np.minimum(low, 0), np.maximum(np.minimum(last - way.said.max(axis=1), farthest_px), 0)], axis=1)


def _trials(state: State, way: Walk, farthest_px: float, done: float) -> NDArray[np.float64]:
    """(frame, trial, yx) px: random steps, the same for a frame whichever rank has it. Half of them go from where the frame is, not
    further than a radius that shrinks; the others to anywhere that the frame may be."""
    numbers = numbers_of(way)
    random = np.random.default_rng((way.seed, len(way.progress)))
    drawn = random.random((way.ranks.largest(int(numbers.max(initial=-1)) + 1), _TRIALS, 2))[numbers]
    radius = max(_LEAST_PX, farthest_px * (1 - done / _ANNEALING))
    reach = np.where(np.arange(_TRIALS) % 2, farthest_px, radius) * np.sqrt(drawn[..., 0])
    trials = reach[..., None] * np.stack([np.sin(2 * np.pi * drawn[..., 1]), np.cos(2 * np.pi * drawn[..., 1])], axis=-1)
    trials[:, 1::2] -= state.shifts[:, None]
    return np.asarray(trials)


def _settled(
    way: Walk, shifts: NDArray[np.float64], steps: NDArray[np.float64], variances: NDArray[np.float64], probe_is_known: bool
) -> NDArray[np.float64]:
    """(frame, yx) px: the new shifts of this rank's frames.

    Of the steps of all frames that are fitted, the part that the frames cannot tell is taken away. Then what the shifts have beyond their
    trend is held back by tau^2 / (tau^2 + v): the best guess where true shifts scatter by tau and are found with the variance v.
    """
    numbers = numbers_of(way)
    fitted = np.arange(len(numbers)) < len(way.frames)
    table = np.concatenate([way.said.mean(axis=1), shifts, steps, variances[:, None], fitted[:, None]], axis=1)
    known = everywhere(table, numbers, way.ranks)
    places, wanted, variance, seen = known[:, :2], known[:, 2:4] + known[:, 4:6], known[:, 6], known[:, 7] > 0
    wanted -= _untold(places, known[:, 4:6], seen, probe_is_known)
    trend = _trend(places, wanted, seen)[0]
    rest = wanted - trend
    scatter = np.median((rest[seen] ** 2).sum(axis=1)) / (2 * np.log(2)) - np.median(variance[seen])
    share = max(scatter, 0.0) / np.maximum(max(scatter, 0.0) + variance, np.finfo(np.float64).tiny)
    return np.asarray((trend + share[:, None] * rest)[numbers])


def _untold(places: NDArray[np.float64], steps: NDArray[np.float64], seen: NDArray[np.bool_], probe_is_known: bool) -> NDArray[np.float64]:
    """(frame, yx) px: the part of the steps that is a shift of all frames, and, where the probe is free, scale and shear."""
    trend, slopes, middle = _trend(places, steps, seen)
    told = slopes if probe_is_known else (slopes - slopes.T) / 2
    return np.asarray(trend - (places - middle) @ told)


def _trend(
    places: NDArray[np.float64], values: NDArray[np.float64], seen: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The affine map of ``places`` (frame, yx) that is closest to most of ``values``: what it gives (frame, yx), its slopes, its middle.

    Frames far from it count less (Cauchy weights). Few frames have a mean only.
    """
    middle = places[seen].mean(axis=0)
    design = np.concatenate([np.ones((len(places), 1)), places - middle], axis=1)
    if np.count_nonzero(seen) < _TREND_FRAMES:
        design[:, 1:] = 0
    weights: NDArray[Any] = seen.astype(np.float64)
    fit: NDArray[Any] = np.zeros((3, 2))
    for _ in range(10):
        fit = np.linalg.lstsq(design * weights[:, None], values * weights[:, None], rcond=None)[0]
        distances = np.hypot(*(values - design @ fit).T)
        weights = seen / np.sqrt(1 + (distances / max(2 * np.median(distances[seen]), 1e-9)) ** 2)
    return design @ fit, fit[1:], middle


def _move_waves(state: State, way: Walk, shifts: NDArray[np.float32]) -> None:
    """Move the waves of each frame by ``shifts`` (frame, sub-step, yx) px."""
    waves = state.waves.shape[1]
    by_wave = np.tile(shifts, (1, waves // shifts.shape[1], 1))
    rows, columns = way.frames.good.shape
    for b in in_blocks(way.frames, way.verbs.batch_frames((rows, columns), waves), len(way.frames)):
        way.verbs.move_waves(state.waves[b.index], by_wave[b.index], b)
    way.verbs.finish()


def _rms(shifts: NDArray[np.float64]) -> float:
    return float(np.sqrt((shifts**2).sum(axis=1).mean())) if len(shifts) else 0.0
