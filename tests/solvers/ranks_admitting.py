"""Run by test_admitting_ranks.py under mpiexec: frames come in portions, on two ranks. What is found goes into a folder.

usage: ranks_admitting.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from portions import ORDERS, first_of, grown, solver_of

from ptyplugin.model import FramesError, Geometry, MemoryFrames, PtypluginError, Scan
from ptyplugin.solvers import MpiRanks

COMM = MPI.COMM_WORLD
#: Recipe, and how exact.
CASES = {"DM": ("DM(10)", "double"), "ML": ("ML(10)", "double"), "ePIE": ("ePIE(20)", "single"), "LSQML": ("LSQML(20)", "single")}


class Unreadable(MemoryFrames):
    """Frames of which this rank cannot read some."""

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        raise FramesError("frame 70 cannot be read: the file is truncated.")


def owned(e: Any) -> list[list[int]]:
    """Numbers of this rank's frames, as they are at first and after each of two portions."""
    solver, seen = solver_of(e, "DM(3)", 41, ORDERS["from the middle"], ranks=MpiRanks(COMM), held_out=0), []
    for count in (42, 43, 100):
        next(solver)
        seen.append(solver._there().way.frames.numbers.tolist())
        solver.admit(*first_of(e, count, ORDERS["from the middle"]))
    shot = solver.snapshot()
    assert (shot is None) == (COMM.rank > 0)
    return [*seen, solver._there().way.frames.numbers.tolist()]


def refused(e: Any) -> list[str]:
    """What this rank says of frames that rank 1 cannot read; then it goes on."""
    solver, said = solver_of(e, "DM(3)", 60, ranks=MpiRanks(COMM)), []
    next(solver)
    frames, scan = first_of(e, 80)
    tries = (Unreadable(frames.counts) if COMM.rank else frames, scan), (frames, first_of(e, 70)[1])
    for wrong in tries:
        try:
            solver.admit(*wrong)
        except PtypluginError as error:
            said.append(f"{type(error).__name__}: {error}")
    solver.admit(frames, scan)
    return [*said, f"{len(list(solver))} iterations, {len(solver._there().way.frames)} frames"]


def unlike(e: Any) -> list[str]:
    """What this rank says of frames that only rank 1 refuses, before anything has begun; then it goes on with those before."""
    solver, said = solver_of(e, "DM(3)", 60, ranks=MpiRanks(COMM)), ""
    frames, scan = first_of(e, 80)
    try:
        solver.admit(frames, first_of(e, 70)[1] if COMM.rank else scan)
    except PtypluginError as error:
        said = f"{type(error).__name__}: {error}"
    return [said, f"{len(list(solver))} iterations, {len(solver._measured.scan)} frames"]


def experiment(folder: Path) -> Any:
    with np.load(folder / "experiment.npz") as z:
        geometry = Geometry(*z["numbers"].tolist(), z["counts"].shape[1:])
        scan = Scan(z["positions_m"], np.arange(len(z["counts"])))
        return SimpleNamespace(frames=MemoryFrames(z["counts"]), scan=scan, geometry=geometry, probe=z["probe"])


def main(folder: Path) -> None:
    e, found = experiment(folder), {}
    for name, (recipe, precision) in CASES.items():
        made = grown(e, recipe, 4, 3, ORDERS["up"], precision=precision, ranks=MpiRanks(COMM)).result()
        if made is not None:
            found[f"{name} object"], found[f"{name} error"] = made.object, np.array(made.quality["error"])
    if COMM.rank == 0:
        np.savez(folder / "found.npz", **found)
    (folder / f"said_{COMM.rank}.json").write_text(json.dumps({"owned": owned(e), "refused": refused(e), "unlike": unlike(e)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
