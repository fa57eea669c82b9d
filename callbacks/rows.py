"""Rows of resources and the points they belong to, as stream_datum documents tell (ophyd-async)."""

from __future__ import annotations

from ptyplugin.callbacks.documents import StreamDatum
from ptyplugin.callbacks.reading import MOST_FRAMES
from ptyplugin.model import FramesError


class StreamRows:
    """Which row of which resource each point has; a point may be claimed more than once (see ptyplugin.callbacks.pairing)."""

    def __init__(self) -> None:
        self._row_of: dict[str, dict[int, int]] = {}
        self._rows: dict[str, set[int]] = {}
        self._holders: dict[int, tuple[str, ...]] = {}

    def add(self, datum: StreamDatum) -> None:
        """Take the rows of a stream_datum.

        Raises:
            FramesError: more rows than a run can have.
        """
        row_of, rows = self._row_of.setdefault(datum.resource, {}), self._rows.setdefault(datum.resource, set())
        if len(rows) + len(datum.indices) > MOST_FRAMES:
            raise FramesError(f"the run announces more than {MOST_FRAMES} frames in one file: split it.")
        rows.update(datum.indices)
        for row, seq_num in zip(datum.indices, datum.seq_nums, strict=True):
            if seq_num not in row_of:
                self._holders[seq_num] = (*self._holders.get(seq_num, ()), datum.resource)
            row_of[seq_num] = max(row, row_of.get(seq_num, row))

    def points(self) -> set[int]:
        """seq_nums that have a row."""
        return set(self._holders)

    def of(self, seq_num: int) -> tuple[str, int] | None:
        """Resource and row of a point: of the resource begun later, its largest row."""
        holders = self._holders.get(seq_num)
        if holders is None:
            return None
        resource = holders[0] if len(holders) == 1 else max(holders, key=lambda uid: self._rank(uid, seq_num))
        return resource, self._row_of[resource][seq_num]

    def unused(self) -> dict[str, int]:
        """Number of rows by resource that no point has: taken again after a pause."""
        used: dict[str, set[int]] = {}
        for seq_num in self._holders:
            held = self.of(seq_num)
            if held is not None:
                used.setdefault(held[0], set()).add(held[1])
        return {uid: len(rows) - len(used.get(uid, ())) for uid, rows in self._rows.items()}

    def _rank(self, uid: str, seq_num: int) -> tuple[int, int, str]:
        return min(self._row_of[uid]), self._row_of[uid][seq_num], uid
