"""Where frames want to go: each frame's data against object and probe as they are, by slope, by correlation, or by trial."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch, RankFrames, in_blocks
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs import Complex, Verbs

Search = Literal["fixed", "gradient", "correlation", "trials"]
SEARCHES: tuple[Search, ...] = get_args(Search)

#: How far a frame goes in one step along the slope, px: further off the slope tells nothing.
_LONGEST_PX = 2.0
#: How far a correlation looks, px, and which multiples of what it finds are tried: it is held back by the phases that are not measured.
_REACH_PX, _MULTIPLES = 8.0, (1.0, 2.0, 4.0)
#: Share of the frames, those furthest from their data, that trials are made for.
_TRIED = 0.5
#: Frames whose counts are copied for trials at a time.
_AT_ONCE = 64
#: Keeps a frame that shows no slope along some direction where it is, as a share of the slope's mean square.
_FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class Steps:
    """What a search finds for some frames.

    steps: (frame, yx) px, where each frame wants to go
    variances: (frame,) px^2 of one coordinate of it, as far as the residual is noise
    """

    steps: NDArray[np.float64]
    variances: NDArray[np.float64]


def at_positions(frames: RankFrames, positions_px: NDArray[np.float64], rounded: bool = False) -> RankFrames:
    """The same frames at other positions (frame, sub-step, yx) px of the object; without rests if ``rounded``."""
    corners, rests = _placed(positions_px, rounded)
    return replace(frames, corners=corners, rests=rests)


def step_of(frames: RankFrames, state: State, do: Verbs, search: Search, trials: NDArray[np.float64], limits: NDArray[np.float64]) -> Steps:
    """Where ``frames`` want to go, with object and probe as they are. No other rank is asked.

    trials: (frame, trial, yx) px, steps that may be tried; limits: (frame, 2, yx) px, the lowest and highest step inside of the object
    """
    sums, peaks = _measure(frames, state, do, search == "correlation")
    found = _along_the_slope(sums, int(frames.good.sum()))
    if search == "gradient" or not len(frames):
        return found
    if search == "correlation":
        numbers, steps = np.arange(len(frames)), np.stack([multiple * peaks for multiple in _MULTIPLES], axis=1)
        found.steps[:] = 0
    else:
        numbers = np.sort(np.argsort(-sums[:, 5], kind="stable")[: max(1, round(_TRIED * len(frames)))])
        steps = np.concatenate([found.steps[numbers, None], trials[numbers]], axis=1)
    steps = np.clip(steps, limits[numbers, :1], limits[numbers, 1:])
    found.steps[numbers] = _best(frames, numbers, steps, sums[numbers, 5], state, do)
    return found


def _measure(frames: RankFrames, state: State, do: Verbs, correlate: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(frame, 6) as Verbs.position_gradient gives it; (frame, yx) px peaks of the correlation, zeros if they are not asked for."""
    O, P = state.object, state.probe  # noqa: E741 -- O is the object in every paper
    along_y, along_x = do.derivatives(O)
    sums, peaks = [np.empty((0, 6))], [np.empty((0, 2))]
    size = _frames_at_once(frames, state, do)
    for b in in_blocks(frames, size, len(frames)):
        sums.append(_gradient((O, along_y, along_x), P, b, do))
    for b in in_blocks(frames, min(size, _AT_ONCE), len(frames)) if correlate else ():
        peaks.append(do.correlate(_onto_data(state, b, do), O, P, b, _REACH_PX))
    do.finish()
    return np.concatenate(sums), np.concatenate(peaks)


def _gradient(objects: tuple[Complex, Complex, Complex], P: Complex, b: Batch, do: Verbs) -> NDArray[np.float64]:
    """(frame, 6), of O, dO / dy and dO / dx. Afterwards nobody holds the waves: else those of all frames would be kept."""
    A, Ay, Ax = (do.to_detector(do.exit_waves(X, P, b), b) for X in objects)
    return do.position_gradient(A, Ay, Ax, b)


def _onto_data(state: State, b: Batch, do: Verbs) -> Complex:
    """The exit waves of a batch, put onto the measured modulus."""
    A = do.to_detector(do.exit_waves(state.object, state.probe, b), b)
    do.onto_modulus(A, b, 0)
    return do.to_sample(A, b)


def _along_the_slope(sums: NDArray[np.float64], pixels: int) -> Steps:
    """The Gauss-Newton step of each frame alone: sum (r - dm)^2 is smallest for it, r = sqrt(I) - m."""
    yy, xx, yx, yr, xr, rr = sums.T
    floor = _FLOOR * (yy + xx) + np.finfo(np.float64).tiny
    yy, xx = yy + floor, xx + floor
    determinant = yy * xx - yx**2
    steps = np.stack([xx * yr - yx * xr, yy * xr - yx * yr], axis=1) / determinant[:, None]
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    steps *= (_LONGEST_PX / np.maximum(lengths, _LONGEST_PX))[:, None]
    return Steps(steps, rr / max(pixels, 1) * (yy + xx) / (2 * determinant))


def _best(
    frames: RankFrames, numbers: NDArray[np.int64], steps: NDArray[np.float64], here: NDArray[np.float64], state: State, do: Verbs
) -> NDArray[np.float64]:
    """(frame, yx): of ``steps`` (frame, try, yx) of the frames ``numbers`` the one that comes closest to the data; 0 if none does"""
    best, lowest = np.zeros((len(numbers), 2)), here.copy()
    size = min(_frames_at_once(frames, state, do), _AT_ONCE)
    for start in range(0, len(numbers), size):
        part = slice(start, start + size)
        b = frames.chosen(numbers[part])
        positions = b.corners + b.rests.astype(np.float64)
        for step in np.moveaxis(steps[part], 1, 0):
            corners, rests = _placed(positions + step[:, None], False)
            there = replace(b, corners=corners, rests=rests, frames=None)
            residuals = do.frame_residuals(do.to_detector(do.exit_waves(state.object, state.probe, there), there), there)
            do.finish()
            better = residuals < lowest[part]
            best[part][better], lowest[part][better] = step[better], residuals[better]
    return best


def _placed(positions_px: NDArray[np.float64], rounded: bool) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Corners and rests."""
    corners = np.rint(positions_px)
    rests = np.zeros_like(corners) if rounded else positions_px - corners
    return corners.astype(np.int32), rests.astype(np.float32)


def _frames_at_once(frames: RankFrames, state: State, do: Verbs) -> int:
    rows, columns = frames.good.shape
    return do.batch_frames((rows, columns), len(state.probe) * len(state.object) * frames.corners.shape[1])
