"""How the service is: what works, what does not, and whether somebody has to come."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ptyplugin
from ptyplugin.jobs import Ledger
from ptyplugin.model import LedgerError, Site
from ptyplugin.service.publisher import Publisher
from ptyplugin.service.slot import Slot

#: With less than this, results may not find room, bytes.
LEAST_FREE_BYTES = 1_000_000_000
#: How long an answer about the disk is good, seconds: whoever asks more often shall not keep it busy.
_KEPT_S = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    is_needed: without it no job is solved, so that somebody has to come; else jobs go on, and what is missing is made up for later
    more: numbers about it
    """

    name: str
    is_well: bool
    sentence: str
    is_needed: bool = True
    more: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "ok": self.is_well, "sentence": self.sentence, **self.more}


class Health:
    """Looks at the parts of the service. May be asked by several threads."""

    def __init__(
        self,
        site: Site,
        ledger: Ledger,
        slots: Sequence[Slot],
        publisher: Publisher | None,
        sources: Callable[[], Sequence[Mapping[str, Any]]],
    ) -> None:
        self._site, self._ledger, self._slots, self._publisher, self._sources = site, ledger, slots, publisher, sources
        self._lock = threading.Lock()
        self._written: Check | None = None
        self._written_s = 0.0

    def answer(self) -> tuple[int, dict[str, Any]]:
        """The status, 200 or 503, and everything that was looked at."""
        checks = [self._ledger_check(), *self._disk_checks(), *self._slot_checks(), *self._publisher_checks(), *self._source_checks()]
        is_down = any(check.is_needed and not check.is_well for check in checks)
        word = "down" if is_down else "ok" if all(check.is_well for check in checks) else "degraded"
        return 503 if is_down else 200, {"status": word, "version": ptyplugin.__version__, "checks": [check.to_dict() for check in checks]}

    def _ledger_check(self) -> Check:
        with self._lock:
            if self._written is None or time.monotonic() - self._written_s > _KEPT_S:
                try:
                    self._ledger.check()
                    self._written = Check("ledger", True, f"{self._site.ledger} can be written")
                except LedgerError as error:
                    self._written = Check("ledger", False, str(error))
                self._written_s = time.monotonic()
            return self._written

    def _disk_checks(self) -> list[Check]:
        return [_room(name, folder) for name, folder in folders(self._site).items()]

    def _slot_checks(self) -> list[Check]:
        return [
            Check(
                f"slot {slot.place.name}",
                slot.trouble is None,
                slot.trouble or slot.waits or _doing(slot),
                more={
                    "ready": slot.is_warm,
                    "held_up": bool(slot.trouble or slot.waits),
                    "job": slot.runs,
                    "ranks": slot.place.ranks,
                    "gpus": list(slot.place.gpus),
                },
            )
            for slot in self._slots
        ]

    def _publisher_checks(self) -> list[Check]:
        if self._publisher is None:
            return [Check("publisher", True, "no catalog is named: results stay as files", is_needed=False)]
        trouble = self._publisher.trouble
        return [Check("publisher", trouble is None, trouble or "nothing is held back", is_needed=False)]

    def _source_checks(self) -> list[Check]:
        return [
            Check(
                source["name"],
                source["connected"],
                "connected" if source["connected"] else source["last_error"] or "not connected yet",
                is_needed=False,
                more={name: value for name, value in source.items() if name != "name"},
            )
            for source in self._sources()
        ]


def folders(site: Site) -> dict[str, Path]:
    """Where the service needs room."""
    shared = {"shared": site.shared_dir} if site.shared_dir else {}
    return {"home": site.home, **shared, "results": site.results, "inbox": site.inbox}


def free_bytes(folder: Path) -> int:
    """The room on its disk.

    Raises:
        OSError: it cannot be looked at.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    return shutil.disk_usage(there).free


def _doing(slot: Slot) -> str:
    if key := slot.runs:
        return f"solves job {key}"
    return "waits for a job" if slot.is_warm else "its ranks start and warm up the solver; jobs begin when that is done"


def _room(name: str, folder: Path) -> Check:
    try:
        free = free_bytes(folder)
    except OSError as error:
        return Check(f"disk {name}", False, f"{folder} cannot be looked at ({error.strerror}): check its disk.")
    is_enough = free >= LEAST_FREE_BYTES
    sentence = f"{folder} has {free / 1e9:.1f} GB left" + ("" if is_enough else ": make room, or jobs will have to wait.")
    return Check(f"disk {name}", is_enough, sentence, more={"free_bytes": free})
