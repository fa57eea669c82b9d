"""Frames on a device: tables of all frames of a rank, and which of them a batch is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch, RankFrames
from ptyplugin.solvers.streaming import Reading, piece_frames
from ptyplugin.solvers.verbs.cuda.device import NULL, Array, Device

Index = slice | NDArray[np.int64]


class DeviceCounts:
    """Counts (frame, y, x) of the frames that a rank holds: on the host, and the first of them on the device too.

    The others are brought there batch by batch, each while the one before is worked on. For those who ask for their array, they are what is
    on the host.
    """

    def __init__(self, host: Any, device: Device, resident: int) -> None:
        """resident: how many frames stay on the device"""
        self.host, self._device = host, device
        self.tables: Tables | None = None
        self.shape, self.dtype = host.shape, host.dtype
        self.resident = self._brought(resident) if resident else None

    def _brought(self, count: int) -> Array:
        """The first frames, on the device; on the host there are no more than are read at once."""
        there, size = self._device.empty((count, *self.shape[1:]), self.dtype), piece_frames((self.shape[1], self.shape[2]))
        for start in range(0, count, size):
            stop = min(start + size, count)
            self._device.fill(there[start:stop], np.ascontiguousarray(self.host[start:stop]))
        return there

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter(self.host)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.host, dtype=dtype)

    @property
    def all_resident(self) -> bool:
        """Whether all frames are on the device."""
        return self.resident is not None and len(self.resident) == len(self)

    def holds(self, index: Index) -> bool:
        """Whether these frames are on the device: some that lie side by side, or any, if all are there."""
        resident = 0 if self.resident is None else len(self.resident)
        return resident == len(self) or (isinstance(index, slice) and index.stop <= resident)

    def readings(self, wanted: Sequence[Index]) -> Iterator[HostPart]:
        """What stands for these frames, one after the other."""
        uploads = _Uploads(self._device, self.host, wanted)
        return (HostPart(uploads, place) for place in range(len(wanted)))


class HostPart:
    """Counts (frame, y, x) of a batch: ``np.asarray`` gives those on the host, ``uploaded`` brings them to the device."""

    def __init__(self, uploads: _Uploads, place: int) -> None:
        self._uploads, self._place = uploads, place

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self._uploads.on_host(self._place), dtype=dtype)

    def uploaded(self) -> Array:
        """On the device; the next batch's counts are on their way when this returns."""
        return self._uploads.take(self._place)


class _Uploads:
    """Counts of batches on their way to the device: those in use, and those of the next batch."""

    def __init__(self, device: Device, host: Any, wanted: Sequence[Index]) -> None:
        self._device, self._host, self._wanted = device, host, wanted
        self._readings: list[Reading | None] = list(host.readings(wanted)) if hasattr(host, "readings") else [None] * len(wanted)
        self._coming: dict[int, Callable[[], Array]] = {}

    def on_host(self, place: int) -> NDArray[Any]:
        """The counts of batch ``place``, there."""
        reading = self._readings[place]
        return np.asarray(self._host[self._wanted[place]]) if reading is None else reading.array()

    def take(self, place: int) -> Array:
        """The counts of batch ``place``."""
        if place:
            self._readings[place - 1] = None  # which keeps what it has read
        near = range(place, min(place + 2, len(self._wanted)))
        self._coming = {each: self._coming.get(each) or self._device.put_ahead(np.ascontiguousarray(self.on_host(each))) for each in near}
        return self._coming[place]()


class Tables:
    """What kernels look up by the number of a frame; stays where it is when positions, background or intensities change.

    corners (frame, substep, yx) int32; rests (frame, substep, yx) float32; intensities (frame,) float32 or NULL; good (y, x) uint8;
    background (y, x) float32 or NULL; natural (frame,) int32: 0, 1, 2, ...; order (frame,) int32: as drawn for a sweep
    version: how often anything has changed; places: how often corners have
    """

    def __init__(self, frames: RankFrames, device: Device) -> None:
        self._device = device
        count = len(frames)
        self.corners, self.rests = device.put(frames.corners.astype(np.int32)), device.put(frames.rests.astype(np.float32))
        self.good = device.put(frames.good.astype(np.uint8))
        self.natural, self.order = device.put(np.arange(count, dtype=np.int32)), device.zeros((count,), np.int32)
        self.intensities: Any = NULL
        self.background: Any = NULL
        self._light: dict[str, Array] = {}  # where they lie, even while there are none
        self._drawn: NDArray[np.int64] | None = None
        self.version, self.places = 0, 0
        self._take_light(frames)
        self.moves = bool(frames.rests.any())
        self._given = _given(frames)

    def refresh(self, frames: RankFrames) -> None:
        """Take over what has changed."""
        given = _given(frames)
        if all(new is old for new, old in zip(given, self._given, strict=True)):
            return
        self.places += frames.corners is not self._given[0]
        self._device.fill(self.corners, frames.corners.astype(np.int32))
        self._device.fill(self.rests, frames.rests.astype(np.float32))
        self._take_light(frames)
        self.moves, self._given, self.version = bool(frames.rests.any()), given, self.version + 1

    def draw(self, order: NDArray[np.int64]) -> None:
        """Take over the order of a sweep."""
        if order is not self._drawn:
            self._device.fill(self.order[: len(order)], order.astype(np.int32))
            self._drawn = order
            self.version += 1

    @property
    def kind(self) -> tuple[bool, bool, bool]:
        """What changes which kernels are launched."""
        return self.moves, self.intensities is NULL, self.background is NULL

    def _take_light(self, frames: RankFrames) -> None:
        self.intensities = self._taken("intensities", frames.intensities)
        self.background = self._taken("background", frames.background)

    def _taken(self, name: str, host: NDArray[np.float32] | None) -> Any:
        if host is None:
            return NULL
        if name in self._light:
            self._device.fill(self._light[name], host.astype(np.float32))
        else:
            self._light[name] = self._device.put(host.astype(np.float32))
        return self._light[name]


def _given(frames: RankFrames) -> tuple[Any, ...]:
    """What the tables are made of; not the frames themselves, whose counts keep the tables."""
    return frames.corners, frames.rests, frames.intensities, frames.background


@dataclass(frozen=True, slots=True)
class Placed:
    """A batch on the device.

    frames: (frame,) int32, numbers in the tables; rows: (frame,) int32, places in ``counts``
    moves: whether any of the rank's frames has a rest; whole: whether the batch may lie anywhere in the object
    """

    count: int
    substeps: int
    shape: tuple[int, int]
    tables: Tables
    frames: Array
    rows: Array
    counts: Array
    moves: bool
    whole: bool
    key: tuple[Any, ...]

    @property
    def pixels(self) -> int:
        """Of a frame."""
        return self.shape[0] * self.shape[1]

    @property
    def is_float(self) -> int:
        """Whether counts are float32, as a define."""
        return int(self.counts.dtype == np.float32)

    @property
    def places(self) -> tuple[Any, ...]:
        """Arguments: frames, corners, sub-steps."""
        return self.frames, self.tables.corners, np.int32(self.substeps)

    @property
    def measured(self) -> tuple[Any, ...]:
        """Arguments: frames, rows, counts, good, background, intensities."""
        return self.frames, self.rows, self.counts, self.tables.good, self.tables.background, self.tables.intensities

    @property
    def rests(self) -> tuple[Any, ...]:
        """Arguments: frames, rests, sub-steps."""
        return self.frames, self.tables.rests, np.int32(self.substeps)


class Placing:
    """Brings batches to a device; remembers the last one, since several verbs ask for it."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._last: tuple[Batch, Placed] | None = None

    def placed(self, b: Batch) -> Placed:
        """The batch on the device."""
        if self._last is None or self._last[0] is not b:
            self._last = (b, self._placed(b))
        return self._last[1]

    def forget(self) -> None:
        """Bring the next batch there anew."""
        self._last = None

    @staticmethod
    def store_of(frames: RankFrames) -> DeviceCounts:
        """The counts of frames that are held."""
        counts: Any = frames.counts
        store: DeviceCounts = counts
        return store

    def tables_of(self, frames: RankFrames) -> Tables:
        """The tables of frames that are held, up to date."""
        store = self.store_of(frames)
        store.tables = store.tables or Tables(frames, self._device)
        store.tables.refresh(frames)
        return store.tables

    def _placed(self, b: Batch) -> Placed:
        if b.frames is not None and isinstance(b.frames.counts, DeviceCounts):
            return self._held(b, b.frames)
        alone = RankFrames(np.arange(len(b)), b.corners, b.rests, b.counts, b.good, b.background, b.intensities)
        tables = Tables(alone, self._device)
        counts = self._device.put(np.ascontiguousarray(b.counts))
        return _on(b, tables, tables.natural, tables.natural, counts, True, (id(tables),))

    def _held(self, b: Batch, frames: RankFrames) -> Placed:
        tables, store = self.tables_of(frames), self.store_of(frames)
        part = slice(b.first, b.first + len(b))
        if b.order is not None:
            tables.draw(b.order)
        numbers = tables.natural[part] if b.order is None else tables.order[part]
        key = (id(tables), b.first, len(b), b.order is not None, tables.version)
        if store.resident is not None and store.holds(b.index):
            return _on(b, tables, numbers, numbers, store.resident, b.order is not None, key)
        counts: Any = b.counts
        return _on(b, tables, numbers, tables.natural[: len(b)], counts.uploaded(), b.order is not None, key)


def _on(b: Batch, tables: Tables, frames: Array, rows: Array, counts: Array, whole: bool, key: tuple[Any, ...]) -> Placed:
    shape = (b.good.shape[0], b.good.shape[1])
    return Placed(len(b), b.corners.shape[1], shape, tables, frames, rows, counts, tables.moves, whole, key)
