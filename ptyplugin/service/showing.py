"""Images of jobs that run, for those who show them: read once, in a thread of their own, so that nobody who solves waits for a screen."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from ptyplugin.jobs import Entry, Ledger, read_snapshot
from ptyplugin.model import PtypluginError, Snapshot
from ptyplugin.service.complaints import Complaints

_log = logging.getLogger(__name__)

#: Hears of an image and of the job that it is of.
OnSnapshot = Callable[[Snapshot, Entry], None]


class Showing:
    """Tells listeners of the newest snapshot of each job in the folder ``jobs``; those that come too fast are left out."""

    def __init__(self, jobs: Path, ledger: Ledger) -> None:
        self._jobs, self._ledger = jobs, ledger
        self._listeners: list[OnSnapshot] = []
        self._due: dict[str, None] = {}
        self._news = threading.Event()
        self._complaints = Complaints(_log)

    def add(self, listener: OnSnapshot) -> None:
        """Have ``listener`` hear of snapshots; what goes wrong in it is only logged."""
        self._listeners.append(listener)

    def hear(self, key: str) -> None:
        """There is a new snapshot of the job with this key."""
        self._due[key] = None
        self._news.set()

    def wake(self) -> None:
        """Have ``run`` look whether it is to stop."""
        self._news.set()

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``."""
        while not stop.is_set():
            self._news.wait()
            self._news.clear()
            self.show()

    def show(self) -> None:
        """Tell of those that nobody has been told of."""
        while self._due and self._listeners:
            # Whoever hears of another one of this job from now on has it read again.
            key = next(iter(self._due))
            self._due.pop(key, None)
            self._show(key)

    def _show(self, key: str) -> None:
        snapshot = read_snapshot(self._jobs / key)
        if snapshot is None:
            return
        try:
            entry = self._ledger.show(key)
        except PtypluginError as error:
            self._complaints.say(str(error))
            return
        for listener in self._listeners:
            try:
                listener(snapshot, entry)
            except Exception as error:
                _log.debug("an image cannot be shown", exc_info=True)
                self._complaints.say(f"the image of job {key} cannot be shown ({type(error).__name__}: {error}): the job goes on.")
