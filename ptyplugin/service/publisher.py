"""The publisher: takes solved jobs into the catalog, for as long as it takes, while other jobs go on."""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ptyplugin.jobs import Entry, Ledger
from ptyplugin.model import CatalogError, LedgerError, PtypluginError, Site
from ptyplugin.model.own_python import own_python
from ptyplugin.model.redaction import redacted
from ptyplugin.service.complaints import Complaints
from ptyplugin.service.preview import is_to_be_published
from ptyplugin.service.tied import tied_to_us

_log = logging.getLogger(__name__)

#: Seconds to wait after the first failure, doubled up to the longest.
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
#: How often a result that waits for that of another job is looked at, seconds.
LOOK_S = 5.0
#: How long the process that publishes may take for a result before it counts as hanging, seconds.
ANSWER_S = 1800.0
#: How long it may take to end after its last word, and how often it is killed until it is about nothing, seconds.
_LEAVE_S, _TICK_S = 5.0, 0.05

#: (result file, job key): puts the result into the catalog; may be called again for the same one.
Publish = Callable[[Path, str], object]


class PublishApart:
    """Publishes into the site's catalog in a process of its own, started when first needed, and anew when it has ended.

    What a large result and the client of a catalog take, and where they hang, is no matter of the daemon.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def __call__(self, result: Path, key: str) -> None:
        """See Publish.

        Raises:
            CatalogError: the catalog is away or refuses, the result file is damaged, or the process was killed or gave no answer.
        """
        with self._lock:
            try:
                said = self._asked(self._running(), {"result": str(result), "key": key})
            except (OSError, ValueError) as error:
                self._end()
                raise CatalogError(f"the process that publishes has ended ({error}): it is started again.") from error
        for level, name, message in said["log"]:
            logging.getLogger(name).log(level, "%s", message)
        if said["error"]:
            raise CatalogError(said["error"])

    def warm_up(self) -> None:
        """Start the process, so that it imports the client (seconds) while there is nothing to do."""
        with suppress(OSError), self._lock:
            self._running()

    @property
    def pid(self) -> int | None:
        """The process, if it was started."""
        process = self._process
        return process.pid if process else None

    def close(self, grace_s: float = 0.0) -> None:
        """End the process for good; what takes it longer than ``grace_s`` is completed at the next start of the daemon."""
        self._is_closed = True
        # Again and again: it may be about to start.
        while not self._lock.acquire(timeout=grace_s):
            grace_s = _TICK_S
            if process := self._process:
                process.kill()
        try:
            self._end()
        finally:
            self._lock.release()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                with suppress(OSError):
                    stream.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._is_closed:
            raise OSError("the service stops")
        if self._process is not None and (code := self._process.poll()) is not None:
            _log.warning("the process that publishes has ended (exit code %d): it is started again", code)
            self._end()
        if self._process is None:
            # Tied to the daemon, for there may be one publisher only; a session of its own: Ctrl-C is for the daemon.
            self._process = subprocess.Popen(
                [*tied_to_us(), *own_python("ptyplugin.catalog.apart")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
            self._send(self._process, self._site.model_dump_json())
        return self._process

    def _asked(self, process: subprocess.Popen[bytes], order: dict[str, str]) -> dict[str, Any]:
        """Its answer; OSError or ValueError if it gives none."""
        # Why it does not listen is said below.
        with suppress(BrokenPipeError):
            self._send(process, json.dumps(order))
        assert process.stdout is not None
        line, end, heard = b"", time.monotonic() + ANSWER_S, select.poll()
        heard.register(process.stdout, select.POLLIN)
        while not line.endswith(b"\n"):
            if not heard.poll(1000 * max(0.0, end - time.monotonic())):
                raise OSError(f"no answer within {ANSWER_S:g} s")
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_LEAVE_S)
                raise OSError(f"exit code {process.returncode}")
            line += part
        said: dict[str, Any] = json.loads(line)
        return said

    def _send(self, process: subprocess.Popen[bytes], line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(line.encode() + b"\n")


class Publisher:
    """Publishes what the ledger holds as solved."""

    def __init__(self, ledger: Ledger, publish: Publish) -> None:
        self._ledger, self._publish = ledger, publish
        self._news = threading.Event()
        self._waits: dict[str, tuple[float, float]] = {}
        self._complaints = Complaints(_log)
        self._trouble: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why results are not in the catalog yet, in one sentence; None if all is well."""
        return self._trouble

    def wake(self) -> None:
        """A job was solved."""
        self._news.set()

    def publish_due(self, stop: threading.Event | None = None) -> None:
        """Try each solved job whose time has come, or as many as there are until ``stop``.

        Raises:
            LedgerError: the ledger cannot be read or written.
        """
        solved = self._ledger.list(state="solved")
        self._waits = {entry.key: self._waits[entry.key] for entry in solved if entry.key in self._waits}
        for entry in solved:
            if stop and stop.is_set():
                return
            due, wait_s = self._waits.get(entry.key, (0.0, FIRST_WAIT_S))
            if time.monotonic() < due:
                continue
            if not is_to_be_published(self._ledger, entry):
                self._waits[entry.key] = (time.monotonic() + LOOK_S, wait_s)
            elif self._put(entry):
                # The catalog is there: those that wait for it need not wait longer.
                self._waits = {key: (0.0, wait) for key, (_, wait) in self._waits.items() if key != entry.key}
            else:
                self._waits[entry.key] = (time.monotonic() + wait_s, min(2 * wait_s, LONGEST_WAIT_S))

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``."""
        while not stop.is_set():
            self._news.clear()
            try:
                self.publish_due(stop)
            except LedgerError as error:
                # A publish that outlasted the stop finds the ledger closed.
                if not stop.is_set():
                    self._complaints.say(str(error))
            self._news.wait(self._pause_s())

    def _pause_s(self) -> float:
        next_due = min((due for due, _ in self._waits.values()), default=time.monotonic() + LONGEST_WAIT_S)
        return max(next_due - time.monotonic(), FIRST_WAIT_S / 2)

    def _put(self, entry: Entry) -> bool:
        if entry.result is None:
            raise LedgerError(f"job {entry.key} is solved but the ledger names no result file.")
        try:
            self._publish(entry.result, entry.key)
        except PtypluginError as error:
            sentence = str(error)
        except Exception as error:
            # A catalog can fail in ways that nobody has seen yet; the result is safe in its file, so try again.
            _log.debug("publishing %s failed", entry.key, exc_info=True)
            sentence = f"publishing ended with {type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}."
        else:
            self._ledger.published(entry)
            _log.info("job %s is in the catalog", entry.key)
            self._complaints.over()
            self._trouble = None
            return True
        sentence = redacted(sentence)
        if entry.result.exists():
            self._complaints.say(f"{sentence} The result waits in {entry.result} and is published later.")
        else:
            sentence = f"the result file {entry.result} is gone: put it back, or submit the job again with a higher attempt number."
            self._complaints.say(sentence)
        self._trouble = sentence
        if sentence != entry.sentence:
            self._ledger.not_published_yet(entry, sentence)
        return False
