"""Jobs on MPI ranks of this machine: a warm group that lives over many jobs, and a fresh one where that is better."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from ptyplugin.model import Progress, PtypluginError, RanksAway
from ptyplugin.service.group import Group, Patience, Work
from ptyplugin.service.launchers import Launcher
from ptyplugin.service.solving import SOLVE_JOB, Task, Wish
from ptyplugin.solvers.verbs.cuda.device import DeviceLost

_log = logging.getLogger(__name__)

#: After so many jobs a group makes way for a fresh one: what libraries leak does not add up for ever.
JOBS_PER_GROUP = 1000
#: Seconds before a group that does not start is started again while there is no job: the first, and the longest.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
#: How often ranks are started for a job that waits for them.
_STARTS = 3


class Mpiexec(Launcher):
    """A slot's ranks. They are started by ``look``, or by the first job. A context manager.

    Args:
        folder: for the group's own log and what is to be known of its processes; of this slot alone.
        ranks: how many.
        gpus: those that the ranks see, as CUDA_VISIBLE_DEVICES names them, kept from others as long as they live; none: the processor
            alone; None: whatever this process sees, as each job wants it.
        beside: ranks of other slots on this machine, with which the processor's cores are shared.
        limit_s: how long a job may take, seconds.
        solve: what solves a job, ``module:function``.
        jobs_per_group: after how many the ranks are started afresh.
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
        self._folder, self._ranks, self._gpus, self._beside = folder, ranks, gpus, beside
        self._limit_s, self._solve, self._jobs_per_group = limit_s, solve, jobs_per_group
        self._patience = patience or Patience()
        self._group: Group | None = None
        self._next_s, self._wait_s = 0.0, _FIRST_WAIT_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, task: Task, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]) -> Path:
        """See Launcher."""
        work = Work(task, self._solve, on_progress, wish, self._limit_s, bool(self._gpus))
        try:
            return self._run(work)
        except DeviceLost:
            # What these processes have of the device is broken for good.
            self.close()
            raise
        finally:
            self._forget_if_over()

    def look(self) -> bool:
        """See Launcher."""
        if self._group is None and time.monotonic() < self._next_s:
            return False
        try:
            group = self._group or self._start()
            was_there = group.is_there
            group.look()
        except PtypluginError:
            if self._group is None or not was_there:
                self._next_s, self._wait_s = time.monotonic() + self._wait_s, min(2 * self._wait_s, _LONGEST_WAIT_S)
            raise
        finally:
            self._forget_if_over()
        if group.is_warm:
            self._next_s, self._wait_s = 0.0, _FIRST_WAIT_S
        return group.is_there

    def warm_up(self) -> None:
        """See Launcher."""
        if self._group is not None:
            self._group.warm_up(bool(self._gpus))

    def close(self) -> None:
        """See Launcher."""
        if self._group is not None:
            group, self._group = self._group, None
            group.end()

    def _run(self, work: Work) -> Path:
        if self._group is not None and self._group.jobs >= self._jobs_per_group:
            self.close()
        starts = 0
        while True:
            try:
                return (self._group or self._start()).run(work)
            except RanksAway as error:
                # The job has not begun: whoever was killed, it has no part in that.
                starts += 1
                if starts == _STARTS:
                    raise
                _log.warning("%s Fresh ranks are started.", error)
                self._forget_if_over()

    def _start(self) -> Group:
        group = Group(self._ranks, self._folder, self._environment(), self._patience)
        try:
            group.start()
        except BaseException:
            group.end()
            raise
        self._group = group
        return group

    def _forget_if_over(self) -> None:
        if self._group is not None and self._group.is_over:
            self._group = None

    def _environment(self) -> dict[str, str]:
        threads = str(max(1, (os.cpu_count() or 1) // (self._ranks + self._beside)))
        environment = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, **os.environ}
        if self._gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus)
        return environment
