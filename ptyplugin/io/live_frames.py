"""Frames of a scan that goes on: from its file, else from the spool, else through the catalog, whichever has them first.

``LiveFrames`` is a ``model.Frames`` over the numbers of frames in the detector's file, like ``Hdf5Frames``. Each way to the frames is a
``Way``; they are asked in their order, each a little later than the one before, and the first that has a frame gives it. So
frames that the network lost come from the file as soon as it shows them. Each change of the way is said once, and kept in ``notes``.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import CatalogError, FramesError

_log = logging.getLogger(__name__)

#: How long one way is asked before the next one is too, and all of them together; how long a better way must have been enough before
#: it is the one in use again, seconds.
PATIENCE_S, DEADLINE_S, STAY_S = 0.2, 10.0, 5.0
_PAUSE_S = 0.005
#: How long frames that are there and cannot be read are tried, seconds; and how long a way that is being opened is waited for, if no other
#: has the frames.
_DAMAGED_S, _OPENING_S = 1.0, 60.0
#: How long nobody opens the catalog only to see whether frames that were counted are the right ones, and the pause after a comparison that
#: could not be made, seconds.
_UNPROVED_S, _PROVE_AGAIN_S = 30.0, 2.0
#: How long no new frame has come before those that were lost on the way in use are asked for on a worse one, seconds; and how many at once.
_QUIET_S, _HEALED = 2.0, 16
#: Instead of the way that a frame came by: it has not come; it is there and cannot be read.
_LACKING, _DAMAGED = -1, -2
#: Frames that are read at once to see whether they can be.
_BLOCK = 64

#: Shape (y, x) and type of frames.
Kind = tuple[tuple[int, int], np.dtype[Any]]


class Way(Protocol):
    """One way to the frames of a scan. It gives what there is, and does not wait for more.

    name: for people
    is_exact: whether it numbers frames by the detector's file itself, and does not only count along
    is_opening: whether it may have frames in a moment, and does not know yet
    trouble: why it has no frames now, in a sentence; None if it knows of nothing
    """

    name: str
    is_exact: bool
    trouble: str | None

    @property
    def is_opening(self) -> bool:
        """See above."""
        ...

    def kind(self) -> Kind | None:
        """Shape (y, x) and type of its frames, if it knows them by now."""
        ...

    def count(self) -> int:
        """One more than the last frame that it knows."""
        ...

    def has(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(frame,) whether it has these frames now."""
        ...

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        """Counts (frame, y, x) of frames that it has.

        Raises:
            FramesError, CatalogError: it does not after all.
        """
        ...

    def mask(self) -> NDArray[np.uint8] | None:
        """(y, x), 0 = good, if it has one."""
        ...

    def give_up(self, sentence: str) -> None:
        """Its frames are not those of the file: it has none from now on."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class LiveFrames:
    """A model.Frames that asks several ways, in their order.

    Args:
        run: what the scan is called in what is said
        ways: the best first
        patience_s: how much later each way is asked than the one before, as long as that one is not the way in use
        deadline_s: how long announced frames are waited for
        stay_s: how long a better way must have been enough before it is the one in use again

    Raises:
        FramesError: none of the ways knows of any frames within ``deadline_s``.
        OutsideDataRoots: a file that the site does not allow to be read; no other way is asked.
    """

    def __init__(
        self, run: str, ways: Sequence[Way], patience_s: float = PATIENCE_S, deadline_s: float = DEADLINE_S, stay_s: float = STAY_S
    ) -> None:
        self._run, self._ways = run, list(ways)
        self._patience_s, self._deadline_s, self._stay_s = patience_s, deadline_s, stay_s
        self._current = 0
        self._better_since_s: float | None = None
        self._lacking_since: dict[int, float] = {}
        self._newest, self._newest_s = -1, 0.0
        self._said: list[str] = []
        self._healed: Counter[str] = Counter()
        self._damage = ""
        self._unproved: tuple[int, NDArray[Any], Way, float] | None = None
        self._is_proved, self._prove_again_s = False, 0.0
        try:
            self._kind, self._first_way = self._find_kind()
            self.mask = next((mask for way in self._ways if (mask := way.mask()) is not None), None)
        except BaseException:
            self.close()
            raise

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (y, x) of one frame."""
        return self._kind[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the counts."""
        return self._kind[1]

    @property
    def notes(self) -> list[str]:
        """Sentences for people: which way the frames came, where that was not the best one."""
        healed = [f"{count} frames that were lost over the network came from {name}." for name, count in self._healed.items()]
        return [*self._said, *healed]

    def __len__(self) -> int:
        return max(way.count() for way in self._ways)

    def close(self) -> None:
        """Close what is open."""
        for way in self._ways:
            way.close()

    def has(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(frame,) which of these frames can be read now. The catalog is not asked while those before it may still be in time.

        Nor is it for frames that were lost on the way in use, as long as others come: whoever reads these would wait for that.
        """
        there = np.zeros(len(frames), dtype=bool)
        for place, way in enumerate(self._ways):
            left = self._due(place, frames, np.flatnonzero(~there))
            if place > self._current > 0:
                left = self._in_no_hurry(frames, left)
            if left.size and way.kind() == self._kind:
                there[left] = way.has(frames[left])
            if place == max(self._current, self._first_way):
                # Another rank may be the one that reads them.
                self._forget(frames[there])
        return there

    def readable(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(frame,) which of these frames can be read now: they are read to see that. Nothing is waited for, and all ways are asked."""
        can = np.zeros(len(frames), dtype=bool)
        for start in range(0, len(frames), _BLOCK):
            part = np.asarray(frames[start : start + _BLOCK], dtype=np.int64)
            counts, from_way = np.empty((part.size, *self.shape), self.dtype), np.full(part.size, _LACKING)
            with suppress(FramesError):
                for place, way in enumerate(self._ways):
                    self._take(way, place, part, np.flatnonzero(from_way < 0), counts, from_way)
            can[start : start + _BLOCK] = from_way >= 0
        return can

    def _in_no_hurry(self, frames: NDArray[np.int64], left: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those of ``left`` for which a worse way than the one in use is asked: what is late there; in a pause, some that were lost."""
        is_lost = frames[left] < self._ways[self._current].count()
        is_quiet = time.monotonic() - self._newest_s > _QUIET_S
        return np.sort(np.concatenate([left[~is_lost], left[is_lost][: _HEALED if is_quiet else 0]]))

    def _due(self, place: int, frames: NDArray[np.int64], left: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those of ``left`` that this way is asked for by now: behind the one in use, what has been lacking for a while."""
        if place <= max(self._current, self._first_way) or not left.size:
            return left
        now_s = time.monotonic()
        since_s = [self._lacking_since.setdefault(frame, now_s) for frame in frames[left].tolist()]
        return left[now_s - np.array(since_s) >= place * self._patience_s]

    def _forget(self, frames: NDArray[np.int64]) -> None:
        """That these were lacking."""
        if self._lacking_since:
            for frame in frames.tolist():
                self._lacking_since.pop(frame, None)

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        """Counts (frame, y, x) of these frames, in this order; waits for those that no way has yet.

        Raises:
            FramesError: not all of them came in time; the message says what is wrong with each way.
        """
        frames = np.asarray(frames, dtype=np.int64)
        counts = np.empty((frames.size, *self.shape), self.dtype)
        from_way = np.full(frames.size, _LACKING)
        begun_s = time.monotonic()
        while (left := np.flatnonzero(from_way < 0)).size:
            self._prove()
            from_way[left] = _LACKING
            for place, way in enumerate(self._ways):
                self._take(way, place, frames, self._due(place, frames, left), counts, from_way)
                left = left[from_way[left] < 0]
            if left.size:
                self._check_time(frames[left], bool(np.all(from_way[left] == _DAMAGED)), time.monotonic() - begun_s)
                time.sleep(_PAUSE_S)
        self._forget(frames)
        if frames.size:
            self._note(frames, from_way)
        return counts

    def _check_time(self, left: NDArray[np.int64], are_damaged: bool, waited_s: float) -> None:
        """Raise a FramesError if these frames have been waited for long enough."""
        if min(_DAMAGED_S, self._deadline_s) < waited_s if are_damaged else self._is_too_long(waited_s):
            why = f"cannot be read: {self._damage}" if are_damaged else f"did not come in time. {self._troubles()}"
            raise FramesError(f"{self._run}: {left.size} frames from {left.min()} on {why}")

    def _is_too_long(self, waited_s: float) -> bool:
        """Whether frames are waited for no longer."""
        is_opening = any(way.is_opening for way in self._ways)
        return waited_s > (max(_OPENING_S, self._deadline_s) if is_opening else self._deadline_s)

    def _take(
        self, way: Way, place: int, frames: NDArray[np.int64], left: NDArray[np.intp], counts: NDArray[Any], from_way: NDArray[np.int64]
    ) -> None:
        """Read those of ``left`` that this way has. For none it is not asked: the catalog takes seconds."""
        kind = way.kind() if left.size else None
        if kind is None:
            return
        if kind != self._kind:
            what = f"its frames are {_in_words(kind)}, those that came before {_in_words(self._kind)}"
            if way.is_exact:
                raise FramesError(f"{self._run}: {way.name} does not fit: {what}.")
            self._leave(way, what)
            return
        here = left[way.has(frames[left])]
        self._read(way, place, frames, here, counts, from_way)
        here = here[from_way[here] == place]
        if not way.is_exact and not self._is_proved and self._unproved is None:
            # Dark frames are alike.
            lit = next((each for each in here if counts[each].any()), None)
            self._unproved = None if lit is None else (int(frames[lit]), counts[lit].copy(), way, time.monotonic())

    def _read(
        self, way: Way, place: int, frames: NDArray[np.int64], here: NDArray[np.int64], counts: NDArray[Any], from_way: NDArray[np.int64]
    ) -> None:
        """Read those of ``here`` that can be read: what is wrong with one frame costs no other, if it was not to heal only."""
        if not here.size:
            return
        try:
            counts[here] = way.read(frames[here])
            from_way[here] = place
        except (FramesError, CatalogError) as error:
            # A catalog that refuses one of those that were lost elsewhere refuses all, and takes its time for each.
            if here.size > 1 and isinstance(error, FramesError) and not place > self._current > 0:
                for half in np.array_split(here, 2):
                    self._read(way, place, frames, half[way.has(frames[half])], counts, from_way)
                return
            # What turned out not to be written yet is waited for as before, and so is a catalog that is away.
            is_damage = isinstance(error, FramesError) & way.has(frames[here])
            from_way[here] = np.where(is_damage, _DAMAGED, _LACKING)
            if str(error) != self._damage:
                self._damage = str(error)
                _log.info("%s: %s", self._run, error)

    def _prove(self) -> None:
        """Compare a frame that was only counted with the same one of the file."""
        if self._unproved is None or time.monotonic() < self._prove_again_s:
            return
        number, counts, way, since_s = self._unproved
        is_urgent = time.monotonic() - since_s > _UNPROVED_S
        for exact in self._ways:
            # What knows the frame already is open; the catalog may not be.
            may_be_asked = exact.is_exact and (is_urgent or exact.count() > number)
            if may_be_asked and exact.kind() == self._kind and exact.has(np.array([number]))[0]:
                try:
                    is_same = np.array_equal(exact.read(np.array([number]))[0], counts)
                except (FramesError, CatalogError):
                    self._prove_again_s = time.monotonic() + _PROVE_AGAIN_S
                    continue
                self._unproved, self._is_proved = None, True
                if not is_same:
                    self._leave(way, f"frame {number} of {exact.name} is another one: frames that came this way stand at wrong positions")
                return

    def _note(self, frames: NDArray[np.int64], from_way: NDArray[np.int64]) -> None:
        """Which way is in use from now on, and what of it was lost."""
        newest, now_s, self._first_way = int(np.argmax(frames)), time.monotonic(), 0
        if frames[newest] > self._newest:
            self._newest, self._newest_s = int(frames[newest]), now_s
        last = int(from_way[newest])
        if self._current and self._lost_on(self._current, frames)[newest]:
            # A worse way that only heals is not the one in use.
            last = min(last, self._current)
        used = max(last, self._current)
        if used:
            self._healed.update(self._ways[place].name for place in from_way[self._lost_on(used, frames)])
        if last >= self._current:
            self._better_since_s = None
        elif self._better_since_s is None:
            self._better_since_s = now_s
        if last > self._current or (self._better_since_s is not None and now_s - self._better_since_s >= self._stay_s):
            self._change_to(last, int(frames[from_way == last].min()))

    def _lost_on(self, place: int, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(frame,) which of these a way does not have, though it has later ones."""
        way = self._ways[place]
        return np.asarray(~way.has(frames) & (frames < way.count()))

    def _change_to(self, place: int, first: int) -> None:
        before, now = self._ways[self._current], self._ways[place]
        why = (before.trouble or f"{before.name} did not show them within {self._patience_s:g} s").rstrip(".")
        self._say(f"frames from {first} on came from {now.name}" + (f": {why}." if place > self._current else " again."))
        self._current, self._better_since_s = place, None

    def _leave(self, way: Way, why: str) -> None:
        way.give_up(why)
        self._say(f"{way.name} is not used any more: {why}.")

    def _say(self, sentence: str) -> None:
        _log.warning("%s: %s", self._run, sentence)
        if sentence not in self._said:
            self._said.append(sentence)

    def _find_kind(self) -> tuple[Kind, int]:
        """Shape and type of the frames, and the place of the way that knows it."""
        begun_s = time.monotonic()
        while True:
            waited_s = time.monotonic() - begun_s
            for place, way in enumerate(self._ways):
                if waited_s >= place * self._patience_s and (kind := way.kind()) is not None:
                    return kind, place
            if self._is_too_long(waited_s):
                raise FramesError(f"{self._run}: its frames are nowhere to be had. {self._troubles()}")
            time.sleep(_PAUSE_S)

    def _troubles(self) -> str:
        return " ".join(f"{way.name}: {(way.trouble or 'nothing came').rstrip('.')}." for way in self._ways)


def _in_words(kind: Kind) -> str:
    return f"{kind[0][0]} x {kind[0][1]} px of {kind[1]}"
