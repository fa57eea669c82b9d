"""Frames of a scan that goes on: from its file, else from the spool, else through the catalog, whichever has them first.

``LiveFrames`` is a ``model.Frames`` over the numbers of frames in the detector's file, like ``Hdf5Frames``. Each way to the frames is a
``Way``; they are asked in their order, each a little later than the one before, and the first that has a frame gives it. So
frames that the network lost come from the file as soon as it shows them. Each change of the way is said once, and kept in ``notes``.
"""

from __future__ import annotations

import logging
import time
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
#: How long frames that are there and cannot be read are tried, seconds.
_DAMAGED_S = 1.0
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
    trouble: why it has no frames now, in a sentence; None if it knows of nothing
    """

    name: str
    is_exact: bool
    trouble: str | None

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
        self._lacking: tuple[int, float] | None = None
        self._said: list[str] = []
        self._healed = 0
        self._damage = ""
        self._unproved: tuple[int, NDArray[Any], Way] | None = None
        self._is_proved = False
        try:
            self._kind = self._find_kind()
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
        healed = f"{self._healed} frames that were lost over the network came from {self._ways[0].name}."
        return [*self._said, *([healed] if self._healed else [])]

    def __len__(self) -> int:
        return max(way.count() for way in self._ways)

    def close(self) -> None:
        """Close what is open."""
        for way in self._ways:
            way.close()

    def has(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(frame,) which of these frames can be read now. The catalog is not asked while those before it may still be in time."""
        there = np.zeros(len(frames), dtype=bool)
        for place, way in enumerate(self._ways):
            if there.all() or (place > self._current and self._lacking_s(frames[~there]) < place * self._patience_s):
                break
            if way.kind() == self._kind:
                there |= way.has(frames)
        return there

    def readable(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(frame,) which of these frames can be read now: they are read to see that. Nothing is waited for, and all ways are asked."""
        can = np.zeros(len(frames), dtype=bool)
        for start in range(0, len(frames), _BLOCK):
            part = np.asarray(frames[start : start + _BLOCK], dtype=np.int64)
            counts, from_way = np.empty((part.size, *self.shape), self.dtype), np.full(part.size, _LACKING)
            left = np.arange(part.size)
            with suppress(FramesError):
                for place, way in enumerate(self._ways):
                    left = self._take(way, place, part, left, counts, from_way)
            can[start : start + _BLOCK] = from_way >= 0
        return can

    def _lacking_s(self, frames: NDArray[np.int64]) -> float:
        """For how long the first of these has been lacking."""
        first, now_s = int(frames.min()), time.monotonic()
        if self._lacking is None or self._lacking[0] != first:
            self._lacking = (first, now_s)
        return now_s - self._lacking[1]

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
                if left.size and (place <= self._current or self._lacking_s(frames[left]) >= place * self._patience_s):
                    left = self._take(way, place, frames, left, counts, from_way)
            if left.size:
                self._check_time(frames[left], bool(np.all(from_way[left] == _DAMAGED)), time.monotonic() - begun_s)
                time.sleep(_PAUSE_S)
        if frames.size:
            self._note(frames, from_way)
        return counts

    def _check_time(self, left: NDArray[np.int64], are_damaged: bool, waited_s: float) -> None:
        """Raise a FramesError if these frames have been waited for long enough."""
        if waited_s > (min(_DAMAGED_S, self._deadline_s) if are_damaged else self._deadline_s):
            why = f"cannot be read: {self._damage}" if are_damaged else f"did not come in time. {self._troubles()}"
            raise FramesError(f"{self._run}: {left.size} frames from {left.min()} on {why}")

    def _take(
        self, way: Way, place: int, frames: NDArray[np.int64], left: NDArray[np.int64], counts: NDArray[Any], from_way: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Those of ``left`` that this way does not give. For none it is not asked: to begin with the catalog takes seconds."""
        if not left.size:
            return left
        kind = way.kind()
        if kind is None:
            return left
        if kind != self._kind:
            what = f"its frames are {_in_words(kind)}, those that came before {_in_words(self._kind)}"
            if way.is_exact:
                raise FramesError(f"{self._run}: {way.name} does not fit: {what}.")
            self._leave(way, what)
            return left
        has = way.has(frames[left])
        here = left[has]
        self._read(way, place, frames, here, counts, from_way)
        here = here[from_way[here] == place]
        if not way.is_exact and not self._is_proved and self._unproved is None:
            # Dark frames are alike.
            lit = next((each for each in here if counts[each].any()), None)
            self._unproved = None if lit is None else (int(frames[lit]), counts[lit].copy(), way)
        rest: NDArray[np.int64] = left[from_way[left] != place]
        return rest

    def _read(
        self, way: Way, place: int, frames: NDArray[np.int64], here: NDArray[np.int64], counts: NDArray[Any], from_way: NDArray[np.int64]
    ) -> None:
        """Read those of ``here`` that can be read: what is wrong with one frame costs no other."""
        if not here.size:
            return
        try:
            counts[here] = way.read(frames[here])
            from_way[here] = place
        except (FramesError, CatalogError) as error:
            if here.size > 1 and isinstance(error, FramesError):
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
        if self._unproved is None:
            return
        number, counts, way = self._unproved
        for exact in self._ways:
            if exact.is_exact and exact.kind() == self._kind and exact.has(np.array([number]))[0]:
                try:
                    is_same = np.array_equal(exact.read(np.array([number]))[0], counts)
                except (FramesError, CatalogError):
                    continue
                self._unproved, self._is_proved = None, True
                if not is_same:
                    self._leave(way, f"frame {number} of {exact.name} is another one: frames that came this way stand at wrong positions")
                return

    def _note(self, frames: NDArray[np.int64], from_way: NDArray[np.int64]) -> None:
        """Which way is in use from now on, and what of it was lost."""
        last, now_s = int(from_way[np.argmax(frames)]), time.monotonic()
        current = self._ways[self._current]
        if 0 < self._current >= last:
            lost = ~current.has(frames)
            self._healed += int(np.count_nonzero(lost & (frames < current.count())))
        if last >= self._current:
            self._better_since_s = None
        elif self._better_since_s is None:
            self._better_since_s = now_s
        if last > self._current or (self._better_since_s is not None and now_s - self._better_since_s >= self._stay_s):
            self._change_to(last, int(frames[from_way == last].min()))

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

    def _find_kind(self) -> Kind:
        begun_s = time.monotonic()
        while True:
            waited_s = time.monotonic() - begun_s
            for place, way in enumerate(self._ways):
                if waited_s >= place * self._patience_s and (kind := way.kind()) is not None:
                    return kind
            if waited_s > self._deadline_s:
                raise FramesError(f"{self._run}: its frames are nowhere to be had. {self._troubles()}")
            time.sleep(_PAUSE_S)

    def _troubles(self) -> str:
        return " ".join(f"{way.name}: {(way.trouble or 'nothing came').rstrip('.')}." for way in self._ways)


def _in_words(kind: Kind) -> str:
    return f"{kind[0][0]} x {kind[0][1]} px of {kind[1]}"
