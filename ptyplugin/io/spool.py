"""The spool: the last frames of a detector that sends them over the network, kept on this host's disk.

One folder per channel, ``<site.home>/spool/<channel>``::

    channel.json        what it is, and of which detectors (see ``Channel``)
    00000017.raw        frames one after the other, as they were sent
    00000017.rows       one row of ROW for each frame, and for what happened in between
    00000018.raw ...    segments; the oldest are removed when there is no more room

A recorder of the service appends (``SpoolWriter``), whoever solves reads (``Spool``). A row is written after its frame, and is whole
or not there: what a killed recorder left behind is seen by the sums in the rows.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from ptyplugin.io.codecs import CODECS, decoded
from ptyplugin.model import FramesError, Site

#: Kinds of rows: a frame; the sender is there from here on, or is not; a series begins, with ``count`` frames or -1; a mask (y, x) uint8.
FRAME, CONNECTED, LOST, SERIES, MASK = 1, 2, 3, 4, 5

#: A row. number: as the sender numbers its frames; series: which count it belongs to; taken_s: by the sender's clock, received_s: by
#: this host's, Unix seconds; offset, size: of its bytes in the segment; sum, row_sum: CRC-32 of its bytes, and of the row before it.
ROW = np.dtype(
    [
        ("kind", "u1"),
        ("codec", "u1"),
        ("dtype", "S2"),
        ("y", "<u4"),
        ("x", "<u4"),
        ("sum", "<u4"),
        ("number", "<i8"),
        ("series", "<i8"),
        ("count", "<i8"),
        ("taken_s", "<f8"),
        ("received_s", "<f8"),
        ("offset", "<u8"),
        ("size", "<u8"),
        ("segment", "<u4"),
        ("row_sum", "<u4"),
    ]
)
_SUMMED = ROW.itemsize - 4

CHANNEL_FILE = "channel.json"


class Detector(BaseModel):
    """Whose frames a channel has: a data key in a stream of the runs of a beamline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    beamline: str
    stream: str
    key: str


class Channel(BaseModel):
    """What a folder of the spool holds.

    kind: ``pva`` counts on from run to run; ``eiger`` numbers frames from 0 in each series and says where it begins
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str
    kind: Literal["pva", "eiger"]
    detectors: tuple[Detector, ...]


def spool_folder(site: Site, channel: str) -> Path:
    """Where a channel's frames are kept."""
    # Two channels whose names differ in odd letters only have folders of their own.
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", channel).lstrip(".")[:80]
    return site.spool / f"{plain}-{zlib.crc32(channel.encode()):08x}"


def channel_of(site: Site, detector: Detector) -> tuple[Channel, Path] | None:
    """The channel that has the frames of a detector on this host, and its folder; the one written last if there are several."""
    found = []
    for path in site.spool.glob(f"*/{CHANNEL_FILE}"):
        try:
            channel = Channel.model_validate_json(path.read_bytes())
            if detector in channel.detectors:
                found.append((path.stat().st_mtime, channel, path.parent))
        except (OSError, ValidationError):
            continue
    return max(found, key=lambda each: each[0])[1:] if found else None


def segment_numbers(folder: Path) -> list[int]:
    """The segments in a folder, the oldest first."""
    return sorted(int(path.stem) for path in folder.glob("*.rows") if path.stem.isdecimal())


def rows_path(folder: Path, segment: int) -> Path:
    """The rows of a segment."""
    return folder / f"{segment:08d}.rows"


def raw_path(folder: Path, segment: int) -> Path:
    """The frames of a segment."""
    return folder / f"{segment:08d}.raw"


def row_sum(row: Any) -> int:
    """What ``row_sum`` of a row must be."""
    return zlib.crc32(row.tobytes()[:_SUMMED])


def sound_rows(data: bytes) -> NDArray[Any]:
    """The rows (row,) in these bytes, up to the first that is not whole."""
    rows = np.frombuffer(data, ROW, count=len(data) // ROW.itemsize)
    wrong = next((number for number, row in enumerate(rows) if row_sum(row) != row["row_sum"]), len(rows))
    return rows[:wrong]


class Spool:
    """Reads a channel's folder while it is written. One thread uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._first: int | None = None
        self._read: dict[int, int] = {}
        self._rows: NDArray[Any] = np.empty(0, ROW)

    def rows_since(self, begun_s: float) -> NDArray[Any]:
        """All rows (row,) of ROW from the last segment on that began before this, Unix seconds. Later calls give more of them."""
        numbers = segment_numbers(self.folder)
        if self._first is None and numbers:
            self._first = next((each for each in reversed(numbers) if self._begins_before(each, begun_s)), numbers[0])
        fresh = [self._new_rows(each) for each in numbers if self._first is not None and each >= max(self._first, *self._read, 0)]
        if any(len(rows) for rows in fresh):
            self._rows = np.concatenate([self._rows, *fresh])
        return self._rows

    def read(self, row: Any) -> NDArray[Any]:
        """What a row of a frame or mask stands for, (y, x).

        Raises:
            FramesError: it is damaged, or was removed to make room.
        """
        path = raw_path(self.folder, int(row["segment"]))
        try:
            with path.open("rb") as file:
                file.seek(int(row["offset"]))
                data = file.read(int(row["size"]))
        except OSError as error:
            raise FramesError(
                f"frame {row['number']} is no longer in the spool {self.folder} ({error.strerror}): it made room for later ones; "
                "give the spool more (spool_gb of the site file)."
            ) from error
        if zlib.crc32(data) != row["sum"]:
            raise FramesError(f"frame {row['number']} in the spool is damaged: {path} was changed, or its disk fails.")
        return decoded(CODECS[row["codec"]], data, (int(row["y"]), int(row["x"])), np.dtype(bytes(row["dtype"]).decode()))

    def _begins_before(self, segment: int, begun_s: float) -> bool:
        rows = self._rows_of(segment, 0, ROW.itemsize)
        return bool(len(rows)) and rows[0]["received_s"] < begun_s

    def _new_rows(self, segment: int) -> NDArray[Any]:
        known = self._read.get(segment, 0)
        rows = self._rows_of(segment, known * ROW.itemsize, -1)
        self._read[segment] = known + len(rows)
        return rows

    def _rows_of(self, segment: int, offset: int, size: int) -> NDArray[Any]:
        try:
            with rows_path(self.folder, segment).open("rb") as file:
                file.seek(offset)
                return sound_rows(file.read(size))
        except FileNotFoundError:
            return np.empty(0, ROW)
