"""A slot: what solves one job after the other, and writes into the ledger how each one ended."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ptyplugin.jobs import MAX_TRIES, Entry, Ledger, ProgressFile
from ptyplugin.model import Cancelled, CatalogAway, CatalogError, DeviceBusy, DiskError, Progress, PtypluginError, RanksCrashed, Site
from ptyplugin.service.launchers import Launcher
from ptyplugin.service.solving import Task, in_one_sentence
from ptyplugin.solvers.verbs.cuda.device import DeviceLost

_log = logging.getLogger(__name__)

#: How long a started job counts as running without a word of it, seconds.
LEASE_S = 60.0
#: Seconds before a job whose ranks crashed, or whose GPU failed under them, is started again; doubled with each try.
RETRY_S = 1.0
#: The same for a job whose frames come through the catalog and are not there: who writes the raw run may be behind, or the server away.
CATALOG_RETRY_S = 15.0
#: Seconds between the starts of a job that a trouble of this installation (a full disk, a catalog away, a GPU in use) keeps from being
#: solved: from the first to the longest, doubled each time. Such a start is no try.
TROUBLE_RETRY_S = 5.0
LONGEST_RETRY_S = 600.0


@dataclass(slots=True)
class _Running:
    entry: Entry
    progress_file: ProgressFile
    fraction_done: float = 0.0
    cancelled_by: str | None = None


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
        self._running: _Running | None = None
        self._waits: dict[str, float] = {}

    def solve_next(self) -> bool:
        """Solve the next job, if one waits; whether one did.

        Raises:
            LedgerError: the ledger cannot be written; a job that was started is started again when its lease has run out.
        """
        entry = self._ledger.claim(LEASE_S)
        if entry is None:
            return False
        self._running = _Running(entry, ProgressFile(self._site.jobs / entry.key))
        try:
            self._solve(self._running)
        finally:
            self._running.progress_file.remove()
            self._running = None
        return True

    def beat(self) -> None:
        """Tell the ledger that the job still runs, and how far it is.

        Raises:
            LedgerError: it cannot be written.
        """
        if running := self._running:
            self._ledger.beat(running.entry, LEASE_S, running.fraction_done)

    def stop(self, key: str, item: str) -> None:
        """Have a job that runs here be cancelled after its present iteration, because of the order in ``item``."""
        if (running := self._running) and running.entry.key == key:
            running.cancelled_by = item

    def _solve(self, running: _Running) -> None:
        entry = running.entry
        task = Task(self._site.jobs / entry.key, self._site)
        _log.info("job %s begins (start %d): %s, %s frames", entry.key, entry.tries, entry.recipe, entry.frames)
        try:
            task.job()
            with task.log.open("a", encoding="utf-8") as log, in_one_sentence(task, log):
                result = self._launcher.run(task, lambda progress: self._hear(running, progress), lambda: self._is_over(running))
        except Cancelled:
            self._put_down(running, task)
        except (RanksCrashed, DeviceLost) as error:
            self._try_again(entry, str(error), RETRY_S)
        except (CatalogAway, DeviceBusy, DiskError) as error:
            self._wait(entry, str(error))
        except CatalogError as error:
            self._try_again(entry, str(error), CATALOG_RETRY_S)
        except PtypluginError as error:
            _log.error("job %s failed: %s", entry.key, error)
            self._ledger.failed(entry, str(error))
            task.forget_checkpoints()
        except OSError as error:
            self._wait(entry, f"the job's folder {task.folder} cannot be used ({error.strerror}).")
        else:
            self._waits.pop(entry.key, None)
            self._ledger.solved(entry, result)
            _log.info("job %s is solved: %s", entry.key, result)

    def _put_down(self, running: _Running, task: Task) -> None:
        if running.cancelled_by is not None:
            _log.info("job %s is cancelled", running.entry.key)
            self._ledger.cancelled(running.entry, "it was cancelled while it ran.", running.cancelled_by)
            task.forget_checkpoints()
        else:
            self._ledger.requeue(running.entry, "the daemon was stopped while it ran.", count_try=False)

    def _try_again(self, entry: Entry, sentence: str, wait_s: float) -> None:
        wait_s *= 2 ** (entry.tries - 1)
        if entry.tries < MAX_TRIES:
            sentence += f" It is tried again in {wait_s:g} s (start {entry.tries} of {MAX_TRIES})."
        _log.warning("job %s: %s", entry.key, sentence)
        # Whoever stops the daemon may stop its ranks too: that is no fault of the job.
        self._ledger.requeue(entry, sentence, wait_s=wait_s, count_try=not self._stopping())

    def _wait(self, entry: Entry, sentence: str) -> None:
        """Put back a job that has no part in what went wrong: it is tried again for as long as it takes."""
        wait_s = self._waits.get(entry.key, TROUBLE_RETRY_S)
        self._waits[entry.key] = min(2 * wait_s, LONGEST_RETRY_S)
        sentence += f" The job waits for this to be mended and is tried again in {wait_s:g} s."
        _log.warning("job %s: %s", entry.key, sentence)
        self._ledger.requeue(entry, sentence, wait_s=wait_s, count_try=False)

    def _hear(self, running: _Running, progress: Progress) -> None:
        running.fraction_done = progress.iteration / max(progress.iterations, 1)
        running.progress_file(progress)
        if self._on_progress:
            self._on_progress(progress)

    def _is_over(self, running: _Running) -> bool:
        return running.cancelled_by is not None or self._stopping()
