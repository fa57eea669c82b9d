"""The jobs as the running daemon tells them, over its HTTP app on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import quote, urlencode

from ptyplugin.jobs.records import entry_of, transitions_of
from ptyplugin.jobs.where import Where, read_where
from ptyplugin.model import JobError, LedgerError, Site

if TYPE_CHECKING:
    from ptyplugin.jobs import Entry, State, Transition

#: How long a daemon may take to answer, seconds: one that is stuck is passed by, for the ledger can be read without it.
TIMEOUT_S = 2.0
_LONGEST_ANSWER = 256 << 20


class ServiceView:
    """What ``LedgerView`` answers, asked of the daemon. A context manager."""

    def __init__(self, where: Where) -> None:
        self._where = where

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def show(self, key: str) -> Entry:
        """See LedgerView."""
        return self._entry(self._get(f"/jobs/{quote(key, safe='')}"))

    def find(self, text: str) -> Entry:
        """See LedgerView."""
        return self.show(text)

    def history(self, key: str) -> Sequence[Transition]:
        """See LedgerView."""
        return transitions_of(self._get(f"/jobs/{quote(key, safe='')}")["history"])

    def list(self, *, state: State | None = None, scan_id: int | None = None, limit: int = -1) -> Sequence[Entry]:
        """See LedgerView."""
        wanted = {"state": state, "scan_id": scan_id, "limit": limit if limit >= 0 else 10_000}
        return self._entries({name: value for name, value in wanted.items() if value is not None})

    def lately(self, limit: int) -> Sequence[Entry]:
        """See LedgerView."""
        return self._entries({"lately": limit})

    def counts(self) -> dict[str, int]:
        """See LedgerView."""
        return cast("dict[str, int]", self._get("/counts"))

    def slots(self) -> Sequence[dict[str, Any]]:
        """What the daemon says of each of its slots: "name", "ok", "ready", "sentence" and more.

        Raises:
            LedgerError: it does not answer, or is not understood.
        """
        try:
            return [check for check in self._ask("/healthz")[1]["checks"] if check["name"].startswith("slot ") and "ready" in check]
        except (KeyError, TypeError, AttributeError) as error:
            raise LedgerError(f"the daemon's answer is not understood ({error!r}): is it another version? Start it again.") from error

    def is_of(self, site: Site) -> bool:
        """Whether a daemon of this site answers."""
        try:
            return bool(self._get("/")["home"] == str(site.home))
        except (JobError, LedgerError, KeyError, TypeError):
            return False

    def _entries(self, query: dict[str, Any]) -> Sequence[Entry]:
        return [self._entry(record) for record in self._get(f"/jobs?{urlencode(query)}")]

    def _entry(self, record: Any) -> Entry:
        try:
            return entry_of(record)
        except (KeyError, TypeError) as error:
            raise LedgerError(f"the daemon's answer is not understood ({error!r}): is it another version? Start it again.") from error

    def _get(self, target: str) -> Any:
        status, answer = self._ask(target)
        if status != 200:
            kind = JobError if status == 404 else LedgerError
            raise kind(str(answer.get("error", f"it answers {status}")))
        return answer

    def _ask(self, target: str) -> tuple[int, Any]:
        connection = HTTPConnection(self._where.host, self._where.port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", target)
            response = connection.getresponse()
            return response.status, json.loads(response.read(_LONGEST_ANSWER))
        except (OSError, HTTPException, ValueError) as error:
            raise LedgerError(f"the daemon does not answer ({error or type(error).__name__}): ask once more.") from error
        finally:
            connection.close()


def service_of(site: Site) -> ServiceView | None:
    """The daemon of this site, if one answers."""
    where = read_where(site)
    if where is None:
        return None
    view = ServiceView(where)
    return view if view.is_of(site) else None
