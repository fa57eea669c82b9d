"""Canvas: an object that is known already, on the pixels of a larger one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.state import start_object

#: Where less light falls than this share of the most, nothing is known of the object yet.
_DARK = 1e-4
#: Where there is more than this share of it, the object is well known.
_WELL_LIT = 0.1


def on_canvas(known: NDArray[Any], light: NDArray[Any], shift: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[Any]:
    """An object (mode, y, x) on a canvas of ``shape``, on whose pixels it lies ``shift`` (y, x) px further; what leaves that is cut off.

    Where no ``light`` (y, x) has fallen, it is what an object starts from, at the level of what is known: so that no edge is seen.
    """
    canvas = (start_object(shape, np.complex128, len(known)) * _level_of(known[0], light)).astype(known.dtype)
    to, of = [], []
    for start, size, space in zip(shift.tolist(), light.shape, shape, strict=True):
        first, stop = max(start, 0), max(min(start + size, space), 0)
        to.append(slice(first, stop))
        of.append(slice(first - start, max(stop, first) - start))
    inner, lit = (slice(None), *to), light[tuple(of)] > _DARK * light.max()
    canvas[inner] = np.where(lit, known[(slice(None), *of)], canvas[inner])
    return canvas


def _level_of(image: NDArray[Any], light: NDArray[Any]) -> complex:
    """The modulus that an object mode (y, x) has on average where there is ``light`` (y, x), with its mean phase."""
    known = image[light > _WELL_LIT * light.max()].astype(np.complex128)
    return complex(np.sqrt((np.abs(known) ** 2).mean()) * np.exp(1j * np.angle(known.mean())))
