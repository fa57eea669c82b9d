"""Transports: how sums over ranks travel whose terms lie on GPUs.

A rank prepares, then all vote, then all add: what can fail on one rank alone fails before the vote, so that no rank waits for it.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.ranks import MpiRanks
from ptyplugin.solvers.verbs.cuda.device import Array, Device, DeviceLost

_LOG = logging.getLogger(__name__)

#: Of what is summed at once through the host's memory: while one band is summed, the next one comes from the card.
_BAND_BYTES = 1 << 22
#: A sum that takes longer than this has no end: a rank is gone, or a link does not work. s
_PATIENCE_S, _LOOK_EVERY_S = 120.0, 0.1
#: The numbers behind each kind of array.
_REALS = {"complex64": np.float32, "complex128": np.float64, "float32": np.float32, "float64": np.float64}


class Transport(Protocol):
    """A way for sums over ranks."""

    @property
    def name(self) -> str: ...

    def prepare(self) -> None:
        """What may fail on this rank alone. The ranks vote after it.

        Raises:
            DeviceLost: the device failed, or an earlier sum has no end.
        """
        ...

    def add(self, arrays: Sequence[Array]) -> None:
        """Each array <- its sum over ranks, in place; contiguous float32 or float64, one axis. All ranks call it together."""
        ...

    def abort(self) -> None:
        """Give up what is under way: a rank has failed."""
        ...


def real_parts(array: Array) -> Iterator[Array]:
    """An array as contiguous ones of real numbers with one axis: itself, or its rows where it is a part of a larger one."""
    if not array.size:
        return
    if array.flags.c_contiguous:
        yield array.reshape(-1).view(_REALS[array.dtype.name])
    else:
        for row in range(len(array)):
            yield from real_parts(array[row])


@contextmanager
def device_errors(what: str) -> Iterator[None]:
    """Raise errors of CUDA and NCCL as DeviceLost."""
    try:
        yield
    except RuntimeError as error:
        raise DeviceLost(f"{what} failed: {error}. The job is tried again by a fresh process.") from error


class Stretch(NamedTuple):
    """Numbers of one dtype, one behind the other in the memory of the device."""

    pointer: int
    length: int
    dtype: np.dtype[Any]


def stretches(arrays: Sequence[Array]) -> list[Stretch]:
    """Where arrays lie, what lies side by side as one."""
    found: list[Stretch] = []
    for array in arrays:
        here = Stretch(int(array.data.ptr), array.size, array.dtype)
        if found and found[-1].dtype == here.dtype and found[-1].pointer + found[-1].length * here.dtype.itemsize == here.pointer:
            here = Stretch(found[-1].pointer, found[-1].length + here.length, here.dtype)
            found.pop()
        found.append(here)
    return found


# Through the memory of the host


class Lane:
    """Room on the host for one band, and copies to and from it."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._room: NDArray[np.uint8] = self._new_room()

    def download(self, band: Sequence[Array]) -> None:
        """Begin to copy a band to the host."""
        for array, host in self._pairs(band):
            self._down(array, host)

    def arrived(self, band: Sequence[Array]) -> NDArray[Any]:
        """The band, all of its arrays one behind the other, once it is on the host."""
        self.finish()
        return self._room[: sum(array.nbytes for array in band)].view(band[0].dtype)

    def upload(self, band: Sequence[Array]) -> None:
        """Begin to copy a band back."""
        for array, host in self._pairs(band):
            self._up(array, host)

    def finish(self) -> None:
        """Wait for all copies."""

    def _pairs(self, band: Sequence[Array]) -> Iterator[tuple[Array, NDArray[Any]]]:
        ends = itertools.accumulate(array.nbytes for array in band)
        return ((array, self._room[end - array.nbytes : end].view(array.dtype)) for array, end in zip(band, ends, strict=True))

    def _new_room(self) -> NDArray[np.uint8]:
        return np.empty(_BAND_BYTES, np.uint8)

    def _down(self, array: Array, host: NDArray[Any]) -> None:
        host[:] = self._device.get(array)

    def _up(self, array: Array, host: NDArray[Any]) -> None:
        self._device.fill(array, host)


class PinnedLane(Lane):
    """The same with pinned memory and a stream of its own: copies go on while the processor does something else.

    cuda: the module cupy.cuda
    """

    def __init__(self, device: Device, cuda: Any) -> None:
        self._cuda, self._stream = cuda, cuda.Stream(non_blocking=True)
        super().__init__(device)

    def finish(self) -> None:
        with device_errors("copies between the GPU and the host's memory"):
            self._stream.synchronize()

    def _new_room(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._cuda.alloc_pinned_memory(_BAND_BYTES), np.uint8, _BAND_BYTES)

    def _down(self, array: Array, host: NDArray[Any]) -> None:
        self._copy(host.ctypes.data, array.data.ptr, host.nbytes, self._cuda.runtime.memcpyDeviceToHost)

    def _up(self, array: Array, host: NDArray[Any]) -> None:
        self._copy(array.data.ptr, host.ctypes.data, host.nbytes, self._cuda.runtime.memcpyHostToDevice)

    def _copy(self, to: int, source: int, nbytes: int, way: int) -> None:
        with device_errors("copies between the GPU and the host's memory"):
            self._cuda.runtime.memcpyAsync(to, source, nbytes, way, self._stream.ptr)


class Staged:
    """Through the memory of the host, band by band."""

    name = "MPI through the host's memory"

    def __init__(self, ranks: MpiRanks, device: Device, new_lane: Callable[[], Lane]) -> None:
        self._ranks, self._device = ranks, device
        self._lanes = new_lane(), new_lane()

    def prepare(self) -> None:
        self._device.finish()

    def add(self, arrays: Sequence[Array]) -> None:
        bands = list(bands_of(arrays, _BAND_BYTES))
        for number, (band, following) in enumerate(itertools.zip_longest(bands, bands[1:])):
            lane, other = self._lanes[number % 2], self._lanes[1 - number % 2]
            if number == 0:
                lane.download(band)
            host = lane.arrived(band)
            if following:
                other.download(following)
            self._ranks.add(host)
            lane.upload(band)
        for lane in self._lanes:
            lane.finish()

    def abort(self) -> None:
        """Nothing is under way after ``add``."""


def bands_of(arrays: Sequence[Array], most_bytes: int) -> Iterator[list[Array]]:
    """The arrays in their order, cut into bands of one dtype and at most so many bytes."""
    band: list[Array] = []
    for array in arrays:
        rest = array
        while rest.size:
            room = most_bytes - sum(part.nbytes for part in band)
            if band and (room < rest.itemsize or rest.dtype != band[0].dtype):
                yield band
                band, room = [], most_bytes
            count = min(rest.size, room // rest.itemsize)
            band, rest = [*band, rest[:count]], rest[count:]
    if band:
        yield band


# Through an MPI library that knows GPUs


class OnDevice:
    """MPI, which is given the memory of the device."""

    name = "MPI on the GPUs' memory"

    def __init__(self, ranks: MpiRanks, device: Device) -> None:
        from mpi4py import MPI

        self._ranks, self._device = ranks, device
        self._buffer, self._types = MPI.buffer.fromaddress, {4: MPI.FLOAT, 8: MPI.DOUBLE}

    def prepare(self) -> None:
        self._device.finish()

    def add(self, arrays: Sequence[Array]) -> None:
        for pointer, length, dtype in stretches(arrays):
            self._ranks.add([self._buffer(pointer, length * dtype.itemsize), length, self._types[dtype.itemsize]])

    def abort(self) -> None:
        """Nothing is under way after ``add``."""


def mpi_knows_cuda() -> bool:
    """Whether the MPI library of this process says itself that it takes the memory of GPUs: Open MPI and MPICH have that question.

    A library that does not and is given such memory ends the process; so nothing is tried that was not promised.
    """
    maps = Path("/proc/self/maps")
    loaded = {line.split()[-1] for line in maps.read_text().splitlines() if "libmpi" in line} if maps.exists() else set()
    asked = (getattr(ctypes.CDLL(path), "MPIX_Query_cuda_support", None) for path in loaded)
    return any(bool(ask()) for ask in asked if ask is not None)


# Through NCCL


class Link(NamedTuple):
    """What sums between cards need to know of one.

    cuda, nccl: the modules cupy.cuda and cupy.cuda.nccl; nccl is None where there is none
    stream: in which the device's work is queued; uuid: of the card
    """

    cuda: Any
    nccl: Any
    stream: Any
    uuid: str


class Nccl:
    """NCCL, queued behind the device's other work: nobody waits.

    Args:
        unique_id: made by one rank with ``get_unique_id``; all ranks construct this together.
    """

    name = "NCCL"

    def __init__(self, ranks: MpiRanks, link: Link, unique_id: bytes, patience_s: float = _PATIENCE_S) -> None:
        nccl = link.nccl
        self._link, self._types = link, {4: nccl.NCCL_FLOAT32, 8: nccl.NCCL_FLOAT64}
        self._communicator = nccl.NcclCommunicator(ranks.size, unique_id, ranks.rank)
        self._watch = Watch(self._communicator.abort, self._communicator.check_async_error, patience_s)

    def prepare(self) -> None:
        if self._watch.trouble:
            raise DeviceLost(f"a sum by NCCL did not end: {self._watch.trouble}. The job is tried again by a fresh process.")

    def add(self, arrays: Sequence[Array]) -> None:
        nccl, stream = self._link.nccl, self._link.stream
        with device_errors("sums by NCCL"):
            nccl.groupStart()
            for pointer, length, dtype in stretches(arrays):
                self._communicator.allReduce(pointer, pointer, length, self._types[dtype.itemsize], nccl.NCCL_SUM, stream.ptr)
            nccl.groupEnd()
            done = self._link.cuda.Event(disable_timing=True)
            done.record(stream)
        self._watch.over(done)

    def abort(self) -> None:
        self._watch.give_up("a rank has failed")


class Watch:
    """Ends what is under way where it has no end: a rank that waits for the device cannot do it itself.

    trouble: why it was ended; nothing as long as all is well
    """

    def __init__(self, abort: Callable[[], None], check: Callable[[], None], patience_s: float) -> None:
        self._abort, self._check, self._patience_s = abort, check, patience_s
        self._under_way: deque[tuple[Any, float]] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.trouble = ""

    def over(self, event: Any) -> None:
        """See that ``event`` comes to pass."""
        with self._lock:
            self._under_way.append((event, time.monotonic()))
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="nccl-watch", daemon=True)
                self._thread.start()

    def give_up(self, why: str) -> None:
        """Abort, once."""
        with self._lock:
            first, self.trouble = not self.trouble, self.trouble or why
            self._under_way.clear()
        if first:
            try:
                self._abort()
            except RuntimeError as error:  # of NCCL: what is under way may have ended by itself
                _LOG.warning("what was under way by NCCL could not be ended: %s", error)

    def _look(self) -> None:
        """Until nothing is under way."""
        while True:
            time.sleep(_LOOK_EVERY_S)
            trouble = self._judged()
            if trouble:
                self.give_up(trouble)
            with self._lock:
                if not self._under_way:
                    self._thread = None
                    return

    def _judged(self) -> str:
        """Strike out what has come to pass. Why the rest never will, if so."""
        with self._lock:
            try:
                self._check()
                while self._under_way and self._under_way[0][0].done:
                    self._under_way.popleft()
            except RuntimeError as error:  # what NCCL and CUDA raise
                return str(error)
            waited_s = time.monotonic() - self._under_way[0][1] if self._under_way else 0.0
        return f"it has been under way for {math.ceil(waited_s)} s" if waited_s > self._patience_s else ""
