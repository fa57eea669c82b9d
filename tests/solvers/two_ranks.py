"""Run by test_ranks.py under mpiexec: solve what lies in a folder on all ranks, or fail in a given way.

usage: two_ranks.py FOLDER RECIPE PRECISION SIZE FAILURE
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from ptyplugin.model import FramesError, Geometry, MemoryFrames, PtypluginError, Recipe, Scan
from ptyplugin.solvers import MpiRanks, OneRank, Solver, solve


class Failing(MemoryFrames):
    """Frames that one rank cannot read."""

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        raise FramesError("frame 7 cannot be read: the file is truncated.")


def main(folder: Path, recipe: str, precision: str, size: int, failure: str) -> None:
    comm = MPI.COMM_WORLD
    assert comm.size == size, f"{comm.size} ranks instead of {size}"
    with np.load(folder / "experiment.npz") as z:
        counts, positions, probe = z["counts"], z["positions_m"], z["probe"]
        geometry = Geometry(float(z["energy_ev"]), float(z["distance_m"]), float(z["pixel_m"]), counts.shape[1:])
    frames = Failing(counts) if failure == "frames" and comm.rank == size - 1 else MemoryFrames(counts)
    ranks = OneRank() if size == 1 else MpiRanks(comm)
    scan, asked, memory_bytes = Scan(positions, np.arange(len(positions))), Recipe.parse(recipe), None
    if failure == "waves do not fit":
        memory_bytes = Solver(frames, scan, geometry, asked, ranks=ranks).plan().needed_bytes - 1
        assert Solver(frames, scan, geometry, asked, ranks=ranks, memory_bytes=memory_bytes).plan().recomputes_waves
    calls = []

    def cancelled() -> bool:
        calls.append(1)
        if failure == "in the loop" and comm.rank == size - 1 and len(calls) == 3:
            raise ValueError("a bug on this rank")
        return failure == "cancel" and comm.rank == size - 1 and len(calls) == 3

    try:
        result = solve(
            frames,
            scan,
            geometry,
            recipe=asked,
            start_probe=None if failure == "from data" else probe,
            ranks=ranks,
            cancelled=cancelled,
            precision="double" if precision == "double" else "single",
            memory_bytes=memory_bytes,
            object_modes=2 if failure == "two states" else 1,
        )
    except (PtypluginError, ValueError) as error:
        (folder / f"failure_{comm.rank}.txt").write_text(f"{type(error).__name__}: {error}")
        return
    assert (result is None) == (comm.rank > 0)
    if result is not None:
        np.savez(
            folder / "result.npz", object=result.object, probe=result.probe, positions_px=result.positions_px, error=result.quality["error"]
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
