"""Frames over PV Access: the channels (NTNDArray) that profiles name in ``[live] pva``, recorded from the service's start on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from ptyplugin.io.spool import Channel, Detector
from ptyplugin.model import Profile, Site, SiteError
from ptyplugin.service.sources.recording import Recording, SentFrame, Unrecordable
from ptyplugin.service.sources.source import Source, SourceAway

_log = logging.getLogger(__name__)

#: Frames that the server keeps for us while we are late; more are squashed there, and are lost frames.
QUEUE = 256
_LOOK_EVERY_S = 0.5
#: How long a channel may take to be found before that is said, seconds.
_SEARCH_S = 3.0
#: Types of pixels by their number in codec.parameters (pvData's ScalarType).
_SCALAR_TYPES = {1: "i1", 2: "i2", 3: "i4", 4: "i8", 5: "u1", 6: "u2", 7: "u4", 8: "u8", 9: "f4", 10: "f8"}


class PvaFrames(Source):
    """Records all channels of these profiles; a profile that names another one later is followed.

    Raises:
        SiteError: p4p is not installed.
    """

    def __init__(self, profiles: Sequence[Profile], site: Site) -> None:
        super().__init__("frames over PVA")
        self._profiles, self._site = profiles, site
        self._monitors: dict[Channel, _Monitor] = {}
        try:
            import p4p.client.thread  # noqa: F401
        except ImportError as error:
            raise SiteError("frames over PV Access ([live] pva of a profile) need p4p: pip install 'ptyplugin[epics]'.") from error

    def work(self, stop: threading.Event) -> None:
        """Record until ``stop``; PV Access connects again by itself.

        Raises:
            SourceAway: PV Access or the spool cannot be used.
        """
        from p4p.client.thread import Context

        try:
            context = Context("pva", nt=False)
        except RuntimeError as error:
            raise SourceAway(f"PV Access cannot be used ({error}): check the variables EPICS_PVA_*.") from error
        try:
            while not stop.is_set():
                self._follow(context)
                there = [monitor.is_there() for monitor in self._monitors.values()]
                self.state.connected = bool(there) and all(there)
                stop.wait(_LOOK_EVERY_S)
        except OSError as error:
            raise SourceAway(f"the spool cannot be written ({error.strerror}): check {self._site.spool} and its disk.") from error
        finally:
            for monitor in self._monitors.values():
                monitor.close()
            self._monitors = {}
            context.close()

    def _follow(self, context: Any) -> None:
        wanted = channels_of(self._profiles)
        for channel in [each for each in self._monitors if each not in wanted]:
            self._monitors.pop(channel).close()
        troubles = []
        for channel in [each for each in wanted if each not in self._monitors]:
            try:
                self._monitors[channel] = _Monitor(context, Recording(self._site, channel, self.state, self.say), channel.name, self)
            except OSError as error:
                troubles.append(error)
        # The channels that can be recorded are, whatever is wrong with another one's folder.
        if troubles and len(troubles) == len(wanted):
            raise troubles[0]
        if troubles:
            self.say(f"{len(troubles)} channels cannot be recorded ({troubles[0]}): check {self._site.spool} and its disk.")


def channels_of(profiles: Sequence[Profile]) -> list[Channel]:
    """The PV Access channels of these profiles, each with all detectors whose frames it has."""
    found: dict[str, list[Detector]] = {}
    for profile in profiles:
        if profile.live is not None and profile.live.pva:
            detector = Detector(beamline=profile.beamline, stream=profile.detector.stream, key=profile.detector.key)
            found.setdefault(profile.live.pva, []).append(detector)
    return [Channel(name=name, kind="pva", detectors=tuple(dict.fromkeys(detectors))) for name, detectors in found.items()]


class _Monitor:
    """One channel. Its updates come one after the other, in a thread of its own."""

    def __init__(self, context: Any, recording: Recording, channel: str, source: Source) -> None:
        from p4p.util import ThreadedWorkQueue

        self.recording, self._channel, self._source = recording, channel, source
        self._was_there, self._begun_s = False, time.monotonic()
        # Bounded, it would lose the news that there is news.
        self._queue = ThreadedWorkQueue(workers=1, name=f"ptyplugin-{channel}", daemon=True, maxsize=0)
        self._queue.start()
        request = f"record[queueSize={QUEUE}]field()"
        self._subscription = context.monitor(channel, self._take, request=request, notify_disconnect=True, queue=self._queue)

    def is_there(self) -> bool:
        """Whether it is connected; if it never was, that is said."""
        if not self._was_there and time.monotonic() - self._begun_s > _SEARCH_S:
            self._source.say(
                f"{self._channel} is not there: is its name right, is its IOC running, and are the variables EPICS_PVA_* right?"
            )
        return self.recording.is_connected

    def close(self) -> None:
        self._subscription.close()
        self._queue.stop()
        self.recording.close()

    def _take(self, update: Any) -> None:
        # p4p would end the subscription for an exception.
        try:
            if isinstance(update, Exception):
                self._disconnected()
                return
            self.recording.connected(True)
            self._was_there = True
            frame = frame_of(update)
            if frame is not None:
                self.recording.take(frame)
        except Unrecordable as error:
            self._source.refuse(f"{self._channel}: {error}")
        except Exception as error:
            _log.exception("%s: an update cannot be used", self._channel)
            self._source.refuse(f"{self._channel}: an update cannot be used ({type(error).__name__}): is it an NTNDArray?")

    def _disconnected(self) -> None:
        # The first news of each channel is that it is not connected yet.
        if self.recording.is_connected:
            self.recording.connected(False)
            self._source.state.count("disconnected")
            self._source.say(f"{self._channel} is not there any more: frames are recorded again when it comes back.")


def frame_of(update: Any) -> SentFrame | None:
    """The frame in an update of an NTNDArray; None where it has none yet.

    Raises:
        Unrecordable: it is no frame of two sides.
    """
    sides = [int(side.size) for side in update.dimension]
    number, pixels = int(update.uniqueId), update.value
    if not sides or pixels is None or not len(pixels):
        return None
    if len(sides) != 2:
        raise Unrecordable(f"frame {number} has sides {sides}, not two: let the detector send monochrome frames.")
    stamp = update.dataTimeStamp if update.dataTimeStamp.secondsPastEpoch else update.timeStamp
    taken_s = stamp.secondsPastEpoch + stamp.nanoseconds * 1e-9
    codec = update.codec.name or "none"
    dtype = pixels.dtype.str[1:] if codec == "none" else _SCALAR_TYPES.get(_whole(update.codec.parameters), "")
    return SentFrame(number, pixels.tobytes(), codec, (sides[1], sides[0]), dtype, taken_s)


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) else -1
