"""Stored waves in half precision: 11 bits of each number, for half the memory and its traffic. Decision record 0007 tells what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.verbs.cuda.device import Array, Device


class HalfWaves:
    """Waves that whoever stores them takes for (frame, wave, y, x) complex64; moduli up to 65504.

    halves: (frame, wave, y, x, 2) float16, real and imaginary parts
    """

    __slots__ = ("halves",)
    dtype = np.dtype(np.complex64)
    ndim = 4

    def __init__(self, halves: Array) -> None:
        self.halves = halves

    @property
    def shape(self) -> tuple[int, ...]:
        return self.halves.shape[:-1]

    @property
    def size(self) -> int:
        return self.halves.size // 2

    @property
    def nbytes(self) -> int:
        return self.halves.nbytes

    def __len__(self) -> int:
        return len(self.halves)

    def __getitem__(self, frames: slice) -> HalfWaves:
        """Some frames: a view."""
        return HalfWaves(self.halves[frames])

    def copy(self) -> HalfWaves:
        return HalfWaves(self.halves.copy())


def half_of(device: Device, host: NDArray[np.complex64]) -> HalfWaves:
    """Waves on the host, put on the device in half precision."""
    parts = np.ascontiguousarray(host).view(np.float32).reshape(*host.shape, 2)
    with np.errstate(over="ignore"):  # what becomes infinite is found by all_finite
        return HalfWaves(device.put(parts.astype(np.float16)))


def on_host(device: Device, waves: HalfWaves) -> NDArray[np.complex64]:
    """A copy on the host, complex64."""
    return device.get(waves.halves).astype(np.float32).view(np.complex64)[..., 0]


def is_half(psi: Any) -> int:
    """Whether waves with this memory are in half precision, as a define."""
    return int(psi.dtype == np.float16)
