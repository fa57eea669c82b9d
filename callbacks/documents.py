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


@dataclass(frozen=True, slots=True)
class Wanted:
    """The names that a profile looks for; everything else in the documents is passed over.

    detector: data key of the images, in ``stream``
    y, x: data keys of the motors
    readings, configuration, start: data keys, configuration keys, dotted start keys of energy and distances; and the monitor's data key
    plan_names: plans that are ptychography; if empty, what the run has decides
    """

    detector: str
    stream: str
    y: str
    x: str
    readings: frozenset[str]
    configuration: frozenset[str]
    start: frozenset[str]
    plan_names: frozenset[str]

    @classmethod
    def by(cls, profile: Profile) -> Wanted:
        """What this profile looks for."""
        quantities = quantities_of(profile).values()
        return cls(
            detector=profile.detector.key,
            stream=profile.detector.stream,
            y=profile.positions.y.key,
            x=profile.positions.x.key,
            readings=frozenset(key for key in (profile.monitor, *(each.reading for each in quantities)) if key is not None),
            configuration=frozenset(each.configuration for each in quantities if each.configuration is not None),
            start=frozenset(each.start for each in quantities if each.start is not None),
            plan_names=frozenset(profile.plan_names),
        )


def quantities_of(profile: Profile) -> dict[str, Quantity]:
    """Energy and distances of a profile by their names in it; those that it gives."""
    named = {
        "geometry.energy": profile.geometry.energy,
        "geometry.distance": profile.geometry.distance,
        "geometry.focus_distance": profile.geometry.focus_distance,
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
    """A run begins. ``values``: those dotted keys of ``Wanted.start`` that it has; ``begun_s``: when, Unix seconds, if it says so."""

    uid: str
    scan_id: int | None
    plan_name: str
    values: Mapping[str, Any]
    begun_s: float | None = None


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

    positions: (y, x) in the motors' units, one or those on the way, NaN for what is no number; None where a motor's key is missing
    frames: datum id of the detector's frames, the frames themselves (frame, y, x), or None
    readings: those of ``Wanted.readings`` that it has
    """

    descriptor: str
    seq_num: int
    time: float
    uid: str
    positions: tuple[tuple[float, float], ...] | None
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
