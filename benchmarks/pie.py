"""The PIE family: how good after how many sweeps, how fast, over how many ranks, and whether 500 iterations on real data stay sound.

    python benchmarks/pie.py A.npz [sweeps] [recipe ...]         phase error against the truth, and time per frame
    mpiexec -n 2 python benchmarks/pie.py A.npz [sweeps] [...]   the same on one rank and on two, side by side
    python benchmarks/pie.py scan.cxi [iterations] [recipe ...]  error against iterations, two probe modes

A.npz: frames ``data`` (frame, y, x), zero frequency in the middle, corners ``pos`` (frame, yx), the truth ``obj`` (y, x) and a wrong start
``probe_init`` (y, x). Times: medians per sweep, measured errors left out; CPU time of this process, and the clock on the wall. Compiled
code is warm: the first sweep is left out too.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mpi4py import MPI

from ptyplugin.api import open_scan, solver
from ptyplugin.model import Geometry, MemoryFrames, PtypluginError, Recipe, Scan
from ptyplugin.sim.metric import phase_rms
from ptyplugin.solvers import MpiRanks, OneRank, Ranks, Solver

ALGORITHMS = ["ePIE", "rPIE", "mPIE", "mPIE({}, batch=20)"]
SHOWN = (5, 10, 20, 26, 50, 75, 100, 150, 200, 300, 400, 500)


def walk(going: Solver, look: Callable[[int], str]) -> str:
    """Walk to the end; what ``look`` gave at the shown iterations, and the times."""
    seen, cpu, wall = [], [], []
    start = time.process_time(), time.perf_counter()
    for progress in going:
        if "error" not in progress.errors and progress.iteration > 1:
            cpu.append(time.process_time() - start[0])
            wall.append(time.perf_counter() - start[1])
        if progress.iteration in SHOWN:
            seen.append(f"{progress.iteration}: {look(progress.iteration)}")
        start = time.process_time(), time.perf_counter()
    frames = going.plan().frames
    times = [statistics.median(taken) / frames * 1e3 for taken in (cpu, wall)]
    return f"{'  '.join(seen)}   {times[0]:.3f} ms CPU, {times[1]:.3f} ms wall per frame"


def simulated(path: str, sweeps: int, algorithms: list[str]) -> None:
    """Each algorithm on one rank and, under mpiexec, on all."""
    comm = MPI.COMM_WORLD
    with np.load(path) as stored:
        data, corners, truth, probe = (stored[name] for name in ("data", "pos", "obj", "probe_init"))
    geometry = Geometry(8000.0, 3.0, 75e-6, data.shape[1:])
    scan = Scan(corners[:, None] * np.asarray(geometry.object_pixel_m), np.arange(len(corners)))
    groups: list[Ranks] = [OneRank()] if comm.size == 1 else [OneRank(), MpiRanks(comm)]
    # The same pixels of image and truth: those that the scan meets.
    from_truth, from_image = corners.astype(int).min(axis=0), scan.place(geometry).corners[:, 0].min(axis=0)
    extent = np.ptp(corners.astype(int), axis=0) + data.shape[1:]
    true = truth[tuple(slice(low, low + size) for low, size in zip(from_truth, extent, strict=True))]
    seen = tuple(slice(low, low + size) for low, size in zip(from_image, extent, strict=True))
    for algorithm in algorithms:
        recipe = Recipe.parse(algorithm.format(sweeps) if "(" in algorithm else f"{algorithm}({sweeps})")
        for ranks in groups:
            comm.Barrier()
            if ranks.size == 1 and comm.rank > 0:
                continue
            going = Solver(MemoryFrames(data.astype(np.uint16)), scan, geometry, recipe, start_probe=probe, ranks=ranks)
            shown = walk(going, lambda _, going=going: f"{phase_rms(going.object[0][seen], true, corners - from_truth, data.shape[1]):.4f}")
            if comm.rank == 0:
                print(f"{recipe!s:24s} {ranks.size} rank(s): {shown}", flush=True)


def measured(path: str, iterations: int, algorithms: list[str]) -> None:
    """Error against iterations."""
    scan = open_scan(Path(path))
    for algorithm in algorithms:
        recipe = algorithm.format(iterations) if "(" in algorithm else f"{algorithm}({iterations})"
        going = solver(scan, recipe, probe_modes=2)
        errors: dict[int, float] = {}
        try:
            shown = walk(going, lambda n, going=going, errors=errors: f"{errors.setdefault(n, going.result().quality['error']):.5f}")
        except PtypluginError as error:
            shown = f"FAILED: {error}"
        rise = list(errors.values())[-1] / min(errors.values()) if errors else float("nan")
        print(f"{recipe:24s} {shown}   last / best error {rise:.3f}", flush=True)


def main() -> None:
    path = sys.argv[1]
    number = int(sys.argv[2]) if len(sys.argv) > 2 else (50 if path.endswith(".npz") else 500)
    if MPI.COMM_WORLD.rank == 0:
        print(f"repeat with: python {shlex.join(sys.argv)}")
    (simulated if path.endswith(".npz") else measured)(path, number, sys.argv[3:] or ALGORITHMS)


if __name__ == "__main__":
    main()
