"""What all sources have in common: a thread of its own that connects again and again, and says how it is."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ptyplugin.model import Profile, PtypluginError
from ptyplugin.service.complaints import Complaints
from ptyplugin.service.sources.collecting import Collecting
from ptyplugin.service.sources.decoding import Undecodable, as_document
from ptyplugin.service.sources.desk import Desk
from ptyplugin.service.sources.state import SourceState

_log = logging.getLogger(__name__)

#: Pauses before a source connects again, seconds: from the first to the longest, doubled each time.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
#: A run of which nothing came for so long will not end any more: its RunEngine was killed. Seconds.
SILENT_S = 3600.0


class SourceAway(PtypluginError):
    """A source cannot be connected to, or the connection was lost: it is tried again."""


class Source(ABC):
    """One source. ``run`` is its thread's work."""

    def __init__(self, name: str) -> None:
        self.state = SourceState(name)
        self._complaints = Complaints(_log)

    @abstractmethod
    def work(self, stop: threading.Event) -> None:
        """Connect, and take what comes until ``stop``.

        Raises:
            PtypluginError: the connection failed or was lost.
        """

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``; whatever goes wrong, it begins anew after a pause."""
        pause_s = FIRST_PAUSE_S
        while not stop.is_set():
            try:
                self.work(stop)
            except PtypluginError as error:
                self.say(str(error))
            except Exception as error:
                _log.exception("%s failed", self.state.name)
                self.say(f"it ended with {type(error).__name__} and is begun anew: report this with the service's log.")
            pause_s = FIRST_PAUSE_S if self.state.connected else min(2 * pause_s, LONGEST_PAUSE_S)
            self.state.connected = False
            stop.wait(pause_s)

    def say(self, sentence: str) -> None:
        """Keep and log what went wrong."""
        self.state.trouble(sentence)
        self._complaints.say(f"{self.state.name}: {sentence}")

    def refuse(self, sentence: str) -> None:
        """A document could not be used."""
        self.state.count("refused")
        self.say(sentence)


class DocumentSource(Source):
    """A source of documents one by one."""

    def __init__(self, name: str, profiles: Sequence[Profile], desk: Desk) -> None:
        super().__init__(name)
        self._profiles, self._desk = profiles, desk
        self._collecting = Collecting(profiles, self.state)
        self._heard: dict[str, tuple[int, float]] = {}

    def take(self, name: str, value: Any) -> None:
        """Use one document; what is none is refused."""
        try:
            document = as_document(value)
        except Undecodable as error:
            self.refuse(str(error))
            return
        self.state.took_document()
        self._desk.see(name, document, self._profiles)
        for ended in self._collecting.take(name, document):
            self._desk.bring(ended, self._profiles, self.state)

    def is_quiet(self) -> bool:
        """Whether all that came was used: each run that ended has its jobs, and those that are open have been silent for long."""
        now_s, before = time.monotonic(), self._heard
        self._heard = {
            uid: before[uid] if uid in before and before[uid][0] == documents else (documents, now_s)
            for uid, documents in self._collecting.open().items()
        }
        silent = all(now_s - since_s > SILENT_S for _, since_s in self._heard.values())
        return silent and self._desk.waiting(self.state) == 0
