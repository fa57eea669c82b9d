"""What frame-phase synchronisation buys on a scan that grows: iterations of alternating projections with and without it.

    python benchmarks/synchronisation.py [K ...] [--never]

The periodic problem of ../shared/bench/sync_problem.py: K x K frames of 16 x 16 px, 4 px apart, known illumination, no noise, object of
ones at the start; iterations until |object - truth| / |truth| falls below 1e-4, one global phase removed. ``--never`` also runs without
synchronisation, which takes thousands of iterations where K is 64. One thread; kernels are compiled before the clock starts; seconds are
CPU time of the process.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ptyplugin.model import Geometry, Stage
from ptyplugin.solvers.algorithms import algorithm_of
from ptyplugin.solvers.batches import RankFrames, in_blocks
from ptyplugin.solvers.ranks import AfterVerbs, OneRank
from ptyplugin.solvers.state import State, fill_waves
from ptyplugin.solvers.verbs.cpu import CpuVerbs

PROBLEM = Path(__file__).resolve().parents[2] / "shared" / "bench" / "sync_problem.py"
TOLERANCE = 1e-4
MOST_ITERATIONS = 10_000


class Periodic(OneRank):
    """One rank whose canvases repeat: what lies ``margin`` px beyond the end of the object is its beginning."""

    def __init__(self, margin: int) -> None:
        self.margin = margin

    def sum(self, term: Any) -> Any:
        return self._folded(term) if isinstance(term, np.ndarray) and term.ndim > 1 and term.shape[-1] > 2 * self.margin else term

    def sum_canvas(self, num: Any, den: Any, window: Any) -> tuple[Any, Any]:
        return self._folded(num), self._folded(den)

    def _folded(self, canvas: Any) -> Any:
        for axis in (-2, -1):
            lines = np.moveaxis(canvas, axis, 0)
            lines[: self.margin] += lines[-self.margin :]
            lines[-self.margin :] = lines[: self.margin]
        return canvas


class Counting(CpuVerbs):
    """Counts the products with the Gramian."""

    products = 0

    def gather(self, psi: Any, O: Any, P: Any, b: Any) -> Any:  # noqa: E741
        self.products += 1
        return super().gather(psi, O, P, b)


def problem_module() -> Any:
    if not PROBLEM.exists():
        raise SystemExit(
            f"the test problem is not there: {PROBLEM}. Put the folder shared/ with bench/sync_problem.py beside this checkout."
        )
    spec = importlib.util.spec_from_file_location("sync_problem", PROBLEM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Run:
    """Alternating projections on the problem of K x K frames, synchronised every ``every``-th iteration."""

    def __init__(self, frames_across: int, every: int, step: int = 4) -> None:
        probe, _, self.truth = problem_module().problem(frames_across)
        side, size = len(probe), len(self.truth)
        margin = side - step
        corners = np.mgrid[:frames_across, :frames_across].reshape(2, -1).T.astype(np.int32) * step
        repeated = np.pad(self.truth, ((0, margin), (0, margin)), mode="wrap")
        patches = np.stack([repeated[y : y + side, x : x + side] for y, x in corners])
        counts = (np.abs(np.fft.fft2(probe * patches)) ** 2 / probe.size).astype(np.float32)
        rests = np.zeros((len(corners), 1, 2), np.float32)
        frames = RankFrames(np.arange(len(corners)), corners[:, None], rests, counts, np.ones(probe.shape, bool))
        self.do = Counting(Geometry(8000.0, 1.0, 75e-6, probe.shape))
        everything = (slice(0, size + margin), slice(0, size + margin))
        start = np.ones((1, *repeated.shape), np.complex64)
        self.state = State(start, probe[None].astype(np.complex64), np.empty((0, 1, *probe.shape), np.complex64), everything)
        self.batches = in_blocks(frames, len(corners), len(corners))
        fill_waves(self.state, self.batches, self.do)
        given = {"synchronise": every, "probe_from": 1_000_000, "object_inertia": 1e-9, "overlap_rounds": 1}
        self.algorithm, self.options = algorithm_of(Stage("AP", MOST_ITERATIONS, given))
        self.ranks = AfterVerbs(Periodic(margin), self.do.finish)

    def sweep(self, iteration: int) -> None:
        """One iteration."""
        self.algorithm.sweep(self.state, self.batches, self.do, self.ranks, self.options, iteration)
        self.do.finish()

    def there(self) -> bool:
        """Whether the image is right to the tolerance."""
        size = len(self.truth)
        image = self.state.object[0, :size, :size]
        phase = np.vdot(image, self.truth)
        return bool(np.linalg.norm(image * (phase / abs(phase)) - self.truth) < TOLERANCE * np.linalg.norm(self.truth))


def run(frames_across: int, every: int) -> tuple[int, float, int]:
    """(iterations, seconds, most products in one synchronisation) to the tolerance."""
    one, most, began = Run(frames_across, every), 0, time.process_time()
    for iteration in range(1, MOST_ITERATIONS + 1):
        before = one.do.products
        one.sweep(iteration)
        most = max(most, one.do.products - before)
        if one.there():
            return iteration, time.process_time() - began, most
    raise SystemExit(f"K = {frames_across}, synchronise={every}: not there after {MOST_ITERATIONS} iterations.")


def seconds(frames_across: int, every: int, iterations: int) -> float:
    """CPU time of so many iterations, looked at as ``run`` does."""
    one, began = Run(frames_across, every), time.process_time()
    for iteration in range(1, iterations + 1):
        one.sweep(iteration)
        one.there()
    return time.process_time() - began


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "--never"]
    every = [1, 5, 0] if "--never" in sys.argv else [1, 5]
    run(8, 5)
    print("| K | synchronise | iterations | seconds | most products |\n|---|---|---|---|---|")
    for frames_across in map(int, words or ["8", "16", "32", "64"]):
        for period in every:
            iterations, seconds, most = run(frames_across, period)
            print(f"| {frames_across} | {period or 'never'} | {iterations} | {seconds:.2f} | {most or '-'} |", flush=True)


if __name__ == "__main__":
    main()
