"""Pictures of a job while it runs: rank 0 puts a snapshot into the job's folder now and then, and says so."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ptyplugin.jobs import write_snapshot
from ptyplugin.model import ErrorName, Progress, Snapshot
from ptyplugin.solvers import Ranks, Solver

_log = logging.getLogger(__name__)

#: Seconds from one snapshot to the next, at least: of a job whose scan goes on, and of any other.
LIVE_S, EVERY_S = 0.25, 1.0
#: A snapshot that takes long to make and write comes seldom: of all time, at most this share is spent on it; this one on the first that
#: has new frames.
_SHARE, _NEWS_SHARE = 0.05, 0.3
#: An ``error`` so many times that of the last snapshot shows that something has gone wrong since.
_MUCH_WORSE = 2.0


class Pictures:
    """Keeps a job's snapshot up to date, on rank 0; on the other ranks it does nothing.

    tell: hears of each snapshot, as of an iteration
    """

    def __init__(self, folder: Path, ranks: Ranks, tell: Callable[[Progress], None], every_s: float) -> None:
        self._folder, self._is_mine, self._tell, self._every_s = folder, ranks.rank == 0, tell, every_s
        self._due_s, self._rested_s = 0.0, 0.0
        self._frames, self._errors = 0, dict[ErrorName, float]()
        self._shown: Progress | None = None

    def offer(self, going: Solver, event: Progress) -> None:
        """Take one after this iteration, if it is time."""
        begun = time.monotonic()
        if self._is_mine and begun >= self._due_s:
            self.take(going, event)
            now = time.monotonic()
            self._due_s = now + max(self._every_s, (now - begun) / _SHARE)
            self._rested_s = now + (now - begun) / _NEWS_SHARE

    def hurry(self) -> None:
        """There are new frames: whoever waits for them sees the next iteration."""
        self._due_s = min(self._due_s, self._rested_s)

    def take(self, going: Solver, event: Progress) -> None:
        """Take one after this iteration, unless there is one, or what it would show has gone wrong: then the last good one stays."""
        if not self._is_mine or event is self._shown:
            return
        snapshot = going.snapshot()
        if snapshot is None or not snapshot.is_sound or self._has_gone_wrong(snapshot):
            return
        try:
            write_snapshot(self._folder, snapshot)
        except OSError as error:
            # No matter of the job: it goes on without.
            _log.debug("the snapshot in %s cannot be written: %s", self._folder, error)
            return
        self._shown, self._frames, self._errors = event, snapshot.frames, dict(snapshot.errors)
        self._tell(replace(event, snapshot=True))

    def _has_gone_wrong(self, snapshot: Snapshot) -> bool:
        """Of other frames, the error is another one."""
        errors: Mapping[ErrorName, float] = snapshot.errors
        before = self._errors.get("error")
        return snapshot.frames == self._frames and before is not None and errors.get("error", 0.0) > _MUCH_WORSE * before
