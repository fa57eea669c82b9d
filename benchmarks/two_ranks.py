"""Run by parallel.py under mpiexec: one rank alone, then both; times and phase errors as JSON.

usage: mpiexec -n 2 python -m benchmarks.two_ranks ALGORITHM ITERATIONS FRAMES
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import traceback
from typing import Any

from mpi4py import MPI

from benchmarks.parallel import recipe_of
from benchmarks.problems import simulated
from benchmarks.timing import cores
from ptyplugin.solvers import MpiRanks, OneRank, Ranks

#: Two ranks may go on for so much longer.
_LONGER = 1.5


def walk(algorithm: str, iterations: int, frames: int, ranks: Ranks, look_from: int) -> dict[str, Any]:
    """Median ms per frame and iteration (wall), and the phase error by iteration from ``look_from`` on."""
    problem = simulated("A").some(frames)
    recipe = recipe_of(algorithm, iterations)
    assert recipe is not None
    with cores(1):
        going = problem.solver(recipe, fft="scipy", ranks=ranks)
    times, errors = [], {}
    began = time.perf_counter()
    for progress in going:
        if progress.iteration > 1 and "error" not in progress.errors:
            times.append(1e3 * (time.perf_counter() - began) / frames)
        if progress.iteration >= look_from and ranks.rank == 0:
            errors[progress.iteration] = problem.phase_rms(going.object[0])
        if ranks.size > 1:
            MPI.COMM_WORLD.Barrier()
        began = time.perf_counter()
    return {"ms": statistics.median(times), "rad": errors}


def main() -> None:
    algorithm, iterations, frames = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    comm = MPI.COMM_WORLD
    one = walk(algorithm, iterations, frames, OneRank(), iterations) if comm.rank == 0 else None
    while comm.rank and not comm.Iprobe(source=0):
        time.sleep(0.05)  # a barrier would keep a core busy
    if comm.rank == 0:
        comm.send(None, 1)
    else:
        comm.recv(source=0)
    two = walk(algorithm, round(_LONGER * iterations), frames, MpiRanks(comm), round(0.7 * iterations))
    if comm.rank == 0:
        print(json.dumps([one, two]))


if __name__ == "__main__":
    try:
        main()
    except Exception:
        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)  # the other rank would wait for ever
