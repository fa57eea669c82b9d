"""What runs beside the daemon for those who look after it: the HTTP app, the numbers, the notifications."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Self

from ptyplugin.jobs.where import Where, forget_where, write_where
from ptyplugin.model import Site
from ptyplugin.service.daemon import Daemon
from ptyplugin.service.health import Health
from ptyplugin.service.http_app import LOOPBACK, LoopbackApp
from ptyplugin.service.live_catalog import LiveCatalog, SiteImages
from ptyplugin.service.metrics import Metrics, metrics_text
from ptyplugin.service.notifying import Notifier, addresses_of, events_of
from ptyplugin.service.pages import Pages
from ptyplugin.service.sources import Sources
from ptyplugin.service.sources.http_submit import HttpSource

_log = logging.getLogger(__name__)

#: Seconds that threads get to end.
_END_S = 2.0
_POLL_S = 0.1


class Operations:
    """A context manager, inside of those of the daemon and its sources.

    Raises:
        SiteError: an address for notifications is none.
        LedgerError: the ledger cannot be written.
    """

    def __init__(self, site: Site, daemon: Daemon, sources: Sources, environment: Mapping[str, str] = os.environ) -> None:
        self._site, self._stop = site, threading.Event()
        self.metrics = Metrics()
        daemon.ledger.listen(self.metrics.hear)
        daemon.ledger.listen(sources.hear)
        addresses = addresses_of(environment)
        self.notifier = Notifier(daemon.ledger, addresses, events_of(environment)) if addresses else None
        if self.notifier:
            daemon.ledger.listen(self.notifier.hear)
        else:
            daemon.ledger.keep_untold(False)
        self._images = SiteImages(site) if site.tiled_uri else None
        self.live = LiveCatalog(self._images) if self._images else None
        if self.live:
            daemon.add_snapshot_listener(self.live.hear)
            daemon.ledger.listen(self.live.hear_of)
        pages = self._pages(daemon, sources)
        submits = [source for source in sources.each if isinstance(source, HttpSource)]
        self._own = None if submits else LoopbackApp(site)
        self.app: HttpSource = self._own or submits[0]
        for app in [self.app, *submits[1:]]:
            app.look = pages.answer
        self._threads = [threading.Thread(target=self._say_where, name="ptyplugin-where", daemon=True)]
        if self._own:
            self._threads.append(threading.Thread(target=self._own.run, args=(self._stop,), name="ptyplugin-http", daemon=True))
        if self.notifier:
            self._threads.append(threading.Thread(target=self.notifier.run, args=(self._stop,), name="ptyplugin-notify", daemon=True))
        if self.live:
            self._threads.append(threading.Thread(target=self.live.run, args=(self._stop,), name="ptyplugin-live", daemon=True))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        forget_where(self._site)
        for thread in self._threads:
            thread.join(_END_S)
        if self._images:
            self._images.close()

    def _pages(self, daemon: Daemon, sources: Sources) -> Pages:
        def told() -> list[dict[str, object]]:
            return [state.to_dict() for state in sources.states()]

        health = Health(self._site, daemon.ledger, daemon.slots, daemon.publisher, told)
        notifier = self.notifier
        live = self.live
        counters: list[tuple[str, str, Callable[[], Mapping[str, int]]]] = []
        counters += [("notifications_total", "notifications about jobs", lambda: notifier.outcomes)] if notifier else []
        counters += [("live_images_total", "images of jobs that run, for the catalog", lambda: live.outcomes)] if live else []
        return Pages(
            self._site,
            daemon.ledger,
            health.answer,
            lambda: metrics_text(self.metrics, self._site, daemon.ledger, daemon.slots, told(), counters),
        )

    def _say_where(self) -> None:
        """As soon as it is known; commands find the file."""
        while self.app.address is None:
            if self._stop.wait(_POLL_S):
                return
        host, port = self.app.address
        try:
            write_where(self._site, Where(LOOPBACK if host in ("", "0.0.0.0") else host, port))
        except OSError as error:
            _log.warning("commands read the ledger's file: %s cannot be written (%s)", self._site.home, error.strerror)
