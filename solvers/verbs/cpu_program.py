"""Programs of the ``cpu`` verbs: what verbs ask for on the frames of a batch is noted, then done frame by frame, all steps while a frame is
in the cache. Decision record 0003 tells why.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.streaming import block_frames
from ptyplugin.solvers.verbs.cpu_fft import Complex64, Fft, FftName, fft_of

Array = NDArray[Any]


class Waves:
    """Waves (frame, wave, y, x) that a program will compute, and that lie nowhere until somebody needs them as an array."""

    __slots__ = ("__weakref__", "_array", "_program", "shape", "slot")

    def __init__(self, program: Program, slot: int, shape: tuple[int, ...]) -> None:
        self.shape, self.slot = shape, slot
        self._program: Program | None = program
        self._array: Complex64 | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.array().astype(dtype or np.complex64, copy=bool(copy))

    def array(self) -> Complex64:
        """The waves; runs their program if need be."""
        if self._program is not None:
            self._program.run()
        if self._array is None:
            raise RuntimeError("these waves are gone: a verb that may reuse their memory has done so")
        return self._array

    def pending_in(self, program: Program | None) -> bool:
        """Whether ``program`` will compute them."""
        return self._program is not None and self._program is program

    def keep(self) -> Complex64:
        """Lay them down in an array: they outlive their program."""
        self._array = np.empty(self.shape, dtype=np.complex64)
        return self._array

    def done(self) -> None:
        """Their program has run."""
        self._program = None


@dataclass(frozen=True, slots=True)
class Slot:
    """Argument of a step: a thread's scratch for the waves of one frame, (1, wave, y, x)."""

    number: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Modes:
    """Argument of a step: the scratch of ``slot`` as (probe mode, sub-step, y, 2 x)."""

    slot: Slot
    modes: int


@dataclass(frozen=True, slots=True)
class Light:
    """Argument of a step: a thread's scratch for an intensity (sub-step, y, x), float32."""

    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Argument of a step: a thread's scratch of one row, float32."""

    columns: int


@dataclass(frozen=True, slots=True, eq=False)
class Sum:
    """Argument of a step: an array that frames add to. With ``corners``, frame j adds a patch of ``patch`` px at corners[j].

    The first thread adds to the array itself, the others to copies, which are added in the order of the threads.
    """

    array: Array
    corners: NDArray[np.int32] | None = None
    patch: tuple[int, int] = (0, 0)

    def window(self, share: slice) -> tuple[slice, slice]:
        """Rows and columns that the frames of ``share`` add to."""
        rows, columns = self.array.shape[-2:]
        if self.corners is None:
            return slice(0, rows), slice(0, columns)
        low, high = self.corners[share].min(axis=(0, 1)), self.corners[share].max(axis=(0, 1))
        return slice(int(low[0]), int(high[0]) + self.patch[0]), slice(int(low[1]), int(high[1]) + self.patch[1])


@dataclass(frozen=True, slots=True, eq=False)
class Corners:
    """Argument of a step: the corners of ``sum`` in what a thread adds to."""

    sum: Sum


@dataclass(frozen=True, slots=True)
class FftOf:
    """Argument of a step: the thread's transform."""


class Thread:
    """Work space of one thread, kept from program to program."""

    def __init__(self, fft: Fft) -> None:
        self.fft = fft
        self._kept: dict[Any, Array] = {}

    def scratch(self, name: tuple[str, int], shape: tuple[int, ...], dtype: Any = np.complex64) -> Array:
        """The array of this name; a new one where its shape or type has changed."""
        kept = self._kept.get(name)
        if kept is None or kept.shape != shape or kept.dtype != dtype:
            kept = self.fft.empty(shape) if name[0] == "waves" else np.empty(shape, dtype=dtype)
            self._kept[name] = kept
        return kept


class Crew:
    """Threads that share the frames of a program, in rounds: contiguous, equal shares, always the same."""

    def __init__(self, threads: int, fft: FftName, shape: tuple[int, int]) -> None:
        self.threads = [Thread(fft_of(fft, shape)) for _ in range(threads)]
        self._shape = shape
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="verbs") if threads > 1 else None

    def rounds(self, frames: int) -> Iterator[list[slice]]:
        """One share per thread that has any frames, in each round: so sums over all frames are those of blocks read one by one."""
        size = block_frames(frames, self._shape)
        for start in range(0, frames, size):
            some = min(size, frames - start)
            count = min(len(self.threads), some)
            edges = [start + some * number // count for number in range(count + 1)]
            yield [slice(*pair) for pair in itertools.pairwise(edges)]

    def all_do(self, work: Callable[[int], None], count: int) -> None:
        """work(number) for each number below ``count``, the first in the calling thread; ends when all have ended."""
        others = [self._pool.submit(work, number) for number in range(1, count)] if self._pool else []
        try:
            work(0)
        finally:
            failures = [other.exception() for other in others]
        for failure in failures:
            if failure is not None:
                raise failure


Kernel = Callable[..., None]


class Program:
    """Steps on the frames of one batch, noted until ``run``."""

    def __init__(self, batch: Batch, crew: Crew) -> None:
        self.batch = batch
        self._crew = crew
        self._steps: list[tuple[Kernel, tuple[Any, ...]]] = []
        self._waves: list[weakref.ref[Waves]] = []
        self._touched: list[tuple[int, int, Any]] = []
        self._afterwards: list[Callable[[], None]] = []
        self._has_run = False
        self.moved: dict[Any, tuple[Array, Modes]] = {}

    def fits(self, b: Batch) -> bool:
        """Whether steps on ``b`` are steps on the frames of this program."""
        mine = self.batch
        same = b is mine or (_place(b.corners) == _place(mine.corners) and b.has_counts_of(mine))
        return same and not self._has_run

    def admits(self, frames: Sequence[Array], reads: Sequence[Array], adds: Sequence[Array]) -> bool:
        """Whether a step that uses these arrays may be interleaved, frame by frame, with the steps noted so far; if so, they are noted.

        frames: step j touches its frame j only; reads: read by all frames; adds: added to by all frames
        """
        uses: list[tuple[int, int, Any]] = [(*_bytes(array), _place(array)) for array in frames]
        uses += [(*_bytes(array), "read") for array in reads]
        uses += [(*_bytes(array), "add") for array in adds]
        for low, high, use in uses:
            for other_low, other_high, other in self._touched:
                if low < other_high and other_low < high and (use != other or use == "add"):
                    return False
        self._touched += uses
        return True

    def step(self, kernel: Kernel, *arguments: Any) -> None:
        """Note kernel(j, *arguments)."""
        self._steps.append((kernel, arguments))

    def afterwards(self, work: Callable[[], None]) -> None:
        """Note what is to be done after each round of frames."""
        self._afterwards.append(work)

    def new_waves(self, waves: int) -> Waves:
        """Waves in a slot of their own."""
        made = Waves(self, len(self._waves), (len(self.batch), waves, *self.batch.good.shape))
        self._waves.append(weakref.ref(made))
        return made

    def renamed(self, waves: Waves) -> Waves:
        """The same slot under a new name: the old one is used up."""
        made = Waves(self, waves.slot, waves.shape)
        self._waves[waves.slot] = weakref.ref(made)
        waves.done()
        return made

    def slot_of(self, waves: Waves) -> Slot:
        """The argument for a step that works on ``waves``."""
        return Slot(waves.slot, (1, *waves.shape[1:]))

    def scale_last(self, kernels: tuple[Kernel, ...], slot: Slot, factor: np.float32) -> bool:
        """Whether the last step is one of ``kernels`` on ``slot``; then its last argument, a factor, is multiplied by ``factor``."""
        last, arguments = self._steps[-1] if self._steps else (None, (None,))
        if last not in kernels or not isinstance(arguments[0], Slot) or arguments[0] != slot:
            return False
        self._steps[-1] = (last, (*arguments[:-1], arguments[-1] * factor))
        return True

    def run(self) -> None:
        """Do all steps, once. Waves that somebody still holds are laid down in arrays."""
        if self._has_run:
            return
        self._has_run = True
        held = [waves for waves in (reference() for reference in self._waves) if waves is not None]
        for waves in held:
            self.step(_lay_down, floats(waves.keep()), self.slot_of(waves))
            waves.done()
        sums = list(
            {id(argument): argument for _, arguments in self._steps for argument in arguments if isinstance(argument, Sum)}.values()
        )
        for shares in self._crew.rounds(len(self.batch)):
            self._do(shares, sums)

    def _do(self, shares: list[slice], sums: list[Sum]) -> None:
        """All steps on one round of frames."""
        bound = [self._bind(number, share, sums) for number, share in enumerate(shares)]

        def walk(number: int) -> None:
            steps, copies = bound[number]
            for copy in copies:
                copy.fill(0)
            for j in range(shares[number].start, shares[number].stop):
                for kernel, arguments in steps:
                    kernel(j, *arguments)

        self._crew.all_do(walk, len(shares))
        for number in range(1, len(shares)):
            for total, copy in zip(sums, bound[number][1], strict=True):
                total.array[(..., *total.window(shares[number]))] += copy
        for work in self._afterwards:
            work()

    def _bind(self, number: int, share: slice, sums: list[Sum]) -> tuple[list[tuple[Kernel, tuple[Any, ...]]], list[Array]]:
        """The steps with the arguments of one thread, and its copies of the sums."""
        thread, copies = self._crew.threads[number], []
        windows = [total.window(share) if number else (slice(0, None), slice(0, None)) for total in sums]
        places = {id(total): place for place, total in enumerate(sums)}
        if number:
            for place, (total, (rows, columns)) in enumerate(zip(sums, windows, strict=True)):
                shape = (*total.array.shape[:-2], rows.stop - rows.start, columns.stop - columns.start)
                copies.append(thread.scratch(("sum", place), shape, total.array.dtype))

        def bound(argument: Any) -> Any:
            match argument:
                case Slot():
                    return floats(thread.scratch(("waves", argument.number), argument.shape))
                case Modes():
                    scratch = floats(thread.scratch(("waves", argument.slot.number), argument.slot.shape))
                    return scratch.reshape(argument.modes, -1, *scratch.shape[-2:])
                case Light():
                    return thread.scratch(("light", 0), argument.shape, np.float32)
                case Row():
                    return thread.scratch(("row", 0), (argument.columns,), np.float32)
                case FftOf():
                    return thread.fft
                case Sum():
                    return floats(copies[places[id(argument)]] if number else argument.array)
                case Corners():
                    assert argument.sum.corners is not None
                    rows, columns = windows[places[id(argument.sum)]]
                    return argument.sum.corners - np.array([rows.start, columns.start], dtype=np.int32) if number else argument.sum.corners
            return argument

        return [(kernel, tuple(bound(argument) for argument in arguments)) for kernel, arguments in self._steps], copies


def floats(array: Array) -> Array:
    """A complex array as float32, real and imaginary part side by side; a real one as it is."""
    return array.view(np.float32) if array.dtype == np.complex64 else array


def forward(j: int, w: Array, fft: Fft) -> None:
    """w_j <- its Fourier transform; w as float32"""
    fft.forward((w if len(w) == 1 else w[j : j + 1]).view(np.complex64))


def backward(j: int, w: Array, fft: Fft) -> None:
    """w_j <- its inverse Fourier transform / backward_scale; w as float32"""
    fft.backward((w if len(w) == 1 else w[j : j + 1]).view(np.complex64))


def _lay_down(j: int, array: Array, w: Array) -> None:
    array[j] = w[0]


def _place(array: Array) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return array.__array_interface__["data"][0], array.shape, array.strides


def _bytes(array: Array) -> tuple[int, int]:
    low, high = np.lib.array_utils.byte_bounds(array)
    return int(low), int(high)
