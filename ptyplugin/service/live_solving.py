"""A live job: solved while its scan goes on. All ranks admit the same frames at the same time; rank 0 says which.

Iterations go on while frames come. After as many as the recipe says without new frames the ranks wait for more, at no cost, and step aside
when others wait for the slot. What there is lies in the job's snapshot: from there it goes on, whoever was killed or stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptyplugin.api import JobSolver
from ptyplugin.io import JobFrames
from ptyplugin.jobs import JOB_FILE, read_snapshot
from ptyplugin.model import Cancelled, FramesError, Job, Progress, Reconstruction, ScanError, Site, Snapshot, SolverError
from ptyplugin.service.arriving import Arrivals
from ptyplugin.service.picturing import LIVE_S, Pictures
from ptyplugin.service.solving import Wish
from ptyplugin.solvers import Ranks
from ptyplugin.solvers.believing import where
from ptyplugin.solvers.ranks import RankFailed, failing_together
from ptyplugin.solvers.verbs.cuda.device import DeviceMemoryError

_log = logging.getLogger(__name__)

#: Fewer frames than these are not begun with as long as others may come; and the share of those handed over that is begun with at once.
_FEWEST, _MOST = 9, 0.75
#: How often ranks that wait look for frames, at first and after some seconds of that, seconds; and how much seldomer with each second.
_PAUSE_S, _LONG_PAUSE_S, _SELDOMER = 0.02, 0.1, 0.01
#: How often they say that they are still there, seconds.
_BEAT_S = 10.0


@dataclass(frozen=True, slots=True)
class Waits:
    """How long is waited for frames, in seconds.

    aside: before the job makes way for others; late: for frames that were announced, after the end of the run, if no final job waits, and
    at the beginning if there are hardly any; begin: before the job begins without many; again: before frames that could not be read are
    tried again; lost: without growth, before whoever hands it over counts as dead
    """

    aside_s: float = 3.0
    late_s: float = 10.0
    begin_s: float = 0.5
    again_s: float = 2.0
    lost_s: float = 900.0


@dataclass(frozen=True, slots=True)
class _Vote:
    """What all ranks agree on. frames: to be admitted now; is_over: no more will come; is_enough: the final job takes it from here"""

    frames: NDArray[np.int64]
    is_over: bool
    is_enough: bool
    steps_aside: bool
    stops: bool
    is_cancelled: bool


def solve_live(
    job: Job,
    folder: Path,
    site: Site,
    ranks: Ranks,
    on_progress: Callable[[Progress], None],
    wish: Callable[[], Wish],
    waits: Waits | None = None,
) -> Reconstruction | None:
    """Solve a live job, from its last snapshot if there is one, until its run has ended or nobody hands frames over any more.

    Raises:
        Cancelled: ``wish`` said so; its snapshot is there, if it was not for good.
        PtypluginError: why it cannot be solved; on every rank, if it happened on one.
    """
    waits, tell = waits or Waits(), _Tell(on_progress)
    beginning, start = _Beginning(ranks, waits), _start(folder, ranks)
    with JobSolver(job, folder, site, ranks, tell, lambda: wish() == Wish.CANCEL, start, beginning) as going:
        with failing_together(ranks):
            tell.arrivals = arrivals = Arrivals(job, folder, going.frames, beginning.numbers)
            pictures = Pictures(folder, ranks, tell, LIVE_S)
        return _Live(going, arrivals, pictures, ranks, folder, wish, waits).result(tell)


def _start(folder: Path, ranks: Ranks) -> Snapshot | None:
    there = read_snapshot(folder)
    taken_us = int(there.taken_s * 1e6) if there else 0
    # On another node, the one before it may still be seen.
    if ranks.largest(taken_us) != -ranks.largest(-taken_us):
        _log.warning("the snapshot in %s is not the same for all ranks: the job begins without it", folder)
        return None
    if there is None:
        return None
    _log.info("job %s goes on from its snapshot of %d frames", there.job, there.frames)
    return there


class _Beginning:
    """Decides which frames of the job to begin with: all, but for those that do not come for a while, or cannot be read.

    numbers: (frame,) theirs
    """

    def __init__(self, ranks: Ranks, waits: Waits) -> None:
        self._ranks, self._waits = ranks, waits
        self.numbers = np.empty(0, np.int64)

    def __call__(self, frames: JobFrames) -> NDArray[np.int64]:
        there = self._there(frames) if self._ranks.rank == 0 else np.zeros(len(frames), dtype=bool)
        came = np.flatnonzero(self._ranks.sum(there.astype(np.int64))).astype(np.int64)
        sound = _readable(came, frames.readable, self._ranks)
        # Of too few, whoever reads them says what is wrong.
        self.numbers = sound if len(sound) >= _FEWEST else came
        if len(self.numbers) < len(frames):
            missing = np.setdiff1d(np.arange(len(frames)), self.numbers)
            _log.warning("it begins without %d frames, which have not come or cannot be read (frame %s)", len(missing), where(missing))
        return self.numbers

    def _there(self, frames: JobFrames) -> NDArray[np.bool_]:
        every, begun_s = np.arange(len(frames)), time.monotonic()
        while not (there := frames.has(every)).all():
            waited_s, count = time.monotonic() - begun_s, np.count_nonzero(there)
            # Those that are missing may be lost: the others do not wait for them.
            if count >= _FEWEST and (count >= _MOST * len(frames) or waited_s > self._waits.begin_s):
                break
            if waited_s > self._waits.late_s:
                return np.ones(len(frames), dtype=bool)
            time.sleep(_PAUSE_S)
        return there


def _readable(numbers: NDArray[np.int64], readable: Callable[[NDArray[np.int64]], NDArray[np.bool_]], ranks: Ranks) -> NDArray[np.int64]:
    """Those of these frames that can be read: each rank tries some of them. All ranks call it together."""
    can, mine = np.zeros(len(numbers), np.int64), slice(ranks.rank, None, ranks.size)
    can[mine] = readable(numbers[mine])
    return numbers[ranks.sum(can) > 0]


class _Tell:
    """Tells of iterations, with the number of frames."""

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self._on_progress = on_progress
        self.arrivals: Arrivals | None = None

    def __call__(self, progress: Progress) -> None:
        self._on_progress(replace(progress, frames=self.arrivals.admitted if self.arrivals else 0))


class _Live:
    def __init__(
        self, going: JobSolver, arrivals: Arrivals, pictures: Pictures, ranks: Ranks, folder: Path, wish: Callable[[], Wish], waits: Waits
    ) -> None:
        self._going, self._arrivals, self._pictures, self._ranks = going, arrivals, pictures, ranks
        self._folder, self._wish, self._waits = folder, wish, waits
        self._last: Progress | None = None
        self._ended_s, self._admitted_s, self._waiting_s = 0.0, 0.0, 0.0
        self._quiet_s, self._leaves = 0.0, False

    def result(self, tell: Callable[[Progress], None]) -> Reconstruction | None:
        """Go on until no frames will come."""
        self._follow(self._vote())
        while not self._iterated() and self._frames_come(tell):
            pass
        made = self._going.result()
        if made is None:
            return None
        self._note_end()
        notes = [*made.provenance["notes"], *self._arrivals.notes]
        return replace(made, provenance={**made.provenance, "notes": notes})

    def _iterated(self) -> bool:
        """Do the recipe with the frames that there are, and those that come; whether the final job takes it from here."""
        is_enough = False
        for event in self._going:
            self._last = event
            self._pictures.offer(self._going, event)
            vote = self._vote()
            self._follow(vote)
            if is_enough := vote.is_enough:
                break
        if self._last is not None:
            self._pictures.take(self._going, self._last)
        return is_enough

    def _frames_come(self, tell: Callable[[Progress], None]) -> bool:
        """Wait; whether there is more to work on."""
        begun = told = time.monotonic()
        try:
            while True:
                self._waiting_s = time.monotonic() - begun
                vote = self._vote()
                if self._follow(vote):
                    return True
                if vote.is_over:
                    return False
                if time.monotonic() - told > _BEAT_S and self._last is not None and self._ranks.rank == 0:
                    told = time.monotonic()
                    tell(self._last)
                time.sleep(min(_PAUSE_S + _SELDOMER * self._waiting_s, _LONG_PAUSE_S))
        finally:
            self._waiting_s = 0.0

    def _follow(self, vote: _Vote) -> bool:
        """Do what was agreed on; whether frames were admitted.

        Raises:
            Cancelled: the job is to end, or to make way.
        """
        if vote.is_cancelled:
            raise Cancelled("the reconstruction was stopped.")
        if vote.stops or vote.steps_aside:
            if self._last is not None:
                self._pictures.take(self._going, self._last)
            raise Cancelled("the job goes on from its snapshot." if vote.stops else "the job waits for frames, and makes way for others.")
        return len(vote.frames) > 0 and self._admit(vote.frames)

    def _admit(self, numbers: NDArray[np.int64]) -> bool:
        if self._last is None:
            # What comes before the first iteration is read by that, which would end with an error.
            with failing_together(self._ranks):
                sound = _readable(numbers, self._arrivals.readable, self._ranks)
            if len(sound) < len(numbers):
                self._arrivals.pass_over(np.setdiff1d(numbers, sound), "they were there before the first iteration, and cannot be read.")
            numbers = sound
        try:
            self._going.admit(*self._arrivals.with_(numbers))
        except (RankFailed, DeviceMemoryError):
            raise
        except FramesError as error:
            self._leave_unreadable(numbers, str(error))
            return False
        except (ScanError, SolverError) as error:
            self._arrivals.refuse(str(error))
            return False
        self._arrivals.admit(numbers)
        self._admitted_s = time.monotonic()
        self._pictures.hurry()
        return True

    def _leave_unreadable(self, numbers: NDArray[np.int64], sentence: str) -> None:
        """Have no frame wait for others that cannot be read on some rank. All ranks call it together."""
        with failing_together(self._ranks):
            cannot = numbers[self._ranks.sum((~self._arrivals.readable(numbers)).astype(np.int64)) > 0]
        if len(cannot):
            self._arrivals.pass_over(cannot, sentence)
        else:
            _log.warning("%d frames cannot be read now: %s", len(numbers), sentence)
            self._arrivals.rest(numbers, self._waits.again_s)

    def _vote(self) -> _Vote:
        """What rank 0 has seen, and what any rank has been told. All ranks call it together."""
        with failing_together(self._ranks):
            wish, is_first = self._wish(), self._ranks.rank == 0
            frames, is_over = self._look(wish) if is_first else (np.empty(0, np.int64), False)
            aside = is_first and not is_over and wish in (Wish.GIVE_WAY, Wish.FINISH) and self._waits_for_growth()
            is_enough = is_over and wish == Wish.FINISH
            known = self._arrivals.known if is_first else 0
            said = np.array([known, len(frames), is_over, is_enough, aside, wish == Wish.STOP, wish == Wish.CANCEL], dtype=np.int64)
            known, count, *rest = self._ranks.sum(said).tolist()
            if not is_first:
                self._arrivals.hear(known)
                frames = np.zeros(count, np.int64)
            frames = self._at_hand(self._ranks.sum(frames)) if count else np.empty(0, np.int64)
        return _Vote(frames, *(bool(value) for value in rest))

    def _at_hand(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those that no rank has to wait for: one may see a file later than another, or has to open the catalog first."""
        here = np.ones(len(frames), dtype=bool) if self._ranks.rank == 0 else self._arrivals.at_hand(frames)
        return frames[self._ranks.sum(here.astype(np.int64)) >= self._ranks.size]

    def _look(self, wish: Wish) -> tuple[NDArray[np.int64], bool]:
        """On rank 0: which frames are to be admitted now, and whether no more will come."""
        has_ended = self._arrivals.has_ended  # before what may have come just before the end is looked for
        self._arrivals.hear()
        ready, now = self._arrivals.ready(), time.monotonic()
        if not has_ended:
            return ready, self._is_lost()
        missing = self._arrivals.known - self._arrivals.admitted - len(ready)
        if missing and not self._ended_s:
            _log.warning("the run has ended, and %d frames have not come: %g s more, if no final job waits", missing, self._waits.late_s)
        self._ended_s = self._ended_s or now
        # What is ready here may never be so on another rank.
        is_late = now - max(self._ended_s, self._admitted_s) > self._waits.late_s
        if len(ready) and not is_late:
            return ready, False
        self._leaves = wish == Wish.FINISH
        return ready, self._arrivals.known == self._arrivals.admitted or self._arrivals.is_refused or is_late or self._leaves

    def _waits_for_growth(self) -> bool:
        """Whether it does for so long that it makes way; what is late after the end of the run comes soon or never."""
        return self._waiting_s > self._waits.aside_s and self._ended_s == 0.0

    def _is_lost(self) -> bool:
        """Whether whoever hands frames over is gone."""
        if self._waiting_s == 0.0:
            return False
        self._quiet_s = time.time() - max(self._arrivals.newest_s, (self._folder / JOB_FILE).stat().st_mtime)
        return self._quiet_s > self._waits.lost_s

    def _note_end(self) -> None:
        """Say without which frames it ended, and why: what was missing a moment before may have come after all."""
        missing = self._arrivals.known - self._arrivals.admitted
        if not self._ended_s:
            self._arrivals.note(f"No frames came for {self._quiet_s:.0f} s, nor the end of the run: it ended with what it had.")
        elif missing and not self._arrivals.is_refused:
            leaves = f"{missing} frames had not come when the run ended: they are left to the final job, which waits."
            lacks = f"{missing} frames did not come in time, or cannot be read, and were left out."
            self._arrivals.note(leaves if self._leaves else lacks)
