"""Launchers: how a job comes to run. In this process, or (see mpiexec.py) on a warm group of MPI ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from ptyplugin.model import Cancelled, Progress
from ptyplugin.service.solving import SOLVE_JOB, Task, Wish, solve_function, solve_to_file
from ptyplugin.solvers.ranks import OneRank


class Launcher(ABC):
    """Runs one job after the other, each to its end. All its methods are called by the same thread."""

    @abstractmethod
    def run(self, task: Task, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]) -> Path:
        """Solve the job and give the path of its result file.

        on_progress: hears of iterations, not of each one where they are quick
        wish: what is wanted of it now; asked several times a second, or after each iteration

        Raises:
            Cancelled: ``wish`` said so.
            TimeIsUp: it took longer than it may.
            RanksAway: there are no processes to do it; worth a try as soon as that is over.
            RanksCrashed, DeviceLost: a process of it died, or its GPU failed; worth another try by fresh processes.
            CatalogError: its frames come through the catalog, which does not have them now; worth another try.
            CatalogAway, DeviceBusy, DiskError: a trouble of this installation; worth a try as soon as that is over.
            PtypluginError: why it cannot be solved.
        """
        ...

    def look(self) -> bool:
        """Between jobs, several times a second: whether the next one can begin at once. What that needs is started.

        Raises:
            PtypluginError: why that is not possible; the next look tries again.
        """
        return True

    @property
    def waits(self) -> str:
        """Why no job can begin for now, though nothing is wrong; empty if that is not so. Any thread may ask."""
        return ""

    @property
    def is_warm(self) -> bool:
        """Whether nothing is left that only the first job would have to wait for. Any thread may ask."""
        return True

    def warm_up(self) -> None:  # noqa: B027 (what has no processes has nothing to warm)
        """There is no job: do what the next one would have to wait for."""

    def close(self) -> None:  # noqa: B027
        """End what still runs, in good order."""


class Inline(Launcher):
    """Solves in the calling process, for examples and tests: a crash of the solver is a crash of the daemon, and a stop waits for it."""

    def __init__(self, solve: str = SOLVE_JOB) -> None:
        self._solve = solve

    def run(self, task: Task, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]) -> Path:
        """See Launcher."""
        if wish().ends:
            raise Cancelled("the job was cancelled before it began.")
        solve_to_file(task, solve_function(self._solve), OneRank(), on_progress, wish)
        return task.result
