"""Writing a channel's spool: appended to, bounded, and sound again after whatever ended the writer."""

from __future__ import annotations

import errno
import logging
import os
import time
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ptyplugin.io.spool import (
    CHANNEL_FILE,
    CONNECTED,
    FRAME,
    LOST,
    MASK,
    ROW,
    SERIES,
    Channel,
    raw_path,
    row_sum,
    rows_path,
    segment_numbers,
    sound_rows,
)

_log = logging.getLogger(__name__)

#: Parts that a spool is made of at the least, so that little is thrown away at once; and the largest part, bytes.
_PARTS, _LARGEST_SEGMENT = 8, 2**30


class SpoolWriter:
    """Appends to a channel's folder. One at a time, of one process; a context manager.

    largest_bytes: that all segments may take together

    Raises:
        OSError: the disk cannot be written, is full, or another process writes here.
    """

    def __init__(self, folder: Path, channel: Channel, largest_bytes: int) -> None:
        self._folder, self._largest = folder, largest_bytes
        self._segment_bytes = min(largest_bytes // _PARTS, _LARGEST_SEGMENT)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder / "lock")
        self._raw = self._rows = -1
        self._raw_bytes = 0
        try:
            self.cut_bytes = _cut_torn_tail(folder)
            self.series = _last_series(folder) + 1
            self._segment = max(segment_numbers(folder), default=0)
            _write_whole(folder / CHANNEL_FILE, channel.model_dump_json().encode())
            self._state = LOST
            self._next_segment()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        for handle in (self._raw, self._rows, self._lock):
            if handle >= 0:
                os.close(handle)
        self._raw = self._rows = self._lock = -1

    def connected(self, is_there: bool) -> None:
        """The sender is there from now on, or is not."""
        self._state = CONNECTED if is_there else LOST
        self._append_row(self._state)

    def series_begins(self, count: int = -1) -> None:
        """The sender begins to count anew, to ``count`` frames if it said that."""
        self.series += 1
        self._append_row(SERIES, count=count)

    def mask(self, mask: NDArray[np.uint8]) -> None:
        """Bad pixels (y, x) of the series, 0 = good."""
        self._append(MASK, mask.astype("u1").tobytes(), "none", (mask.shape[0], mask.shape[1]), "u1")

    def frame(self, number: int, data: bytes, codec: int, shape: tuple[int, int], dtype: str, taken_s: float) -> None:
        """One frame as it was sent; ``dtype`` is one of ``codecs.PIXELS``, ``codec`` a place in ``codecs.CODECS``."""
        self._append(FRAME, data, codec, shape, dtype, number=number, taken_s=taken_s)

    def _append(self, kind: int, data: bytes, codec: int | str, shape: tuple[int, int], dtype: str, **known: Any) -> None:
        full = self._raw_bytes + len(data) > self._segment_bytes and self._raw_bytes
        # The disk may have been full when this segment was begun.
        if full or self._rows < 0:
            self._next_segment()
        _write_all(self._raw, data)
        offset, self._raw_bytes = self._raw_bytes, self._raw_bytes + len(data)
        known |= {"y": shape[0], "x": shape[1], "dtype": dtype, "codec": 0 if codec == "none" else codec}
        self._append_row(kind, offset=offset, size=len(data), sum=zlib.crc32(data), **known)

    def _append_row(self, kind: int, **known: Any) -> None:
        row = np.zeros((), ROW)
        known |= {"kind": kind, "series": self.series, "segment": self._segment, "received_s": time.time()}
        for name, value in known.items():
            row[name] = value
        row["row_sum"] = row_sum(row)
        _write_all(self._rows, row.tobytes())

    def _next_segment(self) -> None:
        if self._lock < 0:
            raise OSError(errno.EBADF, "it was closed")
        _make_room(self._folder, self._largest - self._segment_bytes)
        for handle in (self._raw, self._rows):
            if handle >= 0:
                os.close(handle)
        self._raw = self._rows = -1
        number = self._segment + 1
        self._raw = os.open(raw_path(self._folder, number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._rows = os.open(rows_path(self._folder, number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._segment, self._raw_bytes = number, 0
        # Whoever begins to read here knows whether the sender was there.
        self._append_row(self._state)


def _locked(path: Path) -> int:
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _cut_torn_tail(folder: Path) -> int:
    """Cut the last segment behind its last whole row and frame; gives the bytes of what is gone."""
    last = max(segment_numbers(folder), default=None)
    if last is None:
        return 0
    there, raw = rows_path(folder, last).read_bytes(), raw_path(folder, last)
    rows = sound_rows(there)
    raw_bytes = raw.stat().st_size if raw.exists() else 0
    while len(rows) and rows[-1]["size"] and not _is_whole(raw, rows[-1]):
        rows = rows[:-1]
    ends = [int(row["offset"] + row["size"]) for row in rows if row["size"]]
    end = max(ends, default=0)
    os.truncate(rows_path(folder, last), len(rows) * ROW.itemsize)
    if raw.exists():
        os.truncate(raw, end)
    return len(there) - len(rows) * ROW.itemsize + raw_bytes - end


def _is_whole(raw: Path, row: Any) -> bool:
    try:
        with raw.open("rb") as file:
            file.seek(int(row["offset"]))
            return zlib.crc32(file.read(int(row["size"]))) == int(row["sum"])
    except OSError:
        return False


def _last_series(folder: Path) -> int:
    for segment in reversed(segment_numbers(folder)):
        rows = sound_rows(rows_path(folder, segment).read_bytes())
        if len(rows):
            return int(rows[-1]["series"])
    return 0


def _make_room(folder: Path, most_bytes: int) -> None:
    """Remove the segments without a frame, and the oldest until all take at most so much."""
    sizes = {segment: sum(_size(way(folder, segment)) for way in (raw_path, rows_path)) for segment in segment_numbers(folder)}
    taken = sum(sizes.values())
    for segment, size in sizes.items():
        # A recorder that begins again and again leaves small ones, thousands a day.
        if taken <= most_bytes and _size(raw_path(folder, segment)):
            continue
        for way in (rows_path, raw_path):
            way(folder, segment).unlink(missing_ok=True)
        taken -= size


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _write_all(handle: int, data: bytes) -> None:
    """Append all of it, or, where the disk is full, nothing: what comes later stands where its row says."""
    end, view = os.fstat(handle).st_size, memoryview(data)
    try:
        while view:
            view = view[os.write(handle, view) :]
    except OSError:
        os.truncate(handle, end)
        raise


def _write_whole(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(data)
    os.replace(beside, path)
