"""The daemon: inbox -> ledger -> slots -> result file -> publisher. It may be killed at any moment and goes on where it was."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from ptyplugin.jobs import Inbox, Intake, Ledger, Order
from ptyplugin.model import LedgerError, Progress, PtypluginError, Site, SiteError
from ptyplugin.service.claiming import claim_shared
from ptyplugin.service.complaints import Complaints
from ptyplugin.service.launchers import Launcher
from ptyplugin.service.mpiexec import Mpiexec
from ptyplugin.service.pilots import Pilots
from ptyplugin.service.preview import how_far
from ptyplugin.service.processes import make_sure_they_are_gone
from ptyplugin.service.publisher import Publish, PublishApart, Publisher
from ptyplugin.service.retention import Retention
from ptyplugin.service.showing import OnSnapshot, Showing
from ptyplugin.service.slot import Slot
from ptyplugin.service.slots import Place, places_of
from ptyplugin.service.solving import Task
from ptyplugin.service.weighing import needed_bytes

_log = logging.getLogger(__name__)

#: How often the inbox is looked at, seconds; and while a live job waits for what comes in there.
POLL_S, LIVE_POLL_S = 0.1, 0.02
#: How long to leave a disk or a network share alone that is in trouble, seconds.
TROUBLE_S = 2.0
#: Seconds that the threads get to end, all together: jobs that run are put into checkpoints; of these, what is being published.
END_S, PUBLISH_END_S = 28.0, 5.0


class Daemon:
    """Takes jobs in, solves one after the other in each slot, publishes the results. A context manager.

    Args:
        site: where everything is.
        launcher: how jobs run, or what makes that for a slot; warm MPI ranks on this machine unless told otherwise.
        publish: puts a result file into the catalog; the site's catalog unless told otherwise.
        on_progress: hears of iterations, in the threads that solve.

    Raises:
        LedgerError: another daemon has this site's ledger, or it cannot be used.
        SiteError: the site's home or inbox cannot be used, its shared folder is another service's, or a slot wants a GPU that is not
            there.
    """

    def __init__(
        self,
        site: Site,
        launcher: Launcher | Callable[[Place], Launcher] | None = None,
        publish: Publish | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._site, self._stop = site, threading.Event()
        self._inbox, self._complaints = Inbox(site.inbox), Complaints(_log)
        places = places_of(site)
        self._ledger = Ledger(site.ledger)
        self._showing, self._on_progress = Showing(site.jobs, self._ledger), on_progress
        self._intake = Intake(self._inbox, self._ledger, site.jobs, self._obey, needed_bytes)
        self._slots = [
            Slot(place, self._ledger, _launcher_of(place, launcher), lambda: self._stop.is_set(), self._hear) for place in places
        ]
        for slot in self._slots:
            slot.stand_beside(self._slots)
        self._retention = Retention(site, self._ledger)
        self._catalog = PublishApart(site) if publish is None and site.tiled_uri else None
        put = publish or self._catalog
        self._publisher = Publisher(self._ledger, put) if put else None
        try:
            self._recover()
        except BaseException:
            self.close()
            raise

    @property
    def ledger(self) -> Ledger:
        """The ledger that it writes."""
        return self._ledger

    @property
    def slots(self) -> Sequence[Slot]:
        """What solves its jobs."""
        return self._slots

    @property
    def publisher(self) -> Publisher | None:
        """What takes results into the catalog, if there is one."""
        return self._publisher

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def add_snapshot_listener(self, listener: OnSnapshot) -> None:
        """Have ``listener`` hear of images of jobs that run, of each the newest, in a thread of their own, perhaps after it has ended."""
        self._showing.add(listener)

    def close(self) -> None:
        """Let go of the slots' ranks, of the ledger and of the catalog."""
        for slot in self._slots:
            slot.close()
        if self._catalog:
            self._catalog.close()
        self._ledger.close()

    def stop(self) -> None:
        """Have ``run`` return within half a minute; a job that runs is put into a checkpoint and back, and counts no try."""
        self._stop.set()

    def run_once(self) -> None:
        """Take in what waits, solve it here and now, publish it once. Jobs to be tried again later stay in the queue.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        self._take_in()
        while any(slot.solve_next() for slot in self._slots):
            self._showing.show()
        if self._publisher:
            self._publisher.publish_due()
        self._tidy()

    def run(self, stop: threading.Event | None = None) -> None:
        """Work until ``stop`` is set or ``stop()`` is called."""
        self._stop = stop or self._stop
        # Orders that an earlier daemon did not come to are carried out before anything is solved.
        self._take_in()
        threads = self._threads()
        for thread in threads:
            thread.start()
        try:
            self._watch()
        finally:
            self._stop.set()
            if self._publisher:
                self._publisher.wake()
            self._showing.wake()
            self._wake()
            end = time.monotonic() + END_S
            if self._catalog:
                self._catalog.close(PUBLISH_END_S)
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
        for thread in threads:
            thread.raise_what_ended_it()

    def _recover(self) -> None:
        try:
            claim_shared(self._site)
            self._intake.clean()
            for folder in _slot_folders(self._site).glob("*/"):
                make_sure_they_are_gone(folder)
            for entry in self._ledger.list(state="running"):
                task = Task(self._site.jobs / entry.key, self._site)
                if task.result.exists():
                    self._ledger.solved(entry, task.result)
                    task.forget_checkpoints()
                else:
                    self._ledger.requeue(entry, "the daemon ended while it ran.", checkpoint=how_far(entry, task.folder))
        except PtypluginError:
            raise
        except OSError as error:
            raise SiteError(f"the site's home {self._site.home} cannot be used ({error}): check it and its permissions.") from error

    def _threads(self) -> list[_Thread]:
        threads = [_Thread(f"solve-{slot.place.name}", partial(self._solve_all, slot), self._stop) for slot in self._slots]
        threads.append(_Thread("show", self._showing.run, self._stop))
        if self._publisher:
            threads.append(_Thread("publish", self._publish_all, self._stop))
        else:
            _log.warning("no catalog is named (tiled_uri in the site file): results stay as files in %s", self._site.results)
        return threads

    def _publish_all(self, stop: threading.Event) -> None:
        if self._catalog:
            self._catalog.warm_up()
        if self._publisher:
            self._publisher.run(stop)

    def _watch(self) -> None:
        while not self._stop.wait(LIVE_POLL_S if any(slot.is_live for slot in self._slots) else POLL_S):
            self._take_in()
            self._tidy()

    def _take_in(self) -> None:
        trouble = False
        try:
            for item in self._inbox.waiting():
                try:
                    if self._intake.take_in(item):
                        self._wake()
                except OSError as error:
                    self._complaints.say(f"{item} cannot be taken in now ({error}): it stays in the inbox and is tried again.")
                    trouble = True
        except (SiteError, LedgerError) as error:
            self._complaints.say(str(error))
            trouble = True
        if trouble:
            self._stop.wait(TROUBLE_S)

    def _tidy(self) -> None:
        try:
            self._retention.sweep_if_due()
        except (OSError, LedgerError) as error:
            self._complaints.say(f"folders of jobs that ended cannot be removed now ({error}): it is tried again in an hour.")

    def _obey(self, order: Order, item: str) -> bool:
        done = self._ledger.obey(order, item)
        if not done:
            for slot in self._slots:
                slot.stop(order.job, item)
        return done

    def _hear(self, progress: Progress) -> None:
        if progress.snapshot:
            self._showing.hear(progress.job)
        if self._on_progress:
            self._on_progress(progress)

    def _wake(self) -> None:
        for slot in self._slots:
            slot.wake()

    def _solve_all(self, slot: Slot, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                try:
                    slot.settle()
                    if not (slot.is_ready() and slot.solve_next()):
                        slot.rest()
                    elif self._publisher:
                        self._publisher.wake()
                except LedgerError as error:
                    self._complaints.say(str(error))
                    stop.wait(TROUBLE_S)
        finally:
            # By the thread that started them: with it, the system would kill them.
            slot.close()


def _slot_folders(site: Site) -> Path:
    return site.home / "slots"


def _launcher_of(place: Place, launcher: Launcher | Callable[[Place], Launcher] | None) -> Launcher:
    if isinstance(launcher, Launcher):
        return launcher
    if launcher is not None:
        return launcher(place)
    if place.slurm:
        return Pilots(place.site.shared / "slots" / place.name, place.slurm, limit_s=place.limit_s)
    folder = _slot_folders(place.site) / place.name
    return Mpiexec(folder, place.ranks, gpus=place.gpus, beside=place.beside, limit_s=place.limit_s)


class _Thread(threading.Thread):
    """A thread whose error ends the daemon: one that goes on with half of its work would only seem to be well."""

    def __init__(self, name: str, work: Callable[[threading.Event], None], stop: threading.Event) -> None:
        super().__init__(name=f"ptyplugin-{name}", daemon=True)
        self._work, self._stop_event = work, stop
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work(self._stop_event)
        except BaseException as error:
            self._error = error
            self._stop_event.set()

    def raise_what_ended_it(self) -> None:
        if self._error is not None:
            raise self._error
