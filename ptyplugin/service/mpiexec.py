"""Jobs on MPI ranks of this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ptyplugin.service.engines import LocalEngine
from ptyplugin.service.group import Patience
from ptyplugin.service.solving import SOLVE_JOB
from ptyplugin.service.warm import JOBS_PER_GROUP, Warm


class Mpiexec(Warm):
    """A slot's ranks on this machine.

    Args:
        folder: for the group's own log and what is to be known of its processes; of this slot alone.
        ranks: how many.
        gpus: those that the ranks see, as CUDA_VISIBLE_DEVICES names them, kept from others as long as they live; none: the processor
            alone; None: whatever this process sees, as each job wants it.
        beside: ranks of other slots on this machine, with which the processor's cores are shared.
        limit_s, solve, patience, jobs_per_group: see Warm.
    """

    def __init__(
        self,
        folder: Path,
        ranks: int,
        *,
        gpus: Sequence[str] | None = None,
        beside: int = 0,
        limit_s: float | None = None,
        solve: str = SOLVE_JOB,
        patience: Patience | None = None,
        jobs_per_group: int = JOBS_PER_GROUP,
    ) -> None:
        super().__init__(bool(gpus), limit_s, solve, patience, jobs_per_group)
        self._folder, self._ranks, self._gpus, self._beside = folder, ranks, gpus, beside

    def _engine(self) -> LocalEngine:
        return LocalEngine(self._ranks, self._folder, self._environment())

    def _environment(self) -> dict[str, str]:
        threads = str(max(1, (os.cpu_count() or 1) // (self._ranks + self._beside)))
        environment = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, **os.environ}
        if self._gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus)
        return environment
