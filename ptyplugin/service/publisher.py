"""The publisher: takes solved jobs into the catalog, for as long as it takes, while other jobs go on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptyplugin.jobs import Entry, Ledger
from ptyplugin.model import LedgerError, PtypluginError, Site
from ptyplugin.model.redaction import redacted
from ptyplugin.service.complaints import Complaints
from ptyplugin.service.preview import is_to_be_published

_log = logging.getLogger(__name__)

#: Seconds to wait after the first failure, doubled up to the longest.
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
#: How often a result that waits for that of another job is looked at, seconds.
LOOK_S = 5.0

#: (result file, job key): puts the result into the catalog; may be called again for the same one.
Publish = Callable[[Path, str], object]


class CatalogPublish:
    """Publishes into the site's catalog; connects when first needed, and anew after an error."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._client: Any = None
        self._folders: dict[str, Any] = {}

    def __call__(self, result: Path, key: str) -> None:
        """See Publish.

        Raises:
            CatalogError: the catalog is away or refuses.
            FileFormatError: the result file is damaged.
        """
        # Importing the client takes a second, which the daemon's start need not wait for.
        from ptyplugin.catalog import connect, publish

        try:
            self._client = self._client or connect(self._site)
            publish(self._client, self._site, result, key, self._folders)
        except BaseException:
            self.close()
            raise

    def warm_up(self) -> None:
        """Import the client (seconds) while there is nothing to do."""
        from ptyplugin.catalog import warm_up

        warm_up()

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.context.close()
            self._client = None
            self._folders = {}


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

    def publish_due(self) -> None:
        """Try each solved job whose time has come.

        Raises:
            LedgerError: the ledger cannot be read or written.
        """
        solved = self._ledger.list(state="solved")
        self._waits = {entry.key: self._waits[entry.key] for entry in solved if entry.key in self._waits}
        for entry in solved:
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
                self.publish_due()
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
