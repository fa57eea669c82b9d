"""As much of CuPy as ``CupyDevice`` uses, on the processor: streams that run at once or into a graph, pools, copies by address."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import scipy.fft


class CudaError(RuntimeError):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class DriverError(CudaError):
    """An error of the driver."""


class CuFFTError(RuntimeError):
    def __init__(self, result: int) -> None:
        super().__init__(f"CUFFT error {result}")
        self.result = result


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class CompileException(Exception):
    """As CuPy's."""


class Block:
    """Memory of a pool."""

    def __init__(self, pool: Pool, host: Any) -> None:
        self.host, self.size, self.ptr = host, host.size, host.ctypes.data
        weakref.finalize(self, _freed, weakref.ref(pool), host)


def _freed(pool: Any, host: Any) -> None:
    if pool() is not None:
        pool().freed(host)


class Pool:
    """A memory pool: blocks that are freed are used again. NaN is in those that are not used, as if somebody else had written there."""

    def __init__(self, world: FakeCupy) -> None:
        self._world, self._free, self._used = world, dict[int, Any](), dict[int, Any]()
        weakref.finalize(self, _died, world, self._free, self._used)

    def malloc(self, nbytes: int) -> Any:
        nbytes = max(nbytes, 1)
        host = next((host for host in self._free.values() if host.size == nbytes), None)
        if host is None:
            if self._world.room < nbytes:
                raise OutOfMemoryError(f"Out of memory allocating {nbytes} bytes")
            self._world.room -= nbytes
            host = np.full(nbytes, 0xFF, np.uint8)
        self._free.pop(host.ctypes.data, None)
        self._used[host.ctypes.data] = host
        return SimpleNamespace(mem=Block(self, host), ptr=host.ctypes.data)

    def freed(self, host: Any) -> None:
        host[:] = 0xFF
        self._free[host.ctypes.data] = self._used.pop(host.ctypes.data)

    def free_all_blocks(self) -> None:
        self._world.room += self.free_bytes()
        self._world.gone.extend(self._free.values())
        self._free.clear()

    def free_bytes(self) -> int:
        return sum(host.size for host in self._free.values())

    def used_bytes(self) -> int:
        return sum(host.size for host in self._used.values())


def _died(world: FakeCupy, free: dict[int, Any], used: dict[int, Any]) -> None:
    """All memory of the pool is gone with it, whoever uses it."""
    for host in (*free.values(), *used.values()):
        host[:] = 0xFF
        world.room += host.size
        world.gone.append(host)


class Pointer:
    """The ``data`` of an array."""

    def __init__(self, world: FakeCupy, mem: Block, ptr: int) -> None:
        self.world, self.mem, self.ptr = world, mem, ptr

    def copy_from_device_async(self, source: Pointer, nbytes: int) -> None:
        self.world.runtime_memcpy(self.ptr, source.ptr, nbytes, 0, self.world.current.ptr)


class FakeArray:
    """What ``cupy.empty`` gives."""

    def __init__(self, world: FakeCupy, pointer: Any, host: Any) -> None:
        self.world, self.host, self.data = world, host, Pointer(world, pointer.mem, host.ctypes.data)
        self.shape, self.dtype, self.ndim, self.size, self.nbytes = host.shape, host.dtype, host.ndim, host.size, host.nbytes
        self.strides, self.flags = host.strides, SimpleNamespace(c_contiguous=host.flags.c_contiguous)

    def fill(self, value: Any) -> None:
        self.world.current.do(lambda: self.host.fill(value))

    def __getitem__(self, key: Any) -> FakeArray:
        return FakeArray(self.world, self.data, self.host[key])

    def __setitem__(self, key: Any, value: FakeArray) -> None:
        self.world.current.do(lambda: self.host.__setitem__(key, value.host))


class Event:
    def __init__(self, world: FakeCupy) -> None:
        self.world, self.done = world, True

    def record(self, stream: Stream) -> None:
        self.world.log.append(("record", stream.ptr))

    def synchronize(self) -> None:
        self.world.log.append(("wait on the host",))


class Stream:
    def __init__(self, world: FakeCupy) -> None:
        self.world, self.ptr, self.graph = world, 100 + len(world.streams), None
        world.streams.append(self)

    def use(self) -> None:
        self.world.current = self

    def do(self, work: Callable[[], None]) -> None:
        if self.graph is None:
            work()
        else:
            self.graph.append(work)

    def record(self) -> Event:
        event = Event(self.world)
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        self.world.log.append(("wait", self.ptr))

    def synchronize(self) -> None:
        if self.graph is not None:
            raise CudaError(900, "cudaErrorStreamCaptureUnsupported")
        self.world.log.append(("synchronize", self.ptr))

    def begin_capture(self) -> None:
        self.graph = []

    def end_capture(self) -> Any:
        works, self.graph = self.graph, None
        if self.world.cannot_capture:
            raise CudaError(901, "cudaErrorStreamCaptureInvalidated")
        return SimpleNamespace(launch=lambda stream: [stream.do(work) for work in works])


class RawKernel:
    """A kernel: adds its last argument to all elements of its first one."""

    def __init__(self, world: FakeCupy, name: str) -> None:
        self.world, self.name, self.allowed = world, name, []

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self.allowed[-1]

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, nbytes: int) -> None:
        self.allowed.append(nbytes)

    def __call__(self, grid: Any, block: Any, args: tuple[Any, ...], *, shared_mem: int = 0) -> None:
        if self.world.broken is not None:
            raise self.world.broken
        pointer, count, number = args[0].data.ptr, args[0].size, args[-1]
        self.world.current.do(lambda: _add(pointer, count, number))


def _add(pointer: int, count: int, number: np.complex64) -> None:
    """By address alone, as a GPU does: the array may be gone."""
    array = np.ctypeslib.as_array((ctypes.c_float * (2 * count)).from_address(pointer)).view(np.complex64)
    array += number


class Plan:
    """A plan of cuFFT."""

    def __init__(self, fft: Callable[..., None], work: Any) -> None:
        self.fft, self.work = fft, work


class FakeCupy:
    """The modules; ``room``: bytes that are left; ``broken``: what launches raise; ``log``: events and waits."""

    def __init__(self, room: int = 10**9) -> None:
        self.room, self.broken, self.cannot_capture = room, None, False
        self.gone: list[Any] = []  # kept, so that copies by address do no harm to the test
        self.streams: list[Stream] = []
        self.plans: list[Any] = []
        self.log: list[Any] = []
        self.kernels: list[RawKernel] = []
        self.compiled: list[Any] = []
        self.pool = Pool(self)
        self.allocator = self.pool.malloc
        self.current: Any = None

    def runtime_memcpy(self, to: int, at: int, nbytes: int, kind: int, stream: int) -> None:
        source = next(each for each in self.streams if each.ptr == stream)
        source.do(lambda: ctypes.memmove(to, at, nbytes) and None)

    def empty(self, shape: Any, dtype: Any) -> FakeArray:
        shape = (shape,) if isinstance(shape, int) else shape
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pointer = self.allocator(nbytes)
        return FakeArray(self, pointer, pointer.mem.host[:nbytes].view(dtype).reshape(shape))

    def ascontiguousarray(self, array: FakeArray) -> FakeArray:
        if array.flags.c_contiguous:
            return array
        copy = self.empty(array.shape, array.dtype)
        copy[...] = array
        return copy

    @contextmanager
    def using_allocator(self, allocator: Callable[[int], Any]) -> Iterator[None]:
        before, self.allocator = self.allocator, allocator
        try:
            yield
        finally:
            self.allocator = before

    def raw_module(self, *, code: str, options: tuple[str, ...]) -> Any:
        self.compiled.append(options)

        def get_function(name: str) -> RawKernel:
            self.kernels.append(RawKernel(self, name))
            return self.kernels[-1]

        return SimpleNamespace(get_function=get_function)

    def plan_nd(self, shape: Any, inembed: Any, istride: int, idist: int, onembed: Any, ostride: int, odist: int, *rest: Any) -> Any:
        _, batch, order, _, _ = rest
        assert inembed == onembed == shape
        assert (istride, ostride, order) == (1, 1, "C")
        assert idist == odist == shape[0] * shape[1]

        def fft(waves: FakeArray, out: FakeArray, direction: int) -> None:
            assert waves is out
            assert waves.size == batch * idist
            transform = scipy.fft.fft2 if direction == -1 else scipy.fft.ifft2
            self.current.do(lambda: np.copyto(out.host, transform(waves.host, norm="backward" if direction == -1 else "forward")))

        plan = Plan(fft, self.allocator(8 * batch * idist))
        self.plans.append(weakref.ref(plan))
        return plan

    def modules(self) -> dict[str, ModuleType]:
        """By their names, as ``sys.modules`` wants them."""
        runtime = {
            "setDevice": lambda number: None,
            "getDeviceProperties": lambda number: {"name": b"NVIDIA Nothing"},
            "deviceGetAttribute": lambda attribute, number: 233472,
            "cudaDevAttrMaxSharedMemoryPerBlockOptin": 97,
            "memGetInfo": lambda: (self.room, 2 * 10**9),
            "memcpyAsync": self.runtime_memcpy,
            "memcpyHostToDevice": 1,
            "memcpyDeviceToHost": 2,
        }
        cuda = {
            "Stream": lambda non_blocking: Stream(self),
            "Event": lambda disable_timing: Event(self),
            "MemoryPool": lambda: Pool(self),
            "alloc_pinned_memory": bytearray,
            "using_allocator": self.using_allocator,
            "memory": SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        }
        top = {
            "empty": self.empty,
            "ascontiguousarray": self.ascontiguousarray,
            "RawModule": self.raw_module,
            "get_default_memory_pool": lambda: self.pool,
        }
        fft = {"PlanNd": self.plan_nd, "CUFFT_C2C": 0x29, "CUFFT_FORWARD": -1, "CUFFT_INVERSE": 1, "CuFFTError": CuFFTError}
        contents: dict[str, dict[str, Any]] = {
            "cupy": top,
            "cupy.cuda": cuda,
            "cupy.cuda.cufft": fft,
            "cupy.cuda.runtime": runtime,
            "cupy.cuda.compiler": {"CompileException": CompileException},
            "cupy_backends": {},
            "cupy_backends.cuda": {},
            "cupy_backends.cuda.api": {},
            "cupy_backends.cuda.api.driver": {"CUDADriverError": DriverError},
            "cupy_backends.cuda.api.runtime": {"CUDARuntimeError": CudaError},
        }
        made = {name: ModuleType(name) for name in contents}
        for name, module in made.items():
            vars(module).update(contents[name])
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(made[parent], child, module)
        return made
