"""A service that somebody keeps starting again, as systemd does, and what became of its jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from benchmarks.faults.jobs import numbered
from ptyplugin.io import read_result
from ptyplugin.jobs import MAX_TRIES, Order, give, open_read_only, submit
from ptyplugin.model import LedgerError, PtypluginError, Site

ROOT = Path(__file__).resolve().parents[2]


class Service:
    """A daemon as a process of its own, in ``folder``. A context manager that ends it, whatever happens."""

    def __init__(self, site: Site, log: Path) -> None:
        self.site, self._log = site, log
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def __enter__(self) -> Self:
        self.keep()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def keep(self) -> None:
        """Start it if it does not run."""
        if self._process is not None and self._process.poll() is None:
            return
        self.starts += 1
        command = [sys.executable, "-m", "benchmarks.faults.served", self.site.model_dump_json()]
        with self._log.open("ab") as log:
            # The ranks import the jobs' solver by name.
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log, start_new_session=True, env=environment)

    def victims(self, kind: str) -> list[int]:
        """Processes of this kind now: the daemon, its publisher, its mpiexec, the ranks."""
        if self._process is None or self._process.poll() is not None:
            return []
        daemon = self._process.pid
        below = descendants(daemon)
        launchers = [pid for pid, words in below.items() if "mpiexec" in words or "hydra" in words]
        ranks = [pid for pid, words in below.items() if "ptyplugin.service.worker" in words and pid not in launchers]
        publishers = [pid for pid, words in below.items() if "ptyplugin.catalog.apart" in words]
        return {"daemon": [daemon], "publisher": publishers, "rank": ranks, "launcher": launchers}[kind]

    def kill(self, kind: str, choose: Callable[[list[int]], int]) -> bool:
        """Kill one of this kind, if there is one."""
        found = self.victims(kind)
        if not found:
            return False
        try:
            os.kill(choose(found), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def hand_over(self, numbers: range) -> list[str]:
        """Submit so many jobs; their keys."""
        return [submit(self.site, numbered(number)) for number in numbers]

    def counts(self) -> dict[str, int]:
        """Jobs by state; none while nobody can say."""
        try:
            with open_read_only(self.site.ledger) as view:
                return view.counts()
        except LedgerError:
            return {}

    def retry_failed(self) -> int:
        """A job that was killed three times has failed, as it should: have it done again, as a person would; how many."""
        with open_read_only(self.site.ledger) as view:
            failed = [entry for entry in view.list(state="failed") if entry.tries >= MAX_TRIES]
        for entry in failed:
            give(self.site, Order(order="retry", job=entry.key))
        return len(failed)

    def wait(self, done: Callable[[], bool], within_s: float, meanwhile: Callable[[], None] = lambda: None) -> bool:
        """Keep it running until all is done; whether it was in time."""
        end = time.monotonic() + within_s
        while not done():
            if time.monotonic() > end:
                return False
            self.keep()
            meanwhile()
            time.sleep(0.2)
        return True

    def lost(self, keys: list[str], state: str) -> int:
        """Jobs without a whole result, or that came into ``state`` never or more than once."""
        lost = 0
        with open_read_only(self.site.ledger) as view:
            for key in keys:
                times = sum(step.state == state for step in view.history(key))
                lost += times != 1 or not _is_whole(self.site.results / f"{key}.h5")
        return lost


def _is_whole(path: Path) -> bool:
    try:
        return read_result(path).object.size > 0
    except PtypluginError:
        return False


def descendants(pid: int) -> dict[int, str]:
    """Processes below this one, with their command lines."""
    found: dict[int, str] = {}
    try:
        children = [int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]
    except OSError:
        return found
    for child in children:
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if words:
            found[child] = words
        found |= descendants(child)
    return found


def site_of(text: str) -> Site:
    """The site that was given on the command line."""
    return Site.model_validate(json.loads(text))
