"""The processes of a job, remembered in its folder so that a daemon that starts again can make sure they are gone."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)

#: In the job's folder: its processes while it runs; the path of its temporary folder.
_FILE, _TEMPORARY = "processes.json", "temporary"
#: Seconds that a killed process is given to disappear (one that waits for a disk cannot be killed).
_GONE_S = 5.0


@dataclass(frozen=True, slots=True)
class Process:
    """A process: its number, and its start in clock ticks since boot, which tells it from a later one with the same number."""

    pid: int
    started_ticks: int

    @classmethod
    def running(cls, pid: int) -> Process | None:
        """The process with this number, or None if it is gone (or dead and not yet collected)."""
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if state in "ZX" else cls(pid, int(fields[18]))

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return Process.running(self.pid) == self


def kill(processes: Iterable[Process]) -> None:
    """Kill those that still run, and wait until they are gone."""
    left = [process for process in processes if process.alive]
    for process in left:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signal.SIGKILL)
    end = time.monotonic() + _GONE_S
    while (left := [process for process in left if process.alive]) and time.monotonic() < end:
        time.sleep(0.01)
    for process in left:
        _log.error("process %d does not end though it was killed: it may hold its devices until it does", process.pid)


def remember(folder: Path, processes: Iterable[Process]) -> None:
    """Write the job's processes down in its folder."""
    temporary = folder / f"{_FILE}.tmp"
    temporary.write_text(json.dumps([[process.pid, process.started_ticks] for process in processes]))
    temporary.replace(folder / _FILE)


def forget(folder: Path) -> None:
    """The job's processes are gone."""
    (folder / _FILE).unlink(missing_ok=True)


def make_temporary(folder: Path, prefix: str) -> Path:
    """A new temporary folder that only this user sees; ``folder`` knows of it before it is there, until ``remove_temporary``."""
    place = Path(tempfile.gettempdir()) / f"{prefix}{secrets.token_hex(8)}"
    (folder / _TEMPORARY).write_text(str(place))
    place.mkdir(mode=0o700)
    return place


def remove_temporary(folder: Path) -> None:
    """Remove the temporary folder that was made for ``folder``, if there is one. Somebody who tidies up may have been here before."""
    try:
        place = Path((folder / _TEMPORARY).read_text())
        # Whatever stands there: nothing but a folder of this user's, in the place for such folders.
        if place.parent == Path(tempfile.gettempdir()) and place.is_dir() and not place.is_symlink() and place.stat().st_uid == os.getuid():
            shutil.rmtree(place, ignore_errors=True)
    except (OSError, ValueError):
        return
    with suppress(OSError):
        (folder / _TEMPORARY).unlink(missing_ok=True)


def make_sure_they_are_gone(folder: Path) -> None:
    """End what an earlier daemon may have left running for the job in ``folder``, and remove its temporary folder."""
    remove_temporary(folder)
    try:
        written = json.loads((folder / _FILE).read_text())
    except FileNotFoundError:
        return
    except ValueError:
        written = []  # the power went while it was written: then nothing of it runs
    kill(Process(pid, started_ticks) for pid, started_ticks in written)
    forget(folder)
