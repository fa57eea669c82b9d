"""A start probe, brought to the pixel grid of a reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import FileFormatError, Geometry

#: Pixels that differ by less than this share are the same.
_SAME_PIXEL = 1e-3
#: A probe of whose power less than this share fits onto the grid is another probe.
_LEAST_POWER = 0.01


@dataclass(frozen=True, slots=True)
class StartProbe:
    """A probe to start from.

    modes: (probe mode, y, x) complex64
    pixel_m: size (y, x) of its pixels in metres, or None where the file does not say
    origin: where it comes from, for people
    """

    modes: NDArray[np.complex64]
    pixel_m: tuple[float, float] | None
    origin: str

    @classmethod
    def of(cls, array: Any, pixel_m: tuple[float, float] | None, origin: str) -> Self:
        """A probe of an array (y, x), (mode, y, x) or (1, mode, y, x).

        Raises:
            FileFormatError: another shape or type, not finite, or dark; or a pixel that cannot be.
        """
        modes = np.asarray(array)
        if modes.ndim == 4 and modes.shape[0] == 1:
            modes = modes[0]
        if modes.ndim == 2:
            modes = modes[None]
        if modes.ndim != 3 or 0 in modes.shape or modes.dtype.kind not in "fc":
            raise FileFormatError(
                f"{origin}: an array of shape {modes.shape} and type {modes.dtype} is no probe; give complex (mode, y, x)."
            )
        if not np.isfinite(modes).all() or not modes.any():
            raise FileFormatError(f"{origin}: the probe is dark or has pixels that are not finite; give another file.")
        if pixel_m is not None and not (np.isfinite(pixel_m).all() and min(pixel_m) > 0):
            raise FileFormatError(f"{origin}: the probe's pixel is {pixel_m[0]:g} x {pixel_m[1]:g} m; give another file.")
        return cls(modes.astype(np.complex64), pixel_m, origin)

    def on_grid(self, geometry: Geometry) -> tuple[NDArray[np.complex64], str | None]:
        """The modes (mode, y, x) on the object pixels of ``geometry``, and a sentence if they had to be changed for that.

        Band-limited (Fourier) interpolation about the middle [n // 2, n // 2], zeros outside of the known window; where its
        pixel size is unknown, the probe is only cropped or padded. The power is kept.

        Raises:
            FileFormatError: next to nothing of the probe lies in the window and the frequencies of the grid.
        """
        old, new = self.pixel_m or geometry.object_pixel_m, geometry.object_pixel_m
        shape = self.modes.shape[1:]
        same_pixel = max(abs(a - b) / b for a, b in zip(old, new, strict=True)) < _SAME_PIXEL
        if same_pixel and shape == tuple(geometry.shape):
            return self.modes, None
        if same_pixel:
            old = new
        along_y, along_x = (_interpolation(shape[axis], old[axis], geometry.shape[axis], new[axis]) for axis in (0, 1))
        modes = along_y @ self.modes.astype(np.complex128) @ along_x.T
        before, after = (float(np.sum(np.abs(each) ** 2, dtype=np.float64)) for each in (self.modes, modes))
        share = after / before * (new[0] * new[1]) / (old[0] * old[1])
        if share < _LEAST_POWER:
            raise FileFormatError(
                f"{self.origin}: only {share:.1%} of the start probe's power fits onto {geometry.shape[0]} x {geometry.shape[1]} px of "
                f"{new[0] * 1e9:.4g} nm: is it the right probe, with its spot in the middle?"
            )
        modes *= np.sqrt(before / after)
        return modes.astype(np.complex64), self._sentence(geometry, same_pixel)

    def _sentence(self, geometry: Geometry, same_pixel: bool) -> str:
        (y, x), (new_y, new_x) = self.modes.shape[1:], geometry.shape
        if same_pixel:
            how = "cropped or padded with zeros" + ("" if self.pixel_m else ", as its pixel size is not known")
            return f"The start probe of {y} x {x} px was {how} to {new_y} x {new_x} px ({self.origin})."
        assert self.pixel_m is not None
        return (
            f"The start probe of {y} x {x} px of {self.pixel_m[0] * 1e9:.4g} nm was interpolated to {new_y} x {new_x} px "
            f"of {geometry.object_pixel_m[0] * 1e9:.4g} nm ({self.origin})."
        )


def _interpolation(old_count: int, old_pixel: float, new_count: int, new_pixel: float) -> NDArray[np.float64]:
    """Matrix (new, old) of Fourier interpolation between two grids with a common middle; frequencies above either Nyquist are dropped."""
    frequency = np.fft.fftfreq(old_count, old_pixel)
    kept = frequency[np.abs(frequency) <= 0.5 / max(old_pixel, new_pixel) * (1 + 1e-9)]
    old_at = (np.arange(old_count) - old_count // 2) * old_pixel
    new_at = (np.arange(new_count) - new_count // 2) * new_pixel
    to, back = 2 * np.pi * new_at[:, None] * kept, 2 * np.pi * old_at[:, None] * kept
    matrix = (np.cos(to) @ np.cos(back).T + np.sin(to) @ np.sin(back).T) / old_count
    half = old_pixel / 2
    inside = (new_at > old_at[0] - half) & (new_at < old_at[-1] + half)
    return np.asarray(np.where(inside[:, None], matrix, 0.0))
