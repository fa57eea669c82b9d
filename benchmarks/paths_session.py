"""A session at the simulated IOC that measures what it is told, in a process of its own: EPICS clients read their environment at import.

usage: python paths_session.py FOLDER; one order in JSON per line on stdin; lines of JSON on stdout tell what happens.
"""

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aioca
from bluesky import plan_stubs, preprocessors
from bluesky.callbacks.buffer import BufferingWrapper
from bluesky.run_engine import RunEngine
from bluesky.utils import FailedStatus, RunEngineInterrupted
from bluesky_tiled_plugins import TiledWriter
from ophyd_async.core import StaticFilenameProvider, StaticPathProvider

from ptyplugin.callbacks import AutoReconstruct
from ptyplugin.catalog import connect
from ptyplugin.model import PtypluginError, Site
from ptyplugin.sim import ioc
from ptyplugin.sim.ioc.async_devices import FrameDetector
from ptyplugin.sim.ioc.faults import FAULTS
from ptyplugin.sim.ioc.trajectory import Trajectory
from ptyplugin.sim.plans import fermat_spiral, ptycho_fly, ptycho_grid

#: Bluesky prints to the other one.
_OUT, sys.stdout = sys.stdout, sys.stderr
#: What a fly scan asks first of its devices, and how long their IOC may take to come back, seconds.
_NEEDED, _BACK_S = ["SIM:fly:Start_RBV", "SIM:det:HDF1:NumCaptured_RBV", "SIM:pos:NumCaptured_RBV"], 60.0


class Session:
    """A RunEngine, devices and one AutoReconstruct per profile."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.site = folder, Site(home=folder / "home", data_roots=[folder / "data"])
        self.RE = RunEngine({"detector_distance_m": 3.0})
        self.devices = ioc.devices("SIM:", folder / "data")
        self.in_loop(self.devices.connect())
        self.RE.preprocessors.append(preprocessors.SupplementalData(baseline=[self.devices.mono]))
        self.automatic: dict[str, AutoReconstruct] = {}
        self.legacy: Any = None
        self.warned: list[str] = []
        logging.getLogger("ptyplugin").addHandler(_Keeper(self.warned))

    def in_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.RE.loop).result(_BACK_S + 5)

    def fly(self, order: dict[str, Any]) -> dict[str, Any]:
        """A fly scan; its run is not closed before the file ``hold`` is there. ``file_name``: of the frames, instead of a new one."""
        # After an IOC has been away, Channel Access looks for it ever more seldom.
        self.in_loop(aioca.connect(_NEEDED, timeout=_BACK_S))
        self.in_loop(_put(order.get("faults", {})))
        period_s, patience_s = order.get("period_s", 0.01), order.get("patience_s", 10.0)
        # Short exposures: one position for each frame is enough.
        flight = Trajectory.grid(order["rows"], order["columns"], 0.9, period_s=period_s, exposure_s=period_s / 10, turn_s=0.03)
        devices, detector = self.devices, self.devices.detector
        if name := order.get("file_name"):
            paths = StaticPathProvider(StaticFilenameProvider(name), self.folder / "data")
            detector = FrameDetector("SIM:det:", paths, name="detector")
            self.in_loop(detector.connect())
        plan = ptycho_fly(detector, devices.capture, devices.fly, flight, samples=3, patience_s=patience_s)
        return self.run(_held(plan, order.get("hold")), order)

    def step(self, order: dict[str, Any]) -> dict[str, Any]:
        """A step scan, paused when ``pause_after`` points are taken, until ``hold`` is there; ``ophyd``: with its devices."""
        self.in_loop(_put(order.get("faults", {})))
        devices: Any = self.devices
        if order.get("ophyd"):
            devices = self.legacy = self.legacy or ioc.legacy_devices("SIM:", self.folder / "data")
            devices.detector.stage_sigs["cam.num_images"] = 1
        positions = fermat_spiral(order["points"], 1.0)
        return self.run(ptycho_grid([devices.detector], devices.y, devices.x, positions), order)

    def run(self, plan: Any, order: dict[str, Any]) -> dict[str, Any]:
        profile = order["profile"]
        if profile not in self.automatic:
            self.automatic[profile] = AutoReconstruct(self.folder / f"{profile}.toml", self.site)
        documents: list[tuple[str, Any]] = []
        subscribers = [self.automatic[profile], lambda *document: documents.append(document), self.teller(order)]
        raw = None
        if order.get("raw"):
            client = connect(Site(tiled_uri=order["raw"]))
            raw = BufferingWrapper(TiledWriter(client[f"{profile}/raw"], batch_size=1))
            subscribers.append(raw)
        said, begun_s = None, time.monotonic()
        self.warned.clear()
        try:
            self.interrupted(plan, subscribers, order)
        except PtypluginError as error:
            said = str(error)
        took_s = time.monotonic() - begun_s
        if raw is not None:
            raw.shutdown(wait=True)
            client.context.close()
        flushed = self.automatic[profile].flush(20)
        named = dict(documents)
        stop = named.get("stop", {"exit_status": "no run was opened"})
        status, reason = stop["exit_status"], stop.get("reason", "")
        return {"ended": status, "reason": reason, "said": said, "took_s": took_s, "flushed": flushed, "warned": list(self.warned)}

    def interrupted(self, plan: Any, subscribers: list[Any], order: dict[str, Any]) -> None:
        try:
            self.RE(plan, {"all": subscribers})
        except RunEngineInterrupted:
            if order.get("abort_after"):
                self.RE.abort("seen enough")
                return
            tell(paused=True)
            _wait_for(Path(order["hold"]))
            self.RE.resume()

    def teller(self, order: dict[str, Any]) -> Callable[[str, Any], None]:
        """Tells of a run while it goes on, and interrupts it where the order says so."""
        keys: dict[str, str] = {}
        interrupted: list[int] = []

        def hear(name: str, document: dict[str, Any]) -> None:
            count = 0
            if name == "start":
                tell(begun=document["uid"])
            elif name == "stream_resource" and document["data_key"] == "detector":
                keys[document["uid"]] = document["uri"]
                tell(file=document["uri"])
            elif name == "resource":
                tell(file=f"file://localhost{document['root']}{document['resource_path']}")
            elif name == "stream_datum" and document["stream_resource"] in keys:
                count = document["indices"]["stop"]
                tell(announced=[document["indices"]["start"], count])
            elif name == "event":
                count = document["seq_num"]
            after = order.get("abort_after") or order.get("pause_after")
            if after and count >= after and not interrupted:
                interrupted.append(count)
                threading.Thread(target=self.RE.request_pause, args=(bool(order.get("pause_after")),)).start()

        return hear


class _Keeper(logging.Handler):
    """Keeps the warnings."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._sentences = sentences

    def emit(self, record: logging.LogRecord) -> None:
        self._sentences.append(record.getMessage())


async def _put(faults: dict[str, int]) -> None:
    for pv, _ in FAULTS.values():
        await aioca.caput(f"SIM:{pv}", faults.get(pv.removeprefix("fault:"), 0), wait=True)


def _held(plan: Any, hold: str | None) -> Generator[Any, Any, Any]:
    """The plan, whose run stays open until the file is there."""

    def wait() -> Generator[Any, Any, None]:
        tell(held=True)
        while hold is not None and not Path(hold).exists():
            # In a plan that has failed already, further devices may fail.
            with suppress(FailedStatus):
                yield from plan_stubs.sleep(0.05)

    def before(message: Any) -> tuple[Any, None]:
        if message.command != "close_run" or hold is None:
            return None, None
        return preprocessors.pchain(wait(), preprocessors.single_gen(message)), None

    return (yield from preprocessors.plan_mutator(plan, before))


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.05)


def tell(**what: Any) -> None:
    print(json.dumps(what), file=_OUT, flush=True)


if __name__ == "__main__":
    session = Session(Path(sys.argv[1]))
    tell(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        tell(**{"fly": session.fly, "step": session.step}[order["do"]](order))
