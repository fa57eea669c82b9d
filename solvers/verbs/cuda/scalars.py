"""Numbers that stay on the device: sums over blocks lie in slots side by side, and are added up once, in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptyplugin.solvers.verbs import DeviceScalar
from ptyplugin.solvers.verbs.cuda.device import Array, Device

_SLOTS = 1 << 16


class Slots:
    """Room for partial sums, float64; who takes some gets the next ones."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._room: Array | None = None
        self._taken = 0

    def take(self, count: int) -> Part:
        """``count`` slots, to be written by the next kernel."""
        if self._room is None or self._taken + count > len(self._room):
            self._room, self._taken = self._device.empty((max(count, _SLOTS),), np.float64), 0
        part = Part(self._room, self._taken, self._taken + count)
        self._taken = part.stop
        return part


class Part:
    """The slots start .. stop of a room."""

    __slots__ = ("room", "start", "stop")

    def __init__(self, room: Array, start: int, stop: int) -> None:
        self.room, self.start, self.stop = room, start, stop

    @property
    def array(self) -> Array:
        slots: Array = self.room[self.start : self.stop]
        return slots

    def __len__(self) -> int:
        return self.stop - self.start


class CudaScalar(DeviceScalar):
    """A sum of slots; ``array`` is the number itself, on the device."""

    __slots__ = ("_device", "_parts", "_settle", "_total")

    def __init__(self, device: Device, parts: tuple[Part, ...], settle: Callable[[], None], total: Array | None = None) -> None:
        self._device, self._parts, self._settle, self._total = device, parts, settle, total

    @property
    def array(self) -> Any:
        """() float64 on the device"""
        if self._parts or self._total is None:
            self._settle()
            total = self._device.zeros((1,), np.float64)
            if self._total is not None:
                self._device.fill(total, self._total)
            for part in self._parts:
                add_up(self._device, total, part.array, 1)
            self._total, self._parts = total, ()
        return self._total

    def __add__(self, other: DeviceScalar) -> CudaScalar:
        if not isinstance(other, CudaScalar):
            return NotImplemented
        if other._total is not None and self._total is not None:
            total = self._device.zeros((1,), np.float64)
            for number in (self, other):
                add_up(self._device, total, number.array, 1)
            return CudaScalar(self._device, (), self._settle, total)
        first, second = (self, other) if other._total is None else (other, self)
        return CudaScalar(self._device, _joined(first._parts, second._parts), self._settle, first._total)

    def read(self) -> float:
        return float(self._device.get(self.array)[0])


def add_up(device: Device, sums: Array, parts: Array, numbers: int) -> None:
    """sums (numbers,) += the sums over the first axis of parts (part, numbers), both float64"""
    count = parts.size // numbers
    if count:
        device.kernel("add_up")((numbers,), (256,), (sums, parts, np.int64(count), np.int32(numbers)))


def _joined(one: tuple[Part, ...], other: tuple[Part, ...]) -> tuple[Part, ...]:
    """Both, with what lies side by side as one part."""
    parts = list(one)
    for part in other:
        if parts and parts[-1].room is part.room and parts[-1].stop == part.start:
            parts[-1] = Part(part.room, parts[-1].start, part.stop)
        else:
            parts.append(part)
    return tuple(parts)
