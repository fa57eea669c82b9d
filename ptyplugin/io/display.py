"""What is done to a reconstruction so that a person can look at it: nothing of this is stored."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptyplugin.model import Reconstruction

#: Share of the usual illumination below which the object is not shown.
_DARK = 0.15
#: A plane through the phase of more pixels than this is laid through some of them.
_PLANE_PX = 1 << 18
#: Share of the probe's power that is shown.
_PROBE_POWER = 0.995


class View(NamedTuple):
    """The scanned part of an object, ready to be shown.

    wave: (y, x) complex64, its phase ramp and mean phase removed
    seen: (y, x) float32 in 0 .. 1, how well each pixel was illuminated
    ramp: (y, x) cycles per pixel that were removed
    corner: (row, column) of the part in the whole object
    """

    wave: NDArray[np.complex64]
    seen: NDArray[np.float32]
    ramp: tuple[float, float]
    corner: tuple[int, int]


def scanned_view(reconstruction: Reconstruction) -> View:
    """The part of the first object mode that the probe saw, with the phase ramp taken off (it is free: the probe carries its opposite)."""
    return scanned_part(reconstruction.object[0], reconstruction.probe, reconstruction.positions_px)


def scanned_part(wave: NDArray[np.complex64], probe: NDArray[np.complex64], positions_px: NDArray[np.float64]) -> View:
    """The same of an object (y, x), a probe (mode, y, x) and the first pixels of its patches (frame, yx)."""
    light = light_of(wave.shape, probe, positions_px)
    seen = np.clip(light / (_DARK * light_in_the_middle(light, probe, positions_px)), 0, 1).astype(np.float32)
    rows, columns = (np.flatnonzero((seen >= 1).any(axis=axis)) for axis in (1, 0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    seen = seen[window]
    flat, ramp = without_ramp(wave[window], seen >= 1)
    return View(flat, seen, ramp, (int(rows[0]), int(columns[0])))


def illumination(reconstruction: Reconstruction) -> NDArray[np.float64]:
    """Sum of the probe's intensity over all positions, (y, x) of the object."""
    return light_of(reconstruction.object.shape[-2:], reconstruction.probe, reconstruction.positions_px)


def light_of(shape: tuple[int, ...], probe: NDArray[np.complex64], positions_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same for an object of this shape (y, x), a probe (mode, y, x) and the first pixels of its patches (frame, yx)."""
    # Slow to start, and ranks do without it.
    import scipy.signal

    hits: Any = np.zeros(shape)
    corners = np.rint(positions_px).astype(int)
    np.add.at(hits, (corners[:, 0], corners[:, 1]), 1.0)
    intensity: Any = np.sum(np.abs(probe) ** 2, axis=0, dtype=np.float64)
    spread: Any = scipy.signal.fftconvolve(hits, intensity)
    return np.asarray(np.maximum(spread[: hits.shape[0], : hits.shape[1]], 0))


def usual_light(light: NDArray[np.float64], reconstruction: Reconstruction) -> float:
    """The light (y, x) in the middle of frames, their median."""
    return light_in_the_middle(light, reconstruction.probe, reconstruction.positions_px)


def light_in_the_middle(light: NDArray[np.float64], probe: NDArray[np.complex64], positions_px: NDArray[np.float64]) -> float:
    """The same for a probe (mode, y, x) and the first pixels of its patches (frame, yx)."""
    middle = np.rint(positions_px + np.array(probe.shape[-2:]) / 2).astype(int)
    return float(np.median(light[middle[:, 0], middle[:, 1]]))


def without_ramp(wave: NDArray[np.complex64], good: NDArray[np.bool_]) -> tuple[NDArray[np.complex64], tuple[float, float]]:
    """The wave without its linear phase and its mean phase over ``good``, and the ramp (y, x) in cycles per pixel.

    The strongest frequency is taken off first, then what a plane through the remaining phase says.
    """
    spectrum = np.abs(scipy.fft.fft2(np.where(good, wave, 0)))
    peak = np.unravel_index(int(spectrum.argmax()), spectrum.shape)
    ramp = np.array([scipy.fft.fftfreq(count)[index] for count, index in zip(wave.shape, peak, strict=True)])
    row, column = np.nonzero(good)
    some = slice(None, None, 1 + len(row) // _PLANE_PX)
    row, column = row[some], column[some]
    for _ in range(3):
        part = wave[row, column] * np.exp(-2j * np.pi * (ramp[0] * row + ramp[1] * column))
        phase = np.angle(part * np.conj(part.sum()))
        plane = np.stack([row, column, np.ones_like(row)], axis=1) * np.sqrt(np.abs(part))[:, None]
        slope = np.linalg.lstsq(plane, phase * np.sqrt(np.abs(part)), rcond=None)[0]
        ramp += slope[:2] / (2 * np.pi)
    flat = take_ramp_off(wave, (ramp[0], ramp[1]))
    mean = flat[good].sum()
    return (flat * np.conj(mean) / max(abs(mean), np.finfo(np.float32).tiny)).astype(np.complex64), (float(ramp[0]), float(ramp[1]))


def take_ramp_off(wave: NDArray[np.complex64], ramp: tuple[float, float]) -> NDArray[np.complex64]:
    """``wave`` times exp(-2 pi i ramp . pixel)."""
    row, column = np.ogrid[: wave.shape[0], : wave.shape[1]]
    turned: NDArray[np.complex64] = (wave * np.exp(-2j * np.pi * (ramp[0] * row + ramp[1] * column))).astype(np.complex64)
    return turned


def limits(values: NDArray[Any]) -> tuple[float, float]:
    """Colour limits that a few odd pixels cannot move: the 0.5 and 99.5 percentiles."""
    low, high = np.percentile(values, [0.5, 99.5])
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)


def probe_view(mode: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """The square around the middle that holds nearly all power of a probe mode."""
    power = np.abs(mode) ** 2
    middle = np.array(mode.shape) // 2
    rows, columns = np.ogrid[: mode.shape[0], : mode.shape[1]]
    distance = np.maximum(np.abs(rows - middle[0]), np.abs(columns - middle[1]))
    inside = np.cumsum(np.bincount(distance.ravel(), weights=power.ravel()))
    half = int(np.searchsorted(inside, _PROBE_POWER * inside[-1])) + 2
    return mode[max(middle[0] - half, 0) : middle[0] + half, max(middle[1] - half, 0) : middle[1] + half]


def length_of_bar(width_m: float) -> float:
    """1, 2 or 5 times a power of ten metres, at most a third of the width."""
    power = 10.0 ** np.floor(np.log10(width_m / 3))
    return float(max(step for step in (1, 2, 5) if step * power <= width_m / 3) * power)


def said_length(length_m: float) -> str:
    """A length for people: nm below a micrometre, then µm, then mm."""
    for unit, scale in (("nm", 1e-9), ("µm", 1e-6), ("mm", 1e-3)):
        if length_m < 999.5 * scale or unit == "mm":
            return f"{length_m / scale:.3g} {unit}"
    raise AssertionError(length_m)
