"""Looking into the ledger: for people, for the daemon and for "has this scan been done?"."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from ptyplugin.jobs.schema import connect_reader
from ptyplugin.model import JobError, LedgerError

#: queued -> running -> solved (the result file is there) -> published (it is in the catalog); or failed, or cancelled.
State = Literal["queued", "running", "solved", "published", "failed", "cancelled"]
#: The largest number that SQLite keeps.
_LARGEST = 2**63 - 1
#: How many of several jobs are named to a person who meant one.
_SOME = 4
#: As many characters of keys and uids as tables show.
_BRIEF = 8


def may_begin_key(text: str) -> bool:
    """Whether a person may mean a job by the beginning of its key or of its run's uid; fewer digits than tables show are a scan id."""
    return bool(text) and not (text.isdecimal() and len(text) < _BRIEF)


@dataclass(frozen=True, slots=True)
class Entry:
    """A job in the ledger.

    number: order of arrival; kind: a job, a refusal (a run that cannot be solved) or an item that could not be read
    source: the detector's data key or the file's name; frames: how many
    device: what it wants to be computed on; needed_bytes: memory that it needs, by the plan; 0: unknown
    starts: how often it was started; tries: of these, starts that count: they did not come as far as another checkpoint
    checkpoint: iteration that a next start goes on from, as far as it is known
    not_before_s: when it may be started again; lease_until_s: when a started one counts as lost
    fraction_done: of the iterations, 0 .. 1; sentence: why it is in this state; result: the result file
    version: of the ptyplugin that brought it into this state; None if that was before it was noted
    Times are Unix seconds.
    """

    number: int
    key: str
    kind: Literal["job", "refusal", "unreadable"]
    state: State
    run_uid: str | None
    scan_id: int | None
    beamline: str | None
    source: str | None
    purpose: Literal["live", "final"] | None
    recipe: str | None
    frames: int | None
    priority: int
    notes: tuple[str, ...]
    tries: int
    not_before_s: float
    lease_until_s: float
    fraction_done: float
    sentence: str | None
    result: Path | None
    arrived_s: float
    changed_s: float
    # A ledger of an older format, looked into before its daemon runs again, has none of these.
    device: str = "auto"
    needed_bytes: int = 0
    starts: int = 0
    checkpoint: int = 0
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """A job came into ``state`` at ``at_s`` (Unix seconds), for the reason in ``sentence``, by this version of ptyplugin."""

    at_s: float
    state: State
    sentence: str | None
    version: str | None = None


class LedgerView:
    """What can be read from a ledger. A context manager."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    def show(self, key: str) -> Entry:
        """The job with this key.

        Raises:
            JobError: there is none.
        """
        found = self._entries("SELECT * FROM job WHERE key = ?", (key,))
        if not found:
            raise JobError(f"there is no job {key} in the ledger: `ptyplugin jobs list` shows those that are.")
        return found[0]

    def find(self, text: str) -> Entry:
        """The job that a person means: its key or scan id, or the beginning of its key or of its run's uid.

        Of a run (and detector) the final one; of several, for it was reconstructed again, the newest.

        Raises:
            JobError: there is none, or there are several.
        """
        scan_id = int(text) if text.isdecimal() and len(text) < len(str(_LARGEST)) else None
        found = self._entries("SELECT * FROM job WHERE key = ?1 OR scan_id = ?2 ORDER BY number", (text, scan_id))
        if may_begin_key(text) and not found:
            begins = "substr(key, 1, length(?1)) = ?1 OR substr(run_uid, 1, length(?1)) = ?1"
            found = self._entries(f"SELECT * FROM job WHERE {begins} ORDER BY number", (text,))
        finals = [entry for entry in found if entry.purpose != "live"]
        runs, detectors = {entry.run_uid for entry in found}, {entry.source for entry in finals} - {None}
        if finals and None not in runs and len(runs) == 1 and len(detectors) <= 1:
            return finals[-1]
        if not found:
            raise JobError(f"there is no job {text} in the ledger: `ptyplugin jobs list` shows those that are.")
        if len(found) > 1:
            some = ", ".join(f"{entry.key} ({entry.purpose or entry.kind}, {entry.state})" for entry in found[-_SOME:])
            among = "" if len(found) <= _SOME else f"the last {_SOME} of them "
            raise JobError(f"{text} may mean {len(found)} jobs, {among}{some}: give the key of one.")
        return found[0]

    def history(self, key: str) -> Sequence[Transition]:
        """What happened to the job, oldest first."""
        rows = [dict(row) for row in self._rows("SELECT * FROM transition WHERE job = ? ORDER BY number", (key,))]
        return [Transition(row["at_s"], row["state"], row["sentence"], row.get("version")) for row in rows]

    def list(
        self,
        *,
        state: State | None = None,
        run_uid: str | None = None,
        scan_id: int | None = None,
        purpose: Literal["live", "final"] | None = None,
        since_s: float = 0.0,
        limit: int = -1,
    ) -> Sequence[Entry]:
        """The jobs that fit, in the order of their arrival; of more than ``limit`` the last ones.

        ``list(run_uid=..., purpose="final")`` answers whether a scan has been done: by any recipe, whatever its key.
        """
        wanted = {"state": state, "run_uid": run_uid, "scan_id": scan_id, "purpose": purpose}
        given = {name: value for name, value in wanted.items() if value is not None}
        where = " AND ".join(["arrived_s >= ?", *(f"{name} = ?" for name in given)])
        found = self._entries(f"SELECT * FROM job WHERE {where} ORDER BY number DESC LIMIT ?", (since_s, *given.values(), limit))
        return found[::-1]

    def lately(self, limit: int) -> Sequence[Entry]:
        """The jobs that came to something last, or wait for a reason; the last one first."""
        state = "state != 'running' AND (state != 'queued' OR sentence IS NOT NULL)"
        return self._entries(f"SELECT * FROM job WHERE {state} ORDER BY changed_s DESC LIMIT ?", (limit,))

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state that there is."""
        rows = self._rows("SELECT state, count(*) AS count FROM job GROUP BY state", ())
        found = {row["state"]: row["count"] for row in rows}
        return {state: found[state] for state in get_args(State) if state in found}

    def _entries(self, query: str, values: Sequence[Any] | Mapping[str, Any]) -> Sequence[Entry]:
        return [_entry(row) for row in self._rows(query, values)]

    def _rows(self, query: str, values: Sequence[Any] | Mapping[str, Any]) -> Sequence[sqlite3.Row]:
        try:
            with self._lock:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise LedgerError(f"the ledger cannot be read ({error}): check its disk.") from error


def open_read_only(path: Path) -> LedgerView:
    """Look into the ledger at ``path``; works whether a daemon runs or not.

    Raises:
        LedgerError: there is none, or it cannot be read.
    """
    return LedgerView(connect_reader(path))


def _entry(row: sqlite3.Row) -> Entry:
    values = dict(row)
    values["notes"] = tuple(json.loads(values["notes"]))
    values["result"] = None if values["result"] is None else Path(values["result"])
    return Entry(**values)
