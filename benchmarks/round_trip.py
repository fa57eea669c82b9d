"""From a frame that a camera posts over PV Access to the image over PV Access that has it in: all of the live way.

A camera (a server of p4p), a session (documents through AutoReconstruct) and a screen (a client of p4p) are this process; recorder, intake,
two warm ranks and images are ``ptyplugin serve --epics``. A frame of 128 x 128 px is posted and announced at once; it has arrived with the
first image that says it has so many frames. ``python -m benchmarks round_trip``.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving import LOOPBACK, screens, serving, site_file, until
from benchmarks.table import Table, verdict
from ptyplugin.callbacks import AutoReconstruct
from ptyplugin.io.spool import CONNECTED, FRAME, Spool, spool_folder
from ptyplugin.jobs import GrowthFolder, grow, submit
from ptyplugin.model import Growth, Job, Refusal, Site, load_site
from ptyplugin.sim.beamline import GEOMETRY
from ptyplugin.sim.optics import annular_probe, far_field
from ptyplugin.sim.sample import make_sample

_ROOT = Path(__file__).resolve().parents[1]
#: From the frame to its image, as the issue has it, ms.
LIMIT_MS = 300.0
CHANNEL, PREFIX, RUN = "PTYPLUGIN:BENCH:Pva1:Image", "PTYPLUGIN:BENCH:Out:", "round-trip"
#: Points of the first image along each side, and their distance, px: with a frame's own side, a canvas of 256 x 256 px.
_ACROSS, _STEP_PX, _MOST = 9, 16, 1000
_RATE, _PATIENCE_S = 20.0, 120.0
_LIVE = f'\n[live]\nrecipe = "DM(30)"\nfirst_share = 1.0\nfirst_frames = {_ACROSS**2}\npva = "{CHANNEL}"\n'


def run(quick: bool) -> list[Table]:
    """All tables."""
    trips = Table(
        "a frame over PVA to the image over PVA that has it, canvas 256 x 256 px", ["frames", "count", "median ms", "worst ms", "limit"]
    )
    parts = Table("where that time goes, medians, ms", ["frames", "recorder", "session", "intake", "ranks", "screen"])
    parts.notes.append(
        "Recorder: from the post until it is in the spool. Session: until the growth is in the inbox. Intake: until that is in the job's "
        "folder. Ranks: until the snapshot is taken. Screen: until the client has the image."
    )
    with _chain() as chain:
        chain.begin()
        for name, pause_s in {"one, the image at rest": (1.5, 2.0), "one, while the ranks iterate": (0.0, 0.1)}.items():
            _tell(chain, trips, parts, name, [chain.one(random.uniform(*pause_s)) for _ in range(4 if quick else 40)])
        _tell(chain, trips, parts, f"{_RATE:g} a second", chain.many(40 if quick else 400, _RATE))
    return [trips, parts]


def _tell(chain: _Chain, trips: Table, parts: Table, name: str, frames: list[int]) -> None:
    steps = 1e3 * np.diff([chain.times(frame) for frame in frames], axis=1)
    whole = steps.sum(axis=1)
    median = float(np.median(whole))
    trips.add(name, len(frames), median, float(whole.max()), verdict(median, LIMIT_MS))
    parts.add(name, *(float(step) for step in np.median(steps, axis=0)))


@contextmanager
def _chain() -> Iterator[_Chain]:
    from p4p.server import Server

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptyplugin-bench-")))
        camera = _Camera()
        at = stack.enter_context(Server([{CHANNEL: camera.pv}], isolate=True)).conf()
        words, said, client = screens(PREFIX)
        said |= {
            **LOOPBACK,
            "EPICS_PVA_SERVER_PORT": at["EPICS_PVAS_SERVER_PORT"],
            "EPICS_PVA_BROADCAST_PORT": at["EPICS_PVAS_BROADCAST_PORT"],
        }
        file, profile = _site_file(folder)
        stack.enter_context(serving(file, folder, words, said))
        screen = _Screen(client)
        stack.callback(screen.close)
        yield _Chain(load_site(file), profile, camera, screen)


def _site_file(folder: Path) -> tuple[Path, Path]:
    """Site and profile."""
    profile = folder / "bench.toml"
    profile.write_text((_ROOT / "profiles" / "sim.toml").read_text(encoding="utf-8") + _LIVE, encoding="utf-8")
    tables = f'[[slot]]\nranks = 2\n[[source]]\nkind = "pva"\nprofiles = ["{profile}"]'
    return site_file(folder, f'data_roots = ["{folder}"]', tables), profile


class _Camera:
    """Frames of a raster, then of points at random within it; made in advance."""

    def __init__(self) -> None:
        from p4p.nt import NTNDArray
        from p4p.server.thread import SharedPV

        rng, side = np.random.default_rng(1), GEOMETRY.shape[0]
        raster = np.array([divmod(number, _ACROSS) for number in range(_ACROSS**2)]) * _STEP_PX
        extent = raster.max() + 1
        self.corners = np.concatenate([raster, rng.integers(0, extent, (_MOST - len(raster), 2))])
        sample, probe = make_sample((side + extent, side + extent), 3), annular_probe(side) * np.sqrt(1e6)
        seen = (far_field(probe[None] * sample[None, y : y + side, x : x + side]) for y, x in self.corners)
        self._frames = [rng.poisson(counts).clip(0, 65535).astype(np.uint16) for counts in seen]
        self._type = NTNDArray()
        self.pv = SharedPV(initial=self._type.type())

    def post(self, number: int) -> float:
        """Send a frame, numbered from 0; when, Unix seconds."""
        value, at_s = self._type.wrap(self._frames[number]), time.time()
        value.uniqueId = number + 1
        value.dataTimeStamp.secondsPastEpoch, value.dataTimeStamp.nanoseconds = int(at_s), int(at_s % 1 * 1e9)
        self.pv.post(value)
        return at_s


class _Screen:
    """Notes when which image came."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        from p4p.client.thread import Context

        self._news, self._images = threading.Condition(), list[tuple[int, float, float]]()
        self._context = Context("pva", conf=dict(environment), useenv=False)
        self._monitor = self._context.monitor(f"{PREFIX}Image:Phase", self._take, request="record[queueSize=100]field()")

    def first_with(self, frames: int) -> tuple[float, float]:
        """When the first image that has so many frames was taken and when it came, Unix seconds; waits for it.

        Raises:
            TimeoutError: it did not come.
        """
        with self._news:
            if not self._news.wait_for(lambda: self._images and self._images[-1][0] >= frames, _PATIENCE_S):
                raise TimeoutError(f"no image of {frames} frames came within {_PATIENCE_S:g} s")
            return next((taken_s, came_s) for has, taken_s, came_s in self._images if has >= frames)

    def close(self) -> None:
        """Look no more."""
        self._monitor.close()
        self._context.close()

    def _take(self, image: Any) -> None:
        came_s = time.time()
        with self._news:
            self._images.append((int(image.attrib.get("Frames", 0)), image.timestamp, came_s))
            self._news.notify_all()


class _Inbox:
    """The inbox; notes when which frames were handed over."""

    def __init__(self) -> None:
        self.handed_s: dict[int, float] = {}
        self.first_of: dict[int, int] = {}
        self.job = ""

    def __call__(self, site: Site, job: Job | Refusal, arrays: Mapping[str, NDArray[Any]]) -> str:
        self.job = submit(site, job, arrays)
        return self.job

    def grow(self, site: Site, growth: Growth, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Hand growth over."""
        grow(site, growth, arrays)
        at_s = time.time()
        for frame in range(growth.first, growth.first + growth.frame_count):
            self.handed_s[frame], self.first_of[frame] = at_s, growth.first


class _Chain:
    """Frames are posted here, and come back."""

    def __init__(self, site: Site, profile: Path, camera: _Camera, screen: _Screen) -> None:
        self._site, self._camera, self._screen, self._inbox = site, camera, screen, _Inbox()
        self._auto = AutoReconstruct(profile, site, self._inbox)
        self._spool = Spool(spool_folder(site, CHANNEL))
        self._posted: list[float] = []

    def begin(self) -> None:
        """Begin the run, and see its first image come to rest."""
        until(lambda: bool(np.any(self._spool.rows_since(0.0)["kind"] == CONNECTED)), "the recorder is connected", _PATIENCE_S)
        for name, document in _begun(self._site):
            self._auto(name, document)
        for _ in range(_ACROSS**2):
            self._measure()
            time.sleep(0.005)
        self._screen.first_with(_ACROSS**2)

    def one(self, pause_s: float) -> list[int]:
        """The number of a frame that was posted after a pause, when its image is there."""
        time.sleep(pause_s)
        frame = self._measure()
        self._screen.first_with(frame + 1)
        return frame

    def many(self, count: int, rate: float) -> list[int]:
        """Numbers of frames that were posted at so many a second, when their images are there."""
        begun_s, frames = time.monotonic(), list[int]()
        for number in range(count):
            time.sleep(max(0.0, begun_s + number / rate - time.monotonic()))
            frames.append(self._measure())
        self._screen.first_with(frames[-1] + 1)
        return frames

    def times(self, frame: int) -> list[float]:
        """When it was posted, recorded, handed over, taken in, and in a snapshot, and when that came, Unix seconds."""
        rows = self._spool.rows_since(0.0)
        recorded_s = float(rows["received_s"][(rows["kind"] == FRAME) & (rows["number"] == frame + 1)][0])
        place = GrowthFolder(self._site.jobs / self._inbox.job).place_of(self._inbox.first_of[frame])
        steps = [self._posted[frame], recorded_s, self._inbox.handed_s[frame], place.stat().st_ctime, *self._screen.first_with(frame + 1)]
        return list(np.maximum.accumulate(steps))

    def _measure(self) -> int:
        frame = len(self._posted)
        self._posted.append(self._camera.post(frame))
        for name, document in _point(frame, self._camera.corners[frame]):
            self._auto(name, document)
        return frame


def _begun(site: Site) -> Iterator[tuple[str, dict[str, Any]]]:
    energy, distance = GEOMETRY.energy_ev, GEOMETRY.distance_m
    yield "start", {"uid": RUN, "time": time.time(), "scan_id": 1, "energy_ev": energy, "detector_distance_m": distance}
    motor = {"dtype": "number", "shape": [], "source": "bench", "units": "um"}
    frames = {"dtype": "array", "shape": [1, *GEOMETRY.shape], "source": "bench", "external": "STREAM:"}
    keys = {"detector": frames, "stage_y": motor, "stage_x": motor}
    yield (
        "descriptor",
        {"uid": f"{RUN}-d", "run_start": RUN, "name": "primary", "time": time.time(), "data_keys": keys, "configuration": {}},
    )
    resource = {"uid": f"{RUN}-r", "run_start": RUN, "data_key": "detector", "mimetype": "application/x-hdf5"}
    # The camera's own file shows nothing while it measures.
    yield "stream_resource", {**resource, "uri": (site.home.parent / "none.h5").as_uri(), "parameters": {"dataset": "/entry/data/data"}}


def _point(point: int, corner: NDArray[np.int64]) -> Iterator[tuple[str, dict[str, Any]]]:
    ranges = {"indices": {"start": point, "stop": point + 1}, "seq_nums": {"start": point + 1, "stop": point + 2}}
    yield "stream_datum", {"uid": f"{RUN}-r/{point}", "stream_resource": f"{RUN}-r", "descriptor": f"{RUN}-d", **ranges}
    at_um = (corner * GEOMETRY.object_pixel_m * 1e6).tolist()
    data = dict(zip(("stage_y", "stage_x"), at_um, strict=True))
    head = {"uid": f"{RUN}-e{point}", "time": time.time(), "seq_num": point + 1, "descriptor": f"{RUN}-d", "filled": {}}
    yield "event", {**head, "data": data, "timestamps": dict.fromkeys(data, time.time())}
