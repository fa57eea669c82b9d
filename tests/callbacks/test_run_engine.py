"""A real RunEngine with each style of detector; pause, rewind, abort, two runs at once; no service and no inbox."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import h5py
import numpy as np
import pytest
from at_work import until

# ophyd would start threads that look for EPICS servers.
os.environ.setdefault("OPHYD_CONTROL_LAYER", "dummy")

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import SynAxis, SynSignal
from ophyd_async.core import (
    DetectorAcquireLogic,
    DetectorDataLogic,
    DetectorTriggerLogic,
    StandardDetector,
    StaticFilenameProvider,
    StaticPathProvider,
    StreamableDataProvider,
    StreamResourceDataProvider,
    StreamResourceInfo,
    TriggerInfo,
    soft_signal_r_and_setter,
)
from ophyd_async.sim import PatternGenerator, SimBlobDetector, SimMotor

from ptyplugin.callbacks import AutoReconstruct, FileReader
from ptyplugin.jobs import Inbox
from ptyplugin.model import Job, JobParts, Refusal, Site

POINTS = [(0.0, 0.0), (0.0, 1.0), (0.0, 2.0), (1.0, 0.5), (1.0, 1.5)]
MOTORS = {"y": {"key": "stage_y", "unit": "mm"}, "x": {"key": "stage_x", "unit": "mm", "sign": -1}}
NUMBERS = {"energy": {"start": "energy", "unit": "keV"}, "distance": {"value": 2, "unit": "m"}}


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    engine = RunEngine({"energy": 8.0}, loop=asyncio.new_event_loop())
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(10.0)
    engine.loop.close()


@pytest.fixture
def documents(engine: Any) -> Iterator[list[tuple[str, Any]]]:
    seen: list[tuple[str, Any]] = []
    token = engine.subscribe(lambda name, document: seen.append((name, document)))
    yield seen
    engine.unsubscribe(token)


@pytest.fixture
def profile(bench: Any) -> Any:
    return bench.profile(positions=MOTORS, geometry=NUMBERS)


class FileDetector:
    """As ophyd's AreaDetector with an HDF5 plugin: a resource when staged, a datum for each point, its id in the event."""

    parent = None

    def __init__(self, name: str, frames: int) -> None:
        self.name, self.frames = name, frames
        self._numbers, self._files = itertools.count(), itertools.count()
        self._documents: list[tuple[str, dict[str, Any]]] = []

    def stage(self) -> list[Any]:
        self._uid, self._numbers = f"{self.name}-{id(self)}-{next(self._files)}", itertools.count()
        path = {"root": "/data", "resource_path": f"{self._uid}.h5", "path_semantics": "posix"}
        self._documents = [("resource", {"uid": self._uid, "spec": "AD_HDF5", "resource_kwargs": {"frame_per_point": self.frames}, **path})]
        return [self]

    def unstage(self) -> list[Any]:
        return [self]

    def trigger(self) -> Any:
        number = next(self._numbers)
        self._datum = f"{self._uid}/{number}"
        self._documents.append(("datum", {"datum_id": self._datum, "resource": self._uid, "datum_kwargs": {"point_number": number}}))
        return SynSignal(name="done").trigger()

    def read(self) -> dict[str, Any]:
        return {self.name: {"value": self._datum, "timestamp": 0.0}}

    def describe(self) -> dict[str, Any]:
        return {self.name: {"source": "file", "dtype": "array", "shape": [self.frames, 16, 24], "external": "FILESTORE:"}}

    def collect_asset_docs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        waiting, self._documents = self._documents, []
        yield from waiting

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}


def image(name: str) -> SynSignal:
    """A detector whose images are in the events: each image is the number of its exposure."""
    exposures = itertools.count()
    return SynSignal(func=lambda: np.full((16, 24), next(exposures), dtype=np.uint16), name=name)


def motors() -> tuple[SynAxis, SynAxis]:
    return SynAxis(name="stage_y"), SynAxis(name="stage_x")


def connected(engine: Any, make: Any) -> Any:
    """Devices of ophyd-async, made and connected in the RunEngine's loop."""

    async def work() -> Any:
        devices = make()
        for device in devices:
            await device.connect()
        return devices

    return asyncio.run_coroutine_threadsafe(work(), engine.loop).result(20.0)


def async_devices(engine: Any, folder: Path) -> Any:
    generator = PatternGenerator()
    generator.setup_acquisition_parameters(0.001, 0.001, 1)
    paths = StaticPathProvider(StaticFilenameProvider("frames"), folder)
    detector, y, x = connected(
        engine, lambda: (SimBlobDetector(paths, generator, name="det"), SimMotor(name="stage_y"), SimMotor(name="stage_x"))
    )
    return detector, y, x


def scan(detectors: list[Any], y: Any, x: Any, pauses_after: tuple[int, ...] = (), **metadata: Any) -> Any:
    """A step scan with a checkpoint before each point; ``pauses_after``: points after whose reading it pauses, once."""
    waiting = set(pauses_after)

    @bpp.stage_decorator(detectors)
    @bpp.run_decorator(md=metadata)
    def inner() -> Any:
        for number, (at_y, at_x) in enumerate(POINTS):
            yield from bps.checkpoint()
            yield from bps.mv(y, at_y, x, at_x)
            yield from bps.trigger_and_read([*detectors, y, x])
            if number in waiting:
                waiting.discard(number)
                yield from bps.pause()

    return inner()


def job_of(bench: Any, documents: Any, profile: Any) -> Any:
    (parts,) = bench.collect(documents, profile)
    assert isinstance(parts, JobParts), parts
    return parts


def expect_positions(job: Job, frames: int = 1) -> None:
    expected = np.repeat(np.array(POINTS) * [1e-3, -1e-3], frames, axis=0)
    np.testing.assert_allclose(job.scan(None).positions_m[:, 0], expected[: job.frame_count])


def test_ophyd_async_writes_hdf5(bench: Any, engine: Any, documents: Any, profile: Any, tmp_path: Path) -> None:
    detector, y, x = async_devices(engine, tmp_path)
    engine(scan([detector], y, x))
    names = [name for name, _ in documents]
    assert names.index("stream_datum") < names.index("event")
    job = job_of(bench, documents, profile).job
    (block,) = job.frames
    assert block.ranges == [(0, 5)]
    with h5py.File(urlparse(block.source.uri).path) as file:
        assert file[block.source.dataset].shape == (5, *job.geometry.shape)
    expect_positions(job)


def test_ophyd_async_pauses_and_takes_a_point_again(bench: Any, engine: Any, documents: Any, profile: Any, tmp_path: Path) -> None:
    detector, y, x = async_devices(engine, tmp_path)
    with pytest.raises(RunEngineInterrupted):
        engine(scan([detector], y, x, pauses_after=(2,)))
    engine.resume()
    seq_nums = [document["seq_num"] for name, document in documents if name == "event"]
    assert seq_nums == [1, 2, 3, 3, 4, 5]
    job = job_of(bench, documents, profile).job
    assert job.frames[0].ranges == [(0, 2), (3, 6)]
    assert job.notes == ["Left out, frames of points that were taken again: 1."]
    expect_positions(job)


def test_ophyd_with_two_frames_at_each_point(bench: Any, engine: Any, documents: Any, profile: Any) -> None:
    engine(scan([FileDetector("det", 2), FileDetector("other", 1)], *motors()))
    job = job_of(bench, documents, profile).job
    assert job.frames[0].ranges == [(0, 10)]
    assert job.frames[0].source.dataset == "/entry/data/data"
    expect_positions(job, frames=2)


def test_ophyd_pauses_and_takes_points_again(bench: Any, engine: Any, documents: Any, profile: Any) -> None:
    with pytest.raises(RunEngineInterrupted):
        engine(scan([FileDetector("det", 2)], *motors(), pauses_after=(0, 3)))
    with pytest.raises(RunEngineInterrupted):
        engine.resume()
    engine.resume()
    job = job_of(bench, documents, profile).job
    assert job.frames[0].ranges == [(2, 8), (10, 14)]
    assert job.notes == ["Left out, frames of points that were taken again: 4."]
    expect_positions(job, frames=2)


def test_arrays_inside_events(bench: Any, engine: Any, documents: Any, profile: Any) -> None:
    with pytest.raises(RunEngineInterrupted):
        engine(scan([image("det")], *motors(), pauses_after=(1,)))
    engine.resume()
    parts = job_of(bench, documents, profile)
    counts = parts.arrays["frames.npy"]
    assert counts.dtype == np.uint16
    # Exposure numbers: one was left out, and each point has the one that was taken there last.
    np.testing.assert_array_equal(np.diff(counts[:, 0, 0].astype(int)), [2, 1, 1, 1])
    expect_positions(parts.job)


def test_energy_from_the_baseline(bench: Any, engine: Any, documents: Any) -> None:
    energy = SynAxis(name="mono_energy", value=7.5)
    engine(bpp.baseline_wrapper(scan([image("det")], *motors()), [energy]))
    numbers = {**NUMBERS, "energy": {"reading": "mono_energy", "unit": "keV"}}
    assert job_of(bench, documents, bench.profile(positions=MOTORS, geometry=numbers)).job.geometry.energy_ev == 7500.0


def test_an_aborted_run(bench: Any, engine: Any, documents: Any, profile: Any) -> None:
    with pytest.raises(RunEngineInterrupted):
        engine(scan([FileDetector("det", 1)], *motors(), pauses_after=(2,)))
    engine.abort()
    job = job_of(bench, documents, profile).job
    assert job.frame_count == 3
    # It had come to the end of the first row.
    assert job.notes == [
        "The run ended with exit status 'abort': only what was taken until then is used.",
        "The scan is one line of 0.002 m: the image is a strip along it, as wide as the beam.",
    ]
    expect_positions(job)


def test_a_failed_run(bench: Any, engine: Any, documents: Any, profile: Any) -> None:
    def broken() -> Any:
        for number, message in enumerate(scan([image("det")], *motors())):
            if number == 30:
                raise ZeroDivisionError("limit switch")
            yield message

    with pytest.raises(ZeroDivisionError):
        engine(bpp.finalize_wrapper(broken(), bps.close_run("fail", "limit switch")))
    job = job_of(bench, documents, profile).job
    assert 0 < job.frame_count < 5
    assert "limit switch" in job.notes[0]


def test_two_runs_at_once(bench: Any, engine: Any, documents: Any, profile: Any) -> None:
    y, x = motors()
    detectors = {"a": FileDetector("det", 1), "b": image("det")}

    def plan() -> Any:
        yield from bps.stage(detectors["a"])
        for key in detectors:
            yield from bpp.set_run_key_wrapper(bps.open_run(md={"sample": key}), key)
        for at_y, at_x in POINTS:
            yield from bps.mv(y, at_y, x, at_x)
            for key, detector in detectors.items():
                yield from bpp.set_run_key_wrapper(bps.trigger_and_read([detector, y, x]), key)
        for key in reversed(detectors):
            yield from bpp.set_run_key_wrapper(bps.close_run(), key)
        yield from bps.unstage(detectors["a"])

    engine(plan())
    in_events, in_file = bench.collect(documents, profile)
    assert in_events.arrays.keys() == {"frames.npy"}
    assert in_file.job.frames[0].ranges == [(0, 5)]
    expect_positions(in_events.job)
    expect_positions(in_file.job)


def test_a_run_without_the_detector(bench: Any, engine: Any, documents: Any, profile: Any) -> None:
    engine(scan([image("eiger")], *motors()))
    (refusal,) = bench.collect(documents, profile)
    assert isinstance(refusal, Refusal)
    assert "detector.key = 'det' is not in stream 'primary'. Its keys are: eiger, stage_x" in refusal.reason


@pytest.mark.parametrize("writable", [True, False])
def test_a_plan_does_not_care_for_inbox_and_service(
    engine: Any, documents: Any, profile: Any, tmp_path: Path, writable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ptyplugin")
    inbox = tmp_path / "in" / "box"
    if not writable:
        (tmp_path / "in").write_text("a file where a folder should be")
    # Nobody but the RunEngine holds it.
    token = engine.subscribe(AutoReconstruct(profile, Site(home=tmp_path / "home", inbox_dir=inbox)))
    gc.collect()
    (uid,) = engine(scan([image("det")], *motors()))
    assert documents[-1][1]["exit_status"] == "success"
    if not writable:
        (tmp_path / "in").unlink()
    engine.unsubscribe(token)
    gc.collect()
    until(Inbox(inbox).waiting)
    (item,) = Inbox(inbox).waiting()
    assert Job.from_bytes((item / "job.json").read_bytes()).source.run_uid == uid


class _CaptureAcquire(DetectorAcquireLogic):
    """Writes all samples at once when it is kicked off: y = n, x = 2 n at the n-th."""

    def __init__(self, folder: Path) -> None:
        self.path, self.number = folder / "capture.h5", 0
        self.captured, self._set_captured = soft_signal_r_and_setter(int)

    async def start_acquiring(self) -> None:
        with h5py.File(self.path, "w", libver="latest") as file:
            for name, factor in (("y", 1.0), ("x", 2.0)):
                file[name] = factor * np.arange(self.number)
        self._set_captured(self.number)

    async def wait_for_idle(self) -> None: ...
    async def ensure_stopped(self) -> None: ...


class _CaptureTrigger(DetectorTriggerLogic):
    def __init__(self, acquire: _CaptureAcquire) -> None:
        self._acquire = acquire

    async def prepare_internal(self, num: int, livetime: float, deadtime: float) -> None:
        self._acquire.number = num


class _CaptureData(DetectorDataLogic):
    def __init__(self, acquire: _CaptureAcquire) -> None:
        self._acquire = acquire

    async def prepare_unbounded(self, datakey_name: str) -> StreamableDataProvider:
        shapes: Any = {"shape": (), "chunk_shape": (1024,), "dtype_numpy": "<f8"}
        resources = [StreamResourceInfo(data_key=f"stage_{name}", parameters={"dataset": f"/{name}"}, **shapes) for name in "yx"]
        return StreamResourceDataProvider(self._acquire.path.as_uri(), resources, "application/x-hdf5", self._acquire.captured)

    async def stop(self) -> None: ...


class Capture(StandardDetector):
    """As a position capture box of ophyd-async: samples of both encoders in a file, no events."""

    def __init__(self, folder: Path, name: str = "") -> None:
        acquire = _CaptureAcquire(folder)
        self.add_detector_logics(_CaptureTrigger(acquire), acquire, _CaptureData(acquire))
        super().__init__(name=name)


@pytest.mark.parametrize(("together", "samples"), [(True, 4), (False, 4), (True, 1)])
def test_a_fly_scan_without_events(bench: Any, engine: Any, documents: Any, tmp_path: Path, together: bool, samples: int) -> None:
    """Frames and positions in one stream, collected together, or each in its own."""
    detector, _, _ = async_devices(engine, tmp_path)
    (capture,) = connected(engine, lambda: (Capture(tmp_path, name="capture"),))
    streams = [("primary", [detector, capture])] if together else [("primary", [detector]), ("track", [capture])]

    @bpp.stage_decorator([detector, capture])
    @bpp.run_decorator(md={"num_points": 12})
    def fly() -> Any:
        yield from bps.prepare(detector, TriggerInfo(number_of_events=12, livetime=0.002, deadtime=0.002), wait=True)
        yield from bps.prepare(capture, TriggerInfo(number_of_events=12, collections_per_event=samples), wait=True)
        for name, devices in streams:
            yield from bps.declare_stream(*devices, name=name, collect=True)
        for name, devices in streams:
            yield from bps.kickoff_all(*devices, wait=True)
            yield from bps.collect_while_completing(devices, devices, flush_period=0.02, stream_name=name)

    engine(fly())
    assert not any(name == "event" for name, _ in documents)
    profile = bench.profile(positions={**MOTORS, **({} if together else {"stream": "track"})}, geometry=NUMBERS)
    (parts,) = bench.collect(documents, profile, FileReader(Site(home=tmp_path, data_roots=[tmp_path])))
    assert isinstance(parts, JobParts), parts
    assert parts.job.frame_ids == [(0, 12)]
    assert not [note for note in parts.job.notes if "Left out" in note]
    middle = samples * np.arange(12) + (samples - 1) / 2
    np.testing.assert_allclose(np.array(parts.job.positions_m)[:, 0], np.stack([1e-3 * middle, -2e-3 * middle], axis=1))
