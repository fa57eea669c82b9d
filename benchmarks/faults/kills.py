"""Processes are killed while jobs run: the daemon (with its publisher), the launcher, ranks; and the catalog's server."""

from __future__ import annotations

import os
import random
import signal
import socket
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.faults.service import Service
from benchmarks.faults.table import Row
from ptyplugin.catalog import connect, search
from ptyplugin.catalog.server import LocalServer
from ptyplugin.model import CatalogError, Site

#: Seconds between two kills, and until the catalog's server is started again; seeds the choice of victims.
EVERY_S, AWAY_S, SEED = 2.0, 3.0, 17

_GIVEN_UP = "given up after three kills, and asked for again"


class _Catalog:
    """The server, which is killed so often, at least so far apart, and comes back."""

    def __init__(self, server: LocalServer, kills: int, apart_s: float) -> None:
        self._server, self._left, self._apart_s = server, kills, apart_s
        self._next_s, self._back_s = time.monotonic() + apart_s / 2, 0.0
        self.killed = 0

    def look(self) -> None:
        """Kill it or bring it back, if it is time."""
        now = time.monotonic()
        if self._back_s and now > self._back_s:
            self._server.stop()
            self._server.start()
            self._back_s = 0.0
        elif self._left and not self._back_s and now > self._next_s and self._server.pid is not None:
            os.kill(self._server.pid, signal.SIGKILL)
            self.killed, self._left = self.killed + 1, self._left - 1
            self._next_s, self._back_s = now + self._apart_s, now + AWAY_S

    @property
    def is_done(self) -> bool:
        """Whether it runs, and has been killed as often as it was to be."""
        return not self._left and not self._back_s


def kills(jobs: int, server_kills: int, apart_s: float, strike_s: float, within_s: float) -> list[Row]:
    """Jobs through it all; each result must be in the catalog once, and whole.

    strike_s: how long there are kills: on a slow machine ranks take longer to start than until the next one, and nothing would ever be done
    """
    chance, killed = random.Random(SEED), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="ptyplugin-faults-") as name:
        folder = Path(name)
        with LocalServer(folder / "catalog", readable=[folder / "home" / "results"], port=_free_port()) as server:
            os.environ["TILED_API_KEY"] = server.api_key
            site = Site(home=folder / "home", ranks=2, device="cpu", tiled_uri=server.uri)
            catalog, begun, next_s = _Catalog(server, server_kills, apart_s), time.monotonic(), [time.monotonic() + EVERY_S]

            def strike() -> None:
                catalog.look()
                counts = service.counts()
                # To the last job; what is left to do then is to publish, for which a process must live for some seconds.
                is_over = time.monotonic() - begun > strike_s
                if is_over and counts.get("failed"):
                    killed[_GIVEN_UP] += service.retry_failed()
                if is_over or time.monotonic() < next_s[0] or sum(counts.get(state, 0) for state in ("solved", "published")) == jobs:
                    return
                next_s[0] = time.monotonic() + EVERY_S
                kind = chance.choice([kind for kind in ("daemon", "rank", "launcher") if service.victims(kind)] or ["daemon"])
                killed[kind] += service.kill(kind, chance.choice)
                if counts.get("failed"):
                    killed[_GIVEN_UP] += service.retry_failed()

            with Service(site, folder / "served.log") as service:
                keys = service.hand_over(range(jobs))
                service.wait(lambda: service.counts() == {"published": jobs} and catalog.is_done, within_s, strike)
                catalog.look()
                lost = service.lost(keys, "published")
            missing = jobs - len(_in_catalog(site) & set(keys))
    seconds = time.monotonic() - begun
    said = ", ".join(f"{what} {count}" for what, count in sorted(killed.items()))
    return [
        Row("kill -9 every 2 s", sum(count for what, count in killed.items() if " " not in what), jobs, lost, seconds, said),
        Row("the catalog's server killed and started again", catalog.killed, jobs, missing, seconds, "results that are not in the catalog"),
    ]


def _free_port() -> int:
    """A port to which the server can come back."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _in_catalog(site: Site) -> set[str]:
    try:
        found = search(connect(site), state="published")
    except CatalogError:
        return set()
    # An array that can be read is one that was not torn.
    return {node.metadata["job"] for node in found if node["object"].read().size > 0}
