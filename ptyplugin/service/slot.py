"""A slot: what solves one job after the other, and writes into the ledger how each one ended."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ptyplugin.jobs import MAX_TRIES, Entry, Fitting, Ledger, Overtaken, ProgressFile
from ptyplugin.model import (
    Cancelled,
    CatalogAway,
    CatalogError,
    DeviceBusy,
    DiskError,
    LedgerError,
    Progress,
    PtypluginError,
    RanksAway,
    RanksCrashed,
    TimeIsUp,
)
from ptyplugin.model.redaction import redacted
from ptyplugin.service.complaints import Complaints
from ptyplugin.service.ending import end_noted
from ptyplugin.service.launchers import Launcher
from ptyplugin.service.preview import drop_previews, final_image, finals_of, how_far, make_way
from ptyplugin.service.slots import Place
from ptyplugin.service.solving import Task, Wish, in_one_sentence
from ptyplugin.solvers.verbs.cuda.device import DeviceLost

_log = logging.getLogger(__name__)

#: How long a started job counts as running without a word of it, and how often the ledger hears of it, seconds.
LEASE_S, BEAT_S = 60.0, 2.0
#: The same for a live job, whose run may end any moment, seconds.
LIVE_BEAT_S = 0.5
#: After a live job, a final one that has waited so long has its turn, seconds.
TURN_S = 30.0
#: How often a slot without a job looks for one that was not announced, and after its ranks, once and until they are there, seconds.
REST_S, SOON_S = 0.25, 0.05
#: How often ranks do not start before a job is taken to say why.
_FAILURES = 3
#: Seconds before a job whose ranks crashed, or whose GPU failed under them, is started again; doubled with each try.
RETRY_S = 1.0
#: The same for a job whose frames come through the catalog and are not there: who writes the raw run may be behind, or the server away.
CATALOG_RETRY_S = 15.0
#: Seconds between the starts of a job that a trouble of this installation (a full disk, a catalog away, a GPU in use, no ranks) keeps from
#: being solved: from the first to the longest, doubled each time. Such a start is no try.
TROUBLE_RETRY_S = 5.0
LONGEST_RETRY_S = 600.0

#: Writes into the ledger how a job ended.
_Decision = Callable[[], None]


@dataclass(slots=True)
class _Running:
    entry: Entry
    task: Task
    progress_file: ProgressFile
    fraction_done: float = 0.0
    frames: int = 0
    cancelled_by: str | None = None
    makes_way: bool = False
    final_waits: bool = False
    final_image: str | None = None
    beaten: float = field(default_factory=time.monotonic)


class Slot:
    """Solves those of the ledger's jobs that fit.

    Args:
        place: what it has.
        ledger: holds the jobs.
        launcher: how a job runs.
        stopping: whether the daemon was asked to stop.
        on_progress: hears of iterations.
    """

    def __init__(
        self,
        place: Place,
        ledger: Ledger,
        launcher: Launcher,
        stopping: Callable[[], bool],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.place, self._ledger, self._launcher = place, ledger, launcher
        self._stopping, self._on_progress = stopping, on_progress
        self._others: Sequence[Slot] = ()
        self._running: _Running | None = None
        self._decision: _Decision | None = None
        self._waits: dict[str, float] = {}
        self._news = threading.Event()
        self._is_ready, self._failures = False, 0
        self._had_live_job = False
        self._complaints = Complaints(_log)
        #: Why it cannot take jobs, in one sentence; None if it can.
        self.trouble: str | None = None

    def stand_beside(self, slots: Sequence[Slot]) -> None:
        """All slots of the daemon, among which jobs are shared out."""
        self._others = [slot for slot in slots if slot is not self]

    @property
    def runs(self) -> str | None:
        """The key of the job that it has."""
        running = self._running
        return running.entry.key if running else None

    @property
    def is_live(self) -> bool:
        """Whether the job that it has is a live one."""
        running = self._running
        return running is not None and running.entry.purpose == "live"

    @property
    def is_free(self) -> bool:
        """Whether it could begin with a job."""
        return self._running is None and self.trouble is None and not self.waits

    @property
    def waits(self) -> str:
        """For what it waits before it can begin with a job, though nothing is wrong; empty if that is not so."""
        return self._launcher.waits

    @property
    def is_warm(self) -> bool:
        """Whether a job would find all ready that takes long the first time."""
        return self.trouble is None and not self.waits and self._launcher.is_warm

    def solve_next(self) -> bool:
        """Solve the next job that fits, if one waits; whether one did.

        Raises:
            LedgerError: the ledger cannot be written. How a job ended is known here, and is written at the next call.
        """
        self.settle()
        entry = self._ledger.claim(LEASE_S, self._fitting())
        if entry is None:
            return False
        self._had_live_job = entry.purpose == "live"
        if (final := final_image(self._ledger, entry)) is not None:
            self._ledger.cancelled(entry, final)
            return True
        site = self.place.site
        self._running = running = _Running(entry, Task(site.jobs / entry.key, site), ProgressFile(site.jobs / entry.key))
        try:
            self._decision = self._solve(running)
        except BaseException:
            self._put_away(running)
            raise
        self.settle()
        return True

    def is_ready(self) -> bool:
        """Whether it can take a job: one that is to wait for the slot's ranks better waits in the queue, where nothing happens to it."""
        try:
            self._is_ready = self._launcher.look()
        except PtypluginError as error:
            self.trouble = redacted(str(error))
            self._complaints.say(f"slot {self.place.name}: {error}")
            self._failures += 1
            self._is_ready = False
            # What lasts is seen by those who look at the jobs: they meet it, and say so.
            return self._failures >= _FAILURES
        if self._is_ready or self.waits:
            self.trouble, self._failures = None, 0
        return self._is_ready

    def settle(self) -> None:
        """Write down how the last job ended, if that has not been done.

        Raises:
            LedgerError: it still cannot be.
        """
        if self._running is None or self._decision is None:
            return
        try:
            self._decision()
        except Overtaken as error:
            _log.warning("%s", error)
        self._put_away(self._running)

    def rest(self) -> None:
        """There is no job: have the launcher warm up, and wait for news, a moment at most."""
        if self._is_ready:
            self._launcher.warm_up()
        self._news.wait(REST_S if self._is_ready else SOON_S)
        self._news.clear()

    def wake(self) -> None:
        """There are new jobs."""
        self._news.set()

    def close(self) -> None:
        """End what the launcher has running."""
        self._launcher.close()

    def stop(self, key: str, item: str) -> None:
        """Have a job that runs here be cancelled after its present iteration, because of the order in ``item``."""
        if (running := self._running) and running.entry.key == key:
            running.cancelled_by = item

    def _fitting(self) -> Fitting:
        """A job goes to the narrowest slot into which it fits; to a wider one if those that are narrower are busy."""
        alike = [slot for slot in self._others if slot.place.takes == self.place.takes]
        mine = self.place.memory_bytes
        narrower = [slot for slot in alike if slot.place.memory_bytes < mine]
        is_widest = all(slot.place.memory_bytes <= mine for slot in alike)
        sizes = {} if is_widest else {"up_to_bytes": mine}
        sizes |= {"rather_above_bytes": max(slot.place.memory_bytes for slot in narrower)} if narrower else {}
        return Fitting(
            above_bytes=max((slot.place.memory_bytes for slot in narrower if slot.is_free), default=-1),
            devices=self.place.takes,
            others=[key for slot in self._others if (key := slot.runs)],
            turn_after_s=TURN_S if self._had_live_job else math.inf,
            **sizes,
        )

    def _put_away(self, running: _Running) -> None:
        running.progress_file.remove()
        self._running = self._decision = None

    def _solve(self, running: _Running) -> _Decision:
        entry, task = running.entry, running.task
        if entry.starts > 1 and task.result.exists():
            _log.info("job %s was solved before, and nobody could write that down", entry.key)
            return partial(self._solved, running)
        _log.info(
            "job %s begins in slot %s (start %d): %s, %s frames", entry.key, self.place.name, entry.starts, entry.recipe, entry.frames
        )
        try:
            asked = task.job().resources.ranks
            if asked not in (None, self.place.ranks):
                _log.info("job %s asks for %d rank(s): this slot has %d", entry.key, asked, self.place.ranks)
            with end_noted(task.log, entry.starts), task.log.open("a", encoding="utf-8") as log, in_one_sentence(task, log):
                self._launcher.run(task, lambda progress: self._hear(running, progress), lambda: self._wish(running))
        except Cancelled:
            return partial(self._put_down, running)
        except (RanksCrashed, DeviceLost) as error:
            return partial(self._try_again, running, f"{error} Fresh processes take over.", RETRY_S)
        except (CatalogAway, DeviceBusy, DiskError, RanksAway) as error:
            return partial(self._wait, entry, str(error))
        except CatalogError as error:
            return partial(self._try_again, running, str(error), CATALOG_RETRY_S)
        except PtypluginError as error:
            if isinstance(error, TimeIsUp) and entry.purpose == "live":
                # It lasts as long as its scan.
                return partial(self._try_again, running, str(error), RETRY_S)
            return partial(self._failed, running, error)
        except OSError as error:
            return partial(self._wait, entry, f"the job's folder {task.folder} cannot be used ({error.strerror}).")
        return partial(self._solved, running)

    def _solved(self, running: _Running) -> None:
        self._ledger.solved(running.entry, running.task.result)
        self._waits.pop(running.entry.key, None)
        running.task.forget_checkpoints()
        _log.info("job %s is solved: %s", running.entry.key, running.task.result)
        drop_previews(self._ledger, running.entry)
        running.task.forget_growth()

    def _failed(self, running: _Running, error: PtypluginError) -> None:
        _log.error("job %s failed: %s", running.entry.key, error)
        self._ledger.failed(running.entry, str(error))
        if not isinstance(error, TimeIsUp):
            running.task.forget_checkpoints()

    def _put_down(self, running: _Running) -> None:
        entry, task = running.entry, running.task
        if running.final_image is not None:
            self._ledger.cancelled(entry, running.final_image)
            task.forget_checkpoints()
            return
        if entry.purpose == "live" and running.cancelled_by is None and not self._stopping():
            make_way(self._ledger, entry, task.folder, running.frames)
            return
        if running.cancelled_by is not None:
            self._ledger.cancelled(entry, "it was cancelled while it ran.", running.cancelled_by)
            _log.info("job %s is cancelled", entry.key)
            task.forget_checkpoints()
        else:
            self._ledger.requeue(entry, "the daemon was stopped while it ran.", count_try=False, checkpoint=how_far(entry, task.folder))

    def _try_again(self, running: _Running, sentence: str, wait_s: float) -> None:
        entry, checkpoint = running.entry, how_far(running.entry, running.task.folder)
        if entry.purpose == "live":
            sentence += " The live job goes on from its last snapshot."
            wait_s = 0.0 if checkpoint > entry.checkpoint else wait_s
        elif checkpoint > entry.checkpoint:
            wait_s = 0.0
            sentence += f" The job goes on after iteration {checkpoint}."
        else:
            wait_s *= 2 ** (entry.tries - 1)
            if entry.tries < MAX_TRIES:
                sentence += f" It is tried again in {wait_s:g} s (try {entry.tries} of {MAX_TRIES})."
        _log.warning("job %s: %s", entry.key, sentence)
        # Whoever stops the daemon may stop its ranks too: that is no fault of the job.
        self._ledger.requeue(entry, sentence, wait_s=wait_s, count_try=not self._stopping(), checkpoint=checkpoint)

    def _wait(self, entry: Entry, sentence: str) -> None:
        """Put back a job that has no part in what went wrong: it is tried again for as long as it takes."""
        wait_s = self._waits.get(entry.key, TROUBLE_RETRY_S)
        sentence += f" The job waits for this to be mended and is tried again in {wait_s:g} s."
        self._ledger.requeue(entry, sentence, wait_s=wait_s, count_try=False)
        self._waits[entry.key] = min(2 * wait_s, LONGEST_RETRY_S)
        _log.warning("job %s: %s", entry.key, sentence)

    def _hear(self, running: _Running, progress: Progress) -> None:
        # A live job goes on for as long as its scan.
        running.fraction_done = min(progress.iteration / max(progress.iterations, 1), 1.0)
        running.frames = progress.frames
        running.progress_file(progress)
        if self._on_progress:
            self._on_progress(progress)

    def _wish(self, running: _Running) -> Wish:
        is_live = running.entry.purpose == "live"
        if time.monotonic() - running.beaten > (LIVE_BEAT_S if is_live else BEAT_S):
            running.beaten = time.monotonic()
            try:
                self._ledger.beat(running.entry, LEASE_S, running.fraction_done)
                if is_live:
                    running.final_waits = any(final.state == "queued" for final in finals_of(self._ledger, running.entry))
                    running.makes_way = self._ledger.next(self._fitting()) is not None
                    running.final_image = final_image(self._ledger, running.entry)
            except LedgerError as error:
                self._complaints.say(str(error))
        if running.cancelled_by is not None or running.final_image is not None:
            return Wish.CANCEL
        if self._stopping():
            return Wish.STOP
        if running.final_waits:
            return Wish.FINISH
        return Wish.GIVE_WAY if running.makes_way else Wish.GO_ON
