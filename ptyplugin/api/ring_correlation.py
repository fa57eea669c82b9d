"""Fourier ring correlation of two reconstructions of one scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray

from ptyplugin.io.display import illumination, usual_light, without_ramp
from ptyplugin.model import Reconstruction, RingCorrelation, ScanError

Image = NDArray[Any]

#: Share of the usual light above which a pixel is compared, and how far the window's edge reaches into that area, in its size.
_WELL_LIT, _EDGE = 0.3, 0.1
#: So many rings at the centre hold too few pixels to say anything.
_INNERMOST = 3
#: How often ramp and shift are removed in turn, how far images may be apart, and how finely their shift is found.
_ROUNDS, _FARTHEST_PX, _FINEST_PX = 3, 8, 0.01
#: Pixels along the sides of the smallest area that can be compared.
_SMALLEST = 16


def ring_correlation(first: Reconstruction, second: Reconstruction) -> RingCorrelation:
    """Fourier ring correlation of two images of the same sample, from different frames (Saxton & Baumeister 1982), with the half-bit
    and the one-bit threshold of van Heel & Schatz, J. Struct. Biol. 151, 250 (2005), eqs. 2 and 17.

    What ptychography leaves free is removed first: phase, linear phase ramp, scale, and a shift by parts of a pixel. Both are compared
    where both are well lit, under a window with soft edges, which makes pixels in Fourier space depend on each other: fewer of them count.

    Raises:
        ScanError: they have no area in common that is large enough.
    """
    pixel_m = first.geometry.object_pixel_m
    one, other, well = _common(first, second)
    rows, columns = (np.flatnonzero(well.any(axis=axis)) for axis in (1, 0))
    if well.sum() < _SMALLEST**2 or min(len(rows), len(columns)) < _SMALLEST:
        raise ScanError(
            f"the two halves have only {int(well.sum())} well lit pixels in common: too few for a resolution. Are there enough frames?"
        )
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    one, other, well = one[box], other[box], well[box]
    window = _window(well)
    one, other = without_ramp(one.astype(np.complex64), well)[0], without_ramp(other.astype(np.complex64), well)[0]
    return _correlate(one, _aligned(other, one, window, well), window, pixel_m)


def _common(first: Reconstruction, second: Reconstruction) -> tuple[Image, Image, NDArray[np.bool_]]:
    """Both images (y, x) on their common pixels, by where the scan says that they lie, and where both are well lit."""
    lit = [illumination(each) > _WELL_LIT * usual_light(illumination(each), each) for each in (first, second)]
    at = [np.mean(each.positions_px - each.positions_m / np.asarray(each.geometry.object_pixel_m), axis=0) for each in (first, second)]
    by = np.rint(at[0] - at[1]).astype(int)  # pixel p of the second lies at p + by of the first
    low = np.maximum(by, 0)
    size = np.minimum(first.object.shape[-2:], np.add(second.object.shape[-2:], by)) - low
    mine, theirs = (np.s_[y : y + size[0], x : x + size[1]] for y, x in (low, low - by))
    return first.object[0][mine], second.object[0][theirs], lit[0][mine] & lit[1][theirs]


def _window(well: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(y, x): 1 inside, 0 outside, a sine squared over a tenth of the area's size between."""
    inside = scipy.ndimage.distance_transform_edt(np.pad(well, 1))[1:-1, 1:-1]
    return np.asarray(np.sin(np.pi / 2 * np.clip(inside / (_EDGE * np.sqrt(well.sum())), 0, 1)) ** 2)


def _aligned(image: Image, onto: Image, window: NDArray[np.float64], well: NDArray[np.bool_]) -> Image:
    """The image moved, turned and scaled such that it lies on the other one as well as it can."""
    moved: Image = image
    shift = np.zeros(2)
    for _ in range(_ROUNDS):
        shift += _shift(onto, moved, window)
        moved = scipy.fft.ifft2(scipy.ndimage.fourier_shift(scipy.fft.fft2(image), shift))
        ramp = without_ramp((onto * moved.conj() * window).astype(np.complex64), well & (window > 0))[1]
        row, column = np.indices(image.shape)
        image = image * np.exp(2j * np.pi * (ramp[0] * row + ramp[1] * column))
        moved = scipy.fft.ifft2(scipy.ndimage.fourier_shift(scipy.fft.fft2(image), shift))
    return np.asarray(moved * ((window * onto * moved.conj()).sum() / (window * np.abs(moved) ** 2).sum()))


def _shift(onto: Image, image: Image, window: NDArray[np.float64]) -> NDArray[np.float64]:
    """(y, x) px by which ``image`` is to be moved: where the cross-correlation of what differs from the mean is largest, found on pixels
    first, then on ever finer grids around by a Fourier transform of few points (Guizar-Sicairos, Thurman & Fienup, Opt. Lett. 33, 156
    (2008))."""
    cross = _spectrum(onto, window) * _spectrum(image, window).conj()
    found = np.abs(scipy.fft.ifft2(cross))
    y, x = (scipy.fft.fftfreq(size, 1 / size) for size in cross.shape)
    found[(np.abs(y)[:, None] > _FARTHEST_PX) | (np.abs(x)[None, :] > _FARTHEST_PX)] = 0
    row, column = np.unravel_index(int(found.argmax()), found.shape)
    best, step = np.array([y[row], x[column]]), 0.25
    while step > _FINEST_PX / 2:
        grid = [at + step * np.arange(-4, 5) for at in best]
        kernels = [np.exp(2j * np.pi * places[:, None] * scipy.fft.fftfreq(size)) for places, size in zip(grid, cross.shape, strict=True)]
        fine = np.abs(kernels[0] @ cross @ kernels[1].T)
        row, column = np.unravel_index(int(fine.argmax()), fine.shape)
        best, step = np.array([grid[0][row], grid[1][column]]), step / 4
    return best


def _spectrum(image: Image, window: NDArray[np.float64]) -> Image:
    """Fourier transform of what differs from the mean, under the window."""
    return np.asarray(scipy.fft.fft2(window * (image - (window * image).sum() / window.sum())))


def _correlate(one: Image, other: Image, window: NDArray[np.float64], pixel_m: tuple[float, float]) -> RingCorrelation:
    frequencies = [scipy.fft.fftfreq(size, step) for size, step in zip(one.shape, pixel_m, strict=True)]
    radius = np.hypot(frequencies[0][:, None], frequencies[1][None, :])
    width = 1 / min(size * step for size, step in zip(one.shape, pixel_m, strict=True))
    ring = np.rint(radius / width).astype(int).ravel()
    count = int(0.5 / max(pixel_m) / width) + 1
    first, second = _spectrum(one, window).ravel(), _spectrum(other, window).ravel()
    products = ((first * second.conj()).real, np.abs(first) ** 2, np.abs(second) ** 2)
    cross, power, power_too = (np.bincount(ring, weights=each)[:count] for each in products)
    correlation = cross / np.maximum(np.sqrt(power * power_too), np.finfo(np.float64).tiny)
    free = np.bincount(ring)[:count] * (window**2).sum() ** 2 / ((window**4).sum() * window.size)
    half_bit, one_bit = (_threshold(snr, np.maximum(free, 1)) for snr in ((np.sqrt(2) - 1) / 2, 0.5))
    frequency = width * np.arange(count)
    return RingCorrelation(frequency, correlation, half_bit, one_bit, 1 / (2 * _crossing(frequency, correlation - half_bit)))


def _threshold(snr: float, count: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the correlation of ``count`` independent pixels exceeds if each half has this ratio of signal to noise power."""
    noise = 2 * np.sqrt(snr) / np.sqrt(count)
    return np.asarray((snr + noise + 1 / np.sqrt(count)) / (snr + 1 + noise))


def _crossing(frequency: NDArray[np.float64], above: NDArray[np.float64]) -> float:
    """Where the longest stretch of rings above 0 ends; one ring below does not end it. Rings at the centre may be below: a near field
    says little about long waves."""
    holds = above >= 0
    holds[1:-1] |= holds[:-2] & holds[2:]
    holds[:_INNERMOST] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[False], holds, [False]])))
    if not len(edges):
        return float(frequency[_INNERMOST])
    starts, ends = edges[::2], edges[1::2]
    end = int(ends[(ends - starts).argmax()])
    if end == len(above):
        return float(frequency[-1])
    return float(np.interp(0.0, [-above[end - 1], -above[end]], [frequency[end - 1], frequency[end]]))
