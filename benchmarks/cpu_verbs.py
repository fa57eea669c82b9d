"""How fast the verbs for processors are, in ratio to the two Fourier transforms that a frame needs at least.

    python benchmarks/cpu_verbs.py A.npz [repeats]

A.npz: frames ``data`` (frame, y, x), zero frequency in the middle, corners ``pos`` (frame, yx) and ``probe_init`` (y, x); 400 frames of
128 x 128 px are meant. Sweeps and bare transforms take turns in one process, so that a noisy machine slows both. One thread: CPU time of
the process; several: wall time. Kernels are compiled before the clock starts.
"""

from __future__ import annotations

import importlib.util
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ptyplugin.model import Geometry, Stage
from ptyplugin.solvers.algorithms import algorithm_of
from ptyplugin.solvers.batches import Batches, RankFrames, block_size, in_blocks, in_random_batches
from ptyplugin.solvers.ranks import OneRank
from ptyplugin.solvers.state import State, fill_waves, given_probe, set_lengths, start_object, window_of
from ptyplugin.solvers.verbs.cpu import CpuVerbs
from ptyplugin.solvers.verbs.cpu_fft import FftName, fft_of
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

#: Times per frame in ms: (median, minimum).
Times = tuple[float, float]


def frames_of(path: str) -> tuple[RankFrames, np.ndarray[Any, Any], tuple[int, int]]:
    """The prepared frames, the start probe, the shape of the object."""
    with np.load(path) as stored:
        corners = stored["pos"].astype(np.int32)[:, None]
        counts = np.fft.ifftshift(stored["data"], axes=(1, 2)).astype(np.uint16)
        probe = stored["probe_init"]
    side = counts.shape[1:]
    extent = corners.max(axis=(0, 1)) + side + 4
    frames = RankFrames(np.arange(len(counts)), corners, np.zeros(corners.shape, np.float32), counts, np.ones(side, dtype=bool))
    return frames, probe, (int(extent[0]), int(extent[1]))


class Case:
    """One algorithm by one implementation, ready to sweep."""

    def __init__(self, frames: RankFrames, probe: Any, extent: tuple[int, int], stage: Stage, modes: int, do: Any, one_block: bool) -> None:
        self.algorithm, self.options = algorithm_of(stage)
        self.frames, self.do, self.iteration = frames, do, 0
        shape = frames.good.shape
        start = given_probe(probe, shape, modes).astype(np.complex64)
        self.state = State(start_object(extent, np.complex64), start, np.empty((0, 1, *shape)), window_of(frames.corners, shape))
        self.power = float(frames.counts.sum(dtype=np.float64)) / len(frames)
        self.do.fix_power(self.state.probe, np.ones(1, np.complex64), self.power)
        self.blocks = in_blocks(frames, len(frames) if one_block else block_size(shape, modes, 8), len(frames))
        if self.algorithm.keeps_waves:
            fill_waves(self.state, in_blocks(frames, 16, len(frames)), do)

    def sweep(self) -> None:
        """One iteration, as the runner does it."""
        self.iteration += 1
        batches: Batches = self.blocks
        if self.algorithm.walks != "blocks":
            batches = in_random_batches(self.frames, self.options.batch, len(self.frames), (1, self.iteration))
        if self.algorithm.lengths:
            set_lengths(self.state, self.algorithm.lengths(self.options, self.iteration), self.do)
        total = self.algorithm.sweep(self.state, batches, self.do, OneRank(), self.options, self.iteration)
        self.do.fix_power(self.state.probe, self.state.object, self.power)
        if not np.isfinite(total.read()):
            raise RuntimeError("the sweep has diverged")


def bare_transforms(name: FftName, shape: tuple[int, int], modes: int, frames: int) -> Callable[[], None]:
    """Forward and backward transform of one frame's waves, in place and in the cache, ``frames`` times."""
    fft = fft_of(name, shape)
    w = fft.empty((1, modes, *shape))
    rng = np.random.default_rng(0)
    start = (rng.standard_normal(w.shape) + 1j * rng.standard_normal(w.shape)).astype(np.complex64)

    def work() -> None:
        for number in range(frames):
            if number % 4 == 0:  # an unscaled inverse soon leaves float32
                w[...] = start
            fft.forward(w)
            fft.backward(w)

    return work


def take_turns(works: list[Callable[[], None]], repeats: int, per_frame: int, clock: Callable[[], float]) -> list[Times]:
    """Each work ``repeats`` times, by turns; the first two turns warm up."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(repeats + 2):
        for work, times in zip(works, taken, strict=True):
            start = clock()
            work()
            if turn > 1:
                times.append((clock() - start) * 1e3 / per_frame)
    return [(statistics.median(times), min(times)) for times in taken]


def row(name: str, times: Times, floor: Times | None, target: str = "") -> None:
    """One line of the table."""
    ratio = "" if floor is None else f"{times[0] / floor[0]:6.2f} {times[1] / floor[1]:6.2f}"
    print(f"{name:42s} {times[0]:8.3f} {times[1]:8.3f}   {ratio:14s} {target}")


def one_thread(frames: RankFrames, probe: Any, extent: tuple[int, int], repeats: int, fft: FftName) -> None:
    """Every algorithm on one thread beside its transforms."""
    shape = (frames.good.shape[0], frames.good.shape[1])
    geometry = Geometry(8000.0, 3.0, 75e-6, shape)
    wanted = {
        "DM": (Stage("DM", 1), 1, "<= 2.2" if fft == "scipy" else "<= 2.4"),
        "DM, overlap_rounds=2": (Stage("DM", 1, {"overlap_rounds": 2}), 1, ""),
        "DM, 3 modes": (Stage("DM", 1), 3, "<= 1.9"),
        "DM, overlap_rounds=2, 3 modes": (Stage("DM", 1, {"overlap_rounds": 2}), 3, ""),
        "ePIE": (Stage("ePIE", 1), 1, "<= 0.35 ms"),
    }
    for name, (stage, modes, target) in wanted.items():
        bare = bare_transforms(fft, shape, modes, len(frames))
        mine = Case(frames, probe, extent, stage, modes, CpuVerbs(geometry, 1, fft), True)
        judge = Case(frames, probe, extent, stage, modes, ReferenceVerbs(geometry), False)
        floor, taken, reference = take_turns([bare, mine.sweep, judge.sweep], repeats, len(frames), time.process_time)
        print()
        row(f"two {fft} FFTs, {modes} mode(s)", floor, None)
        row(f"{name}: cpu", taken, floor, target)
        row(f"{name}: reference", reference, floor)


def two_threads(frames: RankFrames, probe: Any, extent: tuple[int, int], repeats: int, fft: FftName) -> None:
    """What a second thread gains: in wall time, and, for a machine that others use too, in CPU time.

    The calling thread does half of the frames and everything that is not shared: its CPU time is the wall time of a free machine.
    """
    geometry = Geometry(8000.0, 3.0, 75e-6, (frames.good.shape[0], frames.good.shape[1]))
    cases = [Case(frames, probe, extent, Stage("DM", 1), 1, CpuVerbs(geometry, threads, fft), True) for threads in (1, 2)]
    print()
    for name, clock in (("wall time", time.perf_counter), ("CPU of the calling thread", time.thread_time), ("CPU", time.process_time)):
        one, two = take_turns([case.sweep for case in cases], repeats, len(frames), clock)
        row(f"DM, {fft}, {name}: 1 thread", one, None)
        row(f"DM, {fft}, {name}: 2 threads", two, None)
        print(f"{'  gain of the second thread':42s} {one[0] / two[0]:8.2f} {one[1] / two[1]:8.2f}   {'':14s} >= 1.75")


def main() -> None:
    path, repeats = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 15
    frames, probe, extent = frames_of(path)
    print(f"{len(frames)} frames of {frames.good.shape[0]} x {frames.good.shape[1]} px, object {extent[0]} x {extent[1]} px")
    print(f"repeat with: python {shlex.join(sys.argv)}")
    print(f"{'ms per frame and iteration':42s} {'median':>8s} {'minimum':>8s}   {'to the floor':14s} target")
    for fft in ("scipy", "pyfftw"):
        if fft == "pyfftw" and importlib.util.find_spec("pyfftw") is None:
            print("\npyFFTW is not installed: left out")
            continue
        one_thread(frames, probe, extent, repeats, fft)
        two_threads(frames, probe, extent, repeats, fft)


if __name__ == "__main__":
    main()
