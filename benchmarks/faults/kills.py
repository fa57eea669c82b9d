"""Processes are killed while jobs run: daemon, publisher, launcher, ranks, the catalog's server; and once the disk is full.

``python -m benchmarks.faults.kills HOME CATALOG PLAN`` is the part itself, in a process that may have a small disk at HOME.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.faults.mounted import fill, run_on_small_disk, why_not
from benchmarks.faults.service import Service
from benchmarks.faults.table import Row
from ptyplugin.catalog import connect, search
from ptyplugin.catalog.server import LocalServer
from ptyplugin.model import CatalogError, LedgerError, Site, SiteError

#: Seconds between two kills, and until the catalog's server is started again; seeds the choice of victims.
EVERY_S, AWAY_S, SEED = 2.0, 3.0, 17
#: The small disk, MB; how long it is full, seconds; how often is said how far it is, seconds.
_DISK_MB, _FULL_S, _SAY_S = 256, 10.0, 10.0
_GIVEN_UP = "given up after three kills, and asked for again"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done.

    server_kills, apart_s: how often the catalog's server is killed, and how far apart at the least, seconds
    strike_s: how long all of them are killed, seconds: on a busy machine a daemon lives too short a time to publish anything
    ranks_s: until then launchers, publishers and ranks go on to be killed, to the last job
    within_s: when it is given up
    """

    jobs: int
    server_kills: int
    apart_s: float
    strike_s: float
    ranks_s: float
    within_s: float


def kills(plan: Plan) -> list[Row]:
    """Jobs through it all; each result must be in the catalog once, and whole."""
    why = why_not()
    with tempfile.TemporaryDirectory(prefix="ptyplugin-faults-") as name:
        home, catalog = Path(name) / "home", Path(name) / "catalog"
        home.mkdir()
        if why:
            return _Run(plan, home, catalog, why).rows()
        done = run_on_small_disk("benchmarks.faults.kills", home, _DISK_MB, catalog, json.dumps(asdict(plan)))
    if done.returncode:
        return [Row(f"kill -9 every {EVERY_S:g} s", 0, plan.jobs, plan.jobs, 0.0, f"it ended with {done.returncode}")]
    return [Row(**row) for row in json.loads(done.stdout.splitlines()[-1])]


class _Catalog:
    """The server, which is killed so often, at least so far apart, and comes back. ``run`` is a thread's work."""

    def __init__(self, server: LocalServer, kills: int, apart_s: float) -> None:
        self._server, self._kills, self._apart_s = server, kills, apart_s
        self.killed = 0
        self.is_done = not kills

    def run(self) -> None:
        """Kill it and bring it back."""
        time.sleep(self._apart_s / 2)
        while self.killed < self._kills:
            begun = time.monotonic()
            if self._server.pid is not None:
                os.kill(self._server.pid, signal.SIGKILL)
            self.killed += 1
            time.sleep(AWAY_S)
            self._server.stop()
            self._server.start()
            if self.killed < self._kills:
                time.sleep(max(0.0, self._apart_s - (time.monotonic() - begun)))
        self.is_done = True


class _Run:
    """All of it; ``why``: why there is no small disk at ``home``."""

    def __init__(self, plan: Plan, home: Path, catalog: Path, why: str) -> None:
        self._plan, self._home, self._folder, self._why = plan, home, catalog, why
        self._chance, self._killed = random.Random(SEED), Counter[str]()
        self._begun = time.monotonic()
        self._next_s = self._said_s = self._begun
        self._filler: Path | None = None
        self._filled_s = self._full_s = 0.0
        self._solved_before = [0, 0]

    def rows(self) -> list[Row]:
        """What came of it."""
        plan = self._plan
        with LocalServer(self._folder, readable=[self._home / "results"], port=_free_port()) as server:
            os.environ["TILED_API_KEY"] = server.api_key
            self._site = Site(home=self._home, ranks=2, device="cpu", tiled_uri=server.uri)
            self._catalog = _Catalog(server, plan.server_kills, plan.apart_s)
            with Service(self._site, self._folder / "served.log") as self._service:
                keys = self._service.hand_over(range(plan.jobs))
                self._begun = self._next_s = time.monotonic()
                striking = threading.Thread(target=self._catalog.run)
                striking.start()
                self._service.wait(
                    lambda: self._counts() == {"published": plan.jobs} and self._catalog.is_done, plan.within_s, self._strike
                )
                striking.join()
                seconds = time.monotonic() - self._begun
                lost = self._service.lost(keys, "published")
            found = _in_catalog(self._site)
        missing = len(set(keys) - set(found)) + len(found) - len(set(found))
        return self._table(seconds, lost, missing)

    def _table(self, seconds: float, lost: int, missing: int) -> list[Row]:
        jobs, killed = self._plan.jobs, self._killed
        said = ", ".join(f"{what} {count}" for what, count in sorted(killed.items()))
        first, second = self._solved_before
        said += f"; solved during kills of all ({self._plan.strike_s:g} s) {first}, then of all but the daemon {second - first}"
        full = "the same jobs, between the same kills" if self._full_s else f"not done: {self._why or 'it was over before'}"
        return [
            Row(
                f"kill -9 every {EVERY_S:g} s", sum(count for what, count in killed.items() if what != _GIVEN_UP), jobs, lost, seconds, said
            ),
            Row("the catalog's server killed and started again", self._catalog.killed, jobs, missing, seconds, "lost: not there, or twice"),
            Row("the disk of the service is full meanwhile", int(self._full_s > 0), jobs, 0, self._full_s, full),
        ]

    def _counts(self) -> dict[str, int]:
        return self._service.counts()

    def _strike(self) -> None:
        counts, now = self._counts(), time.monotonic()
        self._say(counts, now)
        self._fill_or_free(counts, now)
        if counts.get("failed") and self._filler is None:
            with suppress(LedgerError, SiteError):
                self._killed[_GIVEN_UP] += self._service.retry_failed()
        solved = sum(counts.get(state, 0) for state in ("solved", "published"))
        all_kinds, to_the_end = (now - self._begun <= end_s for end_s in (self._plan.strike_s, self._plan.ranks_s))
        if all_kinds:
            self._solved_before[0] = solved
        if to_the_end:
            self._solved_before[1] = solved
        if now < self._next_s or not to_the_end or solved == self._plan.jobs:
            return
        self._next_s = now + EVERY_S
        kind = self._chance.choice(("daemon", "publisher", "rank", "launcher"))
        # A publisher is killed while there is something to publish.
        if (kind == "daemon" and not all_kinds) or (kind == "publisher" and not counts.get("solved")):
            return
        self._killed[kind] += self._service.kill(kind, self._chance.choice)

    def _fill_or_free(self, counts: dict[str, int], now: float) -> None:
        """Once, when a tenth of the jobs is done or half of the time is over."""
        if self._filler is not None:
            if now - self._filled_s >= _FULL_S:
                self._filler.unlink()
                self._filler, self._full_s = None, now - self._filled_s
        elif not self._why and not self._full_s:
            done = sum(counts.get(state, 0) for state in ("solved", "published"))
            if done > self._plan.jobs / 10 or now - self._begun > self._plan.strike_s / 2:
                self._filler, self._filled_s = fill(self._home), now

    def _say(self, counts: dict[str, int], now: float) -> None:
        if now - self._said_s >= _SAY_S:
            self._said_s = now
            states = ", ".join(f"{count} {state}" for state, count in counts.items())
            sys.stderr.write(f"kills: {now - self._begun:.0f} s; {states}; killed {dict(self._killed)}, server {self._catalog.killed}\n")
            sys.stderr.flush()


def _free_port() -> int:
    """A port to which the server can come back."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _in_catalog(site: Site) -> list[str]:
    """The job of each result."""
    try:
        client = connect(site)
        # An array that can be read is one that was not torn.
        return [node.metadata["job"] for node in search(client, state="published") if node["object"].read().size > 0]
    except CatalogError:
        return []


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    rows = _Run(Plan(**json.loads(sys.argv[3])), Path(sys.argv[1]), Path(sys.argv[2]), "").rows()
    print(json.dumps([asdict(row) for row in rows]))
