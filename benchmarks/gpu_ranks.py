"""Run by ``python -m benchmarks.gpu`` under mpiexec: ranks that share a card beside one rank. Rank 0 prints how they differ as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from mpi4py import MPI

from benchmarks.gpu_correct import LIMIT, difference, small_solver
from benchmarks.gpu_device import opened
from ptyplugin.solvers.device_ranks import ranks_for
from ptyplugin.solvers.ranks import MpiRanks, OneRank, Ranks
from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs


def main() -> None:
    comm, device = MPI.COMM_WORLD, opened("--shim" in sys.argv)
    recipe, off = "DM(10)", 0.0

    def solved(ranks: Ranks) -> tuple[Any, Any]:
        made: dict[str, Any] = {}

        def verbs(geometry: Any) -> Any:
            return made.setdefault("verbs", CudaVerbs(geometry, device))

        solver = small_solver(verbs, recipe, 64, 1, 36, 0.0, lambda geometry: ranks_for(verbs(geometry), ranks))
        for _ in solver:
            pass
        return solver.object, solver.probe

    together = solved(MpiRanks(comm))
    if comm.rank == 0:
        off = difference(together, solved(OneRank()))
        print(json.dumps({"recipe": recipe, "ranks": comm.size, "difference": off, "ok": bool(np.isfinite(off) and off <= LIMIT)}))


if __name__ == "__main__":
    main()
