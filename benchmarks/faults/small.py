"""Faults that need no crowd of processes: two daemons, clocks that jump, torn items in the inbox."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.jobs import numbered
from benchmarks.faults.table import Row
from ptyplugin.jobs import Inbox, open_read_only, submit
from ptyplugin.jobs import ledger as ledger_module
from ptyplugin.model import LedgerError, Site
from ptyplugin.service import Daemon, Inline

_SOLVE = "benchmarks.service_jobs:empty"


def small(jobs: int) -> list[Row]:
    """All of them, each in a home of its own."""
    return [_timed(fault, jobs) for fault in (_two_daemons, _clock_jumps, _torn_items)]


def _timed(fault: Callable[[Site, int], Row], jobs: int) -> Row:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ptyplugin-faults-") as home:
        row = fault(Site(home=Path(home), ranks=1, device="cpu"), jobs)
    return Row(row.fault, row.injected, row.over, row.lost, time.monotonic() - begun, row.note)


def _two_daemons(site: Site, jobs: int) -> Row:
    """The second one must say so, and the first one go on."""
    keys = [submit(site, numbered(number)) for number in range(jobs)]
    said = ""
    with Daemon(site, Inline(_SOLVE)) as first:
        try:
            Daemon(site, Inline(_SOLVE)).close()
        except LedgerError as error:
            said = str(error)
        first.run_once()
    return Row("two daemons on one ledger", 1, jobs, _lost(site, keys) + (not said), 0.0, said.replace(str(site.home), "HOME"))


def _clock_jumps(site: Site, jobs: int) -> Row:
    """A day forth and back between the jobs."""
    keys, now_s = [submit(site, numbered(number)) for number in range(jobs)], ledger_module.now_s
    try:
        with Daemon(site, Inline(_SOLVE)) as daemon:
            for number, key in enumerate(keys):
                ahead_s = 86400.0 * (number % 3 - 1)
                ledger_module.now_s = lambda ahead_s=ahead_s: now_s() + ahead_s
                if number == 0:
                    daemon.run_once()
                submit(site, numbered(jobs + number))
                daemon.run_once()
                keys[number] = key
    finally:
        ledger_module.now_s = now_s
    return Row("the clock jumps by a day", jobs, 2 * jobs, _lost(site, keys), 0.0, "to and fro")


def _torn_items(site: Site, jobs: int) -> Row:
    """Between good jobs: torn files, garbage, files where folders should be."""
    inbox = Inbox(site.inbox)
    keys = [submit(site, numbered(number)) for number in range(jobs)]
    folder = inbox.waiting()[0].parent
    whole = numbered(jobs + 1).to_bytes()
    for number in range(jobs):
        item = folder / f"{secrets.token_hex(8)}.{number}torn"
        kind = number % 4
        if kind == 3:
            item.write_bytes(whole)
            continue
        item.mkdir()
        if kind < 2:
            (item / "job.json").write_bytes(whole[: len(whole) * number // (2 * jobs)] if kind else secrets.token_bytes(200))
    with Daemon(site, Inline(_SOLVE)) as daemon:
        daemon.run_once()
    left = len(inbox.waiting())
    return Row("torn and foreign items in the inbox", jobs, jobs, _lost(site, keys) + left, 0.0, "each set aside with a sentence")


def _lost(site: Site, keys: list[str]) -> int:
    with open_read_only(site.ledger) as view:
        return sum(view.show(key).state != "solved" or not (site.results / f"{key}.h5").exists() for key in keys)
