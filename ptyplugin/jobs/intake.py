"""Taking items in from the inbox: the job's folder first, then its row in the ledger, and only then the item goes.

A daemon that is killed between any two steps finds the item again, and taking it in twice is taking it in once.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from ptyplugin.jobs.contents import GROWTH_FILE, JOB_FILE, arrays_beside, parse
from ptyplugin.jobs.durable import copy_handed_over, make_folder, move, read_handed_over, remove_tree, sync_folder, write_bytes
from ptyplugin.jobs.growing import GrowthFolder
from ptyplugin.jobs.inbox import Inbox, age_s, key_of
from ptyplugin.jobs.ledger import Ledger
from ptyplugin.jobs.orders import ORDER_FILE, Order
from ptyplugin.model import Growth, Job, JobError, Refusal, RunSource, ScanError

_log = logging.getLogger(__name__)

#: Largest job.json: positions of 10,000 frames and all ranges fit many times.
_JOB_LIMIT_BYTES = 64 << 20
#: Largest array beside a job; more frames than that come as a file, not inside events.
_ARRAY_LIMIT_BYTES = 64 << 30
_ORDER_LIMIT_BYTES = 1 << 10
#: How long growth waits for its job, seconds.
_LONGEST_WAIT_S = 3600.0

#: Bytes of memory that a job needs, its arrays being in this folder.
Weigh = Callable[[Job, Path], int]
#: (order, the name of its item): carries it out; whether that is done. An order that is not done yet stays in the inbox.
Obey = Callable[[Order, str], bool]


class Intake:
    """Carries jobs from the inbox into the ledger and into one folder per job; ``obey`` carries orders out, ``weigh`` weighs jobs."""

    def __init__(self, inbox: Inbox, ledger: Ledger, jobs: Path, obey: Obey | None = None, weigh: Weigh | None = None) -> None:
        self._inbox, self._ledger, self._jobs = inbox, ledger, jobs
        self._obey, self._weigh = obey or ledger.obey, weigh

    def clean(self) -> None:
        """Remove what a killed daemon left half copied; the items themselves are still in the inbox."""
        make_folder(self._jobs)
        for leftover in self._jobs.glob(".*"):
            remove_tree(leftover)
        self._inbox.sweep()

    def take_in(self, item: Path) -> str | None:
        """Take one item in; its key, or None when it was bad, set aside, and its key cannot be known, or when it has to wait.

        Raises:
            OSError: the disk or the network is in trouble; the item stays where it is.
            LedgerError: the ledger cannot be written; the item stays where it is.
        """
        if os.path.lexists(item / ORDER_FILE):
            return self._take_order(item)
        if os.path.lexists(item / GROWTH_FILE):
            return self._take_growth(item)
        try:
            job = self._read(item)
            if self._ledger.knows(job.key):
                _log.info("job %s is known already: to do it once more, submit it with a higher attempt number", job.key)
            else:
                self._copy(item, job)
                weighed = self._weigh(job, self._jobs / job.key) if self._weigh and isinstance(job, Job) else 0
                self._ledger.put(job, weighed)
                _say_arrival(job)
            self._end_live(job)
        except JobError as error:
            return self._set_aside(item, str(error))
        self._inbox.remove(item)
        return job.key

    def _take_order(self, item: Path) -> str | None:
        try:
            _check_folder(item)
            order = Order.from_bytes(read_handed_over(item / ORDER_FILE, _ORDER_LIMIT_BYTES))
        except JobError as error:
            self._put_away(item, str(error))
            return None
        try:
            done = self._obey(order, item.name)
        except JobError as error:
            _log.warning("%s", error)
            done = True
        if done:
            self._inbox.remove(item)
        return order.job

    def _take_growth(self, item: Path) -> str | None:
        key = key_of(item)
        if key is None or not self._ledger.knows(key):
            # Its job may be on the way.
            if not key or age_s(item) > _LONGEST_WAIT_S:
                self._put_away(item, f"{item} is growth of a job that is not known.")
            return None
        try:
            _check_folder(item)
            growth = Growth.from_bytes(read_handed_over(item / GROWTH_FILE, _JOB_LIMIT_BYTES))
            self._grow(item, growth, key)
        except (JobError, ScanError) as error:
            self._put_away(item, f"growth of job {key} cannot be taken in: {error}")
            return None
        self._inbox.remove(item)
        return key

    def _grow(self, item: Path, growth: Growth, key: str) -> None:
        entry = self._ledger.show(key)
        if growth.job != key or entry.purpose != "live":
            raise JobError(f"{item} holds growth of job {growth.job}, and {key} is {'' if entry.purpose == 'live' else 'no '}live.")
        if entry.state not in ("queued", "running"):
            _log.info("job %s is %s: %d frames that came later are left to the final job", key, entry.state, growth.frame_count)
            return
        folder = GrowthFolder(self._jobs / key)
        folder.put(item, growth, _ARRAY_LIMIT_BYTES)
        if growth.frame_count:
            self._ledger.grow(key, growth.first, growth.frame_count)
        else:
            self._ledger.hurry(key)

    def _end_live(self, job: Job | Refusal) -> None:
        """The final job of a run is there: its live job gets no more frames."""
        if job.purpose == "final" and isinstance(job.source, RunSource):
            for entry in self._ledger.live_jobs(job.source.run_uid, job.source.key):
                GrowthFolder(self._jobs / entry.key).end()
                self._ledger.hurry(entry.key)

    def _put_away(self, item: Path, sentence: str) -> None:
        place = self._inbox.set_aside(item, _printable(sentence))
        _log.error("%s It is kept in %s.", _printable(sentence), _printable(str(place)))

    def _read(self, item: Path) -> Job | Refusal:
        _check_folder(item)
        job = parse(read_handed_over(item / JOB_FILE, _JOB_LIMIT_BYTES))
        try:
            key = job.key
        except ValueError as error:
            raise JobError(f"this job has a number that cannot be ({error}): correct it and submit it again.") from error
        if key_of(item) not in (None, key):
            raise JobError(f"{item} holds the job {key}, not the one in its name: submit it again.")
        return job

    def _copy(self, item: Path, job: Job | Refusal) -> None:
        staged, folder = self._jobs / f".{job.key}.{secrets.token_hex(4)}", self._jobs / job.key
        make_folder(staged)
        try:
            for name, sha256 in arrays_beside(job).items():
                if copy_handed_over(item / name, staged / name, _ARRAY_LIMIT_BYTES) != sha256:
                    raise JobError(f"{item / name} is not the array that the job names (its sha256 differs): submit the job again.")
            write_bytes(staged / JOB_FILE, job.to_bytes())
            sync_folder(staged)
            # Without a row in the ledger a folder of that name is from a take-in that was cut short.
            remove_tree(folder)
            move(staged, folder)
        except BaseException:
            remove_tree(staged)
            raise

    def _set_aside(self, item: Path, sentence: str) -> str | None:
        key, sentence = key_of(item), _printable(sentence)
        if key:
            self._ledger.put_unreadable(key, sentence)
        place = self._inbox.set_aside(item, sentence)
        _log.error("%s It is kept in %s.", sentence, _printable(str(place)))
        return key


def _check_folder(item: Path) -> None:
    if item.is_symlink() or not item.is_dir():
        raise JobError(f"{item} is no folder: jobs are handed over with ptyplugin.jobs.submit.")


def _say_arrival(job: Job | Refusal) -> None:
    if isinstance(job, Refusal):
        _log.warning("run %s (scan %s) was refused: %s", job.source.run_uid, job.source.scan_id, job.reason)
    else:
        _log.info("job %s accepted: %d frames, %s", job.key, job.frame_count, job.recipe)


def _printable(text: str) -> str:
    """A file's name need not be text: bytes that are none are shown as such, so that log and ledger can hold the sentence."""
    return text.encode(errors="backslashreplace").decode()
