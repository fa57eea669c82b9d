"""Live jobs: what a scan has so far is handed over while it goes on. What fails here costs the live image, never the final job."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.callbacks.announcing import announced_extent
from ptyplugin.callbacks.assemble import assemble_live, growth_of
from ptyplugin.callbacks.collector import MOST_OPEN_RUNS, Output, RunEnded, RunStarted
from ptyplugin.callbacks.locating import Locator, PositionReader
from ptyplugin.callbacks.pairing import Record
from ptyplugin.callbacks.run import CollectedRun
from ptyplugin.callbacks.settling import far_outside
from ptyplugin.model import (
    CatalogAway,
    FramesError,
    Job,
    JobError,
    JobParts,
    LiveTable,
    OutsideDataRoots,
    Profile,
    PtypluginError,
    Refusal,
    Site,
)
from ptyplugin.model import Growth as JobGrowth

_log = logging.getLogger(__name__)

Submit = Callable[[Site, Job | Refusal, Mapping[str, NDArray[Any]]], str]
Grow = Callable[[Site, JobGrowth, Mapping[str, NDArray[Any]]], None]
SoFar = Callable[[str], CollectedRun | None]

#: From one handing over to the next, seconds; and how soon frames are looked at again that were not enough, or whose positions were not
#: there yet: doubled each time, up to that.
EVERY_S, _SOON_S = 0.25, 0.01
#: Nothing can be seen in fewer frames.
FEWEST_FRAMES = 9
#: What a look at the positions took is followed by so many times as long a pause.
_LARGEST_SHARE = 5.0
#: A run of which nothing came for so long will not go on: its RunEngine was killed. Seconds.
_SILENT_S = 3600.0
#: Pauses between two tries to hand something over: from the first to the longest, doubled each time.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0


@dataclass(slots=True)
class _LiveRun:
    """One run. ``pending``: records that came, by frame id; ``handed``: frames that its job has, ``at`` their positions (frame, yx) m.

    key: of its job, once that is made; parts: what waits to be taken, the job or its growth; needed: frames with which it begins
    ended: the run at its end; is_cut: nothing more comes; said: what was last complained of; heard_s: when something came last
    again_s: the pause after a look that found nothing to hand over
    """

    uid: str
    needed: float
    due_s: float
    key: str | None = None
    pending: dict[int, Record] = field(default_factory=dict)
    handed: set[int] = field(default_factory=set)
    at: list[NDArray[np.float64]] = field(default_factory=list)
    parts: JobParts | tuple[JobGrowth, dict[str, NDArray[Any]]] | None = None
    locator: Locator | None = None
    ended: CollectedRun | None = None
    is_cut: bool = False
    said: str = ""
    pause_s: float = 0.0
    again_s: float = _SOON_S
    heard_s: float = field(default_factory=time.monotonic)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.pending) or self.parts is not None or self.is_cut

    def hear(self, new: Mapping[int, Record]) -> None:
        """These records came, by frame id."""
        if not self.pending:
            self.again_s = _SOON_S
        self.pending.update(new)

    def keep(self, records: Iterable[Record]) -> None:
        """Look at these again the next time."""
        for record in records:
            self.pending.setdefault(record.frame_id, record)

    def give(self, parts: JobParts | tuple[JobGrowth, dict[str, NDArray[Any]]], records: Sequence[Record]) -> None:
        """Have the job, or growth with these records, handed over."""
        self.parts = parts
        self.handed.update(record.frame_id for record in records)
        if records:
            self.at.append(_means(records))


class LiveRuns:
    """The live jobs of one profile's runs. ``take`` what a collector gives out, and ``work`` whenever ``wait_s`` is over.

    Neither raises anything: what goes wrong is logged.
    """

    def __init__(self, profile: Profile, site: Site, reader: PositionReader, submit: Submit, grow: Grow) -> None:
        self._profile, self._site, self._reader, self._submit, self._grow = profile, site, reader, submit, grow
        self._runs: dict[str, _LiveRun] = {}

    def take(self, output: Output) -> None:
        """Hear what became known of a run."""
        table = self._profile.live
        if table is None:
            return
        if isinstance(output, RunStarted):
            self._begin(output, table)
            return
        run = self._runs.get(output.run.uid if isinstance(output, RunEnded) else output.run_uid)
        if run is None:
            return
        run.heard_s = time.monotonic()
        if isinstance(output, RunEnded):
            run.ended = output.run
            self.cut(run.uid)
        else:
            run.hear({record.frame_id: record for record in output.records if record.frame_id not in run.handed})

    def cut(self, uid: str) -> None:
        """A run does not go on here: its job gets no frames after those that came."""
        if uid in self._runs:
            self._runs[uid].is_cut, self._runs[uid].due_s = True, 0.0

    def hurry(self) -> None:
        """Do what there is to do at once."""
        for run in self._runs.values():
            run.due_s = 0.0

    def are_open(self) -> bool:
        """Whether any run goes on, or has something left to be handed over."""
        return bool(self._runs)

    def unfinished(self) -> bool:
        """Whether something of a run that has ended waits to be handed over."""
        return any(run.is_cut for run in self._runs.values())

    def wait_s(self) -> float | None:
        """Seconds until there may be something to do; None if there is nothing."""
        waiting = [run.due_s for run in self._runs.values() if run.has_work]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def work(self, so_far: SoFar) -> None:
        """Hand over what is due. ``so_far`` tells of a run that is open, as ``Collector.so_far``."""
        now_s = time.monotonic()
        for uid in [run.uid for run in self._runs.values() if now_s - run.heard_s > _SILENT_S]:
            self.cut(uid)
        for run in [run for run in self._runs.values() if run.has_work and run.due_s <= now_s]:
            # What goes wrong here costs this run's live image and nothing else.
            try:
                done = self._advance(run, so_far)
            except PtypluginError as error:
                _log.warning("run %s: no image while it goes on: %s", run.uid, error)
                done = True
            except Exception:
                _log.exception("run %s: no image while it goes on, by a mistake of ptyplugin", run.uid)
                done = True
            if done:
                self._runs.pop(run.uid, None)

    def _begin(self, output: RunStarted, table: LiveTable) -> None:
        share = math.inf if output.announced is None else math.ceil(table.first_share * output.announced)
        needed = max(FEWEST_FRAMES, min(share, table.first_frames))
        self._runs[output.run_uid] = _LiveRun(output.run_uid, needed, time.monotonic())
        if len(self._runs) > MOST_OPEN_RUNS:
            first = next(iter(self._runs.values()))
            if first.is_cut:
                _log.warning("run %s: the rest of its live job is given up: too many wait to be handed over.", first.uid)
                del self._runs[first.uid]
            self.cut(first.uid)

    def _advance(self, run: _LiveRun, so_far: SoFar) -> bool:
        """Whether nothing is left to be done for this run.

        Raises:
            PtypluginError: its frames cannot be a live job.
        """
        begun_s = time.monotonic()
        if run.parts is None:
            if run.is_cut and run.key is None:
                return True
            about = run.ended or so_far(run.uid)
            if about is not None:
                self._next(run, about)
            elif run.is_cut and run.key is not None:
                run.give(growth_of(run.key, len(run.handed), [], self._profile, True), [])
        now_s = time.monotonic()
        pause_s = EVERY_S if run.parts is not None else min(run.again_s, EVERY_S)
        run.again_s = 2 * pause_s
        run.due_s = now_s + max(pause_s, _LARGEST_SHARE * (now_s - begun_s))
        return run.parts is not None and self._handed_over(run)

    def _next(self, run: _LiveRun, about: CollectedRun) -> None:
        """Make what is to be handed over next."""
        found = self._found(run, about)
        if run.key is None:
            self._make_job(run, found, about)
            return
        if len(found) > 1 and not np.ptp(_means(found), axis=0).any():
            # Frames of one place are no scan: they wait for others.
            run.keep(found)
            found = []
        if found or run.is_cut:
            run.give(growth_of(run.key, len(run.handed), found, self._profile, run.is_cut), found)

    def _found(self, run: _LiveRun, about: CollectedRun) -> list[Record]:
        """The new frames that have a position within the scan, in their order."""
        try:
            if run.locator is None:
                run.locator = Locator(about, self._profile, self._reader, with_monitor=False)
            located = run.locator.locate(list(run.pending.values()), about.track, ended=run.is_cut)
        except OutsideDataRoots:
            raise
        except (FramesError, CatalogAway) as error:
            _log.debug("run %s: its positions are waited for: %s", run.uid, error)
            return []
        run.pending = {record.frame_id: record for record in located.waiting}
        # A readback that is no number may be taken again; if not, the final job says so.
        found = [record for record in located.found if np.isfinite(record.positions_m).all()]
        if not found:
            return []
        new = sorted(found, key=lambda record: record.frame_id)
        far = far_outside(np.concatenate([*run.at, _means(new)]), announced_extent(about, self._profile))[-len(new) :]
        run.keep(record for record, is_far in zip(new, far, strict=True) if is_far)
        return [record for record, is_far in zip(new, far, strict=True) if not is_far]

    def _make_job(self, run: _LiveRun, found: list[Record], about: CollectedRun) -> None:
        table = self._profile.live
        if table is None or len(found) < run.needed:
            run.keep(found)
            return
        try:
            parts = assemble_live(about, found, self._profile, table)
        except PtypluginError as error:
            # More frames may make a scan of it.
            run.keep(found)
            run.needed = 2 * len(found)
            if not run.said:
                run.said = str(error)
                _log.warning("run %s: no image of its first %d frames: %s", run.uid, len(found), error)
            return
        run.key = parts.job.key
        run.give(parts, found)

    def _handed_over(self, run: _LiveRun) -> bool:
        """Whether what was handed over is the last of this run.

        Raises:
            JobError: it is not taken, now or ever.
        """
        parts = run.parts
        try:
            if isinstance(parts, JobParts):
                self._submit(self._site, parts.job, parts.arrays)
                _log.info("run %s: live job %s begun with %d frames", run.uid, run.key, parts.job.frame_count)
            elif parts is not None:
                self._grow(self._site, *parts)
        except JobError:
            raise
        except Exception as error:
            run.pause_s = min(max(_FIRST_PAUSE_S, 2 * run.pause_s), _LONGEST_PAUSE_S)
            run.due_s = time.monotonic() + run.pause_s
            if str(error) != run.said:
                run.said = str(error)
                _log.warning("run %s: what its live job should get is kept: %s", run.uid, error)
            return False
        run.parts, run.pause_s, run.said = None, 0.0, ""
        return isinstance(parts, tuple) and parts[0].ended


def _means(records: Sequence[Record]) -> NDArray[np.float64]:
    """Mean positions (frame, yx) m."""
    return np.array([np.mean(record.positions_m, axis=0) for record in records], dtype=np.float64).reshape(-1, 2)
