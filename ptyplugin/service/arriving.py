"""The frames of a live job as they arrive: those it was handed over with, and those of its growth. One of these on each rank."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.io import JobFrames
from ptyplugin.jobs import GrowthFolder
from ptyplugin.model import FramesError, Growth, Job, JobError, Scan, ScanError
from ptyplugin.solvers.believing import where

_log = logging.getLogger(__name__)

#: Pauses between two looks at frames that were passed over: the first, and the longest, seconds.
_FIRST_AGAIN_S, _LAST_AGAIN_S = 1.0, 8.0
#: But at least so many times what a look takes; and how long a look may take, seconds, and how many frames are tried at once in it.
_REST, _LOOK_S, _TRIED = 20, 0.1, 8
#: How long a rank waits to see growth that another one has seen, and its pause between two looks, seconds: machines share folders with a
#: delay.
_SEEN_S, _PAUSE_S = 90.0, 0.05


class Arrivals:
    """What a live job has, numbered in the order in which it was handed over.

    begun: (frame,) numbers of those of the job that are worked on from the beginning
    notes: sentences about what cannot be used
    """

    def __init__(self, job: Job, folder: Path, frames: JobFrames, begun: NDArray[np.int64]) -> None:
        self._folder, self._growth, self._frames = folder, GrowthFolder(folder), frames
        scan = job.scan(folder)
        self._scans = [Scan(scan.positions_m, scan.frame_ids)]
        self._admitted = begun
        self._passed_over, self._again_s, self._pause_s = np.empty(0, np.int64), 0.0, _FIRST_AGAIN_S
        self._resting: list[tuple[float, NDArray[np.int64]]] = []
        self._is_refused = False
        self.notes: list[str] = []

    @property
    def known(self) -> int:
        """How many frames have been heard of."""
        return len(self._frames)

    @property
    def admitted(self) -> int:
        """How many frames are worked on."""
        return len(self._admitted)

    @property
    def is_refused(self) -> bool:
        """Whether what came later cannot be used."""
        return self._is_refused

    @property
    def has_ended(self) -> bool:
        """Whether nothing comes after what can be heard of now."""
        return self._growth.has_ended

    @property
    def newest_s(self) -> float:
        """When growth came last, Unix seconds; 0 if none has."""
        return self._growth.newest_s()

    def hear(self, known: int | None = None) -> None:
        """Look for growth: all that there is, where somebody decides; until so many frames are known, where another rank has decided.

        Raises:
            JobError, ScanError, FramesError: another rank could read it, and this one cannot, or does not see it.
        """
        if self._is_refused:
            return
        try:
            if known is None:
                self._take_in()
            else:
                self._wait_for(known)
        except (JobError, ScanError, FramesError) as error:
            if known is not None:
                raise
            self.refuse(str(error))

    def note(self, sentence: str) -> None:
        """Say this in the result, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def refuse(self, sentence: str) -> None:
        """What came later cannot be used, for this reason: it is left to the final job."""
        self._is_refused = True
        self.note(f"Frames that came later were left out: {sentence}")
        _log.warning("%s", self.notes[-1])

    def ready(self) -> NDArray[np.int64]:
        """(frame,) numbers of frames that are known, can be read now, and are not worked on."""
        if self._is_refused or self.known == self.admitted:
            return np.empty(0, np.int64)
        self._resting = [(end_s, numbers) for end_s, numbers in self._resting if end_s > time.monotonic()]
        known = [self._admitted, self._passed_over, *(numbers for _, numbers in self._resting)]
        new = np.setdiff1d(np.arange(self.known), np.concatenate(known))
        return np.concatenate([new[self._frames.has(new)], self._healed()])

    def at_hand(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(frame,) which of these this rank can read without waiting."""
        return self._frames.has(numbers)

    def readable(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(frame,) which of these this rank can read: it tries."""
        return self._frames.readable(numbers)

    def pass_over(self, numbers: NDArray[np.int64], sentence: str) -> None:
        """Go on without these, which cannot be read for this reason; now and then it is looked whether they can be."""
        self._passed_over = np.concatenate([self._passed_over, np.setdiff1d(numbers, self._passed_over)])
        self._again_s = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LAST_AGAIN_S)
        _log.warning("%d frames are passed over until they can be read (frame %s): %s", len(numbers), where(numbers), sentence)

    def rest(self, numbers: NDArray[np.int64], pause_s: float) -> None:
        """Go on without these for a while: they may be there a moment later."""
        self._resting.append((time.monotonic() + pause_s, numbers))

    def _healed(self) -> NDArray[np.int64]:
        """(frame,) those that were passed over and can be read now. All ranks wait for it, so that it tries some at a time."""
        begun = time.monotonic()
        if not len(self._passed_over) or begun < self._again_s:
            return np.empty(0, np.int64)
        left, cannot, healed = self._passed_over, np.empty(0, np.int64), np.empty(0, np.int64)
        while len(left) and time.monotonic() - begun < _LOOK_S:
            tried, left = left[:_TRIED], left[_TRIED:]
            can = self._frames.readable(tried)
            healed, cannot = np.concatenate([healed, tried[can]]), np.concatenate([cannot, tried[~can]])
        self._passed_over = np.concatenate([left, cannot])
        now = time.monotonic()
        self._again_s = now + max(self._pause_s, _REST * (now - begun))
        self._pause_s = min(2 * self._pause_s, _LAST_AGAIN_S)
        if len(healed):
            _log.info("%d frames that were passed over can be read now (frame %s)", len(healed), where(healed))
        return healed

    def with_(self, numbers: NDArray[np.int64]) -> tuple[Chosen, Scan]:
        """All frames and positions that are worked on, and behind them those with these numbers."""
        every = np.concatenate([self._admitted, numbers])
        positions, ids = (np.concatenate([getattr(scan, name) for scan in self._scans]) for name in ("positions_m", "frame_ids"))
        return Chosen(self._frames, every), Scan(positions[every], ids[every])

    def admit(self, numbers: NDArray[np.int64]) -> None:
        """Those with these numbers are worked on from now on."""
        self._admitted = np.concatenate([self._admitted, numbers])

    def _wait_for(self, known: int) -> None:
        end = time.monotonic() + _SEEN_S
        self._take_in(known)
        while self.known < known:
            if time.monotonic() > end:
                raise JobError(
                    f"this rank sees {self.known} frames of the {known} that rank 0 sees in {self._folder}: have all nodes see the same "
                    "folder (shared_dir in the site file)."
                )
            time.sleep(_PAUSE_S)
            self._take_in(known)

    def _take_in(self, known: int | None = None) -> None:
        for growth in self._growth.after(self.known):
            if known is not None and self.known >= known:
                return
            self._append(growth)

    def _append(self, growth: Growth) -> None:
        folder = self._growth.place_of(growth.first)
        scan = growth.scan(folder)
        if scan.positions_m.shape[1] != self._scans[0].positions_m.shape[1]:
            raise ScanError(f"frames from {growth.first} on have {scan.positions_m.shape[1]} sub-steps, unlike those before.")
        self._frames.grow(growth, folder)
        self._scans.append(Scan(scan.positions_m, scan.frame_ids))


class Chosen:
    """A model.Frames: those of ``frames`` with these ``numbers``, in their order."""

    def __init__(self, frames: JobFrames, numbers: NDArray[np.int64]) -> None:
        self._frames, self._numbers = frames, numbers

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (y, x) of one frame."""
        return self._frames.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the counts."""
        return self._frames.dtype

    @property
    def mask(self) -> NDArray[np.uint8] | None:
        """(y, x) uint8, 0 = good, or None."""
        return self._frames.mask

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        """Counts (frame, y, x) of these.

        Raises:
            FramesError: they cannot be read.
        """
        return self._frames.read(self._numbers[frames])
