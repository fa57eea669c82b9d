"""The thread behind AutoReconstruct: documents from a queue, jobs into the inbox."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from numpy.typing import NDArray

from ptyplugin.callbacks.assemble import PAUSE_S, Assembling, refusal
from ptyplugin.callbacks.collector import Collector, RunEnded
from ptyplugin.callbacks.files import FileReader
from ptyplugin.callbacks.live import Grow, LiveRuns, Submit
from ptyplugin.callbacks.overwritten import FilesOfRuns
from ptyplugin.callbacks.run import CollectedRun
from ptyplugin.model import JobParts, Profile, Refusal, Site

_log = logging.getLogger(__name__)

#: Pauses between two tries to hand jobs over: from the first to the longest, doubled each time.
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
#: What all workers together may take at the exit of the interpreter.
_EXIT_S = 2.0


class Worker:
    """Collects runs and hands their jobs over, trying again until the inbox takes them. Documents are put into ``queue``.

    grow: hands growth of live jobs over; without it there are none
    after_each: called in the worker's thread after each document
    """

    def __init__(self, profile: Profile, site: Site, submit: Submit, grow: Grow | None, after_each: Callable[[], None]) -> None:
        self.queue: SimpleQueue[tuple[Any, Any] | threading.Event | None] = SimpleQueue()
        self._profile = profile
        self.site = site
        self._submit = submit
        self._reader = FileReader(site)
        self._after_each = after_each
        self._collector = Collector(profile)
        self._live = None if grow is None else LiveRuns(profile, site, self._reader, submit, grow)
        #: Runs whose positions lie in files that do not show them yet, and when to look again.
        self._assembling: list[Assembling] = []
        self._next_look_s = 0.0
        self._files = FilesOfRuns()
        self._jobs: list[tuple[str, JobParts | Refusal]] = []
        self._pause_s = 0.0
        self._next_try_s = 0.0
        self._flushes: list[threading.Event] = []
        self._thread = threading.Thread(target=self._run, name="ptyplugin", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        _workers.add(self)
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end when all that was put before is done."""
        self.queue.put(None)

    def ended(self, timeout_s: float) -> bool:
        """Stop, and wait for the end of the thread; False if that took too long."""
        self.stop()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all documents put before are used and all jobs are handed over; False if that took too long."""
        done = threading.Event()
        self.queue.put(done)
        return done.wait(timeout_s)

    def unfinished(self) -> list[str]:
        """The runs whose jobs are not handed over yet."""
        return [*(_called(each.run) for each in self._assembling), *(who for who, _ in self._jobs)]

    def _run(self) -> None:
        stopping = False
        while not stopping or self._assembling or self._jobs or self._live_waits():
            try:
                item = self.queue.get(timeout=self._until_next_try_s())
            except Empty:
                self._work()
                continue
            if isinstance(item, tuple):
                self._take(*item)
            else:
                stopping = stopping or item is None
                self._flushes += [item] if item is not None else []
                self._next_try_s = 0.0
                if self._live is not None:
                    self._live.hurry()
            self._work()
        _workers.discard(self)

    def _work(self) -> None:
        self._work_live()
        self._look()
        self._hand_over()

    def _take(self, name: Any, document: Any) -> None:
        # A mistake of ours in one run must not end the thread that serves the next.
        try:
            for output in self._collector(name, document):
                if self._live is not None:
                    self._live.take(output)
                if isinstance(output, RunEnded):
                    # The live job gets its last frames first: they are there when its final job is.
                    self._work_live()
                    self._end_run(output.run)
            self._after_each()
        except Exception:
            _log.exception("a %.80r document could not be used and is passed over", name)

    def _end_run(self, run: CollectedRun) -> None:
        if not run.is_ptychography:
            _log.debug("%s is no ptychography for profile %s", _called(run), self._profile.name)
            return
        for reason, count in self._collector.ignored.items():
            _log.warning("%s: %d documents were passed over: %s", _called(run), count, reason)
        self._collector.ignored.clear()
        self._assembling.append(Assembling(run, self._profile, self._reader))
        self._next_look_s = 0.0

    def _look(self) -> None:
        """Make jobs of the runs whose positions are there. No run waits for those of another."""
        if self._assembling and time.monotonic() >= self._next_look_s:
            begun_s = time.monotonic()
            self._assembling = [each for each in self._assembling if not self._made(each)]
            now_s = time.monotonic()
            self._next_look_s = now_s + max(PAUSE_S, now_s - begun_s)

    def _made(self, assembling: Assembling) -> bool:
        run = assembling.run
        try:
            parts = assembling.look()
            parts = self._files.noted(parts) if isinstance(parts, JobParts) else parts
        except Exception as error:
            _log.exception("%s: no job could be made of it", _called(run))
            reason = f"a mistake of ptyplugin: no job could be made of this run ({type(error).__name__}). Report it with the session's log."
            parts = refusal(run, self._profile, reason)
        if parts is not None:
            self._jobs.append((_called(run), parts))
        return parts is not None

    def _until_next_try_s(self) -> float | None:
        due_s = [self._next_try_s] * bool(self._jobs) + [self._next_look_s] * bool(self._assembling)
        waits = [max(0.0, each_s - time.monotonic()) for each_s in due_s]
        live_s = None if self._live is None else self._live.wait_s()
        return min([*waits, live_s] if live_s is not None else waits, default=None)

    def _live_waits(self) -> bool:
        return self._live is not None and self._live.unfinished()

    def _work_live(self) -> None:
        if self._live is not None:
            self._live.work(self._collector.so_far)

    def _hand_over(self) -> None:
        if self._jobs and time.monotonic() >= self._next_try_s:
            self._jobs = [each for each in self._jobs if not self._handed_over(*each)]
            self._pause_s = min(max(_FIRST_PAUSE_S, 2 * self._pause_s), _LONGEST_PAUSE_S) if self._jobs else 0.0
            self._next_try_s = time.monotonic() + self._pause_s
        if not self._assembling and not self._jobs and not self._live_waits():
            for done in self._flushes:
                done.set()
            self._flushes.clear()

    def _handed_over(self, who: str, parts: JobParts | Refusal) -> bool:
        job, arrays = (parts, dict[str, NDArray[Any]]()) if isinstance(parts, Refusal) else (parts.job, parts.arrays)
        # Whatever keeps the inbox from taking it, the job stays here until it does.
        try:
            key = self._submit(self.site, job, arrays)
        except Exception as error:
            _log.error("%s: its job cannot be handed over and is kept: %s", who, error)
            return False
        if isinstance(job, Refusal):
            _log.warning("%s: job %s, not reconstructed: %s", who, key, job.reason)
        else:
            _log.info("%s: job %s handed over, %d frames%s", who, key, job.frame_count, "".join(f"; {note}" for note in job.notes))
        return True


def _called(run: CollectedRun) -> str:
    return f"run {run.uid} (scan {run.scan_id})"


_workers: set[Worker] = set()


@atexit.register
def _end_at_exit() -> None:
    end_s = time.monotonic() + _EXIT_S
    for worker in list(_workers):
        if not worker.ended(max(0.0, end_s - time.monotonic())):
            lost = "; ".join(worker.unfinished()) or "those of the last documents"
            _log.error("jobs were not handed over to %s before the exit: %s. Submit them by hand.", worker.site.inbox, lost)
