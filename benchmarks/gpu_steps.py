"""How fast it is on a GPU: memory, transforms, every algorithm. Steps of ``python -m benchmarks.gpu``; each gives rows as it goes."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.gpu_problem import Problem, best_seconds, iteration_ms, made_up, moved_bytes
from ptyplugin.solvers.verbs.cuda.fused import plan_for
from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs

Row = dict[str, Any]
#: Small problems: side, px, and frames.
_SIDE, _FRAMES = 16, 12
#: Share of the free memory that a problem may take.
_MOST = 0.8
_ALGORITHMS = {
    "RAAR": ("RAAR(1000)", 10_000),
    "AP": ("AP(1000)", 10_000),
    "ePIE, batch 1": ("ePIE(1000, batch=1)", 2_000),
    "ePIE, batch 64": ("ePIE(1000, batch=64)", 10_000),
    "rPIE, batch 1": ("rPIE(1000, batch=1)", 2_000),
    "rPIE, batch 64": ("rPIE(1000, batch=64)", 10_000),
    "mPIE, batch 1": ("mPIE(1000, batch=1)", 2_000),
    "mPIE, batch 64": ("mPIE(1000, batch=64)", 10_000),
    "LSQML": ("LSQML(1000)", 10_000),
    "ML": ("ML(1000)", 10_000),
}


@dataclass
class Bench:
    """What a step works with. small: tiny problems, whose times mean nothing; add: takes a row; left: seconds that the step still has."""

    device: Any
    shim: bool
    small: bool
    add: Callable[[Row], None]
    left: Callable[[], float]

    def verbs(self, scheme: str = "S3", batch: int = 0, graph: bool = True) -> Callable[[Any], Any]:
        """Verbs of the device: the scheme, frames of a batch (0: as they choose), and whether sweeps are recorded."""

        def made(geometry: Any) -> Any:
            do: Any = CudaVerbs(geometry, self.device, fused=scheme == "S3")
            do.records = graph
            if batch:
                do.batch_frames = lambda shape, waves: batch
            return do

        return made

    def problem(self, side: int, modes: int, frames: int = 10_000) -> Problem:
        """Frames of side x side px over an object of 2000 x 2000 px, held by the device; fewer if its memory is small."""
        if self.small:
            side, frames = _SIDE, _FRAMES
        room = int(_MOST * self.device.memory()[0] / (side * side * (8 * modes + 2)))
        problem = made_up(self.verbs(), side, modes, min(frames, room), 4 * side if self.small else 2000)
        problem.frames = self.verbs()(problem.geometry).hold(problem.frames)
        return problem


def copy(bench: Bench) -> None:
    """Device to device: bytes read and written per second."""
    size = 2**20 if bench.small else min(2**32, bench.device.memory()[0] // 4)
    source, target = bench.device.zeros((size,), np.uint8), bench.device.zeros((size,), np.uint8)
    seconds = best_seconds(lambda: bench.device.fill(target, source), bench.device, 9)
    bench.add({"bytes": size, "gb_per_s": 2 * size / seconds / 1e9})


def difference_map(side: int, modes: int) -> Callable[[Bench], None]:
    """A step: ms per iteration by both schemes over batch sizes, with graph and without."""

    def step(bench: Bench) -> None:
        problem = bench.problem(side, modes)
        batches = (8,) if bench.small else (128, 64, 256, 512, 32, 1024)
        for batch, scheme, graph in itertools.product(batches, ("S3", "S1"), (True,) if bench.small else (True, False)):
            row: Row = {"side": side, "modes": modes, "scheme": scheme, "batch": batch, "graph": graph, "frames": len(problem.frames)}
            bench.add(row | timed(bench, problem, "DM(1000)", scheme, batch, graph))

    return step


def timed(bench: Bench, problem: Problem, recipe: str, scheme: str, batch: int, graph: bool) -> Row:
    """What an iteration takes and, of a difference map, moves."""
    gc.collect()  # waves of the row before may still be there
    going = problem.walk(recipe, bench.verbs(scheme, batch, graph)(problem.geometry))
    ms = iteration_ms(going, bench.device, 1 if bench.small else 7)
    row: Row = {"ms": ms, "us_per_frame": 1e3 * ms / len(problem.frames)}
    if recipe.startswith(("DM", "RAAR")):
        modes = len(problem.probe)
        moved = moved_bytes(scheme, modes) + _held_bytes(bench, problem, scheme)
        row |= {"bytes_per_value": moved, "gb_per_s": moved * len(problem.frames) * problem.pixels * modes / ms / 1e6}
    return row


def _held_bytes(bench: Bench, problem: Problem, scheme: str) -> int:
    """What S3 moves more where spectra of many modes do not fit into a block's memory, by value: written and read once more."""
    plan = plan_for(problem.geometry.shape, len(problem.probe), bench.device.shared_bytes)
    return 16 if scheme == "S3" and plan is not None and plan.held == 2 else 0


def showcase(bench: Bench) -> None:
    """Seconds of 50 iterations with 10000 frames of 200 x 200 px and 5 modes, their counts in the host's memory; 4 at most are wanted."""
    problem = made_up(bench.verbs(), *((_SIDE, 2, _FRAMES, 4 * _SIDE) if bench.small else (200, 5, 10_000, 2000)))
    iterations, frames = 4 if bench.small else 50, problem.frames
    for how in ("compiling", "warm"):
        do = bench.verbs()(problem.geometry)
        bench.device.finish()
        began = time.perf_counter()
        problem.frames = do.hold(frames)
        bench.device.finish()
        uploaded = time.perf_counter()
        errors = [progress.errors for progress in problem.walk(f"DM({iterations})", do)][-1]
        bench.device.finish()
        ended = time.perf_counter()
        row: Row = {"round": how, "iterations": iterations, "frames": len(frames), "modes": len(problem.probe), "error": errors["error"]}
        bench.add(row | {"upload_s": uploaded - began, "iterations_s": ended - uploaded, "seconds": ended - began})


def algorithms(bench: Bench) -> None:
    """Every other algorithm at one mode: ms per iteration, and per frame."""
    problems: dict[int, Problem] = {}
    for name, (recipe, frames) in _ALGORITHMS.items():
        if bench.small and name.startswith(("rPIE", "mPIE")):
            continue
        if frames not in problems:
            problems[frames] = bench.problem(200, 1, frames)
        problem = problems[frames]
        # ML's line search looks at numbers.
        for graph in (False,) if name == "ML" else (True,) if bench.small else (True, False):
            row: Row = {"algorithm": name, "side": 200, "modes": 1, "frames": len(problem.frames), "graph": graph}
            try:
                bench.add(row | timed(bench, problem, recipe, "S3", 0, graph))
            except Exception as error:  # the others are measured all the same
                bench.add(row | {"failed": f"{type(error).__name__}: {error}"})


def sums(bench: Bench) -> None:
    """Sums over frames onto the object, by a gather or by atomics."""
    for modes in (1, 5):
        problem = bench.problem(256, modes)
        for atomics in (False, True):
            do = bench.verbs()(problem.geometry)
            do.atomics = atomics
            ms = iteration_ms(problem.walk("DM(1000)", do), bench.device, 1 if bench.small else 7)
            bench.add({"side": 256, "modes": modes, "frames": len(problem.frames), "atomics": atomics, "ms": ms})


def transforms(bench: Bench) -> None:
    """A pair of transforms of a wave by cuFFT alone, in place, over batch size."""
    for side, batch in itertools.product((256, 200, 128, 192, 512), (128, 1024)):
        if bench.small:
            side, batch = _SIDE, 4
        waves = bench.device.zeros((batch, 1, side, side), np.complex64)

        rounds = max(1, 2048 // batch)

        def pairs(waves: Any = waves, rounds: int = rounds) -> None:
            for inverse in (False, True) * rounds:
                bench.device.fft(waves, inverse)

        seconds = best_seconds(pairs, bench.device) / rounds / batch
        bench.add({"side": side, "batch": batch, "ms_per_frame": 1e3 * seconds, "ms_of_10000": 1e7 * seconds})
        if bench.small:
            return


def small(bench: Bench) -> None:
    """Algorithms on a few frames of two modes, with graph and without: what checkers of memory and races watch."""
    bench.small = True
    problem = bench.problem(_SIDE, 2)
    for name in ("DM", "ePIE, batch 64", "ePIE, batch 1", "LSQML", "ML"):
        for scheme in ("S3", "S1") if name == "DM" else ("S3",):
            going = problem.walk(_ALGORITHMS.get(name, ("DM(1000)", 0))[0], bench.verbs(scheme, 8)(problem.geometry))
            for _ in range(4):
                next(going)
            bench.device.finish()
            bench.add({"algorithm": name, "scheme": scheme})


def profiled(bench: Bench) -> None:
    """One iteration of a difference map by each scheme, without graph: what a profiler watches."""
    frames = _FRAMES if bench.small else 512
    for scheme in ("S1", "S3"):
        problem = bench.problem(256, 1, frames)
        going = problem.walk("DM(3)", bench.verbs(scheme, 128, False)(problem.geometry))
        for _ in range(2):
            next(going)
        bench.device.finish()
        bench.add({"scheme": scheme, "frames": len(problem.frames), "pixels": problem.pixels})
