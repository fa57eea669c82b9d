"""What a Bluesky document says to us: checked, typed, and nothing of it that the profile does not ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.callbacks.assets import Asset
from ptyplugin.model import Profile, Quantity

#: Stream in which a session reads, before and after the plan, what does not scan.
BASELINE = "baseline"
#: Stand for data keys: the timestamps that events have for the y motor and for the detector's images.
SAMPLE_STAMP, FRAME_STAMP = "\0time of y", "\0time of the images"


#: Keys of the start document: the names of what moves, and for each of it the lowest and the highest reading. Bluesky's plans write both.
MOTORS, EXTENTS = "motors", "extents"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The names that a profile looks for; everything else in the documents is passed over.

    detector: data key of the images, in ``stream``
    y, x: data keys of the motors, in ``track``
    monitor: data key of what measures the beam, in one of both, or None
    sample_time, frame_time: what tells the time of the motors' samples and of the frames, if positions are found by time
    readings, configuration, start: data keys, configuration keys, dotted start keys of energy and distances
    plan_names: plans that are ptychography; if empty, what the run has decides
    """

    detector: str
    stream: str
    track: str
    y: str
    x: str
    monitor: str | None
    sample_time: str | None
    frame_time: str | None
    readings: frozenset[str]
    configuration: frozenset[str]
    start: frozenset[str]
    plan_names: frozenset[str]

    @classmethod
    def by(cls, profile: Profile) -> Wanted:
        """What this profile looks for."""
        quantities, positions = quantities_of(profile).values(), profile.positions
        clock = positions.clock
        return cls(
            detector=profile.detector.key,
            stream=profile.detector.stream,
            track=positions.stream or profile.detector.stream,
            y=positions.y.key,
            x=positions.x.key,
            monitor=profile.monitor,
            sample_time=None if clock is None else clock.samples or SAMPLE_STAMP,
            frame_time=None if clock is None else clock.frames or FRAME_STAMP,
            readings=frozenset(each.reading for each in quantities if each.reading is not None),
            configuration=frozenset(each.configuration for each in quantities if each.configuration is not None),
            start=frozenset(each.start for each in quantities if each.start is not None) | ({MOTORS, EXTENTS} if profile.live else set()),
            plan_names=frozenset(profile.plan_names),
        )

    @property
    def columns(self) -> set[str]:
        """The keys whose numbers count at each point; those of the two time stamps are no data keys."""
        named = (self.y, self.x, self.monitor, self.sample_time, self.frame_time)
        return {key for key in named if key is not None}


def quantities_of(profile: Profile) -> dict[str, Quantity]:
    """Energy, distances and exposure of a profile by their names in it; those that it gives."""
    clock = profile.positions.clock
    named = {
        "geometry.energy": profile.geometry.energy,
        "geometry.distance": profile.geometry.distance,
        "geometry.focus_distance": profile.geometry.focus_distance,
        "positions.clock.exposure": None if clock is None else clock.exposure,
    }
    return {name: quantity for name, quantity in named.items() if quantity is not None}


@dataclass(frozen=True, slots=True)
class Reading:
    """A value as the documents have it, and the unit that they name for it."""

    value: Any
    units: str | None


@dataclass(frozen=True, slots=True)
class DataKey:
    """Shape of one reading (None: unknown), unit, and whether the values lie in a file ("STREAM:", "FILESTORE:")."""

    shape: tuple[int, ...] | None
    units: str | None
    external: str | None


@dataclass(frozen=True, slots=True)
class Start:
    """A run begins. ``values``: those dotted keys of ``Wanted.start`` that it has; ``begun_s``: when, Unix seconds, if it says so;
    ``points``: how many it announces, if it does."""

    uid: str
    scan_id: int | None
    plan_name: str
    values: Mapping[str, Any]
    begun_s: float | None = None
    points: int | None = None


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A stream declares its data keys. ``configuration``: those of ``Wanted.configuration`` that it has."""

    uid: str
    run: str
    stream: str
    time: float
    data_keys: Mapping[str, DataKey]
    configuration: Mapping[str, Reading]


@dataclass(frozen=True, slots=True)
class Event:
    """One row of a stream.

    columns: numbers of those of ``Wanted.columns`` that it has, in their units: one, or those on the way; NaN for what is no number
    frames: datum id of the detector's frames, the frames themselves (frame, y, x), or None
    readings: those of ``Wanted.readings`` that it has
    """

    descriptor: str
    seq_num: int
    time: float
    uid: str
    columns: Mapping[str, tuple[float, ...]]
    frames: str | NDArray[Any] | None
    readings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """A file or a folder. ``data_key``: None where only events know whose frames it holds (ophyd)."""

    uid: str
    run: str | None
    data_key: str | None
    asset: Asset


@dataclass(frozen=True, slots=True)
class Datum:
    """Some rows of a resource (ophyd): ``rows`` count points, ``frame`` counts frames; neither where it says neither.

    dataset: path of the dataset, where the datum and not the resource names it
    """

    datum_id: str
    resource: str
    rows: range | None
    frame: int | None
    dataset: str | None


@dataclass(frozen=True, slots=True)
class StreamDatum:
    """Rows ``indices`` of a resource belong to points ``seq_nums``, one to one (ophyd-async)."""

    resource: str
    descriptor: str
    indices: range
    seq_nums: range


@dataclass(frozen=True, slots=True)
class Stop:
    """A run ends. ``points``: number of events by stream, as the RunEngine counted them."""

    run: str
    exit_status: str
    reason: str
    points: Mapping[str, int]


OfRun = Descriptor | Event | Resource | Datum | StreamDatum
Document = Start | OfRun | Stop


def weight(document: Document) -> int:
    """Bytes that keeping a document costs, roughly."""
    frames = document.frames if isinstance(document, Event) else None
    return 1000 + (frames.nbytes if isinstance(frames, np.ndarray) else 0)
