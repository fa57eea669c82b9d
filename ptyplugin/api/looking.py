"""What there is to see of the job that runs now: from the ledger and the job's folder, without a word to the daemon."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptyplugin.jobs import JOB_FILE, Entry, JobProgress, LedgerView, open_read_only, read_progress, read_snapshot
from ptyplugin.jobs.growing import GrowthFolder
from ptyplugin.model import Job, PtypluginError, Site, Snapshot

_log = logging.getLogger(__name__)

#: How many jobs that ended last are looked at to find one that was solved or failed; others are runs that were refused.
_LATELY = 20


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """A job: what the ledger has on it, how far it is, and its image; these two only while it runs. waiting: jobs in the queue."""

    job: Entry
    progress: JobProgress | None
    snapshot: Snapshot | None
    waiting: int

    @property
    def stage(self) -> str:
        """The algorithm; empty where that is not known."""
        newest = self._newest()
        return newest.stage if newest else ""

    @property
    def iterations(self) -> tuple[int, int]:
        """How many are done, and how many there are over all stages; 0 where that is not known."""
        newest = self._newest()
        return (newest.iteration, newest.iterations) if newest else (0, 0)

    @property
    def errors(self) -> dict[str, float]:
        """By name, the last one of each."""
        found = dict(self.progress.errors) if self.progress else {}
        return found | {str(name): value for name, value in self.snapshot.errors.items()} if self.snapshot else found

    @property
    def frames(self) -> int:
        """How many it has."""
        return max(self.job.frames or 0, self.progress.frames if self.progress else 0, self.snapshot.frames if self.snapshot else 0)

    def _newest(self) -> JobProgress | Snapshot | None:
        said = [one for one in (self.progress, self.snapshot) if one is not None]
        return max(said, key=lambda one: one.iteration, default=None)


def look(site: Site) -> Sight | None:
    """The job that runs: a live one first, else the youngest; where none runs, the one that ended last, but no live one that a final one
    has replaced. None if there was none yet.

    Raises:
        LedgerError: the ledger is not there, or cannot be read.
    """
    with open_read_only(site.ledger) as ledger:
        job, waiting = _shown(ledger), ledger.counts().get("queued", 0)
    if job is None:
        return None
    folder = site.jobs / job.key
    runs = job.state == "running"
    return Sight(job, read_progress(folder) if runs else None, read_snapshot(folder) if runs else None, waiting)


def preview_of(site: Site, job: Entry) -> Entry | None:
    """The live job of the same scan that has a result, if there is one.

    Raises:
        LedgerError: the ledger is not there, or cannot be read.
    """
    if job.purpose != "final" or job.run_uid is None:
        return None
    with open_read_only(site.ledger) as ledger:
        solved = ledger.list(run_uid=job.run_uid, purpose="live", state="solved")
    return next((live for live in solved if of_one_scan(live, job) and live.result is not None), None)


class FramePositions:
    """Where the frames of a job are, whose folder this is; of a live job also those that came later."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._positions: NDArray[np.float64] | None = None

    def first(self, frames: int) -> NDArray[np.float64] | None:
        """(frame, yx) m of the first ``frames`` frames, as far as they can be read; None if none can."""
        try:
            if self._positions is None:
                job = Job.from_bytes((self._folder / JOB_FILE).read_bytes())
                self._positions = job.scan(self._folder).positions_m.mean(axis=1)
            growth = GrowthFolder(self._folder)
            for grown in growth.after(len(self._positions)) if len(self._positions) < frames else ():
                more = grown.scan(growth.place_of(grown.first)).positions_m.mean(axis=1)
                self._positions = np.concatenate([self._positions, more])
        except (OSError, PtypluginError) as error:
            _log.debug("positions of %s are not known: %s", self._folder, error)
        return None if self._positions is None else self._positions[:frames]


def _shown(ledger: LedgerView) -> Entry | None:
    running = ledger.list(state="running")
    if running:
        return max(running, key=lambda job: (job.purpose == "live", job.number))
    ended = [job for job in ledger.lately(_LATELY) if job.kind == "job" and job.state != "queued"]
    # A live job ends once more, cancelled, when the final one has taken its place: that one is the image of the run.
    return next((job for job in ended if not any(_is_replaced(job, other) for other in ended)), None)


def _is_replaced(job: Entry, other: Entry) -> bool:
    is_preview = (job.purpose, job.state) == ("live", "cancelled")
    return is_preview and other.purpose == "final" and other.state in ("solved", "published") and of_one_scan(job, other)


def of_one_scan(one: Entry, other: Entry) -> bool:
    """Whether two jobs are of one run and detector."""
    return one.run_uid is not None and (one.run_uid, one.source) == (other.run_uid, other.source)
