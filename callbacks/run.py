"""One run as its documents tell it so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from ptyplugin.callbacks.documents import (
    BASELINE,
    DataKey,
    Datum,
    Descriptor,
    Event,
    OfRun,
    Reading,
    Resource,
    Start,
    Stop,
    StreamDatum,
    Wanted,
)
from ptyplugin.callbacks.fields import number
from ptyplugin.callbacks.pairing import MOST_FRAMES_OF_A_POINT, Pairing, PointEvent, Record, Tally
from ptyplugin.callbacks.quantities import metres_per_step
from ptyplugin.model import FramesError, Profile, ProfileError, TiledSource

#: Frames inside events stay in memory until the run ends; more than this belong into a file.
MOST_ARRAY_BYTES = 4 * 2**30


@dataclass(frozen=True, slots=True, eq=False)
class CollectedRun:
    """A run that has ended: all that its documents said and the profile asked for.

    is_ptychography: whether the profile takes it for one (``plan_names``)
    data_keys: by stream; the same documents in another order give the same content
    start, configuration, readings: what energy and distances may stand in
    points: number of events that the RunEngine counted in the detector's stream, None if it does not say
    problems: sentences, why there can be no job
    begun_s: when it began, Unix seconds, if its start document says so
    """

    uid: str
    scan_id: int | None
    is_ptychography: bool
    exit_status: str
    reason: str
    data_keys: Mapping[str, Mapping[str, DataKey]]
    start: Mapping[str, object]
    configuration: Mapping[str, Reading]
    readings: Mapping[str, Reading]
    points: int | None
    records: tuple[Record, ...]
    tally: Tally
    problems: tuple[str, ...]
    begun_s: float | None = None


class Run:
    """What is known of one open run. Each ``add`` gives the records that it completes."""

    def __init__(self, start: Start, wanted: Wanted, profile: Profile) -> None:
        self.uid = start.uid
        self._begun = start
        self._wanted = wanted
        self._axes = profile.positions
        self._monitor_key = profile.monitor
        self._descriptors: dict[str, Descriptor] = {}
        self._metres: dict[str, tuple[float, float]] = {}
        self._readings: dict[tuple[str, str], tuple[tuple[float, str], Reading]] = {}
        self._problems: set[str] = set()
        self._shapes: set[tuple[int, ...]] = set()
        self._resources: dict[str, bool] = {}
        self._early: dict[str, list[StreamDatum]] = {}
        self._pairing = Pairing(TiledSource(run_uid=start.uid, stream=wanted.stream, key=wanted.detector))

    def missing_datum(self, event: Event) -> str | None:
        """The datum that this event refers to, if it has not come."""
        named = event.frames if isinstance(event.frames, str) and self._is_detectors(event.descriptor) else None
        return None if named is None or self._pairing.knows_datum(named) else named

    def add(self, document: OfRun) -> list[Record]:
        """Take a document of this run; nothing is kept of a run whose plan is no ptychography."""
        if not self._plan_is_wanted():
            return []
        try:
            match document:
                case Descriptor():
                    self._add_descriptor(document)
                    return []
                case Event():
                    return self._add_event(document)
                case Resource():
                    return self._add_resource(document)
                case Datum():
                    return self._pairing.add_datum(document)
                case StreamDatum():
                    return self._add_stream_datum(document)
        except FramesError as error:
            self._problems.add(str(error))
            return []

    def ended(self, stop: Stop) -> CollectedRun:
        """The run as it is at its end."""
        records: list[Record] = []
        tally = Tally()
        if not self._problems:
            try:
                tally, records = self._pairing.tally(), self._pairing.records()
            except FramesError as error:
                self._problems.add(str(error))
        return CollectedRun(
            uid=self.uid,
            scan_id=self._begun.scan_id,
            is_ptychography=self._is_ptychography(),
            exit_status=stop.exit_status,
            reason=stop.reason,
            data_keys=self._data_keys(),
            start=self._begun.values,
            configuration=self._configuration(),
            readings=self._first_readings(),
            points=stop.points.get(self._wanted.stream),
            records=tuple(records),
            tally=tally,
            problems=tuple(sorted(self._problems)),
            begun_s=self._begun.begun_s,
        )

    def _add_descriptor(self, descriptor: Descriptor) -> None:
        if descriptor.uid in self._descriptors:
            return
        self._descriptors[descriptor.uid] = descriptor
        if descriptor.stream != self._wanted.stream:
            return
        try:
            self._note_shape(descriptor.data_keys.get(self._wanted.detector))
            self._metres[descriptor.uid] = self._metres_per_step(descriptor)
        except (FramesError, ProfileError) as error:
            self._problems.add(str(error))

    def _note_shape(self, detector: DataKey | None) -> None:
        if detector is None or detector.shape is None:
            return
        self._shapes.add(detector.shape)
        self._pairing.frames_per_point = min(max(1, prod(detector.shape[:-2])), MOST_FRAMES_OF_A_POINT + 1)
        if len(self._shapes) > 1:
            raise FramesError(f"the shape of the detector's frames changed during the run ({len(self._shapes)} shapes): keep one.")

    def _metres_per_step(self, descriptor: Descriptor) -> tuple[float, float]:
        y, x = (descriptor.data_keys.get(axis.key) for axis in (self._axes.y, self._axes.x))
        # That a motor is missing is said at the end, when all keys are known.
        if y is None or x is None:
            return 1.0, 1.0
        return metres_per_step(self._axes.y, y), metres_per_step(self._axes.x, x)

    def _add_event(self, event: Event) -> list[Record]:
        stream = self._descriptors[event.descriptor].stream
        # The first reading counts, and no later one in its place: the energy may have been changed between.
        if event.seq_num == 1 and stream in (BASELINE, self._wanted.stream):
            self._note_first_readings(event, stream)
        if not self._is_detectors(event.descriptor) or event.descriptor not in self._metres:
            return []
        (y_m, x_m), positions = self._metres[event.descriptor], None
        if event.positions is not None:
            positions = tuple((y * y_m, x * x_m) for y, x in event.positions)
        frames = event.frames
        if isinstance(frames, np.ndarray) and self._pairing.array_bytes + frames.nbytes > MOST_ARRAY_BYTES:
            raise FramesError(
                f"the frames inside the events need more than {MOST_ARRAY_BYTES / 2**30:g} GiB: let the detector write a file."
            )
        return self._pairing.add_event(event.seq_num, PointEvent(event.time, event.uid, positions, frames, self._monitor(event)))

    def _monitor(self, event: Event) -> float:
        return math.nan if self._monitor_key is None else number(event.readings.get(self._monitor_key))

    def _note_first_readings(self, event: Event, stream: str) -> None:
        keys = self._descriptors[event.descriptor].data_keys
        for key, value in event.readings.items():
            # Of a first point that was taken twice, the later event.
            rank = (event.time, event.uid)
            known = self._readings.get((stream, key))
            if known is None or known[0] < rank:
                self._readings[stream, key] = rank, Reading(value, keys[key].units if key in keys else None)

    def _add_resource(self, resource: Resource) -> list[Record]:
        if resource.uid in self._resources:
            return []
        self._resources[resource.uid] = resource.data_key in (None, self._wanted.detector)
        early = self._early.pop(resource.uid, [])
        if not self._resources[resource.uid]:
            return []
        records = self._pairing.add_asset(resource.uid, resource.asset)
        return records + [record for datum in early for record in self._pairing.add_stream_datum(datum)]

    def _add_stream_datum(self, datum: StreamDatum) -> list[Record]:
        if not self._is_detectors(datum.descriptor):
            return []
        if datum.resource not in self._resources:
            self._early.setdefault(datum.resource, []).append(datum)
            return []
        return self._pairing.add_stream_datum(datum) if self._resources[datum.resource] else []

    def _is_detectors(self, descriptor: str) -> bool:
        known = self._descriptors.get(descriptor)
        return known is not None and known.stream == self._wanted.stream

    def _plan_is_wanted(self) -> bool:
        return not self._wanted.plan_names or self._begun.plan_name in self._wanted.plan_names

    def _is_ptychography(self) -> bool:
        if self._wanted.plan_names:
            return self._plan_is_wanted()
        keys = self._data_keys()
        scans = {self._wanted.y, self._wanted.x} <= keys.get(self._wanted.stream, {}).keys()
        return scans or any(self._wanted.detector in of_stream for of_stream in keys.values())

    def _in_time(self) -> list[Descriptor]:
        return sorted(self._descriptors.values(), key=lambda descriptor: (descriptor.time, descriptor.uid))

    def _data_keys(self) -> dict[str, dict[str, DataKey]]:
        merged: dict[str, dict[str, DataKey]] = {}
        for descriptor in self._in_time():
            of_stream = merged.setdefault(descriptor.stream, {})
            merged[descriptor.stream] = {**descriptor.data_keys, **of_stream}
        return merged

    def _configuration(self) -> dict[str, Reading]:
        merged: dict[str, Reading] = {}
        for descriptor in self._in_time():
            if descriptor.stream == self._wanted.stream:
                merged = {**descriptor.configuration, **merged}
        return merged

    def _first_readings(self) -> dict[str, Reading]:
        """By data key; what the baseline has goes before what the detector's stream has."""
        found = {
            stream: {key: each[1] for (at, key), each in self._readings.items() if at == stream}
            for stream in (self._wanted.stream, BASELINE)
        }
        return {**found[self._wanted.stream], **found[BASELINE]}
