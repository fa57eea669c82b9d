"""How far a reconstructed phase is from the truth, in radians."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model.errors import ScanError

Wave = NDArray[np.complex128]

_ROUNDS = 6
_MOVED_ENOUGH_PX = 0.005
_MOVED_TOO_FAR_PX = 12.0
_RAMP_OVERSAMPLING = 4
_LARGEST_FITTED_RAD = 1.5


def phase_rms(reconstructed: NDArray[Any], truth: NDArray[Any], positions_px: NDArray[Any], side_px: int, margin: float = 0.75) -> float:
    """Root mean square of the object's phase error over the scan's central region, radians.

    What ptychography cannot know is removed first: a complex factor, a linear phase ramp, a translation (also by fractions of
    a pixel). The smallest error of at most six rounds of alignment counts.

    reconstructed, truth: (y, x) complex on one pixel grid, see ``truth_on_canvas``
    positions_px: (frame, yx) first row and column of each patch in them; side_px: side of a patch
    margin: the central region begins this share of a patch inside the outermost patches

    Raises:
        ScanError: the scan is too small to have a central region.
    """
    region = _central_region(np.asarray(positions_px), side_px, margin)
    target = np.asarray(truth, dtype=np.complex128)[region]
    wave = np.asarray(reconstructed, dtype=np.complex128)
    wave = np.where(np.isfinite(wave), wave, 0.0)
    best = np.inf
    for _ in range(_ROUNDS):
        wave = _without_coarse_ramp(wave, target, region)
        wave = _without_fine_ramp(wave, target, region)
        best = min(best, _phase_difference(wave[region], target))
        shift = _translation_px(wave[region], target)
        if np.abs(shift).max() < _MOVED_ENOUGH_PX or np.abs(shift).max() > _MOVED_TOO_FAR_PX:
            break
        wave = _moved_back(wave, shift)
    return float(best)


def truth_on_canvas(
    truth: NDArray[Any], truth_positions_px: NDArray[Any], positions_px: NDArray[Any], canvas_shape: tuple[int, int]
) -> NDArray[np.complex128]:
    """The truth (y, x) cut out, or filled up with 1, to the grid of a reconstruction of shape ``canvas_shape``.

    truth_positions_px, positions_px: (frame, yx) of the same frames in the truth and in the reconstruction. They may differ by
    any offset; its whole pixels are removed here, the fraction is left to ``phase_rms``.

    Raises:
        ScanError: not the same number of frames.
    """
    true, found = np.asarray(truth_positions_px, dtype=np.float64), np.asarray(positions_px, dtype=np.float64)
    if true.shape != found.shape:
        raise ScanError(f"{len(true)} true positions but {len(found)} reconstructed ones: give both for the same frames.")
    row, column = (int(offset) for offset in np.rint((true - found).mean(axis=0)))
    before = max(-row, 0), max(-column, 0)
    after = max(row + canvas_shape[0] - truth.shape[0], 0), max(column + canvas_shape[1] - truth.shape[1], 0)
    filled = np.pad(truth, ((before[0], after[0]), (before[1], after[1])), constant_values=1.0)
    top, left = row + before[0], column + before[1]
    return np.asarray(filled[top : top + canvas_shape[0], left : left + canvas_shape[1]], dtype=np.complex128)


def _central_region(positions_px: NDArray[Any], side_px: int, margin: float) -> tuple[slice, slice]:
    corners = np.rint(positions_px).astype(np.int64)
    border = int(margin * side_px)
    first, last = corners.min(axis=0) + border, corners.max(axis=0) + side_px - border
    if (last - first).min() < 8:
        raise ScanError(
            f"the scan spans {np.ptp(corners[:, 0])} x {np.ptp(corners[:, 1])} px: less than 8 px are left {border} px inside the "
            "outermost patches, too few to judge a phase. Scan a larger area or choose a smaller margin."
        )
    return slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))


def _window(shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.asarray(np.outer(np.hanning(shape[0]), np.hanning(shape[1])))


def _without_coarse_ramp(wave: Wave, target: Wave, region: tuple[slice, slice]) -> Wave:
    """The strongest frequency of wave / target, to a quarter of a period over the region, taken out."""
    sides = [_RAMP_OVERSAMPLING * side for side in target.shape]
    spectrum = np.abs(np.fft.fft2(wave[region] * np.conj(target) * _window(target.shape), sides))
    peak = np.unravel_index(np.argmax(spectrum), spectrum.shape)
    ky, kx = (np.fft.fftfreq(side)[at] for side, at in zip(sides, peak, strict=True))
    return _times_ramp(wave, -2 * np.pi * ky, -2 * np.pi * kx)


def _without_fine_ramp(wave: Wave, target: Wave, region: tuple[slice, slice]) -> Wave:
    """A plane fitted to the phase difference, weighted by its amplitude, taken out; three times, as phases wrap."""
    y, x = (axis.ravel() for axis in np.indices(target.shape))
    basis = np.stack([np.ones(target.size), y, x], axis=1)
    for _ in range(3):
        product = wave[region] * np.conj(target)
        product = product * np.conj(product.sum())
        phase = np.angle(product).ravel()
        weight = np.abs(product).ravel() * (np.abs(phase) < _LARGEST_FITTED_RAD)
        slope = np.linalg.lstsq(basis.T @ (basis * weight[:, None]), basis.T @ (weight * phase), rcond=None)[0]
        wave = _times_ramp(wave, -slope[1], -slope[2], origin=(region[0].start, region[1].start))
    return wave


def _times_ramp(wave: Wave, slope_y: float, slope_x: float, origin: tuple[int, int] = (0, 0)) -> Wave:
    y, x = (np.arange(side) - first for side, first in zip(wave.shape, origin, strict=True))
    return np.asarray(wave * np.exp(1j * slope_y * y)[:, None] * np.exp(1j * slope_x * x))


def _phase_difference(wave: Wave, target: Wave) -> float:
    product = wave * np.conj(target)
    error = np.angle(product * np.exp(-1j * np.angle(product.sum())))
    return float(np.sqrt(np.mean(error**2)))


def _translation_px(wave: Wave, target: Wave) -> NDArray[np.float64]:
    """(y, x) pixels by which ``wave`` lies behind ``target``: peak of the cross-correlation of the phases, refined by parabolas."""
    unit, unit_target = (np.exp(1j * np.angle(each)) for each in (wave, target))
    window = _window(target.shape)
    spectrum = np.fft.fft2((unit - unit.mean()) * window) * np.conj(np.fft.fft2((unit_target - unit_target.mean()) * window))
    correlation = np.abs(np.fft.ifft2(spectrum))
    row, column = (int(at) for at in np.unravel_index(np.argmax(correlation), correlation.shape))
    return np.array([_peak(correlation[:, column], row), _peak(correlation[row], column)])


def _peak(line: NDArray[np.float64], at: int) -> float:
    """Place of the maximum near ``at`` on a periodic line, as a number around 0."""
    before, here, after = line[at - 1], line[at], line[(at + 1) % len(line)]
    bend = before - 2 * here + after
    signed = at if at < len(line) / 2 else at - len(line)
    return float(signed + (0.5 * (before - after) / bend if bend else 0.0))


def _moved_back(wave: Wave, shift: NDArray[np.float64]) -> Wave:
    ramp_y, ramp_x = (np.exp(2j * np.pi * by * np.fft.fftfreq(side)) for by, side in zip(shift, wave.shape, strict=True))
    return np.asarray(np.fft.ifft2(np.fft.fft2(wave) * ramp_y[:, None] * ramp_x))
