"""Files of frames that a later run has written anew: the frames of the earlier run are gone, and its image may be of both."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from ptyplugin.model import Hdf5Source, Job, JobParts, RunSource

_log = logging.getLogger(__name__)

#: Files that are remembered; of more the one that was named longest ago is forgotten.
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class _Held:
    """What a file held: frames of a run, from ``first`` to before ``stop``."""

    run_uid: str
    scan_id: int | None
    begun_s: float | None
    first: int
    stop: int

    def began_after(self, other: _Held) -> bool:
        """Whether its run began after the other one: jobs need not be made in the order of their runs."""
        return self.begun_s is not None and other.begun_s is not None and self.begun_s > other.begun_s


class FilesOfRuns:
    """Which run's frames lie in which file, as the jobs say that are made here."""

    def __init__(self) -> None:
        self._held: dict[Hdf5Source, _Held] = {}

    def noted(self, parts: JobParts) -> JobParts:
        """The job, with a note if its files held the same frames of another run, or hold them now; to be asked once for each job."""
        before = self._before(parts.job)
        if before is None:
            return parts
        file, held, is_later = before
        other = f"run {held.run_uid} (scan {held.scan_id})"
        if is_later:
            said = f"holds frames of {other}, which wrote into it anew: the image of this run is probably one of that run, or of both."
        else:
            said = (
                f"held frames of {other} before this run wrote into it anew: an image of that run is right only if it was finished before "
                "this one began."
            )
        note = f"The file {file.uri} {said} Let the detector write a file of its own for each run."
        _log.warning("job %s: %s", parts.job.key, note)
        return replace(parts, job=parts.job.model_copy(update={"notes": [*parts.job.notes, note]}))

    def _before(self, job: Job) -> tuple[Hdf5Source, _Held, bool] | None:
        """A file, what it held, or holds by now, of another run, and whether it is that."""
        found = None
        for source, now in _held_by(job).items():
            held = self._held.pop(source, None)
            if held is not None and held.run_uid != now.run_uid and held.first < now.stop and now.first < held.stop:
                found = source, held, held.began_after(now)
            self._held[source] = held if held is not None and held.began_after(now) else now
        while len(self._held) > _MOST:
            del self._held[next(iter(self._held))]
        return found


def _held_by(job: Job) -> dict[Hdf5Source, _Held]:
    """What each file holds of the run of a job."""
    ranges: dict[Hdf5Source, list[tuple[int, int]]] = {}
    for block in job.frames:
        if isinstance(block.source, Hdf5Source):
            ranges.setdefault(block.source, []).extend(block.ranges)
    if not isinstance(job.source, RunSource):
        return {}
    run = job.source
    return {
        source: _Held(run.run_uid, run.scan_id, run.begun_s, min(start for start, _ in found), max(stop for _, stop in found))
        for source, found in ranges.items()
    }
