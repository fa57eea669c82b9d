"""Waves to the detector and back in three kernels, with an FFT of our own in shared memory: two round trips through memory, not six.

``plan_for`` says whether a shape is covered; ``FusedFft`` launches, on plain device arrays: far field; waves (frame, wave, y, x) contiguous
complex64; ``model``: the arguments that MODEL_PARAMETERS in model.cuh lists; ``measured``: the last six of DETECTOR_PARAMETERS in
detector.cuh::

    fused = FusedFft(device, plan_for(shape, waves, shared_limit_bytes))
    fused.rows(w, model, overlap)                       w = FFT along x of overlap P_j O_j
    fused.rows(w, model, overlap, psi, wave)            ... of overlap P_j O_j + wave psi_j        (w may be psi)
    fused.rows(w, None, 0.0, psi, 1.0)                  ... of psi_j
    fused.columns(w, ONTO_MODULUS, measured, residuals, slack=0.1)
                                                        FFT along y; verb; inverse FFT along y; all scales included
    fused.finish(w, w)                                  w = inverse FFT along x: what to_sample gives
    fused.finish(psi, w, model, wave, data, overlap)    psi_j <- wave psi_j + data w_j + overlap P_j O_j
    fused.finish(w, w, model, 0.0, wave, overlap)       w_j <- overlap P_j O_j + wave w_j
    fused.move_probe(moved, spectrum, rests)            P on frames: moved by the rests, from the FFT of P

``residuals`` (and ``likelihoods``): ``fused.partials(frames)`` slots of float64 each, whose sum is the number. psi is not read where its
weight is 0, nor P and O where theirs is. psi and target may be in half precision (half.py), (frame, wave, y, x, 2) float16.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.verbs.cuda.device import NULL, Array, Device
from ptyplugin.solvers.verbs.cuda.half import is_half
from ptyplugin.solvers.verbs.line_search import DARK_COUNTS

Arguments = tuple[Any, ...]
#: What ``FusedFft.columns`` does on the detector: onto_modulus, likelihood_step (two kinds of noise), likelihood_gradient (three kinds).
DetectorVerb = Literal[0, 1, 2, 3, 4, 5]
ONTO_MODULUS: DetectorVerb = 0
GAUSSIAN_STEP: DetectorVerb = 1
POISSON_STEP: DetectorVerb = 2
AMPLITUDE_GRADIENT: DetectorVerb = 3
GAUSSIAN_GRADIENT: DetectorVerb = 4
POISSON_GRADIENT: DetectorVerb = 5

_LARGEST_SIDE, _LARGEST_RADIX = 1024, 32
#: More values in a thread, of a butterfly or of several, take registers from other threads: three passes of less are better.
_WIDEST_RADIX, _MOST_VALUES = 25, 16
_COMPLEX64 = 8
#: Shared memory that a block takes beside its lines and a ramp along one of them, at most.
_BESIDE_BYTES = 2048
#: Threads of a block, a multiple of a warp, and of a line: 8 read 64 bytes next to each other.
_WARP, _MOST_THREADS, _SHORTEST_GROUP = 32, 512, 8
#: Threads of a multiprocessor: their registers hold what is on its way from memory.
_AT_ONCE = 512
#: Rows that one block transforms of several frames, so that it reads the probe once, as long as there are blocks enough for all of a card.
_FRAMES_OF_BLOCK, _ENOUGH_BLOCKS = (4, 2), 2048
#: MODEL_PARAMETERS where there is no model.
_NO_MODEL: Arguments = (
    *(NULL, np.int32(1), np.int32(0), np.int32(0)),
    *(NULL, np.int64(0), np.int64(0), np.int64(0), np.int32(1)),
    *(NULL, NULL, np.int32(1), np.int32(0), np.int32(0)),
)


class Side(NamedTuple):
    """How lines along one side of a frame are transformed. radices: of the passes; group: threads of a line; lines: of a block."""

    radices: tuple[int, ...]
    group: int
    lines: int

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.group * self.lines

    @property
    def row_bytes(self) -> int:
        """Shared memory of a block, if lines are rows."""
        gapped = self._gapped(self.radices[:1])
        return self.lines * _COMPLEX64 * (gapped + ((self.group - gapped) % 16 if self.group % 16 else 0))

    @property
    def column_bytes(self) -> int:
        """Shared memory of a block and wave, if lines are columns: 16 next to each other meet no bank twice."""
        return self.lines * _COMPLEX64 * self._gapped(self.radices if self.lines < 16 else ())

    def _gapped(self, gaps: tuple[int, ...]) -> int:
        """The length of a line with a gap after so many values each, as place() in stockham.cuh has them."""
        length = math.prod(self.radices)
        return length + max((length // gap for gap in gaps if gap % 2 == 0), default=0)

    def defines(self, other: int) -> dict[str, int]:
        """What compiles a kernel for it; ``other``: px, the frame's other side."""
        radices = dict(zip(("R0", "R1", "R2"), (*self.radices, 1), strict=False))
        block = {"GROUP": self.group, "LINES": self.lines, "BLOCKS": max(_AT_ONCE // self.threads, 1)}
        return {"SIDE": math.prod(self.radices), "OTHER": other, **radices, **block}


@dataclass(frozen=True, slots=True)
class FusedPlan:
    """How frames of one shape with so many waves each are transformed.

    held: where spectra wait until those of all waves are summed up: 0 registers (one wave), 1 shared memory, 2 memory
    column_bytes: shared memory of a block of columns
    """

    shape: tuple[int, int]
    rows: Side
    columns: Side
    held: Literal[0, 1, 2]
    column_bytes: int

    @property
    def tiles(self) -> int:
        """Blocks of columns that a frame has."""
        return -(-self.shape[1] // self.columns.lines)


def plan_for(shape: tuple[int, int], waves: int, shared_limit_bytes: int) -> FusedPlan | None:
    """The plan for frames of ``shape`` with so many ``waves`` each on a card whose blocks may have so much shared memory.

    None: a side is above 1024 px or has no factors that are covered; cuFFT does it.
    """
    radices = [_radices(side) for side in shape]
    if not all(radices):
        return None
    limit = shared_limit_bytes - _BESIDE_BYTES - _COMPLEX64 * shape[0]
    every = [side for lines in (4, 8, 16, 32) if (side := _side(radices[1], lines)).row_bytes <= limit]
    if not every:
        return None
    rows = min(every, key=lambda side: (not 4 * _WARP <= side.threads <= 8 * _WARP, _cost(side), side.threads))
    for lines, share, held in _choices(waves):
        columns = _side(radices[0], lines)
        column_bytes = columns.column_bytes * (waves if held == 1 else 1)
        if column_bytes <= share * limit and _cost(columns) < math.inf:
            return FusedPlan((shape[0], shape[1]), rows, columns, held, column_bytes)
    return None


def _choices(waves: int) -> tuple[tuple[int, float, Literal[0, 1, 2]], ...]:
    """Columns of a block, the share of the shared memory that it may take, and where spectra wait: the best first.

    16 columns are whole segments of 128 bytes, 4 are the shortest that memory moves. Two blocks at least are wanted: one computes while the
    other one waits.
    """
    if waves == 1:
        return (16, 0.5, 0), (8, 0.5, 0), (8, 1, 0), (4, 1, 0)
    return (16, 0.5, 1), (8, 0.5, 1), (8, 1, 1), (4, 1, 1), (16, 0.5, 2), (8, 1, 2), (4, 1, 2)


def _radices(side: int) -> tuple[int, ...]:
    """As equal as can be, the largest last: of two passes if these are small enough, else of three; () if there are none."""
    if side > _LARGEST_SIDE:
        return ()
    factors = [factor for factor in range(2, _LARGEST_RADIX + 1) if side % factor == 0]
    every = [some for passes in (2, 3) for some in itertools.combinations_with_replacement(factors, passes) if math.prod(some) == side]
    return min(every, key=lambda some: (max(some) > _WIDEST_RADIX, len(some), max(some), sum(some)), default=())


def _side(radices: tuple[int, ...], lines: int) -> Side:
    """With the group of threads that idles least; the larger one of equals, since it needs fewer registers."""
    step = _WARP // math.gcd(_WARP, lines)
    groups = range(step, _MOST_THREADS // lines + 1, step)
    sides = [Side(radices, group, lines) for group in groups if group >= _SHORTEST_GROUP]
    return min(sides, key=lambda side: (_cost(side), -side.group))


def _cost(side: Side) -> float:
    """Values that the threads of a line meet in all passes, those of idle ones included; none where a thread had to keep too many."""
    length = math.prod(side.radices)
    values = [-(-length // (radix * side.group)) * radix for radix in side.radices]
    return math.inf if max(values[1:]) > max(_MOST_VALUES, *side.radices) else side.group * sum(values)


def twiddles(radices: tuple[int, ...]) -> NDArray[np.complex64]:
    """The table that stockham.cuh describes."""
    before, tables = radices[0], [np.empty(0, np.complex64)]
    for radix in radices[1:]:
        r, k = np.arange(1, radix)[:, None], np.arange(before)
        tables.append(np.exp(-2j * np.pi * r * k / (before * radix)).astype(np.complex64).ravel())
        before *= radix
    return np.concatenate(tables)


def variants(file: str) -> tuple[dict[str, int], ...]:
    """Sets of defines with which tests compile one of the kernels: frames of some sizes, 1, 3 and 5 waves, every verb."""
    plans = [plan for side in (256, 128, 192, 200, 512) for waves in (1, 3, 5) if (plan := plan_for((side, side), waves, 227 * 1024))]
    if file in ("fused_rows", "fused_finish"):
        found = (
            [plan.rows.defines(plan.shape[0]) for plan in plans]
            + [{**plans[0].rows.defines(256), "WITH_MODEL": with_model, "WITH_WAVE": 1 - with_model} for with_model in (0, 1)]
            + [{**plans[0].rows.defines(256), "PSI_HALF": 1}]
        )
    elif file == "fused_move":
        found = [plan.columns.defines(plan.shape[1]) for plan in plans]
    else:
        found = [plan.columns.defines(plan.shape[1]) | {"HELD": plan.held} for plan in plans]
        verbs = [{"VERB": verb, "COUNTS_FLOAT": verb % 2} for verb in range(1, 6)]
        found += [found[0] | more for more in ({"HELD": 2}, *verbs)]
    return tuple(dict(some) for some in dict.fromkeys(tuple(sorted(each.items())) for each in found))


class FusedFft:
    """Launches the kernels for frames of one shape. See the top of this file."""

    def __init__(self, device: Device, plan: FusedPlan) -> None:
        self._device, self.plan = device, plan
        self._tables = tuple(device.put(twiddles(some)) for some in (plan.rows.radices, plan.columns.radices, plan.columns.radices[::-1]))

    def partials(self, frames: int) -> int:
        """How many numbers ``columns`` adds up to for a batch of so many frames."""
        return frames * self.plan.tiles

    def rows(self, w: Array, model: Arguments | None, overlap: float, psi: Array | None = None, wave: float = 0.0) -> None:
        """w <- the FFT along x of overlap P_j O_j + wave psi_j; w and psi (frame, wave, y, x) may be the same."""
        arrays = w, NULL if psi is None else psi
        self._over_rows("fused_rows", w, arrays, (np.float32(overlap), np.float32(wave)), model, overlap, wave, is_half(arrays[1]))

    def columns(
        self, w: Array, verb: DetectorVerb, measured: Arguments, residuals: Array, likelihoods: Array | None = None, slack: float = 0.0
    ) -> None:
        """w <- the inverse FFT along y of the verb's of the FFT along y of w, in place, times 1 / pixels of a frame.

        residuals (partials,) float64: what modulus_residual gives before the verb; likelihoods (partials,): of a gradient only
        """
        if not len(w):
            return
        plan, pixels = self.plan, math.prod(self.plan.shape)
        defines = {"VERB": verb, "HELD": plan.held, "COUNTS_FLOAT": int(measured[2].dtype == np.float32)}
        kernel = self._kernel("fused_columns", plan.columns, plan.shape[1], **defines)
        arguments = (
            w,
            residuals,
            NULL if likelihoods is None else likelihoods,
            *self._tables[1:],
            np.float32(slack),
            np.float32(DARK_COUNTS),
        )
        detector = (np.int32(w.shape[1]), np.int32(pixels), np.float32(1 / pixels), *measured)
        kernel((plan.tiles, len(w)), (plan.columns.threads,), (*arguments, *detector), shared_mem=plan.column_bytes)

    def finish(
        self, target: Array, w: Array, model: Arguments | None = None, wave: float = 0.0, data: float = 1.0, overlap: float = 0.0
    ) -> None:
        """target_j <- wave target_j + data w_j + overlap P_j O_j, w being the inverse FFT along x of what it is; target may be w."""
        weights = np.float32(wave), np.float32(data), np.float32(overlap)
        self._over_rows("fused_finish", w, (target, w), weights, model, overlap, wave, is_half(target))

    def move_probe(self, moved: Array, spectrum: Array, rests: Arguments) -> None:
        """moved (frame, probe mode, sub-step, y, x) <- P moved by the rests.

        spectrum: (probe mode, y, x), the FFT of P; rests: frames, rests, sub-steps, as in ramps.cu
        """
        if not len(moved):
            return
        plan, side = self.plan, self.plan.columns
        kernel = self._kernel("fused_move", side, plan.shape[1])
        arguments = moved, spectrum, self._tables[1], np.int32(len(spectrum)), np.float32(1 / math.prod(plan.shape)), *rests
        shared = side.column_bytes + _COMPLEX64 * plan.shape[0]
        kernel((plan.tiles, len(moved), moved.shape[2]), (side.threads,), arguments, shared_mem=shared)
        waves = moved.reshape(len(moved), -1, *plan.shape)
        self.finish(waves, waves)

    def _over_rows(
        self, file: str, w: Array, arrays: Arguments, weights: Arguments, model: Arguments | None, overlap: float, wave: float, half: int
    ) -> None:
        """Launch one of the two kernels that transform rows."""
        if not len(w):
            return
        side, flags = self.plan.rows, {"WITH_MODEL": int(overlap != 0), "WITH_WAVE": int(wave != 0), "PSI_HALF": half}
        kernel = self._kernel(file, side, self.plan.shape[0], **flags)
        tiles = -(-self.plan.shape[0] // side.lines)
        together = next((some for some in _FRAMES_OF_BLOCK if tiles * len(w) * w.shape[1] >= some * _ENOUGH_BLOCKS), 1)
        grid = tiles, -(-len(w) // together), w.shape[1]
        batch = np.int32(len(w)), np.int32(together)
        arguments = (*arrays, self._tables[0], *weights, *batch, *(model if model and overlap else _NO_MODEL))
        kernel(grid, (side.threads,), arguments, shared_mem=side.row_bytes)

    def _kernel(self, file: str, side: Side, other: int, **defines: int) -> Any:
        return self._device.kernel(file, "", **side.defines(other), **defines)
