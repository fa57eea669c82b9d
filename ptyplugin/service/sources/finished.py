"""Has this scan been done? By any job or result of this run, whatever its key."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ptyplugin.jobs import Entry, open_read_only
from ptyplugin.model import Site

#: Runs that were handed over and may not be in the ledger yet, or whose documents turned out to be none of ours.
_MOST_REMEMBERED = 100_000


class Finished:
    """What is known of runs: in the ledger, and what the sources settled since this process began. May be used by several threads."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._settled: dict[str, None] = {}
        self._lock = threading.Lock()

    def settle(self, run_uid: str) -> None:
        """A job for this run was handed over, or it needs none."""
        with self._lock:
            self._settled[run_uid] = None
            if len(self._settled) > _MOST_REMEMBERED:
                del self._settled[next(iter(self._settled))]

    def forget(self, run_uid: str) -> None:
        """This run is to be looked at again."""
        with self._lock:
            self._settled.pop(run_uid, None)

    def is_settled(self, run_uid: str) -> bool:
        """Whether ``settle`` was told of this run; the ledger is not asked."""
        with self._lock:
            return run_uid in self._settled

    def has(self, run_uid: str) -> bool:
        """Whether nothing is to be done for this run any more.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        return run_uid in self.among([run_uid])

    def among(self, run_uids: Iterable[str]) -> set[str]:
        """Those of these runs for which nothing is to be done any more.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        asked = set(run_uids)
        with self._lock:
            found = asked & self._settled.keys()
        if asked - found:
            with open_read_only(self._site.ledger) as ledger:
                found |= {uid for uid in asked - found if any(map(_counts, ledger.list(run_uid=uid, purpose="final")))}
        return found


def _counts(entry: Entry) -> bool:
    """Not a refusal whose run somebody wants to be read again."""
    return not (entry.kind == "refusal" and entry.state == "cancelled")
