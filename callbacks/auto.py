"""AutoReconstruct: what a session subscribes, ``RE.subscribe(AutoReconstruct(profile="sim"))``."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptyplugin.callbacks.copying import Copier
from ptyplugin.callbacks.live import Submit
from ptyplugin.callbacks.worker import Worker
from ptyplugin.jobs import grow as grow_in_inbox
from ptyplugin.jobs import submit as submit_to_inbox
from ptyplugin.model import Profile, Site, load_site
from ptyplugin.profiles import load_profile

_log = logging.getLogger(__name__)


class AutoReconstruct:
    """Hands over a job for each run that is ptychography.

    Called with each document it copies it into a queue and returns: it does no input or output and raises nothing, whatever
    the state of the disk, the service and the catalog. A thread of its own collects the runs and submits the jobs; while the
    inbox cannot be written it keeps them and tries again. At the exit of the interpreter it has 2 s to finish.

    Where the profile has ``[live]``, a live job begins and grows while the run goes on.

    Args:
        profile: name of a profile, path of its TOML, or the profile.
        site: tells the inbox; by default the file that PTYPLUGIN_SITE names, or the user's own folder.
        submit: hands one job over, ``ptyplugin.jobs.submit`` by default; or a ``RemoteInbox``. A function of your own has no live jobs,
            unless it has an attribute ``grow``, as RemoteInbox.

    Raises:
        ProfileError: there is no such profile, or it is wrong.
        SiteError: the site's file is wrong.
    """

    def __init__(self, profile: str | Path | Profile, site: Site | None = None, submit: Submit = submit_to_inbox) -> None:
        loaded = profile if isinstance(profile, Profile) else load_profile(profile)
        self._copied = Copier()
        grow = grow_in_inbox if submit is submit_to_inbox else getattr(submit, "grow", None)
        worker = Worker(loaded, site or load_site(), submit, grow, self._copied.refill)
        worker.start()
        self._put = worker.queue.put
        self._flush = worker.flush
        # The thread does not hold this object: it ends, when all is handed over, after nobody has a use for it.
        weakref.finalize(self, worker.stop).atexit = False

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Take a document, as the RunEngine gives it."""
        # An exception here would abort the plan.
        try:
            self._put((name, self._copied(document)))
        except Exception as error:
            _log.warning("a %s document could not be copied and is passed over: %s", name, error)

    def flush(self, timeout_s: float) -> bool:
        """Wait until the jobs of all documents so far are handed over; False if that took longer than ``timeout_s``."""
        return self._flush(timeout_s)
