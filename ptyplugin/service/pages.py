"""What the service answers to GET: how it is, its numbers, and its jobs. Nothing in here changes anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, get_args
from urllib.parse import parse_qs, unquote, urlsplit

import ptyplugin
from ptyplugin.io.outcome import outcome_of
from ptyplugin.jobs import LOG_FILE, LedgerView, State, read_progress
from ptyplugin.jobs.records import record_of, shown
from ptyplugin.model import JobError, LedgerError, Site
from ptyplugin.model.redaction import redacted
from ptyplugin.service.metrics import CONTENT_TYPE
from ptyplugin.service.sources.http_submit import Page

#: How many jobs a list has unless more are asked for; and at most.
_SOME, _MOST = 50, 10_000
#: The end of a log that is given, bytes.
_LONG_LOG = 4 << 20
_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"


class Pages:
    """Answers to GET. May be asked by several threads.

    health: gives status and content of /healthz; metrics: the text of /metrics
    """

    def __init__(
        self, site: Site, ledger: LedgerView, health: Callable[[], tuple[int, dict[str, Any]]], metrics: Callable[[], str]
    ) -> None:
        self._site, self._ledger, self._health, self._metrics = site, ledger, health, metrics

    def answer(self, target: str) -> Page:
        """What is at this path with this query."""
        try:
            parts = urlsplit(target)
            query = {name: values[-1] for name, values in parse_qs(parts.query, max_num_fields=10).items()}
            return self._at([unquote(part) for part in parts.path.strip("/").split("/")], query)
        except JobError as error:
            return _json(404, {"error": str(error)})
        except ValueError as error:
            return _json(400, {"error": f"this cannot be asked: {error}"})
        except (LedgerError, OSError) as error:
            return _json(503, {"error": str(error)})

    def _at(self, path: list[str], query: Mapping[str, str]) -> Page:
        match path:
            case [""]:
                return _json(200, {"service": "ptyplugin", "version": ptyplugin.__version__, "home": str(self._site.home)})
            case ["healthz"]:
                return _json(*self._health())
            case ["metrics"]:
                return Page(200, CONTENT_TYPE, redacted(self._metrics()).encode())
            case ["counts"]:
                return _json(200, self._ledger.counts())
            case ["jobs"]:
                return _json(200, self._jobs(query))
            case ["jobs", text]:
                return _json(200, self._job(text))
            case ["jobs", text, "log"]:
                return self._log(text)
            case _:
                raise JobError("there is nothing at this path: GET /healthz, /metrics, /counts, /jobs, /jobs/KEY or /jobs/KEY/log.")

    def _jobs(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        if unknown := query.keys() - {"state", "scan_id", "run_uid", "limit", "lately"}:
            raise ValueError(f"there is no {min(unknown)} to ask jobs by; there are state, scan_id, run_uid, limit and lately")
        if "lately" in query:
            return [record_of(entry) for entry in self._ledger.lately(_number("lately", query["lately"], _MOST))]
        state = next((name for name in get_args(State) if name == query.get("state")), None)
        if state is None and "state" in query:
            raise ValueError(f"there is no state {query['state']!r}, only {', '.join(get_args(State))}")
        scan_id = _number("scan_id", query["scan_id"], 2**63 - 1) if "scan_id" in query else None
        limit = _number("limit", query.get("limit", str(_SOME)), _MOST)
        return [record_of(entry) for entry in self._ledger.list(state=state, scan_id=scan_id, run_uid=query.get("run_uid"), limit=limit)]

    def _job(self, text: str) -> dict[str, Any]:
        entry = self._ledger.find(text)
        progress = read_progress(self._site.jobs / entry.key) if entry.state == "running" else None
        return shown(entry, self._ledger.history(entry.key), progress, outcome_of(entry.result))

    def _log(self, text: str) -> Page:
        path = self._site.jobs / self._ledger.find(text).key / LOG_FILE
        try:
            with path.open("rb") as log:
                log.seek(max(0, path.stat().st_size - _LONG_LOG))
                return Page(200, _TEXT, redacted(log.read().decode(errors="replace")).encode())
        except FileNotFoundError:
            raise JobError(f"job {text} has no log: it was not started yet, or its folder was removed.") from None


def _number(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < len(str(most)) + 1 and int(text) <= most):
        raise ValueError(f"{name} must be a number from 0 to {most}, not {text[:40]!r}")
    return int(text)


def _json(status: int, value: Any) -> Page:
    return Page(status, _JSON, redacted(json.dumps(value, ensure_ascii=False)).encode())
