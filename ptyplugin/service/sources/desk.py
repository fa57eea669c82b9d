"""The desk: runs that have ended become jobs in the inbox. What is missing of them is asked from the catalog, for as long as it takes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ptyplugin.callbacks import PAUSE_S, Assembling, CollectedRun, FileReader, FilesOfRuns, refusal
from ptyplugin.jobs import submit
from ptyplugin.model import CatalogAway, CatalogError, JobParts, LedgerError, Profile, Refusal, Site, SiteError
from ptyplugin.service.complaints import Complaints
from ptyplugin.service.sources.catalog import Catalog
from ptyplugin.service.sources.collecting import EndedRun, collect
from ptyplugin.service.sources.finished import Finished
from ptyplugin.service.sources.live import LiveDesk
from ptyplugin.service.sources.state import SourceState

_log = logging.getLogger(__name__)

#: Pauses between two tries for one run, seconds: from the first to the longest, doubled each time.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
#: How long a catalog that answers may not have a run whose documents were lost, before what came of it is used.
PATIENCE_S = 600.0
#: How long a run that has its end in the catalog may seem incomplete there (it may still be written), before that is what it is.
SETTLING_S = 30.0
#: A run that began longer ago is a replay: the catalog is asked whether it has a result.
_OLD_S = 3600.0
#: How long a live job that is just being handed over may take at the end, seconds.
_END_S = 2.0
#: Attempt number of a job that is made of a run without an end; people count theirs from 1.
UNENDED_ATTEMPT = 1000
#: Runs that wait, and those of them whose documents stay in memory where the catalog has them too.
MOST_WAITING, MOST_KEPT = 10_000, 200


class _Assembly:
    """The jobs of what was found of one run, as soon as the files show its positions. No other run waits for that."""

    def __init__(self, found: Sequence[tuple[Profile, CollectedRun]], reader: Callable[[Profile], FileReader]) -> None:
        self._left = [Assembling(run, profile, reader(profile)) for profile, run in found if run.is_ptychography]
        self._made: list[JobParts | Refusal] = []

    def look(self) -> list[JobParts | Refusal] | None:
        """The jobs; None as long as positions may still come."""
        while self._left:
            parts = _look_at(self._left[0])
            if parts is None:
                return None
            self._made.append(parts)
            del self._left[0]
        return self._made


@dataclass(slots=True)
class _Case:
    """A run that waits for its jobs.

    found: what came of it; missing: why that is not enough, or nothing; unended: its end will not come any more
    asked: whether the catalog has no result of it
    assembly: its jobs as they are made, of what came or of what the catalog has (healed)
    parts: its jobs that are not handed over yet, once they are made
    """

    uid: str
    profiles: Sequence[Profile]
    state: SourceState
    found: list[tuple[Profile, CollectedRun]]
    missing: str
    begun_s: float | None
    unended: bool = False
    asked: bool = False
    assembly: _Assembly | None = None
    healed: _Assembly | None = None
    parts: list[JobParts | Refusal] | None = None
    since_s: float = field(default_factory=time.monotonic)
    due_s: float = 0.0
    pause_s: float = 0.0


class Desk:
    """Hands runs over as jobs, in a thread of its own."""

    def __init__(self, site: Site, finished: Finished) -> None:
        self._site, self._finished = site, finished
        self._catalog, self._live = Catalog(site), LiveDesk(site)
        self._complaints, self._files = Complaints(_log), FilesOfRuns()
        self._cases: dict[str, _Case] = {}
        self._changed = threading.Condition()

    def see(self, name: str, document: Any, profiles: Sequence[Profile]) -> None:
        """A document of a run has come: it may go into a live job. Everything else waits for the end of the run."""
        self._live.bring(name, document, profiles)

    def bring(self, run: EndedRun, profiles: Sequence[Profile], state: SourceState) -> None:
        """A run has ended: make jobs of it."""
        missing = run.missing if run.is_whole() else run.missing or "frames and positions do not match"
        self._put(_Case(run.uid, profiles, state, run.found, missing, run.begun_s))

    def ring(self, run_uid: str, profiles: Sequence[Profile], state: SourceState, unended: bool = False) -> None:
        """A run has ended, and the catalog has its documents; or, ``unended``, it has all but its end."""
        # Whoever rings may have looked a moment before its job was handed over.
        if self._finished.is_settled(run_uid, unended):
            return
        self._put(_Case(run_uid, profiles, state, [], "only its end was announced", None, unended))

    def waiting(self, state: SourceState | None = None) -> int:
        """How many runs (of this source) have no job yet."""
        with self._changed:
            return sum(state is None or case.state is state for case in self._cases.values())

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``; runs that wait then are found again by the next sweep of the catalog."""
        live = threading.Thread(target=self._live.run, args=(stop,), name="ptyplugin-live", daemon=True)
        live.start()
        try:
            while not stop.is_set():
                case = self._next()
                if case is not None:
                    self._try(case)
        finally:
            self._catalog.close()
            live.join(_END_S)

    def wake(self) -> None:
        """Have ``run`` look at its ``stop``."""
        with self._changed:
            self._changed.notify_all()

    def _reader(self, profile: Profile) -> FileReader:
        return FileReader(self._site, partial(self._catalog.samples, profile.beamline) if self._catalog.is_named else None)

    def _put(self, case: _Case) -> None:
        with self._changed:
            known = self._cases.get(case.uid)
            if known is None:
                case.state.count("runs")
            if known is None or (known.missing and not case.missing):
                self._cases[case.uid] = case
            if len(self._cases) > MOST_WAITING:
                first = next(iter(self._cases))
                del self._cases[first]
                self._say(
                    case.state, f"more than {MOST_WAITING} runs wait for their jobs: run {first} is left to the next sweep of the catalog."
                )
            if self._catalog.is_named:
                self._spare_memory()
            self._changed.notify_all()

    def _spare_memory(self) -> None:
        kept = [case for case in self._cases.values() if case.found]
        for case in kept[: max(0, len(kept) - MOST_KEPT)]:
            case.found, case.missing = [], case.missing or "too many runs wait to keep its documents"

    def _next(self) -> _Case | None:
        with self._changed:
            case = min(self._cases.values(), key=lambda each: each.due_s, default=None)
            left_s = 1.0 if case is None else case.due_s - time.monotonic()
            if left_s > 0:
                self._changed.wait(min(left_s, 1.0))
                return None
            return case

    def _try(self, case: _Case) -> None:
        # A mistake of ours in one run must not keep the others waiting.
        try:
            done = self._settle(case)
        except (SiteError, LedgerError, CatalogAway) as error:
            self._say(case.state, str(error))
            done = False
        except Exception as error:
            _log.exception("run %s cannot be made a job", case.uid)
            self._say(case.state, f"run {case.uid} cannot be made a job ({type(error).__name__}): report it with the service's log.")
            self._finished.settle(case.uid, case.unended)
            done = True
        with self._changed:
            if done and self._cases.get(case.uid) is case:
                del self._cases[case.uid]
            if case.assembly is None:
                case.pause_s = min(max(FIRST_PAUSE_S, 2 * case.pause_s), LONGEST_PAUSE_S)
            case.due_s = time.monotonic() + (case.pause_s if case.assembly is None else PAUSE_S)

    def _settle(self, case: _Case) -> bool:
        """Whether nothing is left to be done for this run now."""
        if case.parts is None:
            if self._finished.has(case.uid, case.unended) or self._has_result(case):
                case.state.count("known")
                self._finished.settle(case.uid, case.unended)
                return True
            made = self._made(case)
            case.parts = made and [self._files.noted(parts) if isinstance(parts, JobParts) else parts for parts in made]
        if case.assembly is not None:
            return False
        if case.parts is None:
            return self._is_out_of_patience(case) or not self._catalog.is_named
        while case.parts:
            self._hand_over(case, case.parts[0])
            del case.parts[0]
        self._finished.settle(case.uid, case.unended)
        return True

    def _made(self, case: _Case) -> list[JobParts | Refusal] | None:
        """The jobs of a run; none if it is no ptychography, None if too little of it is known, now or (without an assembly) at all."""
        is_healed = case.healed is not None
        case.assembly = case.healed or case.assembly or _Assembly(case.found, self._reader)
        made = case.assembly.look()
        if made is None:
            return None
        case.assembly = case.healed = None
        if is_healed:
            case.state.count("healed")
            return [_as_unended(parts) if case.unended else parts for parts in made]
        needs_more = bool(case.missing) or any(isinstance(parts, Refusal) for parts in made)
        if needs_more and self._catalog.is_named:
            healed = self._healed(case)
            if healed is not None:
                case.healed = _Assembly(healed.found, self._reader)
                return self._made(case)
            if not self._is_out_of_patience(case):
                return None
        if needs_more and not made:
            self._say(case.state, f"run {case.uid}: {case.missing}, and no catalog has more of it: it is passed over.")
            return None
        if needs_more:
            self._say(case.state, f"run {case.uid}: {case.missing or 'something is missing'}, and no catalog has more: what came is used.")
        return made

    def _healed(self, case: _Case) -> EndedRun | None:
        """The run as the catalog has it; None if it does not have all of it yet."""
        try:
            ended = collect(self._catalog.documents(case.uid, case.profiles, case.unended), case.profiles, case.state)
        except CatalogAway:
            # A refusal would be for ever: without the catalog nobody knows better.
            if case.found and self._is_out_of_patience(case):
                return None
            raise
        except CatalogError as error:
            _log.debug("run %s: %s", case.uid, error)
            return None
        run = next((each for each in ended if each.uid == case.uid), None)
        if run is None or (run.missing and time.monotonic() - case.since_s < SETTLING_S):
            return None
        return run

    def _is_out_of_patience(self, case: _Case) -> bool:
        return time.monotonic() - case.since_s > PATIENCE_S

    def _has_result(self, case: _Case) -> bool:
        fresh = case.begun_s is not None and time.time() - case.begun_s < _OLD_S
        if fresh or case.asked or not self._catalog.is_named or self._finished.was_given_up(case.uid):
            return False
        try:
            has = case.uid in self._catalog.with_results(case.profiles, [case.uid])
        except CatalogError as error:
            # A result that is made once more is the same result under the same key.
            _log.debug("%s", error)
            return False
        case.asked = True
        return has

    def _hand_over(self, case: _Case, parts: JobParts | Refusal) -> None:
        if isinstance(parts, Refusal):
            key = submit(self._site, parts)
            case.state.count("refusals")
            _log.warning(
                "%s: run %s (scan %s), job %s, not reconstructed: %s", case.state.name, case.uid, parts.source.scan_id, key, parts.reason
            )
            return
        key = submit(self._site, parts.job, parts.arrays)
        case.state.count("jobs")
        _log.info("%s: run %s, job %s handed over, %d frames", case.state.name, case.uid, key, parts.job.frame_count)

    def _say(self, state: SourceState, sentence: str) -> None:
        state.trouble(sentence)
        self._complaints.say(f"{state.name}: {sentence}")


def _as_unended(parts: JobParts | Refusal) -> JobParts | Refusal:
    """A job with a key of its own: should the run go on after all, the job of the whole is another one."""
    if isinstance(parts, Refusal):
        return parts
    return replace(parts, job=parts.job.model_copy(update={"attempt": UNENDED_ATTEMPT}))


def _look_at(assembling: Assembling) -> JobParts | Refusal | None:
    run = assembling.run
    try:
        return assembling.look()
    except CatalogAway:
        raise
    except Exception as error:
        _log.exception("run %s: no job could be made of it", run.uid)
        reason = f"a mistake of ptyplugin: no job could be made of this run ({type(error).__name__}). Report it with the service's log."
        return refusal(run, assembling.profile, reason)
