"""Every kernel compiles for all generations of GPUs that CUDA 13 serves, without a warning, and keeps to its registers."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from compiling import ARCHITECTURES, CompileError, compiled
from shim import HostDevice

from ptyplugin.solvers.verbs.cuda.fused import ONTO_MODULUS, POISSON_GRADIENT, FusedFft, plan_for
from ptyplugin.solvers.verbs.cuda.sources import functions_of, kernel_names, source_of, variants_of

#: With more, fewer than two blocks of 256 threads share a multiprocessor.
MOST_REGISTERS = 128


def troubles(source: str, architecture: str, defines: dict[str, int], most_registers: int = MOST_REGISTERS) -> list[str]:
    """What is wrong with the kernels of a source."""
    needs = compiled(source, architecture, defines)
    said = [f"{name} is not there" for name in functions_of(source) if name not in needs]
    for name, need in needs.items():
        if need.spilled or need.stack or need.registers > most_registers:
            said.append(f"{name} for {architecture} with {defines}: {need}")
    return said


@pytest.mark.parametrize("name", kernel_names())
def test_kernels_compile_for_all_generations_and_spill_nothing(name: str) -> None:
    first, *others = variants_of(name)
    wanted = [(first, architecture) for architecture in ARCHITECTURES] + [(other, "sm_90") for other in others]
    assert not [said for defines, architecture in wanted for said in troubles(source_of(name), architecture, defines)]


class Noting(HostDevice):
    """Notes which kernels are asked for, and launches none."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: dict[tuple[str, tuple[tuple[str, int], ...]], None] = {}

    def kernel(self, file: str, function: str = "", **defines: int) -> Any:
        self.noted[file, tuple(sorted(defines.items()))] = None
        return lambda *args, **shared: None


@pytest.mark.parametrize(("side", "waves"), [(128, 1), (192, 1), (200, 1), (200, 5), (256, 5)])
def test_fused_transforms_of_usual_frames_spill_nothing(side: int, waves: int) -> None:
    """They choose themselves how many registers a thread has: by the blocks that share a multiprocessor."""
    device, plan = Noting(), plan_for((side, side), waves, HostDevice().shared_bytes)
    fused = FusedFft(device, plan)
    w, counts = device.empty((2, waves, side, side), np.complex64), device.empty((2, side, side), np.uint16)
    partials = device.empty(fused.partials(2), np.float64)
    fused.rows(w, None, overlap=2.0, psi=w, wave=-1.0)
    fused.columns(w, ONTO_MODULUS, (counts,) * 6, partials)
    fused.columns(w, POISSON_GRADIENT, (counts,) * 6, partials, partials)
    fused.finish(w, w, None, wave=1.0, data=1.0, overlap=-1.0)
    assert {file for file, _ in device.noted} == {"fused_rows", "fused_columns", "fused_finish"}
    assert not [said for file, defines in device.noted for said in troubles(source_of(file), "sm_90", dict(defines), 255)]


@pytest.mark.parametrize("name", kernel_names())
def test_no_kernel_is_hidden_from_the_host(name: str) -> None:
    assert len(functions_of(source_of(name))) == len(re.findall(r"^[^/\n]*__global__", source_of(name), re.MULTILINE)) > 0


SPILLS = """
extern "C" __global__ void __launch_bounds__(1024) spills(float* data) {
    float kept[128];
    #pragma unroll
    for (int i = 0; i < 128; ++i) kept[i] = data[i * 1024 + threadIdx.x];
    #pragma unroll 1
    for (int n = 0; n < 100; ++n) {
        #pragma unroll
        for (int i = 0; i < 128; ++i) kept[i] = kept[i] * kept[(i + 1) % 128] + 1.f;
    }
    #pragma unroll
    for (int i = 0; i < 128; ++i) data[i * 1024 + threadIdx.x] = kept[i];
}
"""
STACK = """
extern "C" __global__ void stack(float* a, int i) {
    float of[64];
    for (int k = 0; k < 64; ++k) of[k * i & 63] = a[k];
    a[0] = of[i];
}
"""


@pytest.mark.parametrize(("source", "said"), [(SPILLS, r"spills for sm_90 .*spilled=[1-9]"), (STACK, r"stack for sm_90 .*stack=[1-9]")])
def test_a_kernel_that_does_not_keep_to_its_registers_is_found(source: str, said: str) -> None:
    (found,) = troubles(source, "sm_90", {})
    assert re.match(said, found)


@pytest.mark.parametrize(
    ("body", "said"), [("out[0] = nonsense;", "error: identifier .nonsense. is undefined"), ("int idle = 3;", "warning.*idle")]
)
def test_what_the_compiler_does_not_like_is_found(body: str, said: str) -> None:
    with pytest.raises(CompileError, match=said):
        compiled('extern "C" __global__ void wrong(float* out) { ' + body + " }", "sm_75", {})
