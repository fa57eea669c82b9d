"""Frames of a DECTRIS detector's stream (SIMPLON API 1.x: 0MQ, header, images, end of series), recorded into the spool."""

from __future__ import annotations

import json
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.io.spool import Channel, Detector
from ptyplugin.model import EigerStream, Profile, Site, SiteError
from ptyplugin.service.sources.recording import Recording, SentFrame, Unrecordable
from ptyplugin.service.sources.source import Source, SourceAway
from ptyplugin.service.sources.writing import WrittenBehind

_log = logging.getLogger(__name__)

_POLL_MS = 200
#: Messages that wait in memory in 0MQ, and bytes of those that were taken and wait to be written; the detector keeps what is beyond.
_MOST_WAITING, _MOST_BYTES = 8, 2**29
#: What a message takes beside its parts, about.
_MESSAGE_BYTES = 1000
#: Numbers that a frame which comes twice is known by.
_MOST_RECENT = 10_000
#: Most parts of a message (a header with all its details has nine), and largest of those that are JSON, bytes.
_MOST_PARTS, _LARGEST_JSON = 16, 1 << 20
_ENCODING = re.compile(r"(?:bs(8|16|32|64)-?)?(lz4)?<")
_TYPES = {"uint8": "u1", "uint16": "u2", "uint32": "u4", "int8": "i1", "int16": "i2", "int32": "i4", "float32": "f4"}


class EigerFrames(Source):
    """Pulls from the detector's stream. Each of its messages goes to one puller: nobody else may pull there.

    Raises:
        SiteError: 0MQ is not installed.
    """

    def __init__(self, table: EigerStream, profiles: Sequence[Profile], site: Site) -> None:
        super().__init__(f"Eiger {table.address}")
        self._table, self._profiles, self._site = table, profiles, site
        try:
            import zmq  # noqa: F401
        except ImportError as error:
            raise SiteError("the stream of an Eiger needs pyzmq: pip install 'ptyplugin[zmq]'.") from error

    def work(self, stop: threading.Event) -> None:
        """Take messages until ``stop``.

        Raises:
            SourceAway: the connection ended, or the address or the spool cannot be used.
        """
        try:
            with (
                Recording(self._site, self._channel(), self.state, self.say) as recording,
                WrittenBehind(_MOST_BYTES) as behind,
            ):
                self._pull(Series(recording), recording, behind, stop)
        except OSError as error:
            raise SourceAway(f"the spool cannot be written ({error.strerror}): check {self._site.spool} and its disk.") from error

    def _channel(self) -> Channel:
        detectors = [Detector(beamline=each.beamline, stream=each.detector.stream, key=each.detector.key) for each in self._profiles]
        return Channel(name=self._table.address, kind="eiger", detectors=tuple(dict.fromkeys(detectors)))

    def _pull(self, series: Series, recording: Recording, behind: WrittenBehind, stop: threading.Event) -> None:
        import zmq

        context = zmq.Context()
        try:
            socket = context.socket(zmq.PULL)
            socket.setsockopt(zmq.RCVHWM, _MOST_WAITING)
            socket.setsockopt(zmq.MAXMSGSIZE, int(self._table.largest_mb * 1e6))
            monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
            socket.connect(self._table.address)
            poller = zmq.Poller()
            poller.register(socket, zmq.POLLIN)
            poller.register(monitor, zmq.POLLIN)
            while not stop.is_set():
                if not self._has_room(behind):
                    continue
                ready = dict(poller.poll(_POLL_MS))
                if monitor in ready:
                    self._note_connection(monitor, recording, behind, lambda: self._take_rest(series, socket, behind))
                if socket in ready:
                    self._put(series, socket.recv_multipart(zmq.NOBLOCK), behind)
            socket.disable_monitor()
        except zmq.ZMQError as error:
            raise SourceAway(f"0MQ at {self._table.address} cannot be used ({error}): check the address.") from error
        finally:
            context.destroy(linger=0)

    def _has_room(self, behind: WrittenBehind) -> bool:
        if behind.is_full:
            self.say(
                f"{_MOST_BYTES / 1e6:.0f} MB of frames wait to be written: the disk of {self._site.spool} is slower than the detector. "
                "Further ones stay with the detector; those that it has to drop are left to its file."
            )
        return behind.wait_for_room(_POLL_MS / 1000)

    def _put(self, series: Series, parts: list[bytes], behind: WrittenBehind) -> None:
        # Empty ones take memory too.
        behind.put(_MESSAGE_BYTES + sum(map(len, parts)), lambda: self._take(series, parts))

    def _note_connection(self, monitor: Any, recording: Recording, behind: WrittenBehind, take_rest: Callable[[], None]) -> None:
        import zmq
        from zmq.utils.monitor import recv_monitor_message

        if recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.state.connected = True
            behind.put(0, lambda: recording.connected(True))
        else:
            self.state.count("disconnected")
            take_rest()
            # After a message that is too large, 0MQ itself would not connect again.
            raise SourceAway("the detector ended the connection, or sent a message larger than largest_mb: it is tried again.")

    def _take_rest(self, series: Series, socket: Any, behind: WrittenBehind) -> None:
        """What came before the connection ended."""
        import zmq

        with suppress(zmq.Again):
            while True:
                self._put(series, socket.recv_multipart(zmq.NOBLOCK), behind)

    def _take(self, series: Series, parts: list[bytes]) -> None:
        try:
            series.take(parts)
        except Unrecordable as error:
            self.refuse(str(error))


class Series:
    """The messages of a stream, in their order, on their way into a recording."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._number: int | None = None
        self._count = -1
        self._kind: tuple[tuple[int, int], str] | None = None
        #: Frames that came, those of the last numbers, and the largest.
        self._came, self._recent, self._highest = 0, dict[int, None](), -1

    def take(self, parts: list[bytes]) -> None:
        """Use one message.

        Raises:
            Unrecordable: it is none of the stream's, or a frame that does not fit.
        """
        if not 1 <= len(parts) <= _MOST_PARTS:
            raise Unrecordable(f"a message has {len(parts)} parts: is it the stream of a detector with the SIMPLON API 1.x?")
        head = _json(parts[0])
        match head.get("htype"):
            case "dheader-1.0":
                self._begin(head, parts)
            case "dimage-1.0":
                self._take_image(head, parts)
            case "dseries_end-1.0":
                self._end(_whole(head, "series"))
            case other:
                raise Unrecordable(f"messages of the kind {other!r:.60} are not read: set the stream's format to legacy (SIMPLON API 1.x).")

    def _begin(self, head: Mapping[str, Any], parts: list[bytes]) -> None:
        number = _whole(head, "series")
        configuration = _json(parts[1]) if len(parts) > 1 and head.get("header_detail") != "none" else {}
        announced = [configuration.get(key, 1) for key in ("nimages", "ntrigger")]
        known = "nimages" in configuration and all(isinstance(each, int) and 0 < each < 1 << 31 for each in announced)
        self._number, self._kind = number, None
        self._came, self._recent, self._highest = 0, {}, -1
        self._count = math.prod(announced) if known else -1
        self._recording.count_begins(self._count, first=0)
        mask = _mask(parts)
        if mask is not None:
            self._recording.mask(mask)

    def _take_image(self, head: Mapping[str, Any], parts: list[bytes]) -> None:
        series, number = _whole(head, "series"), _whole(head, "frame")
        if series != self._number:
            raise Unrecordable(f"frames of series {series} come whose header did not: they are recorded from the next series on.")
        if len(parts) < 3:
            raise Unrecordable(f"the message of frame {number} has {len(parts)} parts, not three or more.")
        frame = image_of(number, _json(parts[1]), parts[2])
        self._kind = self._kind or (frame.shape, frame.dtype)
        if self._kind != (frame.shape, frame.dtype):
            raise Unrecordable(f"frame {number} of series {series} is {frame.shape} {frame.dtype}, its first one {self._kind}: not kept.")
        if number in self._recent or number <= self._highest - _MOST_RECENT:
            raise Unrecordable(f"frame {number} of series {series} came twice, or far too late: kept once.")
        self._remember(number)
        self._recording.take(frame)

    def _remember(self, number: int) -> None:
        """A series may have a thousand million frames."""
        self._came, self._highest = self._came + 1, max(self._highest, number)
        self._recent[number] = None
        if len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]

    def _end(self, series: int) -> None:
        if series == self._number and self._count >= 0 and self._came < self._count:
            _log.warning("series %d ended with %d of %d frames", series, self._came, self._count)
        self._number = None


def image_of(number: int, about: Mapping[str, Any], data: bytes) -> SentFrame:
    """The frame that the second and third part of an image's message are.

    Raises:
        Unrecordable: the parts do not say what they must, or something that is not read.
    """
    shape, encoding = about.get("shape"), str(about.get("encoding"))
    # DECTRIS gives the fast axis first.
    if about.get("htype") != "dimage_d-1.0" or not isinstance(shape, list) or len(shape) != 2 or not all(_is_side(side) for side in shape):
        raise Unrecordable(f"frame {number} does not say its two sides.")
    dtype, found = _TYPES.get(str(about.get("type")), ""), _ENCODING.fullmatch(encoding)
    if not dtype or found is None or (found[1] and (not found[2] or int(found[1]) != 8 * int(dtype[1:]))):
        raise Unrecordable(
            f"frame {number} of {about.get('type')!r:.40} is encoded as {encoding[:40]!r}, which is not read: "
            "set the stream's compression to bslz4, lz4 or none."
        )
    codec = "bslz4" if found[1] else "lz4" if found[2] else "none"
    return SentFrame(number, data, codec, (shape[1], shape[0]), dtype, time.time())


def _mask(parts: list[bytes]) -> NDArray[np.uint8] | None:
    """The pixel mask (y, x), 0 = good, of a header with all details; None if it has none."""
    for about, data in pairwise(parts[2:]):
        # Every second part is JSON; the others are large and binary.
        if b"dpixelmask-1.0" not in about[:200]:
            continue
        shape = _json(about).get("shape")
        if isinstance(shape, list) and len(shape) == 2 and all(_is_side(side) for side in shape) and len(data) == 4 * math.prod(shape):
            return np.asarray(np.frombuffer(data, "<u4").reshape(shape[1], shape[0]) != 0, dtype=np.uint8)
        raise Unrecordable("the pixel mask in a header does not have the size that it says: it is not used.")
    return None


def _json(part: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(part) if len(part) <= _LARGEST_JSON else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Unrecordable("a part of a message is no JSON object: is it the stream of a detector with the SIMPLON API 1.x?")
    return found


def _whole(table: Mapping[str, Any], key: str) -> int:
    value = table.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise Unrecordable(f"a message has no number {key!r}.")
    return value


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 16
