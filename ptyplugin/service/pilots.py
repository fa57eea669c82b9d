"""Jobs on MPI ranks under Slurm: a warm group in a pilot that stays, or a pilot for each job."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ptyplugin.model import Cancelled, DiskError, Progress, RanksCrashed, SlurmNumbers
from ptyplugin.service.group import Patience
from ptyplugin.service.pilot import Pilot
from ptyplugin.service.slurm import Slurm
from ptyplugin.service.solving import SOLVE_JOB, Task, Wish
from ptyplugin.service.warm import Warm
from ptyplugin.service.weighing import needed_bytes

_log = logging.getLogger(__name__)

#: How long a file that a node has written may take to be seen here, and how often it is looked for, seconds.
_SEEN_S, _LOOK_S = 30.0, 0.2


class Pilots(Warm):
    """A slot's ranks on nodes of a cluster.

    Args:
        folder: for the name, the token and the log of its pilots; shared with the nodes, and of this slot alone.
        asked: what the pilots are to be.
        limit_s, solve, patience: see Warm.
    """

    def __init__(
        self,
        folder: Path,
        asked: SlurmNumbers,
        *,
        limit_s: float | None = None,
        solve: str = SOLVE_JOB,
        patience: Patience | None = None,
        slurm: Slurm | None = None,
    ) -> None:
        super().__init__(bool(asked.gpus_per_node), limit_s, solve, patience, asked.jobs_per_pilot)
        self._folder, self._asked, self._slurm = folder, asked, slurm or Slurm()
        self._nodes = asked.nodes

    def look(self) -> bool:
        """See Launcher. Where each job has a pilot of its own, there is none to wait for."""
        return self._is_for_one_job or super().look()

    @property
    def is_warm(self) -> bool:
        """See Launcher. Each job's own pilot warms nothing up in advance."""
        return self._is_for_one_job or super().is_warm

    def run(self, task: Task, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]) -> Path:
        """See Launcher."""
        if self._is_for_one_job:
            self._nodes = self._asked.nodes_for(needed_bytes(task.job(), task.folder))
        memory_gb = self._asked.memory_bytes(self._nodes) / 1e9
        here = replace(task, site=task.site.model_copy(update={"memory_gb": memory_gb}))
        why = ""

        def wanted() -> Wish:
            nonlocal why
            why = why or self._ends_soon
            return max(wish(), Wish.STOP if why else Wish.GO_ON)

        try:
            return self._seen(super().run(here, on_progress, wanted))
        except Cancelled as error:
            if not why or wish():
                raise
            went = "was put into a checkpoint" if self._group else "did not come to a checkpoint in time"
            self.close()
            raise RanksCrashed(f"{why}: the job {went}.") from error
        finally:
            if self._is_for_one_job:
                self.close()

    @property
    def _is_for_one_job(self) -> bool:
        return self._asked.jobs_per_pilot == 1

    @property
    def _ends_soon(self) -> str:
        return self._group.ends_soon if self._group else ""

    def _engine(self) -> Pilot:
        return Pilot(self._asked, self._nodes, self._folder, self._slurm)

    def _seen(self, result: Path) -> Path:
        """A file system that several machines share may take a moment.

        Raises:
            DiskError: it is not seen here.
        """
        end = time.monotonic() + _SEEN_S
        # To list a folder has its client ask the server again.
        while result.name not in os.listdir(result.parent) if result.parent.is_dir() else True:
            if time.monotonic() > end:
                raise DiskError(
                    f"the ranks wrote {result}, which is not seen on this machine: results_dir in the site file must be a folder that the "
                    "nodes and this machine share."
                )
            time.sleep(_LOOK_S)
        return result
