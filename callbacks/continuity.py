"""Whether all documents of a run came: by the numbers of its events, and by how many the stop document counts.

A transport such as 0MQ loses documents without a word; whoever takes documents from it asks here, and asks the catalog for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ptyplugin.callbacks.fields import MalformedDocument, moment, span, text, whole, whole_or_none
from ptyplugin.callbacks.reading import MOST_FRAMES

#: Runs that are watched at the same time; of more the one that began first is forgotten.
_MOST_RUNS = 200
_MOST_STREAMS = 1000


@dataclass(slots=True)
class _Seen:
    """Numbers that came: all up to ``top``, and some above."""

    top: int = 0
    above: set[int] = field(default_factory=set)

    def add(self, numbers: range) -> None:
        if numbers.start <= self.top + 1:
            self.top = max(self.top, numbers.stop - 1)
        elif len(self.above) + len(numbers) <= MOST_FRAMES:
            self.above.update(numbers)
        while self.top + 1 in self.above:
            self.top += 1
            self.above.discard(self.top)

    def has_gap(self) -> bool:
        return any(number > self.top for number in self.above)


@dataclass(slots=True)
class _Watched:
    """begun_s: Unix seconds in the start document; documents: how many came; streams: by descriptor; events, frames: numbers by stream"""

    begun_s: float
    documents: int = 0
    streams: dict[str, str] = field(default_factory=dict)
    events: dict[str, _Seen] = field(default_factory=dict)
    frames: dict[str, _Seen] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended. ``missing``: what did not come, in words, or nothing; ``begun_s``: Unix seconds, None if the start is missing."""

    run_uid: str
    missing: str
    begun_s: float | None


class Continuity:
    """Watches the documents of several runs. ``continuity(name, document)`` gives the Ending of a run at its stop document."""

    def __init__(self) -> None:
        self._runs: dict[str, _Watched] = {}
        self._run_of: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def open(self) -> dict[str, int]:
        """Runs that are open, and how many documents of each came."""
        return {uid: run.documents for uid, run in self._runs.items()}

    def __call__(self, name: Any, document: Any) -> Ending | None:
        """Take a document; whatever is wrong with it, the run that it belongs to will miss it."""
        # The document is foreign: whatever goes wrong while it is read is wrong with it.
        try:
            match name:
                case "start":
                    self._begin(text(document["uid"]), moment(document.get("time")))
                case "descriptor":
                    self._describe(text(document["uid"]), text(document["run_start"]), text(document.get("name") or "primary"))
                case "event":
                    self._note(document, "events", range(whole(document["seq_num"], 1), whole(document["seq_num"], 1) + 1))
                case "event_page":
                    for number in document["seq_num"]:
                        self._note(document, "events", range(whole(number, 1), whole(number, 1) + 1))
                case "stream_datum":
                    self._note(document, "frames", span(document["seq_nums"], MOST_FRAMES))
                case "stop":
                    return self._end(text(document["run_start"]), document.get("num_events"))
        except Exception as error:
            if not isinstance(error, MalformedDocument | KeyError | TypeError | ValueError | AttributeError | RecursionError):
                raise
        return None

    def _begin(self, uid: str, begun_s: float) -> None:
        self._runs.setdefault(uid, _Watched(begun_s))
        if len(self._runs) > _MOST_RUNS:
            self._forget(next(iter(self._runs)))

    def _describe(self, descriptor: str, uid: str, stream: str) -> None:
        run = self._runs.get(uid)
        if run is not None and len(run.streams) < _MOST_STREAMS:
            run.streams[descriptor] = stream
            self._run_of[descriptor] = uid

    def _note(self, document: Mapping[str, Any], kind: str, numbers: range) -> None:
        uid = self._run_of.get(text(document["descriptor"]))
        if uid is not None:
            run = self._runs[uid]
            run.documents += 1
            seen = run.events if kind == "events" else run.frames
            seen.setdefault(run.streams[document["descriptor"]], _Seen()).add(numbers)

    def _end(self, uid: str, counts: Any) -> Ending:
        run = self._forget(uid)
        if run is None:
            return Ending(uid, "its start document did not come", None)
        counted = {stream: number for stream, count in dict(counts or {}).items() if (number := whole_or_none(count)) is not None}
        for stream, number in sorted(counted.items()):
            # Fly scans have no events: their frames are numbered as events would be.
            seen = run.events.get(stream) or run.frames.get(stream) or _Seen()
            if seen.top < number:
                return Ending(uid, f"of {number} events in stream {stream!r:.80}, {seen.top + len(seen.above)} came", run.begun_s)
        if any(seen.has_gap() for seen in (*run.events.values(), *run.frames.values())):
            return Ending(uid, "the numbers of its events have gaps", run.begun_s)
        return Ending(uid, "", run.begun_s)

    def _forget(self, uid: str) -> _Watched | None:
        run = self._runs.pop(uid, None)
        for descriptor in run.streams if run else ():
            self._run_of.pop(descriptor, None)
        return run
