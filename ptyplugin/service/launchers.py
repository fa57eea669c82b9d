"""Launchers: how a job comes to run. In this process, or (see mpiexec.py) as a group of MPI ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ptyplugin.model import Cancelled, Progress
from ptyplugin.service.solving import SOLVE_JOB, Task, solve_function, solve_to_file
from ptyplugin.solvers.ranks import OneRank


class Launcher(Protocol):
    """Runs one job to its end."""

    def run(self, task: Task, on_progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> Path:
        """Solve the job and give the path of its result file.

        Raises:
            Cancelled: ``cancelled`` said so.
            RanksCrashed, DeviceLost: a process of it died, or its GPU failed; worth another try by fresh processes.
            CatalogError: its frames come through the catalog, which does not have them now; worth another try.
            CatalogAway, DeviceBusy, DiskError: a trouble of this installation; worth a try as soon as that is over.
            PtypluginError: why it cannot be solved.
        """
        ...


class Inline:
    """Solves in the calling process, for examples and tests: a crash of the solver is a crash of the daemon, and a stop waits for it."""

    def __init__(self, solve: str = SOLVE_JOB) -> None:
        self._solve = solve

    def run(self, task: Task, on_progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> Path:
        """See Launcher."""
        if cancelled():
            raise Cancelled("the job was cancelled before it began.")
        solve_to_file(task, solve_function(self._solve), OneRank(), on_progress, cancelled)
        return task.result
