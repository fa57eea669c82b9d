"""The collector: documents in, what they make known out. A pure state machine: no input or output, no clock.

Any order that keeps start first, each descriptor before its events and stop last gives the same ``RunEnded``. In any other
order, documents wait for the one that says whose they are.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from ptyplugin.callbacks.documents import Datum, Descriptor, Document, Event, OfRun, Resource, Start, Stop, StreamDatum, Wanted
from ptyplugin.callbacks.fields import MalformedDocument
from ptyplugin.callbacks.pairing import Record
from ptyplugin.callbacks.reading import read_documents
from ptyplugin.callbacks.run import CollectedRun, Run
from ptyplugin.callbacks.waiting import Owner, WaitingRoom
from ptyplugin.model import Profile

#: Runs that may be open together; of more the one that began first is forgotten (its stop was lost).
MOST_OPEN_RUNS = 100
#: Runs whose end is remembered, so that documents that come after it are known to be late.
_MOST_ENDED_RUNS = 1000
_MOST_REASONS = 100


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run has begun. ``announced``: how many points it says that it will take, if it does."""

    run_uid: str
    scan_id: int | None
    announced: int | None = None


@dataclass(frozen=True, slots=True)
class Growth:
    """Frames of an open run have found their positions. ``RunEnded`` repeats all that count in the end."""

    run_uid: str
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run has ended, with all that was collected of it."""

    run: CollectedRun


Output = RunStarted | Growth | RunEnded


class Collector:
    """One growing picture of each open run, for one profile.

    ``collector(name, document)`` never raises, whatever the document is: what cannot be used is counted in ``ignored`` by
    its reason. Several runs may be open at once. A run is forgotten when it ends.
    """

    def __init__(self, profile: Profile) -> None:
        self.ignored: Counter[str] = Counter()
        self._profile = profile
        self._wanted = Wanted.by(profile)
        self._runs: dict[str, Run] = {}
        self._ended: dict[str, None] = {}
        self._owners: dict[Owner, str] = {}
        self._owned: dict[str, list[Owner]] = {}
        self._waiting = WaitingRoom()

    def __call__(self, name: Any, document: Any) -> list[Output]:
        """Take one document; gives what it made known, in order."""
        try:
            documents = read_documents(name, document, self._wanted)
        except MalformedDocument as error:
            self._ignore(str(error))
            return []
        outputs: list[Output] = []
        ready = deque(documents)
        while ready:
            ready.extendleft(reversed(self._take(ready.popleft(), outputs)))
        return outputs

    def so_far(self, run_uid: str) -> CollectedRun | None:
        """An open run as its documents tell it so far, without its records; None if it is not open.

        Raises:
            FramesError: its positions lie in files of a kind that is not read.
        """
        run = self._runs.get(run_uid)
        return None if run is None else run.so_far()

    def _take(self, document: Document, outputs: list[Output]) -> list[Document]:
        """Use one document; gives the documents that waited for it."""
        if isinstance(document, Start):
            return self._open(document, outputs)
        owner = self._owner_of(document)
        uid = self._owners.get(owner)
        if uid is None:
            self._hold(owner, document)
            return []
        run = self._runs[uid]
        if isinstance(document, Stop):
            self._forget(uid)
            outputs.append(RunEnded(run.ended(document)))
            return []
        records = run.add(document)
        if records:
            outputs.append(Growth(uid, tuple(records)))
        return self._own(uid, _names_of(document, run))

    def _open(self, start: Start, outputs: list[Output]) -> list[Document]:
        if start.uid in self._runs:
            return []
        self._ended.pop(start.uid, None)
        self._runs[start.uid] = Run(start, self._wanted, self._profile)
        outputs.append(RunStarted(start.uid, start.scan_id, start.points))
        if len(self._runs) > MOST_OPEN_RUNS:
            self._forget(next(iter(self._runs)))
            self._ignore("a run that never stopped")
        return self._own(start.uid, [Owner("run", start.uid)])

    def _owner_of(self, document: OfRun | Stop) -> Owner:
        """Through which name the run of a document is found."""
        if isinstance(document, Event | StreamDatum):
            return Owner("descriptor", document.descriptor)
        if isinstance(document, Datum):
            through = Owner("resource", document.resource)
            return through if through in self._owners else Owner("datum", document.datum_id)
        if document.run is None:
            return Owner("resource", document.uid)
        return Owner("run", document.run)

    def _own(self, uid: str, names: list[Owner]) -> list[Document]:
        released: list[Document] = []
        for name in names:
            if name not in self._owners:
                self._owners[name] = uid
                self._owned.setdefault(uid, []).append(name)
                released += self._waiting.release(name)
        return released

    def _hold(self, owner: Owner, document: OfRun | Stop) -> None:
        if owner.kind == "run" and owner.uid in self._ended:
            self._ignore("a document of a run that has ended")
            return
        for _ in range(self._waiting.hold(owner, document)):
            self._ignore("a document of an unknown run")

    def _ignore(self, reason: str) -> None:
        known = reason in self.ignored or len(self.ignored) < _MOST_REASONS
        self.ignored[reason if known else "other reasons"] += 1

    def _forget(self, uid: str) -> None:
        del self._runs[uid]
        for name in self._owned.pop(uid, []):
            del self._owners[name]
        self._ended[uid] = None
        if len(self._ended) > _MOST_ENDED_RUNS:
            del self._ended[next(iter(self._ended))]


def _names_of(document: OfRun, run: Run) -> list[Owner]:
    """The names by which later documents will refer to a run through this one."""
    match document:
        case Descriptor() | Resource():
            return [Owner("descriptor" if isinstance(document, Descriptor) else "resource", document.uid)]
        case StreamDatum() | Datum():
            return [Owner("resource", document.resource)]
        case Event():
            missing = run.missing_datum(document)
            return [] if missing is None else [Owner("datum", missing)]
