"""The device that stands for a GPU in tests: it computes what CUDA says, and finds the faults that are planted here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shim import DeviceArray, HostDevice, ShimError, reversed_order

from ptyplugin.solvers.verbs.cuda.device import NULL, DeviceMemoryError
from ptyplugin.solvers.verbs.cuda.sources import functions_of, with_headers

HERE = Path(__file__).parent
COMMON = with_headers('#include "common.cuh"\n')


def on(source: str, **made: Any) -> HostDevice:
    """A device whose every file is this source."""
    return HostDevice(sources=lambda _: COMMON + source, **made)


SCALE = """
extern "C" __global__ void scaled(float2* out, const float2* in, const float* weights, int n, float factor) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    out[i] = scale(weights ? factor * weights[i] : factor, in[i]);
}
"""


def test_a_kernel_computes_and_takes_null_for_no_array() -> None:
    device = on(SCALE)
    weights = np.arange(300, dtype=np.float32)
    values = weights * np.complex64(1 - 2j)
    out, given = device.empty(300, np.complex64), device.put(values)
    kernel = device.kernel("any", "scaled")
    kernel((2,), (256,), (out, given, NULL, np.int32(300), np.float32(3)))
    np.testing.assert_array_equal(device.get(out), 3 * values)
    kernel((3, 1), (128, 1, 1), (out, given, device.put(weights), np.int32(300), np.float32(0.5)))
    np.testing.assert_array_equal(device.get(out), 0.5 * weights * values)
    assert device.launches["scaled"] == 2


def test_every_thread_of_every_block_runs_once_and_knows_its_place() -> None:
    device = on("""
extern "C" __global__ void place(int* out) {
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    atomicAdd(out + block * (blockDim.x * blockDim.y * blockDim.z) + thread_of_block(), 1 + block);
}""")
    out = device.zeros((2, 3, 4, 5 * 6 * 7), np.int32)
    device.kernel("any", "place")((4, 3, 2), (7, 6, 5), (out,))
    np.testing.assert_array_equal(device.get(out).reshape(24, -1), np.repeat(np.arange(1, 25)[:, None], 210, axis=1))


REDUCE = """
extern "C" __global__ void reduce(double* sums, float* small_sums, float* largest, const float* values) {
    const int i = blockIdx.x * blockDim.x * blockDim.y + thread_of_block();
    const double sum = block_sum(double(values[i]));
    const float small_sum = block_sum(values[i]), most = block_max(values[i]);
    sums[i] = sum;
    small_sums[i] = small_sum;
    largest[i] = most;
}
"""


@pytest.mark.parametrize("block", [(32,), (96,), (16, 16), (1024,)])
def test_reductions_of_a_block_reach_all_threads_and_never_differ(block: tuple[int, ...]) -> None:
    threads = int(np.prod(block))
    values = np.random.default_rng(1).standard_normal((3, threads)).astype(np.float32) - 4
    device = on(REDUCE)

    def reduced() -> list[Any]:
        outs = [device.empty((3, threads), dtype) for dtype in (np.float64, np.float32, np.float32)]
        device.kernel("any", "reduce")((3,), block, (*outs, device.put(values)))
        return [device.get(out) for out in outs]

    sums, small_sums, largest = reduced()
    np.testing.assert_allclose(sums, np.repeat(values.sum(axis=1, dtype=np.float64)[:, None], threads, axis=1), rtol=1e-12)
    np.testing.assert_allclose(small_sums, sums, rtol=1e-5)
    np.testing.assert_array_equal(largest, np.repeat(values.max(axis=1)[:, None], threads, axis=1))
    with reversed_order():
        for again, before in zip(reduced(), (sums, small_sums, largest), strict=True):
            np.testing.assert_array_equal(again, before)


def test_lanes_of_a_warp_exchange_values_and_votes() -> None:
    device = on("""
extern "C" __global__ void lanes(double* crossed, int* third, unsigned* votes, int* halves) {
    const int i = threadIdx.x;
    crossed[i] = __shfl_xor_sync(0xffffffffu, i + 0.5, 5);
    third[i] = __shfl_sync(0xffffffffu, i, 3);
    votes[i] = __ballot_sync(0xffffffffu, i % 3 == 0);
    if (i % 32 < 16) halves[i] = __shfl_xor_sync(0x0000ffffu, i, 1);
    else halves[i] = 1000 + __shfl_xor_sync(0xffff0000u, i, 2);
}""")
    outs = [device.empty(64, dtype) for dtype in (np.float64, np.int32, np.uint32, np.int32)]
    device.kernel("any", "lanes")((1,), (64,), tuple(outs))
    crossed, third, votes, halves = (device.get(out) for out in outs)
    i = np.arange(64)
    np.testing.assert_array_equal(crossed, (i ^ 5) + 0.5)
    np.testing.assert_array_equal(third, i // 32 * 32 + 3)
    expected = [sum(1 << lane for lane in range(32) if (start + lane) % 3 == 0) for start in (0, 32)]
    np.testing.assert_array_equal(votes, np.repeat(expected, 32))
    np.testing.assert_array_equal(halves, np.where(i % 32 < 16, i ^ 1, 1000 + (i ^ 2)))


NEIGHBOUR = """
extern "C" __global__ void neighbour(int* out) {{
    __shared__ int shared[64];
    shared[threadIdx.x] = 0;
    __syncthreads();
    shared[threadIdx.x] = threadIdx.x + 1;
    {barrier}
    out[threadIdx.x] = shared[63 - threadIdx.x];
}}
"""


@pytest.mark.parametrize("barrier", ["", "__syncthreads();"])
def test_a_missing_barrier_shows_in_reversed_order(barrier: str) -> None:
    device = on(NEIGHBOUR.format(barrier=barrier))
    out = device.empty(64, np.int32)
    device.kernel("any", "neighbour")((1,), (64,), (out,))
    forward = device.get(out)
    with reversed_order():
        device.kernel("any", "neighbour")((1,), (64,), (out,))
    assert np.array_equal(device.get(out), forward) == bool(barrier)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("if (threadIdx.x < 40) __syncthreads(); else __syncwarp();", "40 of its threads wait at __syncthreads and 24, thread 63"),
        ("if (threadIdx.x % 2) __shfl_down_sync(0xffffffffu, 1, 1); else __syncthreads();", "barrier divergence in block .2, 0, 0."),
        ("if (threadIdx.x > 9) return; __shfl_sync(0xffffffffu, 1, 20);", "shuffles with lane 20, which has ended or does not exist"),
        ("__shfl_sync(0x1u, 1, 0);", "thread 1 of block .* is not in the mask of its own shuffle"),
        ("volatile char much[90000]; for (int i = 0; i < 90000; ++i) much[i] = 1;", "needs more than the 65536 bytes of stack"),
    ],
)
def test_threads_that_do_not_meet_are_told_from_one_another(body: str, said: str) -> None:
    device = on('extern "C" __global__ void faulty() { if (blockIdx.x == 2) { ' + body + " } }")
    with pytest.raises(ShimError, match=said):
        device.kernel("any", "faulty")((4,), (64,), ())


def test_threads_that_have_ended_are_not_waited_for() -> None:
    device = on("""
extern "C" __global__ void some(int* out) {
    if (threadIdx.x >= 20) return;
    __syncthreads();
    __syncwarp();
    out[threadIdx.x] = threadIdx.x;
}""")
    out = device.zeros(64, np.int32)
    device.kernel("any", "some")((1,), (64,), (out,))
    np.testing.assert_array_equal(device.get(out), np.where(np.arange(64) < 20, np.arange(64), 0))


@pytest.mark.parametrize(
    ("grid", "block", "shared_mem", "said"),
    [
        ((1,), (1025,), 0, "a block of 1025 x 1 x 1 threads"),
        ((1,), (32, 8, 8), 0, "a block of 32 x 8 x 8 threads"),
        ((1,), (1, 1, 65), 0, "at most 64 along z"),
        ((1, 65536), (1,), 0, "a grid of 1 x 65536 x 1 blocks"),
        ((1, 1, 65536), (1,), 0, "a grid of 1 x 1 x 65536 blocks"),
        ((0,), (32,), 0, "the grid is .0,., not one to three whole numbers above 0"),
        ((1.0,), (32,), 0, "not one to three whole numbers"),
        (4, (32,), 0, "not one to three whole numbers"),
        ((1,), (32,), 49153, "49153 bytes of shared memory, a block has 49152"),
    ],
)
def test_launches_that_a_gpu_refuses(grid: Any, block: Any, shared_mem: int, said: str) -> None:
    device = on('extern "C" __global__ void nothing() {}', shared_bytes=49152)
    kernel = device.kernel("any", "nothing")
    kernel((1,), (1024,), (), shared_mem=49152)
    with pytest.raises(ShimError, match=said):
        kernel(grid, block, (), shared_mem=shared_mem)


SHARED = """
extern "C" __global__ void spread(float* out, int n, int beyond) {
    extern __shared__ float dynamic[];
    out[blockIdx.x] = dynamic[threadIdx.x];
    for (int i = threadIdx.x; i < n + beyond; i += blockDim.x) dynamic[i] = 1.0f;
}
"""


def test_dynamic_shared_memory_is_nan_in_each_block_and_has_an_end() -> None:
    device = on(SHARED)
    kernel, out = device.kernel("any", "spread"), device.zeros(3, np.float32)
    kernel((3,), (32,), (out, np.int32(500), np.int32(0)), shared_mem=2000)
    assert np.isnan(device.get(out)).all()
    with pytest.raises(ShimError, match="writes beyond its 2000 bytes of dynamic shared memory"):
        kernel((1,), (32,), (out, np.int32(500), np.int32(1)), shared_mem=2000)


def _wrong(device: HostDevice) -> dict[str, tuple[Any, ...]]:
    out, given, weights = device.empty(8, np.complex64), device.empty(8, np.complex64), device.empty(9, np.float32)
    right = (out, given, weights, np.int32(8), np.float32(1))
    return {
        "int32, not int": (*right[:3], 8, right[4]),
        "float, not float": (*right[:4], 1.0),
        "float, not float64": (*right[:4], np.float64(1)),
        "int32, not int64": (*right[:3], np.int64(8), right[4]),
        "int32, not uint32": (*right[:3], np.uint32(8), right[4]),
        "takes 5 arguments": right[:4],
        "int32, not DeviceArray": (*right[:3], out, right[4]),
        r"float\*, not float32": (*right[:2], right[4], *right[3:]),
        r"float\*, not an array of complex64": (*right[:2], given, *right[3:]),
        r"float2\*, not an array of complex128": (out, device.empty(8, np.complex128), *right[2:]),
        r"float2\*, not ndarray": (np.zeros(8, np.complex64), *right[1:]),
        r"float2\*, not NoneType": (None, *right[1:]),
        "an array of another device": (HostDevice().empty(8, np.complex64), *right[1:]),
        "a multiple of 8 bytes": (weights[1:], *right[1:]),
    }


@pytest.mark.parametrize("said", list(_wrong(HostDevice())))
def test_wrong_arguments_are_refused(said: str) -> None:
    device = on(SCALE)
    with pytest.raises(TypeError, match=said):
        device.kernel("any", "scaled")((1,), (8,), _wrong(device)[said])


def test_a_source_that_does_not_compile_and_a_function_that_is_not_there() -> None:
    with pytest.raises(ShimError, match=r"does not compile this source with .'SIDE': 3.[^$]*nonsense"):
        on('extern "C" __global__ void broken() { nonsense(); }').kernel("any", "broken", SIDE=3)
    with pytest.raises(ShimError, match=r"any.cu has no function other, only scaled"):
        on(SCALE).kernel("any", "other")


def test_defines_make_kernels_of_their_own() -> None:
    device = on('extern "C" __global__ void size(int* out) { *out = SIDE; }')
    out = device.empty(1, np.int32)
    for side in (64, 100):
        device.kernel("any", "size", SIDE=side)((1,), (1,), (out,))
        assert device.get(out)[0] == side


BESIDE = 'extern "C" __global__ void beside(float* a, int at, int write) { if (write) a[at] = 1.0f; else a[0] = a[at]; }'


@pytest.mark.parametrize("at", [-1, 10])
def test_a_write_out_of_bounds_is_found(at: int) -> None:
    device = on(BESIDE)
    array = device.zeros(10, np.float32)
    with pytest.raises(ShimError, match=r"beside writes outside of <DeviceArray float32 \(10,\)>"):
        device.kernel("any", "beside")((1,), (1,), (array, np.int32(at), np.int32(1)))


def test_a_read_out_of_bounds_is_found_under_the_address_sanitizer() -> None:
    library = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    program = f"""
import numpy as np
from shim import HostDevice
device = HostDevice(sources=lambda _: {COMMON + BESIDE + REDUCE!r})
array, sums = device.zeros(64, np.float32), device.zeros(64, np.float64)
device.kernel("any", "reduce")((1,), (64,), (sums, array, array, array))
device.kernel("any", "beside")((1,), (1,), (array, np.int32(63), np.int32(0)))
print("inside:", device.get(array)[0], flush=True)
device.kernel("any", "beside")((1,), (1,), (array, np.int32(64), np.int32(0)))
print("outside:", device.get(array)[0], flush=True)
"""
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0",
        "SHIM_FLAGS": "-fsanitize=address",
    }
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "inside: 0.0\n", done.stderr
    assert "AddressSanitizer: use-after-poison" in done.stderr


# ---------------------------------------------------------------------------------------------------------------- arrays
_USES: dict[str, Callable[[DeviceArray], Any]] = {
    "a + 1": lambda a: a + 1,
    "1 - a": lambda a: 1 - a,
    "NumPy array times a": lambda a: np.ones(6) * a,
    "NumPy scalar times a": lambda a: np.float32(2) * a,
    "a @ a": lambda a: a @ a,
    "-a": lambda a: -a,
    "abs": abs,
    "a == a": lambda a: a == a,
    "a < 1": lambda a: a < 1,
    "bool": bool,
    "float": float,
    "int": int,
    "index": lambda a: [1, 2][a],
    "iteration": list,
    "1 in a": lambda a: 1 in a,
    "np.asarray": np.asarray,
    "np.sum": np.sum,
    "np.exp": np.exp,
    "a.sum()": lambda a: a.sum(),
    "a.real": lambda a: a.real,
    "a.T": lambda a: a.T,
    "a.astype": lambda a: a.astype(np.float64),
    "a.tolist": lambda a: a.tolist(),
    "a[numbers]": lambda a: a[[0, 1]],
    "a[where]": lambda a: a[np.ones(6, bool)],
    "a[True]": lambda a: a[True],
    "a[a]": lambda a: a[a],
    "a[0] = 1": lambda a: a.__setitem__(0, 1),
    "hash": hash,
}


@pytest.mark.parametrize("use", list(_USES))
def test_arrays_of_a_device_refuse_all_but_what_is_agreed(use: str) -> None:
    array = HostDevice().zeros(6, np.float32)
    with pytest.raises(TypeError):
        _USES[use](array)


def test_arrays_of_a_device_are_cut_and_looked_at() -> None:
    device = HostDevice()
    values = np.arange(24, dtype=np.complex64).reshape(2, 3, 4)
    array = device.put(values)
    assert (array.shape, array.dtype, array.size, array.ndim, array.nbytes, array.itemsize) == ((2, 3, 4), np.complex64, 24, 3, 192, 8)
    assert (len(array), array.strides, array.flags.c_contiguous) == (2, (96, 32, 8), True)
    inner = array[1, ..., 1:3]
    assert (inner.flags.c_contiguous, inner.data.ptr - array.data.ptr) == (False, 104)
    np.testing.assert_array_equal(device.get(inner), values[1, :, 1:3])
    assert array[1, 2, 3].shape == ()
    assert array.reshape(-1).data.ptr == array.data.ptr
    with pytest.raises(TypeError, match="copies: use a contiguous array"):
        inner.reshape(6)
    np.testing.assert_array_equal(device.get(array.view(np.float32)), values.view(np.float32))
    copied = inner.copy()
    device.fill(array, 0)
    np.testing.assert_array_equal(device.get(copied), values[1, :, 1:3])


def test_fill_takes_numbers_and_arrays_that_are_alike() -> None:
    device = HostDevice()
    array = device.zeros((4, 6), np.float32)
    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    device.fill(array[:, 1:3], values)
    device.fill(array[:, 4:], device.put(values))
    device.fill(array[:, 0], 7.0)
    expected = np.column_stack([np.full(4, 7), values, np.zeros(4), values])
    np.testing.assert_array_equal(device.get(array), expected)
    for wrong in (np.zeros((4, 6)), np.zeros(6, np.float32), device.zeros(24, np.float32), 1j, "1"):
        with pytest.raises(TypeError, match="fill"):
            device.fill(array, wrong)


def test_new_memory_is_nan_and_what_was_put_is_a_copy() -> None:
    device = HostDevice()
    assert np.isnan(device.get(device.empty((2, 2), np.complex64))).all()
    assert (device.get(device.empty(3, np.int32)) == -1).all()
    values = np.ones(3)
    array = device.put(values)
    values[:] = 2
    device.get(array)[:] = 3
    np.testing.assert_array_equal(device.get(array), np.ones(3))


def test_memory_has_an_end_and_comes_back() -> None:
    device = HostDevice(total_bytes=1000)
    first, view = device.zeros(100, np.float64), None
    assert device.memory() == (200, 1000)
    with pytest.raises(DeviceMemoryError, match="208 bytes do not fit into the 200 that are free of 1000"):
        device.empty(26, np.float64)
    view = first[10:]
    del first
    assert device.memory() == (200, 1000)
    del view
    assert device.memory() == (1000, 1000)
    assert (device.allocated, device.in_use, device.most_in_use) == (800, 0, 800)


@pytest.mark.parametrize("shape", [(20, 24), (3, 2, 15, 16)])
def test_transforms_are_unnormalised_in_both_directions_and_in_place(shape: tuple[int, ...]) -> None:
    device, rng = HostDevice(), np.random.default_rng(5)
    waves = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    array = device.put(waves)
    device.fft(array, inverse=False)
    np.testing.assert_allclose(device.get(array), np.fft.fft2(waves), rtol=1e-4, atol=1e-4)
    device.fft(array, inverse=True)
    np.testing.assert_allclose(device.get(array), waves * shape[-2] * shape[-1], rtol=1e-3, atol=1e-3)
    for wrong in (array[..., 1:], array[0, ..., 0] if len(shape) == 2 else array[..., 0], device.zeros(shape, np.complex128)):
        with pytest.raises(TypeError, match="fft takes contiguous complex64"):
            device.fft(wrong, inverse=False)


# -------------------------------------------------------------------------------------------------------------- recording
def _doubled(device: HostDevice, state: DeviceArray) -> Callable[[], DeviceArray]:
    """state <- 2 state by way of temporary memory; gives a copy of it."""
    kernel = device.kernel("any", "scaled")

    def run() -> DeviceArray:
        temporary = device.empty(8, np.complex64)
        kernel((1,), (8,), (temporary, state, NULL, np.int32(8), np.float32(2)))
        zero = device.zeros(8, np.complex64)
        device.fill(state, zero)
        device.fill(state, temporary)
        return state.copy()

    return run


def test_a_recorded_sweep_is_repeated_with_the_same_memory() -> None:
    device = on(SCALE)
    state = device.put(np.ones(8, np.complex64))
    replay, copied = device.record(_doubled(device, state))
    np.testing.assert_array_equal(device.get(copied), np.full(8, 2))
    used = device.in_use
    replay()
    assert replay() is copied
    np.testing.assert_array_equal(device.get(copied), np.full(8, 8))
    device.fill(state, np.full(8, 5, np.complex64))
    replay()
    np.testing.assert_array_equal(device.get(copied), np.full(8, 10))
    assert device.in_use == used
    assert device.launches["scaled"] == 4


@pytest.mark.parametrize(
    "work",
    [
        lambda device, array: device.get(array),
        lambda device, array: device.put(np.ones(3)),
        lambda device, array: device.fill(array, np.ones(8, np.complex64)),
        lambda device, array: device.finish(),
        lambda device, array: device.kernel("any", "scaled"),
        lambda device, array: device.fft(array.reshape(2, 4), inverse=False),
        lambda device, array: device.record(lambda: None),
    ],
    ids=["get", "put", "fill", "finish", "kernel", "fft", "record"],
)
def test_no_work_of_the_host_while_a_sweep_is_recorded(work: Callable[[HostDevice, DeviceArray], Any]) -> None:
    device = on(SCALE)
    array = device.zeros(8, np.complex64)
    with pytest.raises(TypeError, match="while a sweep is recorded: no work of the host in a sweep"):
        device.record(lambda: work(device, array))
    work(device, array)


def test_what_a_replay_reads_before_it_is_written_shows() -> None:
    device = on(SCALE)
    kernel, out, kept = device.kernel("any", "scaled"), device.zeros(8, np.complex64), []

    def run() -> None:
        fresh = device.empty(8, np.complex64)
        if not kept:
            device.fill(fresh, 1)
        kept.append(fresh)
        kernel((1,), (8,), (out, kept[0], NULL, np.int32(8), np.float32(1)))

    run()
    np.testing.assert_array_equal(device.get(out), np.ones(8))
    device.fill(kept[0], 3)
    replay, _ = device.record(run)
    np.testing.assert_array_equal(device.get(out), np.full(8, 3))
    kept[1:] = []
    replay()
    np.testing.assert_array_equal(device.get(out), np.full(8, 3))
    assert np.isnan(device.get(device.record(lambda: device.empty(8, np.complex64))[1])).all()


# ---------------------------------------------------------------------------------------------------------------- sources
def test_headers_are_written_in_once_and_only_functions_of_the_host_count() -> None:
    twice = with_headers('#include "common.cuh"\n#include "common.cuh"\nint end;\n')
    assert twice.count("block_combine(T value)") == 1
    assert "#include" not in twice
    assert twice.endswith("int end;\n")
    text = """
// extern "C" __global__ void commented(int n)
/* extern "C" __global__ void also_commented(int n) */
__global__ void not_for_the_host() {}
extern "C" __global__ void plain(float* a) {}
extern "C" __global__ void __launch_bounds__(256) bounded(float* a) {}
extern "C" __global__ __launch_bounds__(SIZE, (2)) void in_front(
    float* a) {}
extern "C" __global__ void AT_ONCE(512)
    by_macro(float* a) {}
extern "C" __global__ void AT_ONCE
also_by_macro(float* a, int b) {}
"""
    assert functions_of(text) == ("plain", "bounded", "in_front", "by_macro", "also_by_macro")


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match="no_such_verb"):
        HostDevice().kernel("no_such_verb")
