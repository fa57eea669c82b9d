"""The frames of one run in a channel's spool: which row is which frame of the detector's file.

A detector's file begins with the run, and so do the frames in the spool that came since. Which one is the first is only believed
where nothing could have been lost before it: the recorder was connected when the run began, the detector was at rest (or began to
count anew), and its numbers go on without a gap. After that the sender's own numbers tell, so that a frame that was lost on the way is
missing, and shifts no other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.io.spool import CONNECTED, FRAME, LOST, MASK, SERIES, Channel, Spool

#: Of frames that come without end, the pause before the first is as long as the others; of a run's it is longer, in their medians.
_PAUSE, _LOOKED_AT = 1.5, 20
#: A count that begins anew begins with one of these.
_FIRST_NUMBERS = (0, 1)
#: Pause, seconds, after which a detector was at rest, where its numbers cannot be compared with those before.
_REST_S = 1.0


class RunInSpool:
    """Finds the frames of a run.

    begun_s: when the run began, Unix seconds
    trouble: why its frames cannot be told in here, in a sentence; None while they can, or may still come
    """

    def __init__(self, spool: Spool, channel: Channel, begun_s: float) -> None:
        self._spool, self.channel, self._begun_s = spool, channel, begun_s
        self.trouble: str | None = None
        self._rows: NDArray[Any] = spool.rows_since(begun_s)[:0]
        self._looked = 0
        self._base: tuple[int, int] | None = None
        self._offsets: dict[int, int] = {}
        self._next_offset: int | None = 0
        self._row_of: dict[int, Any] = {}
        self.mask_row: Any = None

    def look(self) -> dict[int, Any]:
        """Row of ROW by the number of the frame in the detector's file, as far as they have come."""
        self._rows = self._spool.rows_since(self._begun_s)
        if self.trouble is None and self.channel.kind == "eiger":
            self._look_at_series()
        elif self.trouble is None and (self._base is not None or self._find_first()):
            self._look_at_count()
        return self._row_of

    def forget(self, sentence: str) -> None:
        """They are not what they seemed: nothing of them is used any more."""
        self.trouble, self._row_of = sentence, {}

    def _find_first(self) -> bool:
        frames = np.flatnonzero(self._rows["kind"] == FRAME)
        here = frames[self._rows["received_s"][frames] >= self._begun_s]
        if not here.size:
            return False
        first = int(here[0])
        state = self._rows[:first][np.isin(self._rows["kind"][:first], (CONNECTED, LOST))]
        before = state[state["received_s"] <= self._begun_s]
        if not len(before) or before[-1]["kind"] == LOST or np.any(state["kind"][len(before) :] == LOST):
            self.trouble = f"{self.channel.name} was not connected from the beginning of the run on, so that nobody knows its first frame"
        elif not self._was_at_rest(frames, first):
            self.trouble = f"{self.channel.name} sent frames already when the run began, so that nobody knows which is its first"
        elif self._may_lack_the_first(frames, first):
            self.trouble = f"frames of {self.channel.name} were lost just before the first that came, so that nobody knows the run's first"
        else:
            self._base, self._looked = (int(self._rows[first]["series"]), int(self._rows[first]["number"])), first
        return self._base is not None

    def _was_at_rest(self, frames: NDArray[np.intp], first: int) -> bool:
        at = int(np.searchsorted(frames, first))
        if at == 0:
            return True
        near = self._rows[frames[max(0, at - _LOOKED_AT) : at + 1]]
        if near[-1]["series"] != near[-2]["series"]:
            pause_s = near[-1]["received_s"] - near[-2]["received_s"]
            return int(near[-1]["number"]) in _FIRST_NUMBERS or bool(pause_s > _REST_S)
        same = near[near["series"] == near[-1]["series"]]
        # Frames may come here in bursts; by the sender's clock they do not.
        clock = "taken_s" if np.all(np.diff(same["taken_s"]) > 0) else "received_s"
        pauses = np.diff(same[clock]) / np.maximum(1, np.diff(same["number"]))
        return len(pauses) == 1 or bool(pauses[-1] > _PAUSE * np.median(pauses[:-1]))

    def _may_lack_the_first(self, frames: NDArray[np.intp], first: int) -> bool:
        """Whether numbers are missing before the first frame that were not sent while the recorder was away."""
        earlier = frames[frames < first]
        if not earlier.size or np.any(self._rows["kind"][earlier[-1] : first] == LOST):
            return False
        number, series = int(self._rows[first]["number"]), self._rows[first]["series"]
        same = self._rows[earlier[-_LOOKED_AT:]]
        same = same[same["series"] == series]
        return number != same["number"].max() + 1 if same.size else number not in _FIRST_NUMBERS

    def _look_at_count(self) -> None:
        assert self._base is not None
        series, first = self._base
        # A row itself would keep all rows of its time in memory, and each look takes them anew.
        for row in self._rows[self._looked :]:
            if row["kind"] == FRAME and row["series"] == series:
                self._row_of[int(row["number"]) - first] = row.copy()
        self._looked = len(self._rows)

    def _look_at_series(self) -> None:
        """Each series begins with a row that says how many frames it has; they follow one another in the file."""
        for row in self._rows[self._looked :]:
            series = int(row["series"])
            if row["kind"] == SERIES and row["received_s"] >= self._begun_s and self._next_offset is not None:
                self._offsets[series] = self._next_offset
                self._next_offset = self._next_offset + int(row["count"]) if row["count"] >= 0 else None
            elif row["kind"] == MASK and series in self._offsets and self.mask_row is None:
                self.mask_row = row.copy()
            elif row["kind"] == FRAME and series in self._offsets:
                self._row_of[self._offsets[series] + int(row["number"])] = row.copy()
        self._looked = len(self._rows)
