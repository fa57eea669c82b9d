"""The part of CupyDevice that is ours, with a CuPy that is not there: copies, plans, recordings, errors."""

from __future__ import annotations

import gc
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fake_cupy import CompileException, CudaError, CuFFTError, DriverError, FakeCupy

from ptyplugin.model import DeviceError, SolverError
from ptyplugin.solvers.verbs.cuda import device as protocol
from ptyplugin.solvers.verbs.cuda.device import DeviceLost, DeviceMemoryError

MODULE = "ptyplugin.solvers.verbs.cuda.cupy_device"
ADD = """
extern "C" __global__ void add_number(float2* out, float2 number) {}
"""


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCupy]:
    """A CuPy of 1 GB that ``open_device`` finds, halves of 64 bytes, and a kernel that adds a number."""
    fake = FakeCupy()
    for name, module in fake.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    module = importlib.import_module(MODULE)
    monkeypatch.setattr(module, "_HALF_BYTES", 64)
    monkeypatch.setattr(module, "source_of", lambda name: ADD)
    yield fake
    sys.modules.pop(MODULE)


@pytest.fixture
def device(cupy: FakeCupy) -> Any:
    return protocol.open_device(0)


def test_what_it_is(device: Any, cupy: FakeCupy) -> None:
    assert (device.name, device.shared_bytes) == ("NVIDIA Nothing (GPU 0)", 233472)
    free, total = device.memory()
    assert cupy.current is device.stream
    array = device.empty(1000, np.uint8)
    assert device.memory() == (free - 1000, total)
    del array
    assert device.memory() == (free, total)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100])
def test_arrays_of_any_length_there_and_back(device: Any, count: int) -> None:
    values = np.arange(count, dtype=np.float32)
    array = device.put(values)
    np.testing.assert_array_equal(device.get(array), values)
    device.fill(array, values + 1)
    values[:] = -1
    np.testing.assert_array_equal(device.get(array), np.arange(count) + 1)


def test_views_with_strides_there_and_back(device: Any) -> None:
    array, values = device.zeros((40, 6), np.float32), np.arange(80, dtype=np.float32).reshape(40, 2)
    device.fill(array[:, 1:3], values)
    device.fill(array[:, 4:], device.put(values))
    device.fill(array[:, 0], 7.0)
    other = device.zeros((40, 6), np.float32)
    device.fill(other, array)
    np.testing.assert_array_equal(device.get(other), np.column_stack([np.full(40, 7), values, np.zeros(40), values]))
    np.testing.assert_array_equal(device.get(array[::2, 1:3]), values[::2])
    np.testing.assert_array_equal(device.get(device.put(values.T)), values.T)
    with pytest.raises(TypeError, match="both must be alike"):
        device.fill(array, values)


def test_what_is_put_ahead_waits_for_its_memory_and_is_waited_for(device: Any, cupy: FakeCupy) -> None:
    ours, uploads = (stream.ptr for stream in cupy.streams)
    cupy.log.clear()
    arrived = device.put_ahead(np.arange(100, dtype=np.uint16))
    assert cupy.log == [("record", ours), ("wait", uploads), ("record", uploads)]
    array = arrived()
    assert cupy.log[3:] == [("wait", ours)]
    np.testing.assert_array_equal(device.get(array), np.arange(100))


def test_nothing_is_put_ahead_of_no_frames(device: Any, cupy: FakeCupy) -> None:
    cupy.log.clear()
    assert device.put_ahead(np.empty((0, 4, 4), np.uint16))().shape == (0, 4, 4)
    assert not cupy.log


def test_transforms_share_their_work_area(device: Any, cupy: FakeCupy) -> None:
    rng = np.random.default_rng(1)
    for shape in ((3, 2, 8, 12), (8, 12), (7, 8, 12), (3, 2, 8, 12), (0, 8, 12)):
        waves = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
        array = device.put(waves)
        device.fft(array, False)
        np.testing.assert_allclose(device.get(array), np.fft.fft2(waves), rtol=1e-4, atol=1e-4)
        device.fft(array, True)
        np.testing.assert_allclose(device.get(array), 96 * waves, rtol=1e-3, atol=1e-3)
    assert [plan().work.mem.size for plan in cupy.plans] == [8 * 96 * 6, 8 * 96 * 6, 8 * 96 * 7]
    assert cupy.plans[0]().work is cupy.plans[1]().work


def test_kernels_are_compiled_once_per_defines_and_get_their_shared_memory(device: Any, cupy: FakeCupy) -> None:
    kernel, array = device.kernel("any", "add_number"), device.zeros(5, np.complex64)
    assert device.kernel("any", "add_number") is kernel
    assert device.kernel("any", "add_number", SIDE=64, MODES=2) is not kernel
    assert cupy.compiled == [("-std=c++17",), ("-std=c++17", "-DMODES=2", "-DSIDE=64")]
    for shared_mem in (0, 49152, 60000, 50000, 70000):
        kernel((1,), (32,), (array, np.complex64(1j)), shared_mem=shared_mem)
    assert cupy.kernels[0].allowed == [49152, 60000, 70000]
    np.testing.assert_array_equal(device.get(array), np.full(5, 5j))
    with pytest.raises(ValueError, match=r"any.cu has no function other, only add_number"):
        device.kernel("any", "other")


# -------------------------------------------------------------------------------------------------------------- recording
def _sweep(device: Any, state: Any) -> Callable[[], Any]:
    """state <- 4 (state + 1), which it also gives, by way of temporary memory and two transforms of 2 x 2 numbers."""
    kernel = device.kernel("any", "add_number")

    def run() -> Any:
        temporary = device.empty((2, 2), np.complex64)
        device.fill(temporary, state)
        kernel((1,), (32,), (temporary, np.complex64(1)))
        device.fft(temporary, False)
        device.fft(temporary, True)
        total = device.empty((2, 2), np.complex64)
        device.fill(total, temporary)
        del temporary
        device.fill(state, total)
        return total

    return run


def test_a_sweep_is_recorded_and_repeated(device: Any) -> None:
    state = device.zeros((2, 2), np.complex64)
    run = _sweep(device, state)
    run()
    replay, total = device.record(run)
    np.testing.assert_allclose(device.get(total), np.full((2, 2), 20))
    assert replay() is total
    np.testing.assert_allclose(device.get(total), np.full((2, 2), 84))
    device.fill(state, 0)
    replay()
    np.testing.assert_allclose(device.get(total), np.full((2, 2), 4))


def test_memory_that_a_recording_points_to_is_nobody_elses(device: Any, cupy: FakeCupy) -> None:
    """Not even when the sweep has dropped it, or all else is given back."""
    kernel, kept = device.kernel("any", "add_number"), [device.zeros(4, np.complex64)]
    out = device.zeros(4, np.complex64)

    def run() -> None:
        kernel((1,), (32,), (kept[0], np.complex64(1)))
        device.fill(out, kept[0])
        kept[0] = device.empty(4, np.complex64)
        device.fill(kept[0], 0)

    replay, _ = device.record(run)
    others = [device.zeros(4, np.complex64) for _ in range(5)]
    with pytest.raises(DeviceMemoryError):
        device.empty(2 * 10**9, np.uint8)
    replay()
    np.testing.assert_array_equal(device.get(out), np.full(4, 2))
    for other in others:
        np.testing.assert_array_equal(device.get(other), np.zeros(4))


def test_a_recording_keeps_what_it_points_to_and_none_of_its_numbers(device: Any) -> None:
    state, noted = device.zeros((2, 2), np.complex64), []
    sweep = _sweep(device, state)
    sweep()

    def run() -> None:
        sweep()
        device.fill(state, 0)
        noted.append(device._recording)

    recorded = device.record(run)
    assert recorded
    (plan,) = device._plans.values()
    assert list(noted[0]._needed.values()) == [state.data.mem, plan]


def test_memory_of_a_recording_comes_back_with_it(device: Any, cupy: FakeCupy) -> None:
    kept = []

    def run() -> None:
        for _ in range(10):
            device.empty(50_000, np.uint8)
        kept.append(device.empty(1000, np.uint8))

    room = cupy.room
    replay, _ = device.record(run)
    assert room - cupy.room == 51_000
    device._give_back()
    assert room - cupy.room == 51_000
    del replay
    gc.collect()
    device._give_back()
    assert room - cupy.room == 1000
    kept.clear()
    device._give_back()
    assert cupy.room == room


@pytest.mark.parametrize("trouble", ["at the end", "in the midst", "no memory", "no plan"])
def test_of_a_sweep_that_cannot_be_recorded_nothing_is_done(
    device: Any, cupy: FakeCupy, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    state = device.zeros((2, 2), np.complex64)
    sweep = _sweep(device, state)
    sweep()
    if trouble == "no plan":
        device._give_back()  # as where memory is full

    def run() -> Any:
        if cupy.streams[0].graph is not None:
            cupy.broken = CudaError(900, "cudaErrorStreamCaptureUnsupported") if trouble == "in the midst" else None
            cupy.room = 0 if trouble == "no memory" else cupy.room
        try:
            return sweep()
        finally:
            cupy.broken, cupy.room = None, 10**9

    cupy.cannot_capture = trouble == "at the end"
    assert device.record(run) is None
    assert "NVIDIA Nothing (GPU 0) cannot record this sweep, so it is asked for anew each time" in caplog.text
    np.testing.assert_allclose(device.get(state), np.full((2, 2), 4))
    np.testing.assert_allclose(device.get(sweep()), np.full((2, 2), 20))


@pytest.mark.parametrize("what", ["get", "put", "put_ahead", "fill", "finish", "kernel", "record"])
def test_no_work_of_the_host_while_a_sweep_is_recorded(device: Any, cupy: FakeCupy, what: str) -> None:
    array, ones = device.zeros((2, 2), np.complex64), np.ones((2, 2), np.complex64)
    work: dict[str, Callable[[], Any]] = {
        "get": lambda: device.get(array),
        "put": lambda: device.put(ones),
        "put_ahead": lambda: device.put_ahead(ones),
        "fill": lambda: device.fill(array, ones),
        "finish": device.finish,
        "kernel": lambda: device.kernel("any", "add_number"),
        "record": lambda: device.record(lambda: None),
    }
    with pytest.raises(TypeError, match="while a sweep is recorded: no work of the host in a sweep"):
        device.record(work[what])
    assert cupy.streams[0].graph is None
    work[what]()


# ----------------------------------------------------------------------------------------------------------------- errors
def test_a_device_that_nobody_uses_any_more_is_gone_with_all_its_memory(cupy: FakeCupy) -> None:
    room = cupy.room
    device = protocol.open_device(0)
    state = device.zeros((2, 2), np.complex64)
    sweep = _sweep(device, state)
    sweep()
    recorded = device.record(sweep)
    assert cupy.room < room
    gc.collect()
    gc.disable()
    try:
        del device, state, sweep, recorded
        cupy.pool.free_all_blocks()
        assert cupy.room == room
    finally:
        gc.enable()


def test_memory_that_is_only_kept_is_given_back_before_there_is_too_little(device: Any, cupy: FakeCupy) -> None:
    device.fft(device.zeros((100, 100), np.complex64), False)
    cupy.room = 10_000
    assert device.empty(150_000, np.uint8).size == 150_000


@pytest.mark.parametrize(
    ("broken", "kind", "said"),
    [
        (CudaError(2, "cudaErrorMemoryAllocation"), DeviceMemoryError, "the memory of NVIDIA Nothing .GPU 0. is full: .* GB are free"),
        (DriverError(2, "CUDA_ERROR_OUT_OF_MEMORY"), DeviceMemoryError, "is full"),
        (CuFFTError(2), DeviceMemoryError, "is full"),
        (CudaError(700, "cudaErrorIllegalAddress"), DeviceLost, "reported cudaErrorIllegalAddress: the job is tried again by a fresh"),
        (DriverError(719, "CUDA_ERROR_LAUNCH_FAILED"), DeviceLost, "reported CUDA_ERROR_LAUNCH_FAILED"),
        (CuFFTError(6), DeviceLost, "reported CUFFT error 6"),
        (CompileException("line 3"), SolverError, "a kernel does not compile for NVIDIA Nothing .GPU 0., please report it: line 3"),
        (KeyboardInterrupt("by hand"), KeyboardInterrupt, "by hand"),
    ],
)
def test_errors_are_ours(device: Any, cupy: FakeCupy, broken: BaseException, kind: type[BaseException], said: str) -> None:
    kernel, array = device.kernel("any", "add_number"), device.zeros(4, np.complex64)
    cupy.broken = broken
    with pytest.raises(kind, match=said):
        kernel((1,), (32,), (array, np.complex64(1)))


def test_a_card_that_cannot_even_say_what_is_free_is_lost(device: Any, cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise CudaError(700, "cudaErrorIllegalAddress")

    monkeypatch.setattr(sys.modules["cupy.cuda.runtime"], "memGetInfo", lost)
    with pytest.raises(DeviceLost, match="reported Out of memory allocating 2000000000 bytes"):
        device.empty(2 * 10**9, np.uint8)


def test_a_gpu_that_is_not_there_is_told_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(DeviceError, match=r"GPU 3 cannot be used: .+\."):
        protocol.open_device(3)


ASK = """
import importlib, json, sys
import cupy, cupy_backends.cuda.api.driver
from pathlib import Path
names, members = json.loads(sys.argv[1])
cufft = "".join(Path(cupy.__file__).with_name("cuda").joinpath(name).read_text() for name in ("cufft.pyx", "cufft.pxd"))
for module, contents in names.items():
    for name in contents:
        if module == "cupy.cuda.cufft" or name == "cufft":
            there = name in cufft  # it cannot be imported without cuFFT
        else:
            there = hasattr(importlib.import_module(module), name)
        if not there:
            print(f"{module}.{name}")
for owner, names in members.items():
    for name in names:
        if not hasattr(eval(owner), name):
            print(f"{owner}.{name}")
"""


def test_the_real_cupy_has_what_the_stand_in_has(cupy: FakeCupy) -> None:
    """So that no name is made up."""
    names = {name: [each for each in vars(module) if not each.startswith("__")] for name, module in cupy.modules().items()}
    names = {name: contents for name, contents in names.items() if contents}
    members = {
        "cupy.cuda.Stream": ["begin_capture", "end_capture", "use", "record", "wait_event", "synchronize"],
        "cupy.cuda.Event": ["record", "synchronize", "done"],
        "cupy.cuda.MemoryPool": ["malloc", "free_all_blocks", "free_bytes", "used_bytes"],
        "cupy.cuda.MemoryPointer": ["mem", "ptr", "copy_from_device_async"],
        "cupy.cuda.Graph": ["launch"],
        "cupy.RawKernel": ["max_dynamic_shared_size_bytes", "__call__"],
        "cupy.RawModule": ["get_function"],
    }
    done = subprocess.run([sys.executable, "-c", ASK, json.dumps([names, members])], capture_output=True, text=True, check=True)
    assert not done.stdout
