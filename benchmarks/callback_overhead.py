"""What AutoReconstruct costs the RunEngine: each call, and a plan of 1000 events with it and without it.

Documents come as fast as a scan of 300 points a second sends them, while the thread behind collects them and the jobs go into an inbox on
the disk; the service that watches it is up, down or stopped (SIGSTOP: it hangs), and so is the catalog. With live jobs the frames are in
their files, and the service solves meanwhile, on the same cores. Run: ``python -m benchmarks callback``, or this file for the times of
every kind of document, with frames inside of events too: ``python -m benchmarks.callback_overhead [POINTS]``.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.serving import serving, site_file
from benchmarks.table import Table, verdict
from ptyplugin.callbacks import AutoReconstruct
from ptyplugin.catalog.server import LocalServer
from ptyplugin.jobs import open_read_only, waiting_keys
from ptyplugin.model import LiveTable, Profile, Site, load_site
from ptyplugin.profiles import load_profile

Documents = Iterator[tuple[str, dict[str, Any]]]
#: Points a second, as the issue of the service has it; ms that a call may take, median and 99th percentile; % that a plan may.
RATE, MEDIAN_MS, HIGH_MS, LONGER = 300.0, 0.2, 2.0, 2.0
#: Of the plan: events, and exposure of each, seconds (about RATE with what the RunEngine takes itself).
EVENTS, EXPOSURE_S = 1000, 0.002
#: Frames of a file, and its dataset; that of areaDetector's plugin.
_MOST, _DATASET = 3000, "/entry/data/data"
#: How long the service may take for what a plan has left, seconds.
_REST_S = 60.0


def run(quick: bool) -> list[Table]:
    """All tables."""
    calls = Table(
        "AutoReconstruct, each call, at 300 points a second", ["service", "catalog", "documents", "median ms", "99 % ms", "limits"]
    )
    with tempfile.TemporaryDirectory(prefix="ptyplugin-bench-") as folder:
        _states(calls, Path(folder), 300 if quick else 3000)
    columns = ["what", "measured", "unit", "limit"]
    plan, events = Table("a plan of 1000 events, with AutoReconstruct against without", columns), 100 if quick else EVENTS
    with tempfile.TemporaryDirectory(prefix="ptyplugin-bench-") as folder:
        _plans(plan, Site(home=Path(folder)), 2 if quick else 10, events)
    live = Table("the same with live jobs, the service up", columns)
    with tempfile.TemporaryDirectory(prefix="ptyplugin-bench-") as folder:
        file = site_file(Path(folder), f'data_roots = ["{folder}"]')
        with serving(file, Path(folder)):
            _plans(live, load_site(file), 2 if quick else 6, events, write_frames(Path(folder) / "frames.h5"))
    return [calls, plan, live]


def _states(table: Table, folder: Path, points: int) -> None:
    with LocalServer(folder / "catalog") as server:
        os.environ["TILED_API_KEY"] = server.api_key
        file = site_file(folder, f'data_roots = ["{folder}"]\ntiled_uri = "{server.uri}"')
        site = load_site(file)
        with serving(file, folder) as service:
            _add(table, "up", "up", site, points)
            _add(table, "up, a live job", "up", site, points, write_frames(folder / "frames.h5"))
            with _stopped(service.pid):
                _add(table, "hangs", "up", site, points)
            assert server.pid is not None
            with _stopped(server.pid):
                _add(table, "up", "hangs", site, points)
            server.stop()
            _add(table, "up", "down", site, points)
        _add(table, "down", "down", site, points)


def _add(table: Table, service: str, catalog: str, site: Site, points: int, frames: Path | None = None) -> None:
    """frames: file with frames for a live job; without it there is none"""
    auto = AutoReconstruct("sim" if frames is None else _profile(is_live=True), site)
    documents = stream_assets(points, f"{service}-{catalog}", frames or Path("/data/a.h5"))
    taken = [each for kind in milliseconds(auto, documents, 1 / RATE).values() for each in kind]
    auto.flush(60.0)
    median, high = np.percentile(taken, [50, 99])
    kept = f"{verdict(float(median), MEDIAN_MS)}, {verdict(float(high), HIGH_MS)}"
    table.add(service, catalog, len(taken), float(median), float(high), kept)


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class _Detector:
    """As ophyd's AreaDetector with an HDF5 plugin: a resource when staged, a datum for each point, its id in the event.

    frames: a file that each file of its looks like; without it there are none
    """

    name, parent = "detector", None

    def __init__(self, frames: Path | None) -> None:
        self._template = frames
        self._numbers, self._files = itertools.count(), itertools.count()
        self._documents: list[tuple[str, dict[str, Any]]] = []

    def stage(self) -> list[Any]:
        """A new file."""
        self._uid, self._numbers = f"file-{next(self._files)}-{time.time_ns()}", itertools.count()
        folder = Path("/data") if self._template is None else self._template.parent
        if self._template is not None:
            (folder / f"{self._uid}.h5").symlink_to(self._template)
        path = {"root": str(folder), "resource_path": f"{self._uid}.h5", "path_semantics": "posix"}
        self._documents = [("resource", {"uid": self._uid, "spec": "AD_HDF5", "resource_kwargs": {"frame_per_point": 1}, **path})]
        return [self]

    def unstage(self) -> list[Any]:
        """Nothing is left to do."""
        return [self]

    def expose(self) -> None:
        """The next frame is in the file."""
        number = next(self._numbers)
        self._datum = f"{self._uid}/{number}"
        self._documents.append(("datum", {"datum_id": self._datum, "resource": self._uid, "datum_kwargs": {"point_number": number}}))

    def read(self) -> dict[str, Any]:
        """The id of the frame."""
        return {self.name: {"value": self._datum, "timestamp": time.time()}}

    def describe(self) -> dict[str, Any]:
        """Frames in a file."""
        return {self.name: {"source": "file", "dtype": "array", "shape": [1, 128, 128], "external": "FILESTORE:"}}

    def collect_asset_docs(self) -> Documents:
        """Documents of the frames since the last event."""
        waiting, self._documents = self._documents, []
        yield from waiting

    def read_configuration(self) -> dict[str, Any]:
        """None."""
        return {}

    describe_configuration = read_configuration


def _plans(table: Table, site: Site, pairs: int, events: int, frames: Path | None = None) -> None:
    """Pairs side by side, in turns first with and first without; with live jobs if there is a file of ``frames``."""
    os.environ.setdefault("OPHYD_CONTROL_LAYER", "dummy")
    from bluesky import RunEngine

    engine, auto = (
        RunEngine({"energy_ev": 8000.0, "detector_distance_m": 2.0}, loop=asyncio.new_event_loop()),
        AutoReconstruct(_profile(is_live=frames is not None), site),
    )
    plan = _plan_of(events, frames)
    seconds = {False: list[float](), True: list[float]()}
    _seconds(engine, plan)
    for pair in range(pairs):
        for subscribed in (pair % 2 == 0, pair % 2 == 1):
            token = engine.subscribe(auto) if subscribed else None
            seconds[subscribed].append(_seconds(engine, plan))
            if token is not None:
                auto.flush(60.0)
                engine.unsubscribe(token)
                _wait_for_rest(site)
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(10.0)
    engine.loop.close()
    each = [100 * (on / off - 1) for off, on in zip(seconds[False], seconds[True], strict=True)]
    longer, (low, high) = statistics.median(each), np.percentile(each, [25, 75])
    table.add("without, median", statistics.median(seconds[False]), "s", None)
    table.add("events a second", events / statistics.median(seconds[False]), "1/s", None)
    table.add(f"with it longer by, median of {pairs} pairs", longer, "%", verdict(longer, LONGER))
    table.notes.append(f"A quarter of the pairs lies below {low:.1f} %, a quarter above {high:.1f} %: that is how quiet the machine was.")


def _wait_for_rest(site: Site) -> None:
    """Wait until the service, if there is one, has solved all: nothing of it shall last into the next plan."""
    end = time.monotonic() + _REST_S
    while site.ledger.exists() and time.monotonic() < end:
        with open_read_only(site.ledger) as ledger:
            counts = ledger.counts()
        if not waiting_keys(site) and not counts.get("queued", 0) and not counts.get("running", 0):
            return
        time.sleep(0.2)


def write_frames(path: Path, count: int = _MOST) -> Path:
    """Make a file of frames that a plan may take for its own."""
    frames = np.random.default_rng(1).poisson(3, (16, 128, 128)).astype(np.uint16)
    with h5py.File(path, "w") as file:
        data = file.create_dataset(_DATASET, (count, 128, 128), np.uint16, chunks=(1, 128, 128))
        for number in range(count):
            data[number] = frames[number % len(frames)]
    return path


def _profile(is_live: bool) -> Profile:
    """Of the plan, whose motors do not say their unit."""
    profile = load_profile("sim")
    axes = {name: getattr(profile.positions, name).model_copy(update={"unit": "um"}) for name in ("y", "x")}
    positions = profile.positions.model_copy(update=axes)
    reconstruction = profile.reconstruction.model_copy(update={"recipe": "DM(2)"})  # a queue of long ones would leave no room for live jobs
    return profile.model_copy(update={"positions": positions, "reconstruction": reconstruction, "live": LiveTable() if is_live else None})


def _plan_of(events: int, frames: Path | None) -> Callable[[], Any]:
    import bluesky.plan_stubs as bps
    import bluesky.preprocessors as bpp
    from ophyd.sim import SynAxis

    detector, y, x = _Detector(frames), SynAxis(name="stage_y"), SynAxis(name="stage_x")

    @bpp.stage_decorator([detector])
    @bpp.run_decorator()
    def plan() -> Any:
        for point in range(events):
            yield from bps.mv(y, point // 32, x, point % 32)
            yield from bps.sleep(EXPOSURE_S)
            detector.expose()
            yield from bps.create()
            for device in (detector, y, x):
                yield from bps.read(device)
            yield from bps.save()

    made: Callable[[], Any] = plan
    return made


def _seconds(engine: Any, plan: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    engine(plan())
    return time.perf_counter() - begun


def begun(run: str, detector: dict[str, Any]) -> Documents:
    """Start and descriptor; a start document of the usual size."""
    metadata = {f"key_{number}": {"value": number, "text": "metadata " * 4} for number in range(40)}
    yield "start", {"uid": run, "time": 0.0, "scan_id": 1, "energy_ev": 8000.0, "detector_distance_m": 2.0, "md": metadata}
    motor = {"dtype": "number", "shape": [], "source": "sim", "units": "um"}
    keys = {"detector": {"dtype": "array", "source": "sim", **detector}, "stage_y": motor, "stage_x": motor}
    yield "descriptor", {"uid": f"{run}-d", "run_start": run, "name": "primary", "time": 0.0, "data_keys": keys, "configuration": {}}


def event(run: str, point: int, data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """One point, a micrometre from the one before."""
    data = {"stage_y": float(point % 100), "stage_x": float(point // 100), **data}
    head = {"uid": f"{run}-e{point}", "time": float(point), "seq_num": point + 1, "descriptor": f"{run}-d", "filled": {}}
    return "event", {**head, "data": data, "timestamps": dict.fromkeys(data, 0.0)}


def stopped(run: str, points: int) -> tuple[str, dict[str, Any]]:
    """The end."""
    return "stop", {"uid": f"{run}-s", "run_start": run, "time": 0.0, "exit_status": "success", "num_events": {"primary": points}}


def stream_assets(points: int, run: str = "a", file: Path = Path("/data/a.h5")) -> Documents:
    """ophyd-async."""
    yield from begun(run, {"shape": [1, 128, 128], "external": "STREAM:"})
    parameters = {"dataset": _DATASET, "chunk_shape": [1, 128, 128]}
    resource = {"uid": f"{run}-r", "run_start": run, "data_key": "detector", "mimetype": "application/x-hdf5", "parameters": parameters}
    yield "stream_resource", {**resource, "uri": f"file://localhost{file}"}
    for point in range(points):
        ranges = {"indices": {"start": point, "stop": point + 1}, "seq_nums": {"start": point + 1, "stop": point + 2}}
        yield "stream_datum", {"uid": f"{run}-r/{point}", "stream_resource": f"{run}-r", "descriptor": f"{run}-d", **ranges}
        yield event(run, point, {})
    yield stopped(run, points)


def arrays_in_events(points: int) -> Documents:
    """Images of 512 x 512 uint16 inside the events."""
    yield from begun("b", {"shape": [512, 512]})
    counts = np.zeros((512, 512), dtype=np.uint16)
    for point in range(points):
        yield event("b", point, {"detector": counts})
    yield stopped("b", points)


def milliseconds(auto: AutoReconstruct, documents: Documents, period_s: float) -> dict[str, list[float]]:
    """Time of each call by the kind of document. period_s: from one event to the next"""
    taken: dict[str, list[float]] = {}
    for name, document in documents:
        begin = time.perf_counter()
        auto(name, document)
        end = time.perf_counter()
        taken.setdefault(name, []).append(1e3 * (end - begin))
        if name == "event":
            time.sleep(max(0.0, period_s - (end - begin)))
    return taken


def main() -> None:
    """Every kind of document, at 1000 points a second."""
    points = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as folder:
        for style, documents in {"ophyd-async": stream_assets(points), "arrays in events": arrays_in_events(min(points, 500))}.items():
            auto = AutoReconstruct("sim", Site(home=Path(folder)))
            for name, taken in milliseconds(auto, documents, 1e-3).items():
                median, high = np.percentile(taken, [50, 99])
                print(f"{style:17} {name:16} {len(taken):6} documents   median {median:.4f} ms   99 % {high:.4f} ms")
            begin = time.perf_counter()
            done = auto.flush(60.0)
            print(f"{style:17} {'job in the inbox' if done else 'NOT DONE':16} {time.perf_counter() - begin:.3f} s after the stop document")


if __name__ == "__main__":
    main()
