"""Keeps the process that serves EPICS alive, and rings when there is something new; nothing that happens to it matters here."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from typing import Self

from ptyplugin.model import Site, SiteError
from ptyplugin.model.own_python import own_python
from ptyplugin.service.daemon import Daemon
from ptyplugin.service.logs import LogFormat

_log = logging.getLogger(__name__)

#: Seconds before it is started again: from the first to the longest, doubled each time that it did not last.
FIRST_WAIT_S, LONGEST_WAIT_S, LASTS_S = 1.0, 60.0, 60.0
_END_S = 2.0
_PREFIX = re.compile(r"[A-Za-z0-9_:.<>\[\]{}+-]{1,40}")


class Epics:
    """A context manager, inside of the daemon's.

    prefix: of all names, e.g. "BL1:Ptycho:"

    Raises:
        SiteError: the prefix is none, or the packages are not installed.
    """

    def __init__(self, site: Site, daemon: Daemon, prefix: str, log_format: LogFormat = "text") -> None:
        if not _PREFIX.fullmatch(prefix):
            raise SiteError(f"{prefix!r} is no prefix of EPICS names: up to 40 letters, digits and :_-.<>[]{{}}+, such as BL1:Ptycho:")
        if missing := [name for name in ("caproto", "p4p") if find_spec(name) is None]:
            raise SiteError(f"EPICS needs {' and '.join(missing)}, not installed here: pip install 'ptyplugin[epics]'.")
        self._site, self._prefix, self._log_format = site, prefix, log_format
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="ptyplugin-epics", daemon=True)
        daemon.add_snapshot_listener(lambda *_: self.ring())
        daemon.ledger.listen(lambda _: self.ring())

    @property
    def pid(self) -> int | None:
        """The process, if it runs."""
        return self._process.pid if self._process else None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        if process := self._process:
            self._end(process)
        self._thread.join(_END_S)

    def ring(self) -> None:
        """There is something new. Never waits: a process that does not listen looks by itself, now and then."""
        process = self._process
        if process and process.stdin:
            with suppress(OSError, ValueError):
                os.write(process.stdin.fileno(), b"\n")

    def _keep(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._stop.is_set():
            try:
                lasted_s = self._serve()
            except OSError as error:
                _log.warning("EPICS cannot be served now (%s)", error)
                lasted_s = 0.0
            if self._stop.is_set():
                return
            wait_s = FIRST_WAIT_S if lasted_s > LASTS_S else wait_s
            _log.warning("the process that serves EPICS ended; it is started again in %g s. Jobs are not touched by this.", wait_s)
            self._stop.wait(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _serve(self) -> float:
        """Run the process until it ends; how long it ran, seconds."""
        begun = time.monotonic()
        command = own_python("ptyplugin.service.epics", self._prefix, self._log_format)
        # A session of its own: Ctrl-C at the terminal is for the service, which ends it.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, start_new_session=True)
        assert process.stdin is not None
        process.stdin.write(self._site.model_dump_json().encode() + b"\n")
        os.set_blocking(process.stdin.fileno(), False)
        self._process = process
        if self._stop.is_set():
            self._end(process)
        process.wait()
        self._process = None
        with suppress(OSError):
            process.stdin.close()
        return time.monotonic() - begun

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin:
            with suppress(OSError):
                process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
