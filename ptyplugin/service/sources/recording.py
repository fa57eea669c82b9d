"""From frames that a detector sends to the spool: what is wrong with them is counted and said, and nothing of it stops the others."""

from __future__ import annotations

import logging
import math
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ptyplugin.io.codecs import CODECS, PIXELS
from ptyplugin.io.spool import Channel, spool_folder
from ptyplugin.io.spool_writer import SpoolWriter
from ptyplugin.model import Site
from ptyplugin.service.sources.state import SourceState

_log = logging.getLogger(__name__)

#: Numbers that are remembered as missing, and frames that a later one may be the same as.
_MOST_MISSING, _MOST_RECENT = 100_000, 1000
#: What is lost is said so often at the most, seconds.
_SAY_EVERY_S = 5.0
#: Largest frame, bytes: four times what the largest detectors have.
LARGEST_FRAME = 2**28
#: Compressed, the worst of frames grows by this share and these bytes.
_GROWS, _GROWS_BYTES = 1 / 128, 4096


class Unrecordable(ValueError):
    """A frame that is not kept; the sentence says why."""


@dataclass(frozen=True, slots=True)
class SentFrame:
    """A frame as it was sent. number: by its sender; data: compressed with ``codec``; taken_s: by the sender's clock, Unix seconds."""

    number: int
    data: bytes
    codec: str
    shape: tuple[int, int]
    dtype: str
    taken_s: float


def check_frame(frame: SentFrame, largest_bytes: int) -> None:
    """Refuse what cannot be a frame.

    Raises:
        Unrecordable: it cannot.
    """
    size = math.prod(frame.shape) * (np.dtype(frame.dtype).itemsize if frame.dtype in PIXELS else 0)
    said = f"frame {frame.number} of {frame.shape[0]} x {frame.shape[1]} px"
    if frame.codec == "jpeg":
        raise Unrecordable(
            f"{said} is compressed with jpeg, which changes counts: set the codec plugin's Compressor to LZ4, BSLZ4 or Blosc."
        )
    if frame.codec not in CODECS:
        raise Unrecordable(f"{said} is compressed with {frame.codec!r}, which is not read: let the detector send {', '.join(CODECS)}.")
    if size <= 0 or min(frame.shape) <= 0:
        raise Unrecordable(f"{said} has pixels of {frame.dtype!r}: frames are integers or floats, with two sides.")
    if size > largest_bytes:
        raise Unrecordable(
            f"{said} has {size / 1e6:.0f} MB, more than the {largest_bytes / 1e6:.1f} MB that are taken: let the detector crop it, "
            "or raise spool_gb of the site file."
        )
    grown = size + size * _GROWS + _GROWS_BYTES
    if (frame.codec == "none" and len(frame.data) != size) or len(frame.data) > grown:
        raise Unrecordable(f"{said} of {frame.dtype} came as {len(frame.data)} bytes of {frame.codec}: its header is wrong.")


class Recording:
    """One channel on its way to the spool. ``connected`` and ``take`` are for one thread at a time; a context manager.

    state: counts frames, lost, late, duplicates, restarts, refused
    say: tells people what is wrong

    Raises:
        OSError: the spool cannot be written, or another process writes it.
    """

    def __init__(self, site: Site, channel: Channel, state: SourceState, say: Callable[[str], None]) -> None:
        self._state, self._say = state, say
        self._prefix = "" if channel.name in state.name else f"{channel.name}: "
        self._largest_bytes = int(site.spool_gb * 1e9)
        self.writer = SpoolWriter(spool_folder(site, channel.name), channel, self._largest_bytes)
        if self.writer.cut_bytes:
            _log.info("%s: %d bytes that an earlier recorder did not finish were cut from its spool", channel.name, self.writer.cut_bytes)
        self._lock = threading.Lock()
        self._last: int | None = None
        self._recent: dict[int, tuple[float, int]] = {}
        self._missing: set[int] = set()
        self._unsaid, self._said_s = 0, 0.0
        self.is_connected = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; what came is kept."""
        with self._lock:
            self.writer.close()

    def connected(self, is_there: bool) -> None:
        """The sender is there from now on, or is not."""
        if is_there != self.is_connected:
            self.is_connected = is_there
            self._written(lambda: self.writer.connected(is_there))

    def count_begins(self, count: int = -1, first: int | None = None) -> None:
        """The sender begins to count anew, to ``count`` frames and with the number ``first`` where it says so."""
        self._last = None if first is None else first - 1
        self._recent, self._missing = {}, set()
        self._written(lambda: self.writer.series_begins(count))

    def mask(self, mask: NDArray[np.uint8]) -> None:
        """Bad pixels (y, x) of what follows."""
        self._written(lambda: self.writer.mask(mask))

    def take(self, frame: SentFrame) -> None:
        """Keep a frame, unless it is there already or cannot be one."""
        try:
            check_frame(frame, min(self._largest_bytes // 8, LARGEST_FRAME))
        except Unrecordable as error:
            self._state.count("refused")
            self._say(f"{self._prefix}{error}")
            return
        same = (frame.taken_s, zlib.crc32(frame.data))
        if self._recent.get(frame.number) == same:
            self._state.count("duplicates")
            self._tell(f"{self._prefix}frame {frame.number} came twice; it is kept once.")
            return
        self._check_number(frame.number)
        self._remember(frame.number, same)
        if self._written(lambda: self._write(frame)):
            self._state.took_frame()

    def missing(self) -> int:
        """How many frames between those that came did not."""
        return len(self._missing)

    def _check_number(self, number: int) -> None:
        if self._last is None or number == self._last + 1:
            return
        if number > self._last:
            lost = number - self._last - 1
            self._missing.update(range(max(self._last + 1, number - _MOST_MISSING), number))
            self._state.count("lost", lost)
            self._unsaid += lost
            self._tell(f"{self._prefix}{self._unsaid} frames were lost on the way, the last before number {number}: the file has them.")
        elif number in self._missing:
            self._missing.discard(number)
            self._state.count("late")
        else:
            self._state.count("restarts")
            self._say(f"{self._prefix}it counts frames anew, after {self._last} comes {number}.")
            self.count_begins()

    def _remember(self, number: int, same: tuple[float, int]) -> None:
        self._last = number if self._last is None else max(self._last, number)
        self._recent[number] = same
        if len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]
        if len(self._missing) > _MOST_MISSING:
            self._missing = {each for each in self._missing if each > self._last - _MOST_MISSING}

    def _write(self, frame: SentFrame) -> None:
        self.writer.frame(frame.number, frame.data, CODECS.index(frame.codec), frame.shape, frame.dtype, frame.taken_s)

    def _written(self, write: Callable[[], None]) -> bool:
        """Whether it could be; what is not kept here is in the detector's file."""
        with self._lock:
            try:
                write()
            except OSError as error:
                self._state.count("refused")
                self._say(f"{self._prefix}frames cannot be kept ({error.strerror}): make room in the spool's disk. The file has them.")
                return False
        return True

    def _tell(self, sentence: str) -> None:
        """What may happen hundreds of times a second."""
        if time.monotonic() - self._said_s > _SAY_EVERY_S:
            self._said_s, self._unsaid = time.monotonic(), 0
            self._say(sentence)
