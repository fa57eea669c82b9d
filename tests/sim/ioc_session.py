"""A Bluesky session at the simulated IOC, in a process of its own: clients of EPICS read their environment when they are imported.

usage: python ioc_session.py SCENARIO FOLDER [ARGUMENT]; prints one line of JSON: the documents, and what else was seen.
"""

import asyncio
import json
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import aioca
import numpy as np
from bluesky import plan_stubs, preprocessors
from bluesky.run_engine import RunEngine
from bluesky.utils import FailedStatus
from ioc_clients import FLIGHT, POSITIONS
from p4p.client.thread import Context

from ptyplugin.model import DeviceError
from ptyplugin.sim import ioc
from ptyplugin.sim.ioc.async_devices import Devices
from ptyplugin.sim.ioc.trajectory import Trajectory
from ptyplugin.sim.plans import ptycho_fly


class Session:
    """A RunEngine and the documents that it gave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.RE = RunEngine()
        self.documents: list[tuple[str, dict[str, Any]]] = []
        self.seen: dict[str, Any] = {}

    def devices(self) -> Devices:
        found = ioc.devices("SIM:", self.folder)
        self.in_loop(found.connect())
        return found

    def in_loop(self, work: Any, patience_s: float = 30) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.RE.loop).result(patience_s)

    def run(self, plan: Any) -> str:
        """The exit status of a plan."""
        try:
            self.RE(plan, lambda name, document: self.documents.append((name, document)))
        except (FailedStatus, DeviceError) as error:
            self.seen.setdefault("failures", []).append(str(error))
        return str(self.documents[-1][1]["exit_status"])


def step_plan(detector: Any, y: Any, x: Any, others: list[Any]) -> Generator[Any, Any, None]:
    @preprocessors.stage_decorator([detector, y, x])
    @preprocessors.run_decorator()
    def walk() -> Generator[Any, Any, None]:
        for at_y, at_x in POSITIONS:
            yield from plan_stubs.mv(y, at_y, x, at_x)
            yield from plan_stubs.trigger_and_read([detector, y, x, *others])

    return walk()


def scans(session: Session) -> None:
    """A step scan and two fly scans, what came over PVAccess, what motors refuse and how they stop."""
    devices = session.devices()
    session.run(step_plan(devices.detector, devices.y, devices.x, [devices.mono, devices.ion_chamber]))
    _fly(session, devices)
    session.in_loop(_motors(devices, session.seen))


async def _motors(devices: Devices, seen: dict[str, Any]) -> None:
    x = devices.x
    await x.velocity.set(20.0)
    start_s, start = time.monotonic(), await x.user_readback.get_value()
    await x.set(start - 10.0)
    seen["move_s"], seen["moved"] = time.monotonic() - start_s, await x.user_readback.get_value() - start
    moving = x.set(100.0)
    await asyncio.sleep(0.2)
    seen["moving"] = await x.motor_done_move.get_value()
    await x.stop(success=True)
    seen["on_the_way"] = await x.user_readback.get_value() - start + 10.0
    seen["done"] = await x.motor_done_move.get_value()
    await asyncio.wait_for(asyncio.gather(moving, return_exceptions=True), 5)
    try:
        await x.set(1000.0)
    except Exception as error:
        seen["refused"] = type(error).__name__
    await devices.mono.energy.set(8100.0)
    seen["energy"] = await devices.mono.energy.get_value()
    await devices.mono.energy.set(8000.0)


def _fly(session: Session, devices: Devices) -> None:
    """The second one has lost and doubled frames."""
    images: list[dict[str, Any]] = []

    def note(value: Any) -> None:
        raw = value.raw
        images.append(
            {"id": raw.uniqueId, "sum": int(value.sum()), "shape": value.shape, "dtype": str(value.dtype), "codec": raw.codec.name}
        )

    with Context("pva") as context, context.monitor("SIM:Pva1:Image", note, request="record[queueSize=1000]"):
        _wait_until_quiet(images)
        images.clear()
        for faults in ({}, {"DropFrames": 7, "DuplicateIds": 5}):
            session.in_loop(_put(faults))
            session.run(ptycho_fly(devices.detector, devices.capture, devices.fly, FLIGHT, samples=3, md={"sample": "star"}))
            _wait_until_quiet(images)
            session.seen.setdefault("images", []).append(list(images))
            images.clear()
    session.seen["status"] = session.in_loop(devices.fly.status.get_value())


async def _put(faults: dict[str, int]) -> None:
    for name, value in faults.items():
        await aioca.caput(f"SIM:fault:{name}", value, wait=True)


def _wait_until_quiet(images: list[Any]) -> None:
    count = -1
    while count != len(images):
        count = len(images)
        time.sleep(0.2)


def faults(session: Session) -> None:
    """What goes wrong on request, and a good run afterwards."""
    devices, seen = session.devices(), session.seen
    session.in_loop(_put({"WrongUnit": 1}))
    seen["wrong_unit"] = [session.in_loop(devices.x.motor_egu.get_value()), session.in_loop(devices.x.describe())["stage_x"]["units"]]
    session.in_loop(_put({"WrongUnit": 0, "MotorStalled": 2}))
    seen["moves"] = [session.in_loop(_moved(devices, target)) for target in (1.0, 2.0, 3.0)]

    def flight(**faults: int) -> str:
        session.in_loop(_put({"MotorStalled": 0, "DetectorOff": 0, **faults}))
        return session.run(ptycho_fly(devices.detector, devices.capture, devices.fly, FLIGHT, patience_s=1.0))

    seen["status"] = [flight(MotorStalled=30), flight(DetectorOff=40), flight()]
    _restart(session, devices)


async def _moved(devices: Devices, target: float) -> float:
    await devices.x.set(target)
    return float(await devices.x.user_readback.get_value())


def _restart(session: Session, devices: Devices) -> None:
    """The IOC is ended between scans and killed during one, and started again; the test does that when it reads a line."""
    _ask("stop")
    session.in_loop(_reconnected(), 60)
    statuses = [session.run(step_plan(devices.detector, devices.y, devices.x, []))]

    def killed(plan: Any) -> Generator[Any, Any, Any]:
        asked = []

        def after(message: Any) -> tuple[None, Any]:
            if message.command == "collect" and len(session.documents) > known and not asked:
                asked.append(message)
                _ask("kill")
            return None, None

        known = len(session.documents) + 10
        return (yield from preprocessors.plan_mutator(plan, after))

    slow = Trajectory.grid(10, 20, 0.5, period_s=0.01)
    statuses.append(session.run(killed(ptycho_fly(devices.detector, devices.capture, devices.fly, slow, patience_s=1.0))))
    session.in_loop(_reconnected(), 60)
    statuses.append(session.run(ptycho_fly(devices.detector, devices.capture, devices.fly, FLIGHT)))
    session.seen["restarted"] = statuses


async def _reconnected() -> None:
    for name in ("x.RBV", "det:cam1:Acquire_RBV", "det:HDF1:Capture_RBV", "pos:Capture_RBV", "fly:Start_RBV"):
        await aioca.caget(f"SIM:{name}", timeout=60)


def _ask(what: str) -> None:
    print(what, flush=True)
    sys.stdin.readline()


def legacy(session: Session) -> None:
    """Step scans with ophyd's devices, one frame per point and two, and three in files of an Eiger."""
    devices = ioc.legacy_devices("SIM:", session.folder)
    # Whoever measured here before may have left another number.
    devices.detector.stage_sigs["cam.num_images"] = 1
    session.run(step_plan(devices.detector, devices.y, devices.x, [devices.mono, devices.ion_chamber]))
    devices.detector.stage_sigs["cam.num_images"] = 2
    session.run(step_plan(devices.detector, devices.y, devices.x, []))
    devices.eiger.stage_sigs.update({"cam.num_images": 3, "files.images_per_file": 2})
    session.run(step_plan(devices.eiger, devices.y, devices.x, []))
    devices.x.velocity.put(20.0, wait=True)
    moving = devices.x.move(60.0, wait=False)
    time.sleep(0.2)
    session.seen["moving"] = devices.x.moving
    devices.x.stop(success=True)
    moving.wait(5)
    session.seen["stopped_at"] = devices.x.position
    try:
        devices.x.move(1000.0)
    except Exception as error:
        session.seen["refused"] = type(error).__name__


SCENARIOS = {"scans": scans, "faults": faults, "legacy": legacy}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


if __name__ == "__main__":
    session = Session(Path(sys.argv[2]))
    SCENARIOS[sys.argv[1]](session, *sys.argv[3:])
    print(json.dumps({"documents": session.documents, "seen": session.seen}, default=_plain))
