"""Clean document streams of each style, as short texts of what a RunEngine emits; and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ptyplugin.callbacks import Collector, RunEnded, assemble, locating
from ptyplugin.model import FramesError, JobParts, Profile, Refusal

Documents = list[tuple[str, dict[str, Any]]]
Outcome = tuple[bytes, tuple[tuple[str, bytes], ...]]

POINTS = 6
#: Seen once more, after a pause: points 3 and 4 are taken again.
WITH_REWIND = [1, 2, 3, 4, 3, 4, 5, 6]

PROFILE = {
    "name": "test",
    "beamline": "bl",
    "detector": {"key": "det", "pixel_m": 75e-6},
    "geometry": {
        "energy": {"reading": "mono_energy"},
        "distance": {"configuration": "det_distance", "unit": "mm"},
    },
    "positions": {"y": {"key": "y", "unit": "um", "sign": -1}, "x": {"key": "x"}},
}


def make_profile(**tables: Any) -> Profile:
    """The profile of these streams; ``detector={"key": ...}`` changes single keys of a table."""
    changed = {name: {**PROFILE.get(name, {}), **table} if isinstance(table, dict) else table for name, table in tables.items()}
    return Profile.model_validate({**PROFILE, **changed})


class Stream:
    """Writes the documents of one run. Time is a counter, uids are texts: the same run is always the same documents."""

    def __init__(self, run: str = "run1", **start: Any) -> None:
        self.run, self.documents, self._time, self._events = run, Documents(), 0.0, dict[str, int]()
        self.add("start", {"uid": run, "time": self.tick(), "scan_id": 7, "plan_name": "scan_nd", "energy_kev": 8.0, **start})

    def tick(self) -> float:
        self._time += 1.0
        return self._time

    def add(self, name: str, document: dict[str, Any]) -> None:
        self.documents.append((name, document))

    def descriptor(self, stream: str, data_keys: dict[str, Any], configuration: dict[str, Any] | None = None) -> None:
        document = {"uid": f"{self.run}-{stream}", "run_start": self.run, "name": stream, "time": self.tick(), "data_keys": data_keys}
        self.add("descriptor", {**document, "configuration": configuration or {}, "hints": {}, "object_keys": {}})

    def count(self, stream: str, points: int) -> None:
        """So many points are in the stop document, though no events came."""
        self._events[stream] = points

    def event(self, stream: str, seq_num: int, data: dict[str, Any], **more: Any) -> None:
        self._events[stream] = max(seq_num, self._events.get(stream, 0))
        uid, time = f"{self.run}-{stream}-event-{len(self.documents)}", self.tick()
        head = {"uid": uid, "time": time, "seq_num": seq_num, "descriptor": f"{self.run}-{stream}"}
        self.add("event", {**head, "data": data, "timestamps": dict.fromkeys(data, time), "filled": {}, **more})

    def baseline(self, seq_num: int, energy: float) -> None:
        self.event("baseline", seq_num, {"mono_energy": energy, "x": 0.0, "y": 0.0})

    def begin(self, detector: dict[str, Any], others: dict[str, Any] | None = None) -> None:
        """Baseline and the descriptor of the primary stream."""
        energy = {"dtype": "number", "shape": [], "source": "sim", "units": "keV"}
        motor = {"dtype": "number", "shape": [], "source": "sim"}
        self.descriptor("baseline", {"mono_energy": energy, "x": {**motor, "units": "um"}, "y": motor})
        self.baseline(1, 8.0)
        distance = {"data": {"det_distance": 2000.0}, "timestamps": {}, "data_keys": {"det_distance": {**motor, "units": "m"}}}
        keys = {"det": {"dtype": "array", "source": "sim", **detector}, "y": motor, "x": {**motor, "units": "um"}, **(others or {})}
        self.descriptor("primary", keys, {"det": distance, "other": {"data": {"gain": 3}, "data_keys": {}, "timestamps": {}}})

    def at(self, seq_num: int) -> dict[str, float]:
        """Readback of the motors at a point, a little different each time it is taken."""
        return {"y": 10.0 * seq_num + 1e-3 * len(self.documents), "x": -0.5 * seq_num**2}

    def end(self, exit_status: str = "success", reason: str = "") -> Documents:
        self.baseline(2, 9.0)
        self.add(
            "stop",
            {
                "uid": f"{self.run}-stop",
                "run_start": self.run,
                "time": self.tick(),
                "exit_status": exit_status,
                "reason": reason,
                "num_events": self._events,
            },
        )
        return self.documents


def stream_assets(points: Iterable[int] = range(1, POINTS + 1), frames: int = 1, run: str = "run1", **end: Any) -> Documents:
    """ophyd-async: stream_datum before its event; a second detector and a sum beside ours."""
    stream = Stream(run)
    stream.begin(
        {"shape": [frames, 16, 24], "external": "STREAM:"},
        {"det-sum": {"dtype": "number", "source": "sim", "shape": [], "external": "STREAM:"}},
    )
    for row, seq_num in enumerate(points):
        for key in ("det", "det-sum"):
            if row == 0:
                parameters = {"dataset": f"/entry/{key}", "chunk_shape": [1, 16, 24]}
                resource = {"uid": f"{run}-{key}", "run_start": run, "data_key": key, "mimetype": "application/x-hdf5"}
                stream.add("stream_resource", {**resource, "uri": f"file://localhost/data/{run}.h5", "parameters": parameters})
            datum = {"uid": f"{run}-{key}/{row}", "stream_resource": f"{run}-{key}", "descriptor": f"{run}-primary"}
            ranges = {"indices": {"start": row, "stop": row + 1}, "seq_nums": {"start": seq_num, "stop": seq_num + 1}}
            stream.add("stream_datum", {**datum, **ranges})
        stream.event("primary", seq_num, stream.at(seq_num))
    return stream.end(**end)


def resource_datum(
    points: Iterable[int] = range(1, POINTS + 1), frames: int = 1, run: str = "run1", named: bool = True, **end: Any
) -> Documents:
    """ophyd: datum ids in the events, a second detector beside ours; ``named``: whether resources name their run."""
    stream = Stream(run)
    stream.begin(
        {"shape": [frames, 16, 24], "external": "FILESTORE:"},
        {"cam": {"dtype": "array", "source": "sim", "shape": [1, 8, 8], "external": "FILESTORE:"}},
    )
    for key in ("det", "cam"):
        resource = {
            "uid": f"{run}-{key}",
            "spec": "AD_HDF5",
            "root": "/data",
            "resource_path": f"{run}/{key}.h5",
            "path_semantics": "posix",
        }
        stream.add("resource", {**resource, "resource_kwargs": {"frame_per_point": frames}, **({"run_start": run} if named else {})})
    for row, seq_num in enumerate(points):
        for key in ("det", "cam"):
            stream.add("datum", {"datum_id": f"{run}-{key}/{row}", "resource": f"{run}-{key}", "datum_kwargs": {"point_number": row}})
        data = {"det": f"{run}-det/{row}", "cam": f"{run}-cam/{row}", **stream.at(seq_num)}
        stream.event("primary", seq_num, data, filled={"det": False, "cam": False})
    return stream.end(**end)


def fly(
    points: int = POINTS, batches: Iterable[int] = (1, 4), samples: int = 4, run: str = "run1", own_stream: str = "", **end: Any
) -> Documents:
    """Frames and positions without events, in batches: a box that the detector triggers captures ``samples`` of y and x for each frame.

    batches: after how many points the documents of the next come; own_stream: of the positions, the detector's if empty
    """
    stream, track = Stream(run, num_points=points), own_stream or "primary"
    motor = {"dtype": "array", "shape": [samples], "source": "panda", "external": "STREAM:"}
    positions = {"y": motor, "x": {**motor, "units": "um"}}
    stream.begin({"shape": [1, 16, 24], "external": "STREAM:"}, None if own_stream else positions)
    if own_stream:
        stream.descriptor(own_stream, positions)
    for key, of_stream in (("det", "primary"), ("y", track), ("x", track)):
        resource = {"uid": f"{run}-{key}", "run_start": run, "data_key": key, "mimetype": "application/x-hdf5"}
        stream.add("stream_resource", {**resource, "uri": f"file://localhost/data/{key}.h5", "parameters": {"dataset": f"/{key}"}})
        for first, after in pairwise((0, *batches, points)):
            datum = {"uid": f"{run}-{key}/{first}", "stream_resource": f"{run}-{key}", "descriptor": f"{run}-{of_stream}"}
            ranges = {"indices": {"start": first, "stop": after}, "seq_nums": {"start": first + 1, "stop": after + 1}}
            stream.add("stream_datum", {**datum, **ranges})
    stream.count("primary", points)
    return stream.end(**end)


class CaptureFiles:
    """Stands for the files that a box writes: y = 10 n, x = -n^2 at the n-th sample; the first ``there`` of a dataset, where given."""

    def __init__(self, there: dict[str, int] | None = None) -> None:
        self.there = there or {}
        self.asked: list[tuple[str, int, int]] = []

    def read(self, source: Any, start: int, stop: int, per_point: int) -> np.ndarray[Any, Any]:
        self.asked.append((source.dataset, start, stop))
        at = np.arange(start, min(stop, self.there.get(source.dataset, stop)), dtype=np.float64)
        found = {"/y": 10.0 * at, "/x": -(at**2), "/i0": 5.0 + at, "/t": 100.0 + at}
        if source.dataset not in found:
            raise FramesError(f"there is no dataset {source.dataset}.")
        return found[source.dataset]


def arrays_in_events(points: Iterable[int] = range(1, POINTS + 1), frames: int = 1, run: str = "run1", **end: Any) -> Documents:
    """Images as values of the events."""
    stream, random = Stream(run), np.random.default_rng(5)
    stream.begin({"shape": [16, 24] if frames == 1 else [frames, 16, 24]})
    for seq_num in points:
        counts = random.poisson(9.0, (frames, 16, 24)).astype(np.uint16)
        stream.event("primary", seq_num, {"det": counts[0] if frames == 1 else counts, **stream.at(seq_num)})
    return stream.end(**end)


def collect(documents: Iterable[tuple[Any, Any]], profile: Profile | None = None, reader: Any = None) -> list[JobParts | Refusal]:
    """What the collector and the assembler make of these documents, one entry for each run that ended and is ptychography."""
    profile = profile or make_profile()
    collector = Collector(profile)
    ended = [output.run for name, document in documents for output in collector(name, document) if isinstance(output, RunEnded)]
    return [assemble(run, profile, reader or CaptureFiles()) for run in ended if run.is_ptychography]


def outcome(parts: JobParts | Refusal) -> Outcome:
    """A job's bytes and its arrays' bytes, so that two can be compared."""
    if isinstance(parts, Refusal):
        return parts.to_bytes(), ()
    return parts.job.to_bytes(), tuple(sorted((name, array.dtype.str.encode() + array.tobytes()) for name, array in parts.arrays.items()))


STREAMS: dict[str, Callable[..., Documents]] = {
    "stream assets": stream_assets,
    "stream assets, 3 frames a point": lambda **more: stream_assets(frames=3, **more),
    "stream assets, rewound": lambda **more: stream_assets(WITH_REWIND, **more),
    "resource and datum": resource_datum,
    "resource and datum, 2 frames a point": lambda **more: resource_datum(frames=2, **more),
    "resource and datum, rewound": lambda **more: resource_datum(WITH_REWIND, **more),
    "resources that name no run": lambda **more: resource_datum(WITH_REWIND, named=False, **more),
    "fly": fly,
    "arrays in events": arrays_in_events,
    "arrays in events, rewound": lambda **more: arrays_in_events(WITH_REWIND, frames=2, **more),
}


class Bench:
    """All of the above by name, for tests (which cannot import this file)."""

    stream = Stream
    files = CaptureFiles
    fly = staticmethod(fly)
    streams = STREAMS
    stream_assets = staticmethod(stream_assets)
    resource_datum = staticmethod(resource_datum)
    arrays_in_events = staticmethod(arrays_in_events)
    profile = staticmethod(make_profile)
    collect = staticmethod(collect)
    outcome = staticmethod(outcome)


@pytest.fixture(scope="session")
def bench() -> type[Bench]:
    return Bench


@pytest.fixture(autouse=True)
def _nobody_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locating, "DEADLINE_S", 0.05)
