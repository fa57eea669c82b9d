"""A slot: what solves one job after the other, and writes into the ledger how each one ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ptyplugin.jobs import Entry, Ledger
from ptyplugin.model import Cancelled, CatalogError, JobError, Progress, PtypluginError, RanksCrashed, Site
from ptyplugin.service.launchers import Launcher
from ptyplugin.service.solving import Task, in_one_sentence

_log = logging.getLogger(__name__)

#: How long a started job counts as running without a word of it, seconds.
LEASE_S = 60.0
#: Seconds before a job whose ranks crashed is started again; doubled with each try.
RETRY_S = 1.0
#: The same for a job whose frames come through the catalog and are not there: who writes the raw run may be behind, or the server away.
CATALOG_RETRY_S = 15.0


@dataclass(slots=True)
class _Running:
    entry: Entry
    fraction_done: float = 0.0
    cancelled: bool = False


class Slot:
    """Solves the ledger's jobs with one launcher.

    Args:
        site: where the jobs and the results are.
        ledger: holds the jobs.
        launcher: how a job runs.
        stopping: whether the daemon was asked to stop.
        on_progress: hears of every iteration.
    """

    def __init__(
        self, site: Site, ledger: Ledger, launcher: Launcher, stopping: Callable[[], bool], on_progress: Callable[[Progress], None] | None
    ) -> None:
        self._site, self._ledger, self._launcher = site, ledger, launcher
        self._stopping, self._on_progress = stopping, on_progress
        self._claiming = threading.Lock()
        self._running: _Running | None = None

    def solve_next(self) -> bool:
        """Solve the next job, if one waits; whether one did.

        Raises:
            LedgerError: the ledger cannot be written; a job that was started is started again when its lease has run out.
        """
        with self._claiming:
            entry = self._ledger.claim(LEASE_S)
            if entry is None:
                return False
            self._running = _Running(entry)
        try:
            self._solve(self._running)
        finally:
            self._running = None
        return True

    def beat(self) -> None:
        """Tell the ledger that the job still runs, and how far it is.

        Raises:
            LedgerError: it cannot be written.
        """
        if running := self._running:
            self._ledger.beat(running.entry, LEASE_S, running.fraction_done)

    def cancel(self, key: str) -> None:
        """Have a job be not done, or stop it if it runs.

        Raises:
            JobError: there is no such job, or it has ended already.
        """
        with self._claiming:
            entry, running = self._ledger.show(key), self._running
            if entry.state == "queued":
                self._ledger.cancelled(entry, "it was cancelled before it began.")
            elif running and running.entry.key == key:
                running.cancelled = True
            else:
                raise JobError(f"job {key} is {entry.state}: only a job that waits or runs can be cancelled.")

    def _solve(self, running: _Running) -> None:
        entry = running.entry
        task = Task(self._site.jobs / entry.key, self._site)
        _log.info("job %s begins (start %d): %s, %s frames", entry.key, entry.tries, entry.recipe, entry.frames)
        try:
            task.job()
            with task.log.open("a", encoding="utf-8") as log, in_one_sentence(task, log):
                result = self._launcher.run(task, lambda progress: self._hear(running, progress), lambda: self._is_over(running))
        except Cancelled:
            self._put_down(running)
        except RanksCrashed as error:
            self._try_again(entry, str(error), RETRY_S)
        except CatalogError as error:
            self._try_again(entry, str(error), CATALOG_RETRY_S)
        except PtypluginError as error:
            _log.error("job %s failed: %s", entry.key, error)
            self._ledger.failed(entry, str(error))
        except OSError as error:
            self._try_again(entry, f"the job's folder {task.folder} cannot be used ({error.strerror}).", RETRY_S)
        else:
            self._ledger.solved(entry, result)
            _log.info("job %s is solved: %s", entry.key, result)

    def _put_down(self, running: _Running) -> None:
        if running.cancelled:
            _log.info("job %s is cancelled", running.entry.key)
            self._ledger.cancelled(running.entry, "it was cancelled while it ran.")
        else:
            self._ledger.requeue(running.entry, "the daemon was stopped while it ran.", count_try=False)

    def _try_again(self, entry: Entry, sentence: str, wait_s: float) -> None:
        _log.warning("job %s: %s", entry.key, sentence)
        # Whoever stops the daemon may stop its ranks too: that is no fault of the job.
        self._ledger.requeue(entry, sentence, wait_s=wait_s * 2 ** (entry.tries - 1), count_try=not self._stopping())

    def _hear(self, running: _Running, progress: Progress) -> None:
        running.fraction_done = progress.iteration / max(progress.iterations, 1)
        if self._on_progress:
            self._on_progress(progress)

    def _is_over(self, running: _Running) -> bool:
        return running.cancelled or self._stopping()
