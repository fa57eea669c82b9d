"""What a difference map moves through the memory of a GPU, counted launch by launch on the CPU's shim: ``python -m benchmarks.gpu_bytes``.

A launch counts each array of waves or counts once for reading if what it gives depends on what is in it, and once for writing if it
changes it: both are found out by launching the kernel on memory with other values. A Fourier transform of cuFFT counts as two passes.
Left out is what is there once for a batch or for all frames: object, probe, and sums over frames. What a kernel reads of the stored waves
right after the kernel before it has written them comes from the cache and is listed apart. ``--json`` prints what was counted as JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks.gpu_device import with_tests
from benchmarks.gpu_problem import COUNTS_BYTES, WAVES_BYTES, made_up, moved_bytes
from benchmarks.table import Table
from ptyplugin.solvers.algorithms import algorithm_of
from ptyplugin.solvers.run import steps
from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs
from ptyplugin.solvers.way import blocks_of

with_tests()
from shim import DeviceArray, HostDevice, HostKernel  # noqa: E402 -- of tests/solvers/cuda


@dataclass
class Moved:
    """Bytes of one kernel. again: read right after they were written, so from the cache."""

    kernel: str
    read: float = 0
    written: float = 0
    again: float = 0


@dataclass
class CountingDevice(HostDevice):
    """A shim that notes what its launches move. ``batch``: frames of a batch; ``stored``: where the stored waves lie, (address, bytes)."""

    batch: int = 0
    stored: tuple[int, int] = (0, 0)
    launched: list[Moved] = field(default_factory=list)

    def __post_init__(self) -> None:
        HostDevice.__init__(self)
        self.last_written: set[tuple[int, int]] = set()

    def kernel(self, file: str, function: str = "", **defines: int) -> Any:
        kernel = super().kernel(file, function, **defines)
        return _Counted(self, kernel, 2 if defines.get("HELD") == 2 else 1)

    def fft(self, waves: DeviceArray, inverse: bool) -> None:
        self.note("cuFFT", [(waves, 2 * waves.nbytes, 2 * waves.nbytes)])
        super().fft(waves, inverse)

    def note(self, kernel: str, arrays: list[tuple[DeviceArray, int, int]]) -> None:
        """arrays: each with bytes read and written"""
        moved = Moved(kernel)
        for array, read, written in arrays:
            place = array.data.ptr, array.nbytes
            again = place in self.last_written and self.stored[0] <= place[0] < sum(self.stored)
            moved.again += read * again
            moved.read += read * (not again)
            moved.written += written
        self.launched.append(moved)
        touched = {(array.data.ptr, array.nbytes) for array, _, written in arrays if written}
        self.last_written = touched if any(array.ndim > 3 for array, *_ in arrays) else self.last_written


class _Counted:
    """A kernel that is launched on other values first, to see what it looks at."""

    def __init__(self, device: CountingDevice, kernel: HostKernel, passes: int) -> None:
        self._device, self._kernel, self._passes = device, kernel, passes

    def __call__(self, grid: Any, block: Any, args: tuple[Any, ...], *, shared_mem: int = 0) -> None:
        def launch() -> None:
            self._kernel(grid, block, args, shared_mem=shared_mem)

        arrays = {(arg.data.ptr, arg.nbytes): (i, arg) for i, arg in enumerate(args) if isinstance(arg, DeviceArray)}
        streams = [(i, array) for i, array in arrays.values() if _streams(i, array, args, self._device.batch)]
        every = [array for _, array in arrays.values()]
        self._device.note(self._kernel.name, [(array, *self._moves(i, array, args, every, launch)) for i, array in streams])
        launch()

    def _moves(
        self, i: int, array: DeviceArray, args: tuple[Any, ...], every: list[DeviceArray], launch: Callable[[], None]
    ) -> tuple[int, int]:
        """Bytes that a launch reads of an array, and writes to it."""
        before = [each._host.copy() for each in every]
        gave, kept = [], []
        for seed in (1, 2):
            for each, values in zip(every, before, strict=True):
                each._host[...] = values
            other = _other_values(array, seed)
            array._host[...] = other
            launch()
            kept.append(bool((array._host == other).all()))
            gave.append([each._host.copy() for each in every if each is not array or not kept[-1]])
        for each, values in zip(every, before, strict=True):
            each._host[...] = values
        looked = any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(*gave, strict=True))
        size = array.nbytes if array.ndim > 3 else len(args[i - 1]) * array[0].nbytes
        return looked * size * self._passes, (not all(kept)) * size * self._passes


def _streams(i: int, array: DeviceArray, args: tuple[Any, ...], batch: int) -> bool:
    """Whether it has a part for each frame of the batch: waves (frame, wave, y, x), or counts (frame, y, x), which follow their rows."""
    if array.ndim > 3:
        return len(array) == batch
    return array.ndim == 3 and array.dtype.kind in "uf" and isinstance(args[i - 1], DeviceArray) and args[i - 1].dtype == np.int32


def _other_values(array: DeviceArray, seed: int) -> Any:
    random = np.random.default_rng(seed)
    if array.dtype.kind == "u":
        return random.integers(1, 1000, array.shape).astype(array.dtype)
    if array.dtype.kind == "f":
        return random.random(array.shape).astype(array.dtype)
    return (random.standard_normal(array.shape) + 1j * random.standard_normal(array.shape)).astype(array.dtype)


def counted(scheme: str, modes: int, recipe: str = "DM(4)", side: int = 32, batch: int = 20) -> list[Moved]:
    """What the sweep of the last iteration of a recipe moves, by kernel, per pixel, mode and iteration."""
    device = CountingDevice(batch=batch)
    problem = made_up(ReferenceVerbs, side, modes, 2 * batch, 2 * side)
    verbs: Any = CudaVerbs(problem.geometry, device, fused=scheme == "S3")
    verbs.records, verbs.batch_frames = False, lambda shape, waves: batch
    problem.frames = verbs.hold(problem.frames)
    state, way = problem.begun(recipe, verbs)
    going, last = steps(state, way), way.stages[0].iterations
    for _ in range(last - 1):
        next(going)
    device.stored, device.launched = (state.waves.data.ptr, state.waves.nbytes), []
    algorithm, options = algorithm_of(way.stages[0])
    algorithm.sweep(state, blocks_of(state, way), verbs, way.ranks, options, last).read()
    return _by_kernel(device.launched, 2 * batch * modes * problem.pixels)


def _by_kernel(launched: list[Moved], values: int) -> list[Moved]:
    total: dict[str, Moved] = {}
    for moved in launched:
        if moved.read or moved.written or moved.again:
            one = total.setdefault(moved.kernel, Moved(moved.kernel))
            one.read, one.written, one.again = one.read + moved.read, one.written + moved.written, one.again + moved.again
    return [Moved(each.kernel, *(round(size / values, 3) for size in (each.read, each.written, each.again))) for each in total.values()]


def table(scheme: str, modes: int, moved: list[Moved]) -> Table:
    """What was counted, as a table."""
    title = f"Difference map by {scheme}, {modes} mode(s): bytes per pixel, mode and iteration"
    made = Table(title, ["kernel", "read", "written", "from the cache"])
    for each in moved:
        made.add(each.kernel, each.read, each.written, each.again or None)
    total = sum(each.read + each.written for each in moved)
    made.notes.append(f"Together {total:.4g}, with the counts ({COUNTS_BYTES} per pixel).")
    return made


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m benchmarks.gpu_bytes", description=__doc__.splitlines()[0])
    words.add_argument("--json", action="store_true", help="for programs")
    asked = words.parse_args()
    found = {(scheme, modes): counted(scheme, modes) for scheme in WAVES_BYTES for modes in (1, 3)}
    if asked.json:
        said = [
            {"scheme": scheme, "modes": modes, "formula": moved_bytes(scheme, modes), "moved": [asdict(each) for each in moved]}
            for (scheme, modes), moved in found.items()
        ]
        print(json.dumps(said))
        return
    for (scheme, modes), moved in found.items():
        print(table(scheme, modes, moved).markdown())


if __name__ == "__main__":
    main()
