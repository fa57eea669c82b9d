"""Documents of one source, from the first to the last of each run, through the collector that AutoReconstruct uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ptyplugin.callbacks import CollectedRun, Collector, Continuity, RunEnded
from ptyplugin.model import Profile
from ptyplugin.service.sources.state import SourceState


class EndedRun:
    """A run at its end.

    found: what was collected of it, with the profile it was collected for
    missing: what of it did not come, in words; nothing if all came
    begun_s: when it began, Unix seconds; None if its start did not come
    """

    def __init__(self, uid: str, found: Sequence[tuple[Profile, CollectedRun]], missing: str, begun_s: float | None) -> None:
        self.uid, self.found, self.missing, self.begun_s = uid, list(found), missing, begun_s

    def is_whole(self) -> bool:
        """Whether everything came: all events, and frames for all points."""
        return not self.missing and all(_is_matched(run) for _, run in self.found)


class Collecting:
    """Collects runs for several profiles at once. ``take`` never raises, whatever the document is."""

    def __init__(self, profiles: Sequence[Profile], state: SourceState) -> None:
        self._profiles = profiles
        self._collectors = [(profile, Collector(profile)) for profile in profiles]
        self._continuity = Continuity()
        self._state = state

    def __len__(self) -> int:
        """How many runs are open."""
        return len(self._continuity)

    def open(self) -> dict[str, int]:
        """Runs that are open, and how many documents of each came."""
        return self._continuity.open()

    def take(self, name: Any, document: Any) -> list[EndedRun]:
        """Take one document; gives the runs that have ended with it."""
        if name == "start" and not self:
            self._look_at_profiles()
        found: dict[str, list[tuple[Profile, CollectedRun]]] = {}
        for profile, collector in self._collectors:
            for output in collector(name, document):
                if isinstance(output, RunEnded):
                    found.setdefault(output.run.uid, []).append((profile, output.run))
            self._say_ignored(collector)
        ending = self._continuity(name, document)
        if ending is not None and ending.missing and not self._continuity:
            # What waits for documents that will not come any more must not fill the memory over the months.
            self._collectors = [(profile, Collector(profile)) for profile, _ in self._collectors]
        ended = [] if ending is None else [EndedRun(ending.run_uid, found.pop(ending.run_uid, []), ending.missing, ending.begun_s)]
        # Their stop came before their start.
        return ended + [EndedRun(uid, runs, "its documents came out of order", None) for uid, runs in found.items()]

    def _look_at_profiles(self) -> None:
        # Between runs: one run is read with one profile from its start to its end.
        now = list(self._profiles)
        if now != [profile for profile, _ in self._collectors]:
            self._collectors = [(profile, Collector(profile)) for profile in now]

    def _say_ignored(self, collector: Collector) -> None:
        for reason, count in collector.ignored.items():
            self._state.count("refused", count)
            self._state.trouble(f"documents were passed over: {reason}.")
        collector.ignored.clear()


def collect(documents: Iterable[tuple[str, Mapping[str, Any]]], profiles: Sequence[Profile], state: SourceState) -> list[EndedRun]:
    """The runs that end in these documents."""
    collecting = Collecting(profiles, state)
    return [ended for document in documents for ended in collecting.take(*document)]


def _is_matched(run: CollectedRun) -> bool:
    tally = run.tally
    expected = max(run.points or 0, tally.events, tally.positions, tally.frames)
    return not run.is_ptychography or tally.matched == expected
