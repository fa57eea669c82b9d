"""One run as its documents tell it so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from ptyplugin.callbacks.columns import Column, Columns
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
from ptyplugin.callbacks.pairing import MOST_FRAMES_OF_A_POINT, Pairing, PointEvent, Record, Tally
from ptyplugin.callbacks.quantities import metres_per_step, unit_factor
from ptyplugin.callbacks.track import Stretch, Track
from ptyplugin.model import FramesError, Profile, ProfileError, TiledSource
from ptyplugin.model.profile import TIME_UNITS_S

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
    announced: number of points that its start document announces, if it does
    track: what was captured of the positions at a rate of their own
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
    track: tuple[Stretch, ...] = ()


class Run:
    """What is known of one open run. Each ``add`` gives the records that it completes."""

    def __init__(self, start: Start, wanted: Wanted, profile: Profile) -> None:
        self.uid = start.uid
        self._begun = start
        self._wanted = wanted
        self._axes = profile.positions
        self._descriptors: dict[str, Descriptor] = {}
        self._factors: dict[str, dict[str, float]] = {}
        self._readings: dict[tuple[str, str], tuple[tuple[float, str], Reading]] = {}
        self._problems: set[str] = set()
        self._shapes: set[tuple[int, ...]] = set()
        self._resources: dict[str, Resource] = {}
        self._early: dict[str, list[StreamDatum]] = {}
        self._own = Columns()
        self._points = self._own if wanted.track == wanted.stream else Columns()
        self._track = Track((wanted.sample_time or "", wanted.y, wanted.x, wanted.monitor))
        self._pairing = Pairing(TiledSource(run_uid=start.uid, stream=wanted.stream, key=wanted.detector), wanted, self._own, self._points)

    def missing_datum(self, event: Event) -> str | None:
        """The datum that this event refers to, if it has not come."""
        named = event.frames if isinstance(event.frames, str) and self._stream(event.descriptor) == self._wanted.stream else None
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

    def so_far(self) -> CollectedRun:
        """The run while it is open, without its records."""
        return self._picture(Stop(self.uid, "success", "", {}), [], Tally(), self.track())

    def ended(self, stop: Stop) -> CollectedRun:
        """The run as it is at its end."""
        records: list[Record] = []
        tally, track = Tally(), list[Stretch]()
        if not self._problems:
            try:
                tally, records, track = self._pairing.tally(), self._pairing.records(), self.track()
            except FramesError as error:
                self._problems.add(str(error))
        return self._picture(stop, records, tally, track)

    def _picture(self, stop: Stop, records: list[Record], tally: Tally, track: list[Stretch]) -> CollectedRun:
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
            track=tuple(track),
        )

    def track(self) -> list[Stretch]:
        """What was captured so far of the positions at a rate of their own.

        Raises:
            FramesError: it lies in files of a kind that is not read.
        """
        return self._track.stretches()

    def _add_descriptor(self, descriptor: Descriptor) -> None:
        if descriptor.uid in self._descriptors:
            return
        self._descriptors[descriptor.uid] = descriptor
        if descriptor.stream not in (self._wanted.stream, self._wanted.track):
            return
        try:
            if descriptor.stream == self._wanted.stream:
                self._note_shape(descriptor.data_keys.get(self._wanted.detector))
            self._factors[descriptor.uid] = self._factors_of(descriptor)
        except (FramesError, ProfileError) as error:
            self._problems.add(str(error))

    def _note_shape(self, detector: DataKey | None) -> None:
        if detector is None or detector.shape is None:
            return
        self._shapes.add(detector.shape)
        self._pairing.frames_per_point = min(max(1, prod(detector.shape[:-2])), MOST_FRAMES_OF_A_POINT + 1)
        if len(self._shapes) > 1:
            raise FramesError(f"the shape of the detector's frames changed during the run ({len(self._shapes)} shapes): keep one.")

    def _factors_of(self, descriptor: Descriptor) -> dict[str, float]:
        """What one unit of each number is in metres or seconds. That a key is missing is said at the end, when all are known."""
        found: dict[str, float] = {}
        if descriptor.stream == self._wanted.track:
            motors = [axis for axis in (self._axes.y, self._axes.x) if axis.key in descriptor.data_keys]
            found = {axis.key: metres_per_step(axis, descriptor.data_keys[axis.key]) for axis in motors}
        for key in (self._wanted.sample_time, self._wanted.frame_time):
            if key is not None and key in descriptor.data_keys:
                found[key] = unit_factor(descriptor.data_keys[key].units or "s", TIME_UNITS_S, f"the time {key!r}")
        return found

    def _add_event(self, event: Event) -> list[Record]:
        stream = self._stream(event.descriptor)
        # The first reading counts, and no later one in its place: the energy may have been changed between.
        if event.seq_num == 1 and stream is not None and stream in (BASELINE, self._wanted.stream):
            self._note_first_readings(event, stream)
        if event.descriptor not in self._factors:
            return []
        rank, stored = (event.time, event.uid), self._in_stored_units(event)
        if stream == self._wanted.track:
            if self._wanted.sample_time is None:
                self._points.add_event(event.seq_num, rank, stored)
            else:
                self._track.add_event(event.seq_num, rank, stored)
        if stream != self._wanted.stream:
            return self._pairing.grown([event.seq_num])
        self._own.add_event(event.seq_num, rank, stored)
        frames = event.frames
        if isinstance(frames, np.ndarray) and self._pairing.array_bytes + frames.nbytes > MOST_ARRAY_BYTES:
            raise FramesError(
                f"the frames inside the events need more than {MOST_ARRAY_BYTES / 2**30:g} GiB: let the detector write a file."
            )
        return self._pairing.add_event(event.seq_num, PointEvent(event.time, event.uid, frames))

    def _in_stored_units(self, event: Event) -> dict[str, tuple[float, ...]]:
        factors = self._factors[event.descriptor]
        scaled = {key: factors.get(key, 1.0) for key in event.columns}
        return {key: tuple(value * scaled[key] for value in values) for key, values in event.columns.items()}

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
        self._resources[resource.uid] = resource
        records: list[Record] = []
        if resource.data_key in (None, self._wanted.detector):
            records = self._pairing.add_asset(resource.uid, resource.asset)
        early = self._early.pop(resource.uid, [])
        return records + [record for datum in early for record in self._add_stream_datum(datum)]

    def _add_stream_datum(self, datum: StreamDatum) -> list[Record]:
        stream = self._stream(datum.descriptor)
        if stream not in (self._wanted.stream, self._wanted.track):
            return []
        resource = self._resources.get(datum.resource)
        if resource is None:
            self._early.setdefault(datum.resource, []).append(datum)
            return []
        if resource.data_key in (None, self._wanted.detector):
            return self._pairing.add_stream_datum(datum) if stream == self._wanted.stream else []
        return self._add_rows(resource.data_key, resource, datum, stream)

    def _add_rows(self, key: str, resource: Resource, datum: StreamDatum, stream: str) -> list[Record]:
        """Rows of numbers: of positions, times or the monitor."""
        if key not in self._wanted.columns or datum.descriptor not in self._factors:
            return []
        described = self._descriptors[datum.descriptor].data_keys.get(key)
        # A multiplier counts rows, each of which may hold several samples; the shape counts samples.
        announced = prod(described.shape) if described is not None and described.shape else resource.asset.frames_per_row or 1
        per_point = min(max(1, announced), MOST_FRAMES_OF_A_POINT)
        place = TiledSource(run_uid=self.uid, stream=stream, key=key)
        file = Column(resource.asset, per_point, self._factors[datum.descriptor].get(key, 1.0), place)
        if stream == self._wanted.track and self._wanted.sample_time is not None and key != self._wanted.frame_time:
            self._track.add_rows(key, datum, file)
            if key != self._wanted.monitor:
                return []
        (self._own if stream == self._wanted.stream else self._points).add_rows(key, datum, file)
        return self._pairing.grown(datum.seq_nums)

    def _stream(self, descriptor: str) -> str | None:
        known = self._descriptors.get(descriptor)
        return None if known is None else known.stream

    def _plan_is_wanted(self) -> bool:
        return not self._wanted.plan_names or self._begun.plan_name in self._wanted.plan_names

    def _is_ptychography(self) -> bool:
        if self._wanted.plan_names:
            return self._plan_is_wanted()
        keys = self._data_keys()
        scans = {self._wanted.y, self._wanted.x} <= keys.get(self._wanted.track, {}).keys()
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
