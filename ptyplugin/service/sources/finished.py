"""Has this scan been done? By any job or result of this run, whatever its key."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ptyplugin.jobs import Entry, open_read_only
from ptyplugin.model import Site

#: Runs that were handed over and may not be in the ledger yet, or whose documents turned out to be none of ours.
_MOST_REMEMBERED = 100_000


#: In the notes of a job that was made of a run without an end.
NO_END = "the catalog has no end of it: its session was probably killed"


class Finished:
    """What is known of runs: in the ledger, and what the sources settled since this process began. May be used by several threads.

    A run that was given up because its end did not come (``unended``) may go on after all: then its job is still to be made.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        #: Runs, and whether they were given up.
        self._settled: dict[str, bool] = {}
        self._lock = threading.Lock()

    def settle(self, run_uid: str, unended: bool = False) -> None:
        """A job for this run was handed over, or it needs none; ``unended``: as long as its end does not come."""
        with self._lock:
            self._settled[run_uid] = unended and self._settled.get(run_uid, True)
            if len(self._settled) > _MOST_REMEMBERED:
                del self._settled[next(iter(self._settled))]

    def forget(self, run_uid: str) -> None:
        """This run is to be looked at again."""
        with self._lock:
            self._settled.pop(run_uid, None)

    def is_settled(self, run_uid: str, unended: bool) -> bool:
        """Whether ``settle`` was told of this run; the ledger is not asked. ``unended``: its end has not come."""
        with self._lock:
            return run_uid in self._settled and (unended or not self._settled[run_uid])

    def has(self, run_uid: str, unended: bool = False) -> bool:
        """Whether nothing is to be done for this run any more; ``unended``: as long as its end does not come.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return run_uid in self.among([run_uid], unended)

    def among(self, run_uids: Iterable[str], unended: bool = False) -> set[str]:
        """Those of these runs for which nothing is to be done any more; ``unended``: as long as their end does not come.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        asked = set(run_uids)
        found = {uid for uid in asked if self.is_settled(uid, unended)}
        if asked - found:
            with open_read_only(self._site.ledger) as ledger:
                known = {uid: ledger.list(run_uid=uid, purpose="final") for uid in asked - found}
            found |= {uid for uid, entries in known.items() if any(self._counts(entry, unended) for entry in entries)}
        return found

    def was_given_up(self, run_uid: str) -> bool:
        """Whether there is a job of this run from before its end, and no other.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return self.has(run_uid, unended=True) and not self.has(run_uid)

    def _counts(self, entry: Entry, unended: bool) -> bool:
        """Not a refusal whose run somebody wants to be read again, nor what was made of a run that went on after all."""
        if entry.kind == "refusal" and (entry.state == "cancelled" or (not unended and self.is_settled(str(entry.run_uid), True))):
            return False
        return unended or not any(NO_END in note for note in entry.notes)
