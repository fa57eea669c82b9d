"""What CuPy shows of cards and of NCCL, for devices that are the CPU: their pointers are addresses of the host."""
# ruff: noqa: N802 -- names are CuPy's

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ptyplugin.solvers.transports import Link

if TYPE_CHECKING:
    from mpi4py import MPI

UNIQUE_ID = bytes(range(128))
#: The pointer of the stream that computes.
STREAM = SimpleNamespace(ptr=4711)


#: Streams that copy, by their pointers.
_STREAMS: dict[int, FakeStream] = {}


class FakeStream:
    """Does what is queued as late as it may: when somebody waits."""

    def __init__(self, non_blocking: bool) -> None:
        assert non_blocking
        self.queue: list[Callable[[], Any]] = []
        self.ptr = id(self)
        _STREAMS[self.ptr] = self

    def synchronize(self) -> None:
        while self.queue:
            self.queue.pop(0)()


class FakeEvent:
    """Comes to pass at once."""

    done = True

    def __init__(self, disable_timing: bool) -> None:
        assert disable_timing

    def record(self, stream: Any) -> None:
        assert stream is STREAM


class FakeCuda:
    """cupy.cuda"""

    Stream, Event = FakeStream, FakeEvent

    def __init__(self) -> None:
        self.runtime = SimpleNamespace(memcpyAsync=self._copy, memcpyDeviceToHost="down", memcpyHostToDevice="up")

    def alloc_pinned_memory(self, nbytes: int) -> bytearray:
        return bytearray(b"\xff" * nbytes)

    def _copy(self, to: int, source: int, nbytes: int, way: str, stream: int) -> None:
        assert way in {"down", "up"}
        _STREAMS[stream].queue.append(lambda: ctypes.memmove(to, source, nbytes))


class FakeNccl:
    """cupy.cuda.nccl, with MPI inside: sums are done when their group ends. ``calls``: how many numbers each sum had, and aborts.

    refuses: ranks on which it does not start; adds: whether it adds anything; network: whether there is one
    """

    NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM = 7, 8, 0

    def __init__(self, comm: MPI.Intracomm, refuses: tuple[int, ...] = (), adds: bool = True, network: bool = True) -> None:
        self._comm, self._refuses, self._adds, self._network = comm, refuses, adds, network
        self._group: list[tuple[int, int, int]] | None = None
        self.calls: list[Any] = []

    def get_unique_id(self) -> bytes:
        if not self._network:
            raise RuntimeError("NCCL_ERROR_SYSTEM_ERROR: no socket interface found")
        return UNIQUE_ID

    def NcclCommunicator(self, size: int, unique_id: bytes, rank: int) -> Any:
        assert (size, unique_id, rank) == (self._comm.size, UNIQUE_ID, self._comm.rank)
        if rank in self._refuses:
            raise RuntimeError("NCCL_ERROR_UNHANDLED_CUDA_ERROR")
        return SimpleNamespace(allReduce=self._queued, abort=lambda: self.calls.append("abort"), check_async_error=lambda: None)

    def groupStart(self) -> None:
        assert self._group is None
        self._group = []

    def groupEnd(self) -> None:
        from mpi4py import MPI

        assert self._group is not None
        for pointer, count, datatype in self._group if self._adds else []:
            itemsize, kind = {self.NCCL_FLOAT32: (4, MPI.FLOAT), self.NCCL_FLOAT64: (8, MPI.DOUBLE)}[datatype]
            self._comm.Allreduce(MPI.IN_PLACE, [MPI.buffer.fromaddress(pointer, count * itemsize), count, kind], op=MPI.SUM)
        self._group = None

    def _queued(self, source: int, to: int, count: int, datatype: int, operation: int, stream: int) -> None:
        assert (source, operation, stream) == (to, self.NCCL_SUM, STREAM.ptr)
        assert self._group is not None
        self._group.append((to, count, datatype))
        self.calls.append(count)


def fake_link(nccl: Any, uuid: str) -> Link:
    """A card with this uuid."""
    return Link(FakeCuda(), nccl, STREAM, uuid)
