"""Jobs on a warm group that lives over many of them, and on a fresh one where that is better; whatever engine brings it to life."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Self

from ptyplugin.model import Progress, PtypluginError, RanksAway
from ptyplugin.service.engines import Engine
from ptyplugin.service.group import Group, Patience, Work
from ptyplugin.service.launchers import Launcher
from ptyplugin.service.solving import Task, Wish
from ptyplugin.solvers.verbs.cuda.device import DeviceLost

_log = logging.getLogger(__name__)

#: After so many jobs a group makes way for a fresh one: what libraries leak does not add up for ever.
JOBS_PER_GROUP = 1000
#: Seconds before a group that does not start is started again while there is no job: the first, and the longest.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
#: How often ranks are started for a job that waits for them.
_STARTS = 3


class Warm(Launcher):
    """A slot's ranks. They are started by ``look``, or by the first job. A context manager.

    Args:
        keeps_cards: whether the ranks keep the GPUs that they see from others, as long as they live.
        limit_s: how long a job may take, seconds.
        solve: what solves a job, ``module:function``.
        jobs_per_group: after how many the ranks are started afresh.
    """

    def __init__(self, keeps_cards: bool, limit_s: float | None, solve: str, patience: Patience | None, jobs_per_group: int) -> None:
        self._keeps_cards, self._limit_s, self._solve, self._jobs_per_group = keeps_cards, limit_s, solve, jobs_per_group
        self._patience = patience or Patience()
        self._group: Group | None = None
        self._next_s, self._wait_s = 0.0, _FIRST_WAIT_S

    @abstractmethod
    def _engine(self) -> Engine:
        """What is to bring the next group to life."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def waits(self) -> str:
        """See Launcher."""
        group = self._group
        return group.waits if group else ""

    @property
    def is_warm(self) -> bool:
        """See Launcher."""
        group = self._group
        return group is not None and group.is_warm

    def run(self, task: Task, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]) -> Path:
        """See Launcher."""
        work = Work(task, self._solve, on_progress, wish, self._limit_s, self._keeps_cards)
        try:
            result = self._run(work)
            # Under jobs that follow each other nobody warms up: these ranks have shown that they can be started.
            self._next_s, self._wait_s = 0.0, _FIRST_WAIT_S
            return result
        except DeviceLost:
            # What these processes have of the device is broken for good.
            self.close()
            raise
        finally:
            self._forget_if_over()

    def look(self) -> bool:
        """See Launcher."""
        self._make_way()
        if self._group is None and time.monotonic() < self._next_s:
            return False
        was_there = False
        try:
            group = self._group or self._start()
            was_there = group.is_there
            group.look()
        except PtypluginError:
            if not was_there:
                self._next_s, self._wait_s = time.monotonic() + self._wait_s, min(2 * self._wait_s, _LONGEST_WAIT_S)
            raise
        finally:
            self._forget_if_over()
        if group.is_warm:
            self._next_s, self._wait_s = 0.0, _FIRST_WAIT_S
        return group.is_there and not group.waits and not group.is_warming

    def warm_up(self) -> None:
        """See Launcher."""
        if self._group is not None:
            self._group.warm_up(self._keeps_cards)

    def close(self) -> None:
        """See Launcher."""
        if self._group is not None:
            group, self._group = self._group, None
            group.end()

    def _make_way(self) -> None:
        """For a fresh group, if this one has done its part or is near its end."""
        if self._group is not None and (self._group.jobs >= self._jobs_per_group or (self._group.is_there and self._group.ends_soon)):
            self.close()

    def _run(self, work: Work) -> Path:
        self._make_way()
        starts = 0
        while True:
            try:
                return (self._group or self._start()).run(work)
            except RanksAway as error:
                # The job has not begun: whoever was killed, it has no part in that.
                starts += 1
                if starts == _STARTS or work.wish().ends:
                    raise
                _log.warning("%s Fresh ranks are started.", error)
                self._forget_if_over()

    def _start(self) -> Group:
        group = Group(self._engine(), self._patience)
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
