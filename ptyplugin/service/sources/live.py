"""Live jobs of the runs whose documents the sources bring, in a thread of its own: no source waits for them, and no final job."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, Full, Queue
from typing import Any

import numpy as np

from ptyplugin.callbacks import Collector, FileReader, LiveRuns
from ptyplugin.jobs import grow, submit
from ptyplugin.model import Profile, Site
from ptyplugin.service.sources.catalog import Catalog

_log = logging.getLogger(__name__)

#: Documents that wait, and bytes of what they hold; more are passed over, which costs a part of the live image and nothing else.
_MOST_WAITING, _MOST_BYTES = 20_000, 2**29
#: A run that began longer ago when its start came is a replay: it is over. Seconds.
_OLD_S = 3600.0
#: How often is looked whether to stop, seconds.
_POLL_S = 0.2
#: What a number in a list takes.
_NUMBER_BYTES = 32


@dataclass(slots=True)
class _Watched:
    profile: Profile
    collector: Collector
    runs: LiveRuns


class LiveDesk:
    """Live jobs for all profiles that ask for them. Several sources may bring the same documents."""

    def __init__(self, site: Site) -> None:
        self._site, self._catalog = site, Catalog(site)
        self._waiting: Queue[tuple[Any, Any, list[Profile]]] = Queue(_MOST_WAITING)
        self._watched: dict[str, _Watched] = {}
        self._full = False
        self._lock, self._bytes = threading.Lock(), 0

    def bring(self, name: Any, document: Any, profiles: Sequence[Profile]) -> None:
        """Take a document, which nobody changes afterwards."""
        live = [profile for profile in profiles if profile.live is not None]
        if not live:
            return
        size = _bytes_of(document)
        try:
            with self._lock:
                if self._bytes and self._bytes + size > _MOST_BYTES:
                    raise Full
                self._waiting.put_nowait((name, document, live))
                self._bytes += size
            self._full = False
        except Full:
            if not self._full:
                _log.warning("%d documents wait for live jobs: those that come now are missed by them.", self._waiting.qsize())
            self._full = True

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``."""
        while not stop.is_set():
            try:
                item = self._waiting.get(timeout=self._wait_s())
            except Empty:
                item = None
            # A mistake of ours with one document must not end the thread that serves the next.
            try:
                if item is not None:
                    with self._lock:
                        self._bytes -= _bytes_of(item[1])
                    self._take(*item)
                for watched in self._watched.values():
                    watched.runs.work(watched.collector.so_far)
            except Exception:
                _log.exception("a document could not be used for live jobs and is passed over")
        self._catalog.close()

    def _reader(self, profile: Profile) -> FileReader:
        return FileReader(self._site, partial(self._catalog.samples, profile.beamline) if self._catalog.is_named else None)

    def _wait_s(self) -> float:
        known = [wait_s for watched in self._watched.values() if (wait_s := watched.runs.wait_s()) is not None]
        return min([_POLL_S, *known])

    def _take(self, name: Any, document: Any, profiles: Sequence[Profile]) -> None:
        if name == "start" and not is_fresh(document):
            return
        for profile in profiles:
            watched = self._watched.get(profile.name)
            if watched is None or not watched.runs.are_open():
                # What comes now is of runs that are over, or replayed: kept until somebody knows whose it is, it would fill the memory.
                if name != "start":
                    continue
                runs = LiveRuns(profile, self._site, self._reader(profile), submit, grow)
                watched = self._watched[profile.name] = _Watched(profile, Collector(profile), runs)
            for output in watched.collector(name, document):
                watched.runs.take(output)
            # What is wrong with a document is said where its final job is made.
            watched.collector.ignored.clear()


def _bytes_of(document: Any) -> int:
    """Bytes of the arrays and lists in the data of a document, roughly."""
    data = document.get("data") if isinstance(document, Mapping) else None
    size = 0
    for value in data.values() if isinstance(data, Mapping) else ():
        count = 1
        while isinstance(value, list) and value:
            count, value = count * len(value), value[0]
        size += count * (value.nbytes if isinstance(value, np.ndarray) else _NUMBER_BYTES)
    return size


def is_fresh(start: Any) -> bool:
    """Whether a run with this start document may be going on."""
    begun_s = start.get("time")
    return isinstance(begun_s, int | float) and time.time() - begun_s < _OLD_S
