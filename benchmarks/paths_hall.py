"""IOC, catalog, service with a warm rank, and a session, each a process of its own: what a scan needs to become an image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
from numpy.typing import NDArray

from benchmarks.serving import serving, site_file, until
from ptyplugin.catalog import LocalServer
from ptyplugin.io.spool import CONNECTED, Detector, Spool, channel_of
from ptyplugin.jobs import JOB_FILE, LOG_FILE, Entry, open_read_only, read_snapshot
from ptyplugin.model import Growth, Job, Site, load_site
from ptyplugin.sim import ioc
from ptyplugin.sim.eiger_stream import EigerStreamer
from ptyplugin.sim.ioc.process import Ioc

ROOT = Path(__file__).resolve().parents[1]
SESSION = Path(__file__).with_name("paths_session.py")
#: Each way of the frames is a beamline of its own: nothing that is recorded for one is there for another.
PATHS = ("file", "pva", "tiled", "eiger", "step")
DATASET, IDS = "/entry/data/data", "/entry/instrument/NDAttributes/NDArrayUniqueId"
_CHANGES = {"pva": '\npva = "SIM:Pva1:Image"'}
_LONGEST_S = 120.0


@dataclass
class Scan:
    """A scan that goes on, as the session tells it."""

    uid: str = ""
    file: Path = Path()
    announced: int = 0
    paused: bool = False
    held: bool = False
    end: dict[str, Any] = field(default_factory=dict)


class Hall:
    """What the tests measure with.

    Files that the detector writes lie in ``data``; the service looks for them in ``mounted``, where ``mount`` lets them appear.
    """

    def __init__(self, folder: Path, site: Site, catalog: LocalServer, served: Ioc, streamer: EigerStreamer) -> None:
        self.folder, self.site, self.catalog, self.ioc, self.streamer = folder, site, catalog, served, streamer
        self._series = 0
        self._session: subprocess.Popen[str] | None = None

    def start_session(self) -> None:
        """Start a session, also in the place of one that was ended."""
        self.end_session()
        environment = {**os.environ, **self.ioc.environment, "OPHYD_CONTROL_LAYER": "caproto", "TILED_API_KEY": self.catalog.api_key}
        command = [sys.executable, str(SESSION), str(self.folder)]
        with (self.folder / "session.log").open("a") as log:
            self._session = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._next() == {"ready": True}

    def end_session(self) -> None:
        """End the session, if there is one."""
        if self._session is not None:
            self._session.kill()
            self._session.wait()
            for pipe in (self._session.stdin, self._session.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()

    def _next(self) -> dict[str, Any]:
        assert self._session is not None
        assert self._session.stdout is not None
        line = self._session.stdout.readline()
        assert line, (self.folder / "session.log").read_text()[-3000:]
        return dict(json.loads(line))

    @contextmanager
    def scan(self, do: str, profile: str, visible: bool = True, **order: Any) -> Iterator[Scan]:
        """A scan that is over with the block. ``visible``: the service sees its file from the beginning on."""
        if self._session is None or self._session.poll() is not None:
            self.start_session()
        assert self._session is not None
        assert self._session.stdin is not None
        found, begun = Scan(), threading.Event()

        def follow() -> None:
            while not found.end:
                told = self._next()
                self._hear(found, told, profile, visible, order)
                if found.uid:
                    begun.set()

        self._session.stdin.write(json.dumps({"do": do, "profile": profile, **order}) + "\n")
        self._session.stdin.flush()
        with ThreadPoolExecutor(1) as thread:
            followed = thread.submit(follow)
            if not begun.wait(_LONGEST_S):
                self._session.kill()
            try:
                yield found
            except BaseException:
                # The session may wait for what will not come any more.
                self._session.kill()
                self._session.wait()
                raise
            finally:
                followed.result(_LONGEST_S)

    def _hear(self, scan: Scan, told: dict[str, Any], profile: str, visible: bool, order: dict[str, Any]) -> None:
        scan.uid = told.get("begun", scan.uid)
        scan.paused = told.get("paused", scan.paused)
        scan.held = told.get("held", scan.held)
        if "file" in told:
            scan.file = Path(unquote(urlparse(told["file"]).path))
            if visible:
                self.mount(scan)
            if profile == "eiger":
                self._series += 1
                self.streamer.begin(self._series, order["rows"] * order["columns"], (128, 128))
        elif "announced" in told:
            first, scan.announced = told["announced"]
            if profile == "eiger":
                for number, frame in enumerate(read(scan.file)[first : scan.announced], first):
                    self.streamer.send_image(self._series, number, frame)
        elif "ended" in told:
            if profile == "eiger":
                self.streamer.end(self._series)
            scan.end = told

    def mount(self, scan: Scan) -> None:
        """Let the service see the file of a scan."""
        (self.folder / "mounted" / scan.file.name).symlink_to(scan.file)

    def bring_back_ioc(self) -> None:
        """Start the IOC again; when this returns, the service records its frames again."""
        begun_s = time.time()
        self.ioc.restart()
        until(lambda: _records(self.site, begun_s), "frames are recorded again")

    def entries(self, scan: Scan, purpose: str) -> list[Entry]:
        with open_read_only(self.site.ledger) as ledger:
            return ledger.list(run_uid=scan.uid, purpose=purpose)

    def said(self, entry: Entry) -> str:
        """The log of a job."""
        return (self.site.jobs / entry.key / LOG_FILE).read_text()

    def admitted(self, live: Entry) -> NDArray[np.int64]:
        """Numbers of the frames, in the detector's file, that a live job has got, in its order."""
        folder = self.site.jobs / live.key
        job = Job.from_bytes((folder / JOB_FILE).read_bytes())
        grown = [Growth.from_bytes(path.read_bytes()) for path in sorted(folder.glob("growth/*/growth.json"))]
        blocks = [block for part in (job, *grown) for block in part.frames]
        return np.concatenate([block.indices() for block in blocks])


def live_job(there: Hall, scan: Scan) -> Entry:
    until(lambda: there.entries(scan, "live"), "a live job")
    (live,) = there.entries(scan, "live")
    return live


def frames_live(there: Hall, live: Entry) -> int:
    """Frames of a live image by now."""
    return int(getattr(read_snapshot(there.site.jobs / live.key), "frames", 0))


def check_live_image(catalog: Any, profile: str, live: Entry, frames: int) -> None:
    """The image of so many frames is in the catalog."""
    path = f"{profile}/processed/ptyplugin/{live.key}"

    def shown() -> bool:
        try:
            return bool(catalog[path].metadata["live"]["frames"] == frames)
        except KeyError:
            return False

    until(shown, "the live image is in the catalog", every_s=0.1)
    current = catalog[f"{path}/live/{catalog[path].metadata['live']['current']}"]
    amplitude, phase = current["object_amplitude"][:], current["object_phase"][:]
    assert np.isfinite(phase).all()
    assert np.ptp(phase[amplitude > 0.5 * amplitude.max()]) > 0.5, "the sample is seen"


def read(path: Path, dataset: str = DATASET) -> NDArray[Any]:
    """A dataset of a file that may be written."""
    with h5py.File(path, "r", libver="latest", swmr=True) as file:
        return np.asarray(file[dataset])


@contextmanager
def hall(folder: Path) -> Iterator[Hall]:
    """All of it, running."""
    for name in ("data", "mounted", "ioc"):
        (folder / name).mkdir()
    for path in PATHS:
        text = (ROOT / "profiles" / f"sim_{'epics' if path == 'step' else 'fly'}.toml").read_text()
        text = text.replace("DM(30)", "DM(6)").replace("substeps = 3", "substeps = 1")
        text = text.replace("[live] ", '[reconstruction]\nrecipe = "DM(20)"\n\n[live] ').replace('beamline = "sim"', f'beamline = "{path}"')
        (folder / f"{path}.toml").write_text(text + _CHANGES.get(path, ""))
    with ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        catalog = LocalServer(folder / "catalog", readable=[folder / "data", folder / "results"], beamlines=PATHS)
        starting = threads.submit(stack.enter_context, catalog)
        served = stack.enter_context(ioc.running(folder / "ioc"))
        starting.result()
        streamer = stack.enter_context(EigerStreamer())
        file = _site_file(folder, catalog.uri, streamer.address)
        there = Hall(folder, load_site(file), catalog, served, streamer)
        stack.callback(there.end_session)
        session = threads.submit(there.start_session)
        stack.enter_context(serving(file, folder, (), {**served.environment, "TILED_API_KEY": catalog.api_key}))
        until(lambda: _records(there.site), "the service records frames")
        session.result()
        yield there


def _site_file(folder: Path, catalog: str, eiger: str) -> Path:
    lines = f"""
results_dir = "{folder}/results"
data_roots = ["{folder}/data", "{folder}/mounted"]
path_map = {{ "{folder}/data" = "{folder}/mounted" }}
tiled_uri = "{catalog}"
"""
    tables = f"""
[[source]]
kind = "pva"
profiles = ["{folder}/pva.toml"]
[[source]]
kind = "eiger"
address = "{eiger}"
profiles = ["{folder}/eiger.toml"]
"""
    return site_file(folder, lines, tables)


def _records(site: Site, since_s: float = 0.0) -> bool:
    """Whether the recorder has been connected since then."""
    found = channel_of(site, detector_of("pva"))
    if found is None:
        return False
    rows = Spool(found[1]).rows_since(since_s)
    return bool(np.any((rows["kind"] == CONNECTED) & (rows["received_s"] >= since_s)))


def detector_of(beamline: str) -> Detector:
    """As the spool knows it."""
    return Detector(beamline=beamline, stream="primary", key="detector")
