"""The beamlines of `ptyplugin demo`: one behind EPICS, with fly or step scans, and one in this process."""

from __future__ import annotations

import asyncio
import atexit
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ptyplugin.cli.sim_site import variables
from ptyplugin.model import Profile

if TYPE_CHECKING:
    from ptyplugin.sim.camera import Camera

#: How the demo measures.
Way = Literal["fly", "step", "in-process"]
#: Steps between points, micrometres, and the time from one frame of a fly scan to the next, seconds; half of it is exposed.
_STEP_UM, _PERIOD_S = 1.1, 0.05
#: Samples of the encoders while a frame of a fly scan is exposed.
_SAMPLES = 3
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class DemoBeamline:
    """What a demo measures with.

    frames: of one scan; plan: makes the plan of a scan, for ``RE``; camera: knows the truth
    """

    RE: Any
    frames: int
    plan: Callable[[], Any]
    profile: Profile
    camera: Camera


@contextmanager
def demo_beamline(way: Way, folder: Path, frames: int, modes: int) -> Iterator[DemoBeamline]:
    """A beamline that writes its files into ``folder``.

    Raises:
        DeviceError: the IOC does not start.
    """
    make = _in_process if way == "in-process" else _over_epics
    with make(way, folder, frames, modes) as beamline:
        yield beamline


@contextmanager
def _in_process(_: Way, folder: Path, frames: int, modes: int) -> Iterator[DemoBeamline]:
    from ptyplugin.profiles import load_profile
    from ptyplugin.sim.beamline import Beamline

    with Beamline(folder, frames=frames, modes=modes) as beamline:
        yield DemoBeamline(beamline.RE, frames, beamline.ptycho_grid, load_profile("sim"), beamline.camera)


@contextmanager
def _over_epics(way: Way, folder: Path, frames: int, modes: int) -> Iterator[DemoBeamline]:
    from ptyplugin.profiles import load_profile
    from ptyplugin.sim import ioc

    rows = max(2, round(float(np.sqrt(frames))))
    columns = -(-frames // rows)
    range_um = 1.2 * _STEP_UM * max(rows, columns)
    options = ["--modes", str(modes), "--range-um", f"{range_um:g}"]
    with ExitStack() as stack:
        served = stack.enter_context(ioc.running(folder, options=options))
        stack.enter_context(variables(**served.environment))
        # Ended after the clients of EPICS, which would complain of an IOC that is gone.
        atexit.register(stack.pop_all().close)
    from ptyplugin.sim.ioc.imperfections import Imperfections
    from ptyplugin.sim.ioc.instrument import Instrument

    camera = Instrument(Imperfections(), range_m=range_um * 1e-6, modes=modes).camera
    with _run_engine() as engine:
        devices = ioc.devices(served.prefix, folder)
        _in_loop(engine, devices.connect())
        engine.preprocessors.append(_baseline([devices.mono, devices.ion_chamber]))
        if way == "fly":
            yield DemoBeamline(engine, rows * columns, lambda: _flight(devices, rows, columns), load_profile("sim_fly"), camera)
        else:
            yield DemoBeamline(engine, frames, lambda: _walk(devices, frames), load_profile("sim_epics"), camera)


def _flight(devices: Any, rows: int, columns: int) -> Any:
    from ptyplugin.sim.ioc.trajectory import Trajectory
    from ptyplugin.sim.plans import ptycho_fly

    flight = Trajectory.grid(rows, columns, _STEP_UM, period_s=_PERIOD_S, exposure_s=_PERIOD_S / 2)
    return ptycho_fly(devices.detector, devices.capture, devices.fly, flight, samples=_SAMPLES)


def _walk(devices: Any, frames: int) -> Any:
    from ptyplugin.sim.plans import jittered_raster, ptycho_grid

    return ptycho_grid([devices.detector], devices.y, devices.x, jittered_raster(frames, _STEP_UM, _STEP_UM / 10, seed=0))


def _baseline(devices: list[Any]) -> Any:
    from bluesky.preprocessors import SupplementalData

    return SupplementalData(baseline=devices)


@contextmanager
def _run_engine() -> Iterator[Any]:
    """A RunEngine with an event loop of its own, which ends with the block."""
    from bluesky.run_engine import RunEngine

    from ptyplugin.sim.beamline import GEOMETRY

    metadata = {"beamline": "sim", "detector_distance_m": GEOMETRY.distance_m}
    engine = RunEngine(metadata, loop=asyncio.new_event_loop(), context_managers=[_PausesAtOnce])
    try:
        yield engine
    finally:
        if engine.state == "paused":
            engine.abort("the demo is over")
        thread = _in_loop(engine, _own_thread())
        engine.loop.call_soon_threadsafe(engine.loop.stop)
        thread.join(_TIMEOUT_S)
        engine.loop.close()


class _PausesAtOnce:
    """What Ctrl-C does to a RunEngine here: a fly scan has no checkpoint at which it could pause later, as it would by itself."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGINT, self._interrupted)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _interrupted(self, *_: object) -> None:
        # The main thread waits for the RunEngine, and may not ask it.
        threading.Thread(target=self._pause, name="ptyplugin-pause", daemon=True).start()

    def _pause(self) -> None:
        from bluesky.utils import TransitionError

        with suppress(TransitionError):
            self._engine.request_pause(defer=False)


def _in_loop(engine: Any, work: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(work, engine.loop).result(_TIMEOUT_S)


async def _own_thread() -> threading.Thread:
    return threading.current_thread()
