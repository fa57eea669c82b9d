"""Retention: folders of jobs that ended long ago go, if the site says so. Results and the ledger's rows stay for ever."""

from __future__ import annotations

import logging
import secrets
import time
from pathlib import Path

from ptyplugin.jobs import Ledger, State
from ptyplugin.jobs.durable import remove_tree
from ptyplugin.model import JobError, Site

_log = logging.getLogger(__name__)

#: How often the folders are looked at, seconds.
SWEEP_S = 3600.0
#: States from which a job goes on only when somebody asks for it.
_ENDED: tuple[State, ...] = ("solved", "published", "failed", "cancelled")
_DAY_S = 86400.0


class Retention:
    """Removes folders under the site's jobs. To be called by the thread that carries out orders, so that no retry comes in between."""

    def __init__(self, site: Site, ledger: Ledger) -> None:
        self._site, self._ledger = site, ledger
        self._next_s = time.monotonic()

    def sweep_if_due(self) -> None:
        """Remove what the site does not want to keep, once an hour.

        Raises:
            OSError: a folder cannot be removed.
            LedgerError: the ledger cannot be read.
        """
        if self._site.keep_job_folders_days is None or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + SWEEP_S
        before_s = time.time() - self._site.keep_job_folders_days * _DAY_S
        for folder in [folder for folder in self._site.jobs.iterdir() if self._may_go(folder, before_s)]:
            # Under a hidden name at once: what a killed daemon leaves of it is removed by the next one.
            leaving = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
            folder.rename(leaving)
            remove_tree(leaving)
            _log.info("the folder of job %s is removed: it ended more than %g days ago", folder.name, self._site.keep_job_folders_days)

    def _may_go(self, folder: Path, before_s: float) -> bool:
        try:
            entry = self._ledger.show(folder.name)
        except JobError:
            return False  # not a job's
        if entry.state not in _ENDED or entry.changed_s > before_s:
            return False
        # A site may keep its results in strange places.
        kept = [self._site.results, *([entry.result] if entry.result else [])]
        return not any(place.resolve().is_relative_to(folder.resolve()) for place in kept)
