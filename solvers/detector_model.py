"""The detector model: counts that no wave makes (background), and how strong the beam was in each frame (intensities).

A frame counts m_j^2 = s_j sum_m |A_jm|^2 / c + B. The verbs know B and s_j (decision record 0002). Here they are found, by turns with
object and probe, each by the step that fits the counts best by least squares, with the variances of the counts as weights (Fisher scoring
of the Poisson likelihood). So pixels where the waves are dark, in those frames where they are, tell most about the background.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch, RankFrames, in_blocks
from ptyplugin.solvers.state import State
from ptyplugin.solvers.verbs import Real, Verbs
from ptyplugin.solvers.way import Walk, power_of

_LOG = logging.getLogger(__name__)

Background = Literal["none", "constant", "smooth"]
Intensities = Literal["fixed", "fitted"]

#: The RMS width of the Gaussian that makes a background smooth, as a share of the frame's side.
_WIDTH = 0.12
#: What the counts' variance is at least, as a share of the mean count of a pixel.
_FLOOR = 1e-3
#: The intensity of a frame relative to the mean.
_WEAKEST, _STRONGEST = 0.1, 10.0


@dataclass(frozen=True, slots=True)
class _Sums:
    """num, den (y, x) of the background, over the frames of all ranks; each frame's sums (frame, 2), of this rank."""

    num: NDArray[np.float64]
    den: NDArray[np.float64]
    frames: NDArray[np.float64]


def with_monitor(frames: RankFrames, monitor: NDArray[np.float64] | None, first: int | None = None) -> RankFrames:
    """The frames of a rank with the intensities (frame of the scan,) that a monitor measured, if there is one.

    first: of how many of the scan's first frames the mean intensity is 1; None: of all
    """
    if monitor is None:
        return frames
    return replace(frames, intensities=_in_range(monitor / monitor[:first].mean())[frames.numbers].astype(np.float32))


def refine_detector(state: State, way: Walk, background: Background, intensities: Intensities) -> None:
    """One step of the background, of the intensities, or of both. All ranks call it together.

    background: the same in all pixels, or smooth: steps are means over a Gaussian neighbourhood; never negative
    intensities: of held-out frames too; their mean over all fitted frames is 1

    The probe is held at the power of the mean frame without its background.
    """
    fitted = _sums(way.frames, state, way)
    if intensities == "fitted":
        unseen = None if way.held_out is None else _sums(way.held_out, state, way)
        _step_intensities(state, way, fitted.frames, None if unseen is None else unseen.frames)
    if background != "none":
        _step_background(way, fitted, smooth=background == "smooth")


def map_of_background(way: Walk) -> NDArray[np.float32] | None:
    """(y, x) counts of a frame, laid out as frames are, zero frequency in the middle; None: there is none."""
    found = way.frames.background
    return None if found is None else _as_seen(found, way).astype(np.float32)


def intensities_of(way: Walk) -> NDArray[np.float32] | None:
    """(frame of the scan,) of all ranks; None: they are not known. All ranks call it together."""
    if way.frames.intensities is None:
        return None
    parts = [way.frames] if way.held_out is None else [way.frames, way.held_out]
    known = np.zeros(way.ranks.largest(max(int(part.numbers.max(initial=-1)) for part in parts) + 1))
    for part in parts:
        known[part.numbers] = 1 if part.intensities is None else part.intensities
    return way.ranks.sum(known).astype(np.float32)


def _sums(frames: RankFrames, state: State, way: Walk) -> _Sums:
    """All sums of one pass over ``frames``, which do not have to be those that are fitted."""
    do, shape = way.verbs, frames.good.shape
    real = np.zeros(0, do.dtype).real.dtype
    num, den, each = do.zeros(shape, real), do.zeros(shape, real), [np.zeros((0, 2))]
    floor = _FLOOR * way.power / np.count_nonzero(frames.good)
    waves = len(state.probe) * len(state.object) * frames.corners.shape[1]
    size = do.batch_frames((shape[0], shape[1]), waves)
    for b in in_blocks(frames, size, len(frames)):
        each.append(_add_sums(num, den, state, b, do, floor))
    do.finish()
    num, den = (way.ranks.sum(do.host(total).astype(np.float64)) for total in (num, den))
    return _Sums(num, den, np.concatenate(each))


def _add_sums(num: Real, den: Real, state: State, b: Batch, do: Verbs, floor: float) -> NDArray[np.float64]:
    """Adds up what the background needs, gives what the intensities do. Afterwards nobody holds the waves, so that not all are kept."""
    A = do.to_detector(do.exit_waves(state.object, state.probe, b), b)
    do.background_sums(num, den, A, b, floor)
    return do.intensity_sums(A, b, floor)


def _step_background(way: Walk, sums: _Sums, smooth: bool) -> None:
    good, found = way.frames.good, way.frames.background
    if smooth:
        num, den = (_smoothed(total, way) for total in (sums.num, sums.den))
        step = num / np.maximum(den, np.finfo(np.float32).tiny)
    else:
        step = np.full(good.shape, sums.num.sum() / sums.den.sum())
    new = np.maximum(step if found is None else found + step, 0).astype(np.float32)
    way.frames = replace(way.frames, background=new)
    way.held_out = None if way.held_out is None else replace(way.held_out, background=new)
    way.power = power_of(way)
    _LOG.debug("background: %.3g counts per pixel", new.mean(where=good))


def _step_intensities(state: State, way: Walk, fitted: NDArray[np.float64], unseen: NDArray[np.float64] | None) -> None:
    change = _without_trend(np.log(_in_range(1 + _ratio(fitted))), way.frames, state, way)
    new = _known(way.frames) * np.exp(change)
    total, frames = way.ranks.sum(np.array([new.sum(), len(new)]))
    way.frames = replace(way.frames, intensities=_in_range(new * frames / total).astype(np.float32))
    if way.held_out is not None and unseen is not None:
        new = _known(way.held_out) * (1 + _ratio(unseen)) * frames / total
        way.held_out = replace(way.held_out, intensities=_in_range(new).astype(np.float32))


def _without_trend(change: NDArray[np.float64], frames: RankFrames, state: State, way: Walk) -> NDArray[np.float64]:
    """``change`` (frame,) without what is quadratic in the position of the frames of all ranks.

    What varies slowly over the scan the object's amplitude can make up for: as the monitor said it, it stays.
    """
    y, x = (2 * frames.corners.mean(axis=1) / np.asarray(state.object.shape[-2:]) - 1).T
    basis = np.stack([np.ones_like(y), y, x, y * y, y * x, x * x], axis=1)
    normal, onto = way.ranks.sum(basis.T @ basis), way.ranks.sum(basis.T @ change)
    trend: NDArray[np.float64] = basis @ np.linalg.lstsq(normal, onto, rcond=1e-10)[0]
    return change - trend


def _known(frames: RankFrames) -> NDArray[np.float64]:
    return np.ones(len(frames)) if frames.intensities is None else frames.intensities.astype(np.float64)


def _ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(sums[:, 0] / np.maximum(sums[:, 1], np.finfo(np.float32).tiny))


def _in_range(intensities: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(intensities, _WEAKEST, _STRONGEST)


def _smoothed(total: NDArray[np.float64], way: Walk) -> NDArray[np.float64]:
    """(y, x) times a Gaussian around each pixel; nothing comes in over the detector's edges."""
    seen = _as_seen(total, way)
    shape = [scipy.fft.next_fast_len(2 * side, real=True) for side in seen.shape]
    y, x = (frequencies * _WIDTH * side for frequencies, side in zip(_frequencies(shape), seen.shape, strict=True))
    window = np.exp(-2 * np.pi**2 * (y[:, None] ** 2 + x**2))
    smooth = scipy.fft.irfft2(scipy.fft.rfft2(seen, shape) * window, shape)[: seen.shape[0], : seen.shape[1]]
    return np.asarray(smooth if way.verbs.near_field else np.fft.ifftshift(smooth))


def _frequencies(shape: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return scipy.fft.fftfreq(shape[0]), scipy.fft.rfftfreq(shape[1])


def _as_seen(prepared: NDArray[Any], way: Walk) -> NDArray[Any]:
    """From the layout of prepared counts to that of frames."""
    return prepared if way.verbs.near_field else np.fft.fftshift(prepared)
