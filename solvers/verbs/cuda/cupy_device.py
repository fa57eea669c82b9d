"""An NVIDIA GPU by way of CuPy: its memory, NVRTC, cuFFT and CUDA graphs. Whoever imports this needs CuPy; see ``open_device``.

All work goes through one stream of our own, which is every calling thread's current one from then on, so that CuPy's own copies follow.
"""

from __future__ import annotations

import gc
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import prod
from typing import Any, TypeVar
from weakref import proxy, ref

import cupy
import numpy as np
from cupy.cuda import cufft, runtime
from cupy.cuda.compiler import CompileException
from cupy_backends.cuda.api.driver import CUDADriverError
from cupy_backends.cuda.api.runtime import CUDARuntimeError
from numpy.typing import DTypeLike, NDArray

from ptyplugin.model.errors import SolverError
from ptyplugin.solvers.verbs.cuda.device import DeviceLost, DeviceMemoryError, Replay, Shape
from ptyplugin.solvers.verbs.cuda.sources import functions_of, source_of

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
#: What one half of the way between host and card holds.
_HALF_BYTES = 16 * 2**20
#: Errors of the driver, of CUDA and of cuFFT; their number for: no memory left.
_CUDA_ERRORS, _NO_MEMORY = (CUDADriverError, CUDARuntimeError, cufft.CuFFTError), 2


class _NoPlan(Exception):
    """A transform has no plan while a sweep is recorded, and must not get one then."""


class _AtWork:
    """What is asked of CuPy in here goes to the device's card, into its stream; errors are ours."""

    def __init__(self, device: CupyDevice) -> None:
        self._device = proxy(device)  # whose memory does not wait for the collector of cycles

    def __enter__(self) -> None:
        runtime.setDevice(self._device.number)
        if self._device.stream is not None:
            self._device.stream.use()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        told = self._told(error) if error is not None else None
        if told is not None:
            raise told from error

    def _told(self, error: BaseException) -> SolverError | None:
        name = self._device.name
        if isinstance(error, CompileException):
            return SolverError(f"a kernel does not compile for {name}, please report it: {error}")
        status = getattr(error, "status", getattr(error, "result", None))
        if isinstance(error, cupy.cuda.memory.OutOfMemoryError) or (isinstance(error, _CUDA_ERRORS) and status == _NO_MEMORY):
            with suppress(CUDARuntimeError):
                free, total = runtime.memGetInfo()
                return DeviceMemoryError(f"the memory of {name} is full: {free / 1e9:.3g} of {total / 1e9:.3g} GB are free ({error}).")
        if isinstance(error, (*_CUDA_ERRORS, cupy.cuda.memory.OutOfMemoryError)):
            return DeviceLost(f"{name} reported {error}: the job is tried again by a fresh process.")
        return None


class CupyKernel:
    """A ``Kernel``: cupy.RawKernel in the device's stream, allowed what shared memory it asks for."""

    def __init__(self, device: CupyDevice, raw: Any) -> None:
        # Unasked, a block has 48 KB, of which what the kernel itself declares is taken away: how much that is, the driver knows.
        self._device, self._raw, self._allowed = proxy(device), raw, 0

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0) -> None:
        with self._device.at_work:
            if shared_mem > self._allowed:
                self._raw.max_dynamic_shared_size_bytes = self._allowed = shared_mem
            self._raw(grid, block, args, shared_mem=shared_mem)
        self._device.needs(*args)


class _Ferry:
    """Pinned memory in two halves on the way between host and card: one travels while the other is loaded or unloaded."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._turn = stream, 0
        self._halves = [(_pinned(_HALF_BYTES), cupy.cuda.Event(disable_timing=True)) for _ in range(2)]

    def up(self, pointer: int, host: NDArray[np.uint8]) -> None:
        """Host memory to the card; done with the host's when this returns."""
        for start in range(0, host.size, _HALF_BYTES):
            half, landed = self._next()
            part = host[start : start + _HALF_BYTES]
            half[: part.size] = part
            runtime.memcpyAsync(pointer + start, half.ctypes.data, part.size, runtime.memcpyHostToDevice, self._stream.ptr)
            landed.record(self._stream)

    def down(self, pointer: int, host: NDArray[np.uint8]) -> None:
        """Memory of the card to the host; there when this returns."""
        coming: deque[tuple[NDArray[np.uint8], NDArray[np.uint8], Any]] = deque()
        for start in range(0, host.size, _HALF_BYTES):
            half, landed = self._next()
            part = host[start : start + _HALF_BYTES]
            runtime.memcpyAsync(half.ctypes.data, pointer + start, part.size, runtime.memcpyDeviceToHost, self._stream.ptr)
            landed.record(self._stream)
            coming.append((part, half, landed))
            if len(coming) == 2:
                self._unload(*coming.popleft())
        while coming:
            self._unload(*coming.popleft())

    def _next(self) -> tuple[NDArray[np.uint8], Any]:
        self._turn = 1 - self._turn
        half, landed = self._halves[self._turn]
        landed.synchronize()
        return half, landed

    @staticmethod
    def _unload(part: NDArray[np.uint8], half: NDArray[np.uint8], landed: Any) -> None:
        landed.synchronize()
        part[:] = half[: part.size]


class _Recording:
    """What a sweep is recorded into: memory of its own, and all else that the graph points to.

    Temporary arrays of the sweep share its memory, as in the sweep itself; nobody else may have that as long as the graph is there.
    """

    def __init__(self) -> None:
        self.pool = cupy.cuda.MemoryPool()
        self.graph: Any = None
        self._own: set[int] = set()
        self._needed: dict[int, Any] = {}

    def makes(self, array: Any) -> None:
        self._own.add(array.data.mem.ptr)

    def needs(self, thing: Any) -> None:
        """Keep what the graph points to and the sweep did not make. Numbers are in the graph itself."""
        if isinstance(thing, np.generic | complex | float | int):
            return
        memory = getattr(getattr(thing, "data", None), "mem", thing)
        if getattr(memory, "ptr", None) not in self._own:
            self._needed[id(memory)] = memory


class CupyDevice:
    """A ``Device`` (see there). ``stream``: where its work is queued."""

    def __init__(self, number: int) -> None:
        self.number, self.name = number, f"GPU {number}"
        self.stream: Any = None
        self.at_work = _AtWork(self)
        with self.at_work:
            self.name = f"{runtime.getDeviceProperties(number)['name'].decode()} (GPU {number})"
            self.shared_bytes = int(runtime.deviceGetAttribute(runtime.cudaDevAttrMaxSharedMemoryPerBlockOptin, number))
            self.stream, self._uploads = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
            self._ferry = _Ferry(self.stream)
        self._coming: deque[tuple[Any, Any, Any]] = deque()
        self._modules: dict[Any, Any] = {}
        self._kernels: dict[Any, CupyKernel] = {}
        self._plans: dict[Any, Any] = {}
        self._work: Any = None
        self._recording: _Recording | None = None
        self._pools: list[tuple[ref[_Recording], Any]] = []

    # Memory

    def empty(self, shape: Shape, dtype: DTypeLike) -> Any:
        with self.at_work:
            try:
                array = cupy.empty(shape, dtype)
            except cupy.cuda.memory.OutOfMemoryError:
                if self._recording is not None:
                    raise  # nothing is freed while a sweep is recorded
                self._give_back()
                array = cupy.empty(shape, dtype)
        if self._recording is not None:
            self._recording.makes(array)
        return array

    def zeros(self, shape: Shape, dtype: DTypeLike) -> Any:
        array = self.empty(shape, dtype)
        self.fill(array, 0)
        return array

    def put(self, host: NDArray[Any]) -> Any:
        self._refuse("put")
        array = self.empty(host.shape, host.dtype)
        with self.at_work:
            self._ferry.up(array.data.ptr, _bytes_of(host))
        return array

    def put_ahead(self, host: NDArray[Any]) -> Callable[[], Any]:
        self._refuse("put_ahead")
        self._forget_uploads()
        array = self.empty(host.shape, host.dtype)
        if not host.size:
            return lambda: array
        with self.at_work:
            pinned = _pinned(host.nbytes)
            pinned[:] = _bytes_of(host)
            self._uploads.wait_event(self.stream.record())  # the memory may have been another array's until now
            runtime.memcpyAsync(array.data.ptr, pinned.ctypes.data, host.nbytes, runtime.memcpyHostToDevice, self._uploads.ptr)
            landed = self._uploads.record()
        self._coming.append((landed, pinned, array))

        def arrived() -> Any:
            with self.at_work:
                self.stream.wait_event(landed)
            return array

        return arrived

    def fill(self, array: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            self._refuse("fill from the host")
        if not np.isscalar(value) and (value.shape != array.shape or value.dtype != array.dtype):
            raise TypeError(f"fill of {array.dtype} {array.shape} with {value.dtype} {value.shape}: both must be alike")
        if isinstance(value, np.ndarray):
            if array.flags.c_contiguous:
                with self.at_work:
                    self._ferry.up(array.data.ptr, _bytes_of(value))
                return
            value = self.put(value)
        with self.at_work:
            if np.isscalar(value):
                array.fill(value)
            elif array.flags.c_contiguous and value.flags.c_contiguous:
                array.data.copy_from_device_async(value.data, array.nbytes)
            else:
                array[...] = value
        self.needs(array, value)

    def get(self, array: Any) -> NDArray[Any]:
        self._refuse("get")
        with self.at_work:
            there = cupy.ascontiguousarray(array)
            host: NDArray[Any] = np.empty(array.shape, array.dtype)
            self._ferry.down(there.data.ptr, _bytes_of(host))
        return host

    def memory(self) -> tuple[int, int]:
        self._forget_uploads()
        with self.at_work:
            free, total = runtime.memGetInfo()
        return int(free + cupy.get_default_memory_pool().free_bytes()), int(total)

    def _give_back(self) -> None:
        """Memory that is only kept to be used again, to all who want it; that of devices that nobody uses any more, too."""
        gc.collect()
        self._plans.clear()
        self._work = None
        self._forget_uploads()
        self._forget_pools()

    def _forget_uploads(self) -> None:
        with self.at_work:
            while self._coming and self._coming[0][0].done:
                self._coming.popleft()

    def _forget_pools(self) -> None:
        """CuPy frees all memory of a pool with it, even where an array of it is still there: so not before."""
        for recording, pool in self._pools:
            if recording() is None:
                pool.free_all_blocks()
        self._pools = [(recording, pool) for recording, pool in self._pools if recording() is not None or pool.used_bytes()]
        cupy.get_default_memory_pool().free_all_blocks()

    # Work

    def kernel(self, file: str, function: str = "", **defines: int) -> CupyKernel:
        key = (file, function or file, tuple(sorted(defines.items())))
        if key not in self._kernels:
            self._refuse("the first use of a kernel")
            self._kernels[key] = CupyKernel(self, self._compiled(*key))
        return self._kernels[key]

    def _compiled(self, file: str, function: str, defines: tuple[tuple[str, int], ...]) -> Any:
        source = source_of(file)
        if function not in functions_of(source):
            raise ValueError(f"{file}.cu has no function {function}, only {', '.join(functions_of(source))}")
        options = ("-std=c++17", *(f"-D{name}={value}" for name, value in defines))
        with self.at_work:
            module = self._modules.setdefault((file, defines), cupy.RawModule(code=source, options=options))
            return module.get_function(function)

    def fft(self, waves: Any, inverse: bool) -> None:
        if waves.dtype != np.complex64 or waves.ndim < 2 or not waves.flags.c_contiguous:
            raise TypeError(f"fft takes contiguous complex64 (..., y, x), not {waves.dtype} {waves.shape} with strides {waves.strides}")
        if not waves.size:
            return
        with self.at_work:
            plan = self._plan(waves.shape[-2:], prod(waves.shape[:-2]))
            plan.fft(waves, waves, cufft.CUFFT_INVERSE if inverse else cufft.CUFFT_FORWARD)
        self.needs(waves, plan)

    def _plan(self, shape: tuple[int, int], batch: int) -> Any:
        """A plan of cuFFT; all share the memory that they work in, since all work is in one stream."""
        key = (*shape, batch)
        if key not in self._plans:
            if self._recording is not None:
                raise _NoPlan(f"the plan of its {shape[0]} x {shape[1]} px transforms was given back when memory was full.")
            with cupy.cuda.using_allocator(self._room_for_work):
                self._plans[key] = cufft.PlanNd(
                    shape, shape, 1, prod(shape), shape, 1, prod(shape), cufft.CUFFT_C2C, batch, "C", len(shape), None
                )
        return self._plans[key]

    def _room_for_work(self, nbytes: int) -> Any:
        if self._work is None or self._work.mem.size < nbytes:
            self._work = cupy.get_default_memory_pool().malloc(nbytes)
        return self._work

    def finish(self) -> None:
        self._refuse("finish")
        with self.at_work:
            self.stream.synchronize()

    # Recording

    def record(self, run: Callable[[], T]) -> tuple[Replay, T] | None:
        self._refuse("record")
        recording = _Recording()
        try:
            given = self._captured(run, recording)
        except (DeviceMemoryError, DeviceLost, _NoPlan) as error:
            _LOG.warning("%s cannot record this sweep, so it is asked for anew each time: %s", self.name, error)
            return None

        def replay() -> T:
            with self.at_work:
                recording.graph.launch(self.stream)
            return given

        replay()
        return replay, given

    def _captured(self, run: Callable[[], T], recording: _Recording) -> T:
        """What ``run`` gives; nothing of its work is done yet."""
        self.finish()
        gc.collect()  # what it would free while the sweep is recorded might end the recording
        with self.at_work:
            self._forget_pools()
            self.stream.begin_capture()
            self._recording = recording
            try:
                with cupy.cuda.using_allocator(recording.pool.malloc):
                    given = run()
            except BaseException:
                with suppress(RuntimeError):
                    self.stream.end_capture()
                raise
            finally:
                self._recording = None
                self._pools.append((ref(recording), recording.pool))
            recording.graph = self.stream.end_capture()
        return given

    def needs(self, *things: Any) -> None:
        """What is recorded now points to these, if anything is."""
        if self._recording is not None:
            for thing in things:
                self._recording.needs(thing)

    def _refuse(self, what: str) -> None:
        if self._recording is not None:
            raise TypeError(f"{what} while a sweep is recorded: no work of the host in a sweep")


def _pinned(nbytes: int) -> NDArray[np.uint8]:
    return np.frombuffer(cupy.cuda.alloc_pinned_memory(nbytes), np.uint8, nbytes)


def _bytes_of(host: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(host).reshape(-1).view(np.uint8)
