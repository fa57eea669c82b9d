"""The service in numbers, in the text format of Prometheus."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import ptyplugin
from ptyplugin.jobs import Entry, LedgerView, State
from ptyplugin.model import Site
from ptyplugin.service.health import folders, free_bytes
from ptyplugin.service.slot import Slot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Upper ends of what a job's way is counted in, seconds.
_BUCKETS_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
#: On the way to these, seconds are counted.
_WAYS: dict[State, str] = {"solved": "result", "published": "catalog"}

_Sample = tuple[Mapping[str, str], float]


class Metrics:
    """Counts since this daemon began. ``hear`` is told of each transition."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._transitions: Counter[State] = Counter()
        self._seconds: dict[State, list[float]] = {state: [0.0] * (len(_BUCKETS_S) + 1) for state in _WAYS}
        self._sums: dict[State, float] = dict.fromkeys(_WAYS, 0.0)
        self._restarts = 0

    def hear(self, entry: Entry) -> None:
        """A job came into another state."""
        with self._lock:
            self._transitions[entry.state] += 1
            self._restarts += entry.state == "running" and entry.starts > 1
            if entry.state in _WAYS:
                seconds = max(0.0, entry.changed_s - entry.arrived_s)
                self._sums[entry.state] += seconds
                self._seconds[entry.state][sum(seconds > end for end in _BUCKETS_S)] += 1

    def own(self) -> list[str]:
        """Lines of what was heard."""
        with self._lock:
            states = {state: self._transitions[state] for state in get_args(State)}
            lines = _family("transitions_total", "counter", "times that a job came into a state", _by("state", states))
            lines += _family("restarts_total", "counter", "starts of jobs that had been started before", [({}, self._restarts)])
            for state, where in _WAYS.items():
                lines += self._way(state, f"seconds_to_{where}", f"from a job's arrival to its result in the {where}")
        return lines

    def _way(self, state: State, name: str, text: str) -> list[str]:
        counts, total, lines = (
            self._seconds[state],
            0.0,
            _family(name, "histogram", text.replace("result in the result", "result file"), []),
        )
        for end, count in zip([*(f"{end:g}" for end in _BUCKETS_S), "+Inf"], counts, strict=True):
            total += count
            lines.append(_line(f"{name}_bucket", {"le": end}, total))
        return [*lines, _line(f"{name}_sum", {}, self._sums[state]), _line(f"{name}_count", {}, total)]


def metrics_text(
    metrics: Metrics,
    site: Site,
    ledger: LedgerView,
    slots: Sequence[Slot],
    sources: Sequence[Mapping[str, Any]],
    counters: Iterable[tuple[str, str, Callable[[], Mapping[str, int]]]],
) -> str:
    """All numbers as they are now.

    counters: name, help and counts by outcome of further parts

    Raises:
        LedgerError: the ledger cannot be read.
    """
    counts = ledger.counts()
    lines = _family("info", "gauge", "the version that runs", [({"version": ptyplugin.__version__}, 1)])
    lines += _family("jobs", "gauge", "jobs in the ledger", _by("state", {state: counts.get(state, 0) for state in get_args(State)}))
    lines += _family("slot_busy", "gauge", "whether a slot has a job", _by("slot", {s.place.name: int(s.runs is not None) for s in slots}))
    lines += _family(
        "slot_well", "gauge", "whether a slot can take jobs", _by("slot", {s.place.name: int(s.trouble is None) for s in slots})
    )
    lines += _family(
        "slot_ready",
        "gauge",
        "whether a slot's solver is warm, so that a job begins at once",
        _by("slot", {s.place.name: int(s.is_warm) for s in slots}),
    )
    lines += metrics.own() + _of_sources(sources)
    lines += _family("free_bytes", "gauge", "room on the disk", _by("folder", _room(folders(site))))
    lines += _family("resident_bytes", "gauge", "memory of the daemon's process", [({}, resident_bytes())])
    for name, text, outcomes in counters:
        lines += _family(name, "counter", text, _by("outcome", outcomes()))
    return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    """Memory of this process, as the system counts it (Linux; else 0)."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _of_sources(told: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = _family(
        "source_connected", "gauge", "whether a source is connected", _by("source", {t["name"]: int(t["connected"]) for t in told})
    )
    came = {t["name"]: t["last_document_s"] for t in told if t["last_document_s"] is not None}
    lines += _family("source_last_document_seconds", "gauge", "when the last document came, Unix seconds", _by("source", came))
    counts = [({"source": t["name"], "what": what}, count) for t in told for what, count in t["counts"].items()]
    return lines + _family("source_total", "counter", "what came from a source: documents, refused, runs, healed, jobs", counts)


def _room(places: Mapping[str, Path]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, folder in places.items():
        with suppress(OSError):  # /healthz says that
            found[name] = free_bytes(folder)
    return found


def _by(label: str, values: Mapping[str, float] | Mapping[State, int]) -> list[_Sample]:
    return [({label: str(name)}, value) for name, value in values.items()]


def _family(name: str, kind: str, text: str, samples: Iterable[_Sample]) -> list[str]:
    lines = [f"# HELP ptyplugin_{name} {text}", f"# TYPE ptyplugin_{name} {kind}"]
    return lines + [_line(name, labels, value) for labels, value in samples]


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    said = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"ptyplugin_{name}{'{' + said + '}' if said else ''} {value:.17g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
