"""Images of jobs that run go into the catalog, in a thread of their own: results and jobs wait neither for them nor for a slow server."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from ptyplugin.jobs import JOB_FILE, Entry
from ptyplugin.model import CatalogAway, Job, JobError, Site, Snapshot
from ptyplugin.model.redaction import redacted
from ptyplugin.service.complaints import Complaints

_log = logging.getLogger(__name__)

#: Lowest and highest position (y, x), metres.
Extent = tuple[tuple[float, float], tuple[float, float]]

#: At most so often is an image sent, seconds; the share of the time that sending may take, for the server has other work; but from
#: the beginning of one image to that of the next it is not waited for longer than this, seconds: a server under load is slow.
PERIOD_S, SHARE, LONGEST_S = 1.0, 1 / 3, 1.8
#: Seconds to leave a catalog alone that is in trouble: from the first to the longest, doubled each time.
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 60.0
_LOOK_S = 0.5
#: So many jobs that find it away, or closed to them, before any other is shown are enough to take it for away.
_ENOUGH = 3
#: Jobs that ended lately are known, so that a snapshot that was late does not bring them back.
_REMEMBERED = 100


class Images(Protocol):
    """Shows the snapshots of one job: see ptyplugin.catalog.LiveImages."""

    def put(self, snapshot: Snapshot) -> int:
        """Show this one."""
        ...

    def end(self, state: str, sentence: str | None) -> None:
        """The job ended without a result; nothing happens if no image of it is there."""
        ...


class SiteImages:
    """Makes Images in the site's catalog; connects when first needed."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._client: Any = None

    def __call__(self, job: Entry) -> Images:
        """Those of this job.

        Raises:
            CatalogError: the catalog is away or refuses.
        """
        # Importing the client takes a second, which the daemon's start need not wait for.
        from ptyplugin.catalog import LiveImages, connect

        self._client = connect(self._site) if self._client is None else self._client
        return LiveImages(self._client, self._site, job, self._extent_m(job))

    def _extent_m(self, job: Entry) -> Extent | None:
        """Where a live job's scan will go; the object of a final one is as large as it gets."""
        if job.purpose != "live":
            return None
        try:
            return Job.from_bytes((self._site.jobs / job.key / JOB_FILE).read_bytes()).extent_m
        except (OSError, JobError) as error:
            _log.debug("where job %s will go is not known: %s", job.key, error)
            return None

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.context.close()
            self._client = None


class LiveCatalog:
    """Sends the newest snapshot of each job that runs, and says of those that fail or are cancelled what became of them.

    images: makes what shows a job
    """

    def __init__(self, images: Callable[[Entry], Images]) -> None:
        self._make = images
        self._lock = threading.Lock()
        self._news = threading.Event()
        #: The job and its newest snapshot, or None when it came to its end.
        self._due: dict[str, tuple[Entry, Snapshot | None]] = {}
        self._over: dict[str, int] = {}
        self._images: dict[str, Images] = {}
        self._complaints = Complaints(_log)
        #: How many snapshots were shown, left out for a newer one, and refused.
        self.outcomes: Counter[str] = Counter(shown=0, left_out=0, refused=0)

    def hear(self, snapshot: Snapshot, job: Entry) -> None:
        """There is a snapshot of this job."""
        with self._lock:
            # It may have waited while its job ended; a start after that one counts.
            if job.state != "running" or self._over.get(job.key, -1) >= job.starts:
                return
            self.outcomes["left_out"] += job.key in self._due
            self._due[job.key] = job, snapshot
        self._news.set()

    def hear_of(self, job: Entry) -> None:
        """A job came into another state."""
        if job.kind != "job" or job.state in ("running", "queued"):
            return
        with self._lock:
            self._over[job.key] = job.starts
            self._over = dict(list(self._over.items())[-_REMEMBERED:])
            self._due[job.key] = job, None
        self._news.set()

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``."""
        wait_s = FIRST_WAIT_S
        while not stop.is_set():
            if not self._news.wait(_LOOK_S):
                continue
            self._news.clear()
            begun, known = time.monotonic(), set(self._images)
            if self.send():
                took_s, wait_s = time.monotonic() - begun, FIRST_WAIT_S
                # Making a place for a job takes longer than what comes then, and is done once.
                rest_s = took_s * (1 / SHARE - 1) if self._images.keys() <= known else 0.0
                stop.wait(max(PERIOD_S - took_s, min(rest_s, LONGEST_S - took_s)))
            else:
                stop.wait(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def send(self) -> bool:
        """Show what there is to show now; False, and it stays to be shown, when the catalog is away or refuses all of it."""
        due, tried, left, refused = list(self._due), 0, 0, self.outcomes["refused"]
        for tried, key in enumerate(due, 1):
            with self._lock:
                job, snapshot = self._due.pop(key)
            try:
                self._show(job, snapshot)
            except CatalogAway as error:
                self._complaints.say(redacted(f"{error} The images of jobs that run wait for it; results are not touched by this."))
                # Behind the others: what it alone may not show is not tried first again.
                with self._lock:
                    self._due.setdefault(key, (job, snapshot))
                left += 1
                if left == tried == _ENOUGH:
                    break
            except Exception as error:
                # Whatever the catalog does, it is only an image on the way.
                _log.debug("job %s cannot be shown", key, exc_info=True)
                self.outcomes["refused"] += 1
                self._complaints.say(redacted(f"the image of job {key} is not shown in the catalog ({' '.join(str(error).split())})."))
        if left:
            self._news.set()
        elif due and refused == self.outcomes["refused"]:
            self._complaints.over()
        return left < max(1, tried)

    def _show(self, job: Entry, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            if job.key not in self._images:
                self._images[job.key] = self._make(job)
            self._images[job.key].put(snapshot)
            self.outcomes["shown"] += 1
            return
        images = self._images.pop(job.key, None)
        if job.state in ("failed", "cancelled"):
            # An earlier daemon may have shown it, or this one, before a final image took the place of what it came to.
            (images or self._make(job)).end(job.state, job.sentence)
