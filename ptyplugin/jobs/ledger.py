"""The ledger: every job that was accepted and what became of it. Written by one daemon, read by anybody."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ptyplugin.jobs.lock import Lock
from ptyplugin.jobs.orders import Order, check_order
from ptyplugin.jobs.queueing import NEXT_JOB, Fitting
from ptyplugin.jobs.schema import KEEP_NOTHING, KEEP_UNTOLD, SCHEMA_VERSION, VERSION, connect_writer, now_s
from ptyplugin.jobs.view import Entry, LedgerView, State
from ptyplugin.model import Job, JobError, LedgerError, Refusal, RunSource
from ptyplugin.model.redaction import redacted

_log = logging.getLogger(__name__)

#: How often a job is started, without coming as far as another checkpoint, before it counts as failed.
MAX_TRIES = 3
#: Why a live job waits that stepped aside.
ASIDE = "it waits for frames, and makes way for others meanwhile."


class Overtaken(LedgerError):
    """Somebody else has decided about the job meanwhile."""


@dataclass(frozen=True, slots=True)
class Untold:
    """A transition that people are to be told of.

    number: of the transition; entry: the job as it was then
    remaining: names of the addresses that have not taken it; None: all of them
    """

    number: int
    entry: Entry
    remaining: tuple[str, ...] | None


class Ledger(LedgerView):
    """The writer's side of the ledger; each method is one transaction that is on the disk when it returns.

    Raises:
        LedgerError: another daemon has it, or the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._lock_file = Lock(path)
        self._news: list[str] = []
        self._listeners: list[Callable[[Entry], None]] = []
        try:
            super().__init__(connect_writer(path))
        except LedgerError:
            self._lock_file.close()
            raise

    def close(self) -> None:
        """Let go of the file and of the lock."""
        super().close()
        self._lock_file.close()

    def listen(self, listener: Callable[[Entry], None]) -> None:
        """Have ``listener`` hear of every transition that is on the disk: the job as it is then. It must be quick and not raise."""
        self._listeners.append(listener)

    def check(self) -> None:
        """Write something that changes nothing.

        Raises:
            LedgerError: it cannot be written.
        """
        with self._transaction():
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def knows(self, key: str) -> bool:
        """Whether a job with this key was taken in and could be read, and is not a refusal of a run that is read again."""
        read_again = "kind = 'refusal' AND state = 'cancelled'"
        return bool(self._rows(f"SELECT 1 FROM job WHERE key = ? AND kind != 'unreadable' AND NOT ({read_again})", (key,)))

    def put(self, job: Job | Refusal, needed_bytes: int = 0) -> bool:
        """Take a job in; a refusal comes in as failed. Whether it is new: the same key is taken in once.

        A row of an item that could not be read gives way to the job itself.

        Raises:
            JobError: a number in it is too large to keep.
        """
        with self._transaction():
            if self.knows(job.key):
                return False
            self._insert({**_row_of(job), "needed_bytes": min(needed_bytes, 2**62)}, job.reason if isinstance(job, Refusal) else None)
            return True

    def put_unreadable(self, key: str, sentence: str) -> None:
        """Keep an item that could not be read as a failed job, unless the job itself, or this about it, is known."""
        with self._transaction():
            if self._rows("SELECT 1 FROM job WHERE key = ? AND (kind != 'unreadable' OR sentence = ?)", (key, sentence)):
                return
            self._insert({"key": key, "kind": "unreadable", "state": "failed", "priority": 0, "notes": "[]"}, sentence)

    def claim(self, lease_s: float, fitting: Fitting | None = None) -> Entry | None:
        """Start the next job; also one whose lease has run out. None if there is none.

        Live ones come first, then the highest priority, then the oldest. Of a run's live and final job never both run.
        """
        with self._transaction():
            found = self.next(fitting)
            if found is None:
                return None
            changes: dict[str, Any] = {"starts": found.starts + 1, "tries": found.tries + 1}
            changes |= {"lease_until_s": now_s() + lease_s, "fraction_done": 0.0}
            self._move(found, ("queued", "running"), "running", None, changes)
            return self.show(found.key)

    def next(self, fitting: Fitting | None) -> Entry | None:
        """The job that ``claim`` would start now."""
        found = self._entries(NEXT_JOB, (fitting or Fitting()).values(now_s()))
        return found[0] if found else None

    def beat(self, entry: Entry, lease_s: float, fraction_done: float) -> None:
        """The job still runs: prolong its lease, and say how far it is (0 .. 1)."""
        with self._transaction():
            self._connection.execute(
                "UPDATE job SET lease_until_s = ?, fraction_done = ? WHERE key = ? AND state = 'running' AND starts = ?",
                (now_s() + lease_s, fraction_done, entry.key, entry.starts),
            )

    def solved(self, entry: Entry, result: Path) -> None:
        """The result file is there; what a live job grew by is not needed any more."""
        with self._transaction():
            self._move(entry, ("running",), "solved", None, {"result": str(result), "fraction_done": 1.0})
            self._connection.execute("DELETE FROM growth WHERE job = ?", (entry.key,))

    def published(self, entry: Entry) -> None:
        """The result is in the catalog."""
        with self._transaction():
            self._move(entry, ("solved",), "published", None)

    def superseded(self, entry: Entry, sentence: str) -> None:
        """A solved job's result is not needed any more: it will not be published."""
        with self._transaction():
            self._move(entry, ("solved",), "cancelled", sentence, {"result": None})

    def not_published_yet(self, entry: Entry, sentence: str) -> None:
        """Say why a solved job is not in the catalog yet."""
        with self._transaction():
            self._connection.execute("UPDATE job SET sentence = ? WHERE key = ? AND state = 'solved'", (redacted(sentence), entry.key))

    def failed(self, entry: Entry, sentence: str) -> None:
        """The job cannot be solved, for the reason in ``sentence``."""
        with self._transaction():
            self._move(entry, ("queued", "running"), "failed", sentence)

    def cancelled(self, entry: Entry, sentence: str, item: str | None = None) -> None:
        """Somebody asked, with the order in this item, that the job be not done."""
        with self._transaction():
            self._move(entry, ("queued", "running"), "cancelled", sentence)
            self._remember_order(item)

    def obeyed(self, item: str) -> bool:
        """Whether the order in this item was carried out."""
        return bool(self._rows("SELECT 1 FROM obeyed WHERE item = ?", (item,)))

    def obey(self, order: Order, item: str) -> bool:
        """Carry out the order in this item, once however often it comes; False when the job runs and somebody has to stop it.

        Raises:
            JobError: there is no such job, or its state does not allow it.
        """
        with self._lock:  # so that no other thread starts the job in between
            if self.obeyed(item):
                return True
            entry = self.show(order.job)
            if order.order == "cancel" and entry.state == "running":
                return False
            check_order(order, entry)
            if order.order == "cancel":
                self.cancelled(entry, "it was cancelled before it began.", item)
            elif entry.kind == "refusal":
                self._read_again(entry, item)
            else:
                self._retried(entry, item)
            return True

    def _read_again(self, entry: Entry, item: str) -> None:
        with self._transaction():
            self._move(entry, ("failed", "cancelled"), "cancelled", "somebody asked for its run to be read again: that makes another job.")
            self._remember_order(item)

    def _retried(self, entry: Entry, item: str) -> None:
        with self._transaction():
            changes = {"tries": 0, "checkpoint": 0, "not_before_s": 0.0, "fraction_done": 0.0}
            self._move(entry, ("failed", "cancelled"), "queued", f"somebody asked for it again (it was {entry.state}).", changes)
            self._remember_order(item)

    def requeue(self, entry: Entry, sentence: str, *, wait_s: float = 0.0, count_try: bool = True, checkpoint: int = 0) -> None:
        """Put a started job back, to be started again after ``wait_s``; fails it when it was started often enough.

        A start that came as far as another checkpoint is no try.

        Args:
            entry: the job as it was claimed.
            sentence: what happened.
            wait_s: seconds before it may be started again.
            count_try: False when the job has no part in it (the daemon was asked to stop).
            checkpoint: iteration after which its newest checkpoint was made.
        """
        with self._transaction():
            counts = count_try and checkpoint <= entry.checkpoint
            if counts and entry.tries >= MAX_TRIES:
                self._move(entry, ("running",), "failed", f"{sentence} It was started {entry.tries} times and is given up.")
                return
            changes = {"tries": entry.tries if counts else entry.tries - 1, "not_before_s": now_s() + wait_s}
            changes |= {"checkpoint": max(checkpoint, entry.checkpoint)}
            self._move(entry, ("running",), "queued", sentence, changes)

    def keep_untold(self, wanted: bool) -> None:
        """From now on, over restarts too, remember each end of a job until somebody was told of it; or forget them all."""
        with self._transaction():
            self._connection.execute(KEEP_UNTOLD if wanted else KEEP_NOTHING)
            if not wanted:
                self._connection.execute("DELETE FROM untold")

    def untold(self, after: int, limit: int) -> Sequence[Untold]:
        """Transitions that people are to be told of, the oldest first: those with numbers above ``after``."""
        query = (
            "SELECT number, job, at_s, state, sentence, remaining FROM untold JOIN transition ON number = transition "
            "WHERE number > ? ORDER BY number LIMIT ?"
        )
        return [
            Untold(
                row["number"],
                replace(self.show(row["job"]), state=row["state"], sentence=row["sentence"], changed_s=row["at_s"]),
                None if row["remaining"] is None else tuple(json.loads(row["remaining"])),
            )
            for row in self._rows(query, (after, limit))
        ]

    def told(self, number: int, remaining: Sequence[str] = ()) -> None:
        """Somebody was told of this transition; these addresses are left."""
        with self._transaction():
            if remaining:
                self._connection.execute("UPDATE untold SET remaining = ? WHERE transition = ?", (json.dumps(list(remaining)), number))
            else:
                self._connection.execute("DELETE FROM untold WHERE transition = ?", (number,))

    def grow(self, key: str, first_frame: int, count: int) -> bool:
        """Add frames to a live job, which may go on with them; whether they are new: rows are known by their first frame.

        Args:
            key: the job.
            first_frame: how many frames it has before these.
            count: how many are added.
        """
        with self._transaction():
            done = self._connection.execute(
                "INSERT OR IGNORE INTO growth (job, first_frame, count) VALUES (?, ?, ?)", (key, first_frame, count)
            )
            if done.rowcount == 1:
                self._connection.execute("UPDATE job SET frames = frames + ? WHERE key = ?", (count, key))
            self._hurry(key)
            return done.rowcount == 1

    def step_aside(self, entry: Entry, wait_s: float) -> None:
        """Put back a live job that waits for frames while others could be solved; ``hurry`` has it go on, or ``wait_s`` seconds."""
        with self._transaction():
            self._move(entry, ("running",), "queued", ASIDE, {"tries": entry.tries - 1, "not_before_s": now_s() + wait_s})

    def hurry(self, key: str, wait_s: float = 0.0) -> None:
        """What the live job has stepped aside for is there: it may go on, after ``wait_s`` seconds at the latest."""
        with self._transaction():
            self._hurry(key, wait_s)

    def _hurry(self, key: str, wait_s: float = 0.0) -> None:
        due = "UPDATE job SET not_before_s = min(not_before_s, ?), changed_s = ? WHERE key = ? AND state = 'queued' AND sentence = ?"
        self._connection.execute(due, (now_s() + wait_s, now_s(), key, ASIDE))

    def live_jobs(self, run_uid: str, source: str) -> Sequence[Entry]:
        """The live jobs of this run and detector that have not ended."""
        query = (
            "SELECT * FROM job WHERE run_uid = ? AND source = ? AND purpose = 'live' AND kind = 'job' AND state IN ('queued', 'running')"
        )
        return self._entries(query, (run_uid, source))

    def _insert(self, row: Mapping[str, Any], sentence: str | None) -> None:
        sentence = redacted(sentence) if sentence else sentence
        values = {**row, "sentence": sentence, "version": VERSION, "arrived_s": now_s(), "changed_s": now_s()}
        names, places = ", ".join(values), ", ".join(f":{name}" for name in values)
        renewed = ", ".join(f"{name} = excluded.{name}" for name in values if name != "key")
        query = f"INSERT INTO job ({names}) VALUES ({places}) ON CONFLICT (key) DO UPDATE SET {renewed}"
        try:
            self._connection.execute(query, values)
        except OverflowError as error:
            raise JobError(f"job {row['key']} has a number of more than 64 bits (scan id, frames or priority): correct it.") from error
        self._remember(row["key"], row["state"], sentence)

    def _move(
        self, entry: Entry, before: Sequence[State], after: State, sentence: str | None, changes: Mapping[str, Any] | None = None
    ) -> None:
        sentence = redacted(sentence) if sentence else sentence
        # The number of starts tells a start of the job from a later one: who was overtaken must not decide about it.
        values = {"state": after, "sentence": sentence, "version": VERSION, "changed_s": now_s(), **(changes or {})}
        columns = ", ".join(f"{name} = ?" for name in values)
        states = ", ".join("?" for _ in before)
        done = self._connection.execute(
            f"UPDATE job SET {columns} WHERE key = ? AND starts = ? AND state IN ({states})",
            (*values.values(), entry.key, entry.starts, *before),
        )
        if done.rowcount != 1:
            is_now = self.show(entry.key)
            raise Overtaken(f"job {entry.key} cannot become {after}: it is {is_now.state} (start {is_now.starts}, not {entry.starts}).")
        self._remember(entry.key, after, sentence)

    def _remember_order(self, item: str | None) -> None:
        if item is not None:
            self._connection.execute("INSERT OR IGNORE INTO obeyed (item, at_s) VALUES (?, ?)", (item, now_s()))

    def _remember(self, key: str, state: State, sentence: str | None) -> None:
        query = "INSERT INTO transition (job, at_s, state, sentence, version) VALUES (?, ?, ?, ?, ?)"
        self._connection.execute(query, (key, now_s(), state, sentence, VERSION))
        self._news.append(key)

    def _tell(self) -> None:
        news, self._news = self._news, []
        for key in news:
            try:
                entry = self.show(key)
            except (JobError, LedgerError) as error:
                # What was written stays written, whoever hears of it.
                _log.debug("nobody hears of a transition: %s", error)
                continue
            _say(entry)
            for listener in self._listeners:
                listener(entry)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
                self._tell()
            except sqlite3.Error as error:
                self._roll_back()
                raise LedgerError(f"the ledger cannot be written ({error}): check the room on its disk.") from error
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        self._news.clear()
        # A full disk rolls back by itself; a second time is an error. Of a ledger that was closed meanwhile nothing is left.
        with suppress(sqlite3.ProgrammingError):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _say(entry: Entry) -> None:
    """One line for each transition; its fields are for programs."""
    fields = {"job": entry.key, "state": entry.state, "run_uid": entry.run_uid, "scan_id": entry.scan_id, "starts": entry.starts}
    _log.log(
        logging.WARNING if entry.state == "failed" else logging.INFO,
        "job %s (scan %s, run %s) is %s%s",
        *(entry.key, "-" if entry.scan_id is None else entry.scan_id, entry.run_uid or "-", entry.state),
        f": {entry.sentence}" if entry.sentence else "",
        extra={"fields": {**fields, "tries": entry.tries, "sentence": entry.sentence}},
    )


def _row_of(job: Job | Refusal) -> dict[str, Any]:
    run = job.source if isinstance(job.source, RunSource) else None
    row: dict[str, Any] = {
        "key": job.key,
        "kind": "refusal",
        "state": "failed",
        "run_uid": run.run_uid if run else None,
        "scan_id": run.scan_id if run else None,
        "beamline": job.beamline,
        "source": job.source.key if isinstance(job.source, RunSource) else job.source.name,
        "purpose": job.purpose,
        "priority": 0,
        "notes": "[]",
    }
    if isinstance(job, Job):
        row |= {"kind": "job", "state": "queued", "recipe": job.recipe, "frames": job.frame_count}
        row |= {"priority": job.resources.priority, "device": job.resources.device, "notes": json.dumps(job.notes)}
    return row
