"""The sweep: recent runs in the catalog that have neither job nor result, whoever should have announced them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ptyplugin.model import CatalogAway, CatalogError, CatalogSweep, Profile, Site, SiteError
from ptyplugin.service.sources.catalog import Catalog
from ptyplugin.service.sources.desk import Desk
from ptyplugin.service.sources.finished import Finished
from ptyplugin.service.sources.source import Source

_log = logging.getLogger(__name__)

#: After somebody asked for a sweep, how long to wait for more who do, seconds.
_SETTLE_S = 0.5
#: How often to look whether to stop, seconds.
_POLL_S = 0.2
_HOUR_S = 3600.0
#: A run without an end, of which the catalog has had no news for so long, has lost its session: what there is becomes its job. Seconds.
UNENDED_S = 1800.0


class Sweep(Source):
    """Looks through the catalog at the start, now and then, and when it is asked to.

    Raises:
        SiteError: the site has no catalog.
    """

    def __init__(self, table: CatalogSweep, profiles: Sequence[Profile], site: Site, desk: Desk, finished: Finished) -> None:
        super().__init__("catalog sweep")
        if site.tiled_uri is None:
            raise SiteError("a sweep needs a catalog: set tiled_uri in the site file, or leave the source of kind 'sweep' out.")
        self._table, self._site, self._desk, self._finished = table, site, desk, finished
        self._profiles = profiles
        self._catalog = Catalog(site)
        self._asked = threading.Event()
        #: Runs without an end, by beamline: how much the catalog had of each, and since when.
        self._open: dict[str, dict[str, tuple[int, float]]] = {}

    def ask(self) -> None:
        """Sweep soon: documents may have been lost."""
        self._asked.set()

    def work(self, stop: threading.Event) -> None:
        """Sweep until ``stop``.

        Raises:
            CatalogError: the catalog is away or refuses.
            LedgerError: the ledger cannot be read.
        """
        try:
            while not stop.is_set():
                self._asked.clear()
                self.sweep()
                self._wait(stop)
        finally:
            self._catalog.close()

    def sweep(self) -> None:
        """Once: ring for each recent run that has ended and of which there is no job and no result.

        Raises:
            CatalogError: the catalog is away or refuses.
            LedgerError: the ledger cannot be read.
        """
        from ptyplugin.catalog import recent_runs

        since_s = time.time() - self._table.lookback_hours * _HOUR_S
        for beamline, profiles in self._by_beamline().items():
            runs = self._catalog.ask(partial(recent_runs, site=self._site, beamline=beamline, since_s=since_s))
            self.state.connected = True
            ended = [run.uid for run in runs if run.ended]
            finished = self._finished.among(ended)
            left = [uid for uid in ended if uid not in finished]
            # Of a run that went on after it was given up, the result is of its beginning only.
            asked = [uid for uid in left if not self._finished.was_given_up(uid)]
            with_results = self._catalog.with_results(profiles, asked) if asked else set()
            for uid in left:
                if uid in with_results:
                    self._finished.settle(uid)
                else:
                    self._desk.ring(uid, profiles, self.state)
            self._look_at_open(beamline, profiles, [run.uid for run in runs if not run.ended])
            self.state.count("sweeps")
            _log.debug("%s: %d of %d recent runs of %s have no job", self.state.name, len(set(left) - with_results), len(runs), beamline)

    def _look_at_open(self, beamline: str, profiles: Sequence[Profile], uids: Sequence[str]) -> None:
        """Ring for runs whose end will not come any more: their session was killed before it handed anything over."""
        finished, before, now = self._finished.among(uids, unended=True), self._open.get(beamline, {}), time.monotonic()
        found: dict[str, tuple[int, float]] = {}
        for uid in [uid for uid in uids if uid not in finished]:
            size = self._size(uid, profiles)
            found[uid] = before[uid] if uid in before and before[uid][0] == size else (size, now)
            if now - found[uid][1] > UNENDED_S:
                self._desk.ring(uid, profiles, self.state, unended=True)
        self._open[beamline] = found

    def _size(self, uid: str, profiles: Sequence[Profile]) -> int:
        """How much of a run the catalog has: documents, events and frames."""
        try:
            documents = self._catalog.documents(uid, profiles, unended=True)
        except CatalogAway:
            raise
        except CatalogError as error:
            _log.debug("run %s: %s", uid, error)
            return 0
        sizes = (len(document.get("seq_num", ())) if name == "event_page" else _last(document) for name, document in documents)
        return len(documents) + sum(sizes)

    def _by_beamline(self) -> dict[str, list[Profile]]:
        found: dict[str, list[Profile]] = {}
        for profile in self._profiles:
            found.setdefault(profile.beamline, []).append(profile)
        return found

    def _wait(self, stop: threading.Event) -> None:
        end_s = time.monotonic() + self._table.every_s
        while time.monotonic() < end_s and not stop.wait(_POLL_S):
            if self._asked.is_set():
                stop.wait(_SETTLE_S)
                return


def _last(document: Mapping[str, Any]) -> int:
    indices = document.get("indices")
    return int(indices["stop"]) if isinstance(indices, Mapping) else 0
