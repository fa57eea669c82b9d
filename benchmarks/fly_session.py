"""A session at the simulated beamline that flies as it is told, in a process of its own: clients of EPICS read their environment at import.

``python -m benchmarks.fly_session FOLDER SITE``: one order in JSON per line on standard input; lines of JSON tell what happens, and when.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import aioca
from bluesky import plan_stubs, preprocessors
from bluesky.callbacks.buffer import BufferingWrapper
from bluesky.run_engine import RunEngine
from bluesky_tiled_plugins import TiledWriter

from ptyplugin.callbacks import AutoReconstruct
from ptyplugin.catalog import connect
from ptyplugin.model import load_site
from ptyplugin.sim import ioc
from ptyplugin.sim.beamline import GEOMETRY
from ptyplugin.sim.ioc.trajectory import Trajectory
from ptyplugin.sim.plans import ptycho_fly

#: From one frame to the next, um; share of the time in which frames are exposed.
_STEP_UM, _EXPOSED = 0.4, 0.2


class Session:
    """A RunEngine, and devices over EPICS."""

    def __init__(self, folder: Path, site: Path) -> None:
        # The detector's files are where it says that they are, on this host.
        self._folder, self._site = folder, load_site(site).model_copy(update={"path_map": {}})
        self._catalog = connect(self._site)
        self._engine = RunEngine({"detector_distance_m": GEOMETRY.distance_m})
        self._devices = ioc.devices("SIM:", folder / "data")
        self._in_loop(self._devices.connect())
        self._engine.preprocessors.append(preprocessors.SupplementalData(baseline=[self._devices.mono]))
        self._automatic: dict[str, AutoReconstruct] = {}

    def fly(self, profile: str, frames: int, rate: float, drop: int, hold: str) -> None:
        """A spiral of so many frames a second, with raw writer and AutoReconstruct subscribed.

        drop: each so many-th frame is not sent over PV Access, 0 for none
        hold: the run stays open until this file is there, if it has a name
        """
        self._in_loop(aioca.caput("SIM:fault:DropFrames", drop, wait=True))
        if profile not in self._automatic:
            self._automatic[profile] = AutoReconstruct(self._folder / f"{profile}.toml", self._site)
        raw = BufferingWrapper(TiledWriter(self._catalog[f"{profile}/raw"], batch_size=1))
        flight = Trajectory.spiral(frames, _STEP_UM, period_s=1 / rate, exposure_s=_EXPOSED / rate)
        plan = ptycho_fly(self._devices.detector, self._devices.capture, self._devices.fly, flight)
        self._engine(_held(plan, hold), {"all": [self._automatic[profile], _Teller(), raw]})
        raw.shutdown(wait=True)

    def _in_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._engine.loop).result(30)


class _Teller:
    def __init__(self) -> None:
        self._frames = ""

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        if name == "start":
            tell(begun=document["uid"])
        elif name == "stream_resource" and document["data_key"] == "detector":
            self._frames = document["uid"]
            tell(file=document["uri"])
        elif name == "stream_datum" and document["stream_resource"] == self._frames:
            tell(announced=document["indices"]["stop"])
        elif name == "stop":
            tell(ended=document["exit_status"])


def _held(plan: Any, hold: str) -> Generator[Any, Any, Any]:
    """The plan, whose run is not closed before the file is there."""

    def wait() -> Generator[Any, Any, None]:
        while hold and not Path(hold).exists():
            yield from plan_stubs.sleep(0.05)

    def before(message: Any) -> tuple[Any, None]:
        return (preprocessors.pchain(wait(), preprocessors.single_gen(message)) if message.command == "close_run" else None), None

    return (yield from preprocessors.plan_mutator(plan, before))


def tell(**what: Any) -> None:
    """Say it, with the time."""
    print(json.dumps({**what, "at_s": time.time()}), flush=True)


if __name__ == "__main__":
    session = Session(*map(Path, sys.argv[1:]))
    tell(ready=True)
    for line in sys.stdin:
        session.fly(**json.loads(line))
        tell(done=True)
