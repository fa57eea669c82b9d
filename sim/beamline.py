"""The beamline that is not there: RunEngine, stages, detector, and the truth to judge a reconstruction by."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from bluesky.run_engine import RunEngine
from numpy.typing import NDArray
from ophyd_async.core import wait_for_connection
from ophyd_async.sim import SimMotor

from ptyplugin.model.errors import DeviceError
from ptyplugin.model.geometry import Geometry
from ptyplugin.sim.acquisition import STAGE_UNIT, STAGE_UNIT_M
from ptyplugin.sim.camera import Camera
from ptyplugin.sim.detector import PtychoDetector
from ptyplugin.sim.optics import annular_probe, coherent_modes
from ptyplugin.sim.plans import jittered_raster, ptycho_grid
from ptyplugin.sim.sample import make_sample

#: 8 keV, 128 x 128 pixels of 75 um, 3 m behind the sample: object pixels of 48.4 nm.
GEOMETRY = Geometry(energy_ev=8000.0, distance_m=3.0, pixel_m=75e-6, shape=(128, 128))

_STEP_PX = 23.6
_JITTER_PX = 2.5
_BORDER_PX = 16
_MOST_PHOTONS = 1e12
_TIMEOUT_S = 10.0
_Result = TypeVar("_Result")


class Beamline:
    """A ptychography beamline in this process. Use it in a ``with`` block, or ``close()`` it.

    folder: where the detector writes its files, one per run; made if it is not there
    frames: points of the scan; modes: probe modes; photons: photons per frame that reach the sample
    seed: of sample, positions and noise; the same seed gives the same frames

    Attributes: ``RE`` (the RunEngine, with an event loop of its own), ``detector``, ``stage_y``, ``stage_x``, ``camera``,
    ``geometry``; ``positions_m`` (frame, yx), where the scan will go; and the truth: ``object`` (y, x), ``probe``
    (mode, y, x) in square roots of counts, ``positions_px`` (frame, yx), first row and column of each patch in ``object``.

    Raises:
        ScanError: no frames.
        DeviceError: modes or photons that cannot be.
    """

    def __init__(self, folder: Path, *, frames: int = 200, modes: int = 1, seed: int = 0, photons: float = 1e6) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.geometry = GEOMETRY
        path_px = jittered_raster(frames, _STEP_PX, _JITTER_PX, seed)
        self.positions_m = path_px * np.asarray(GEOMETRY.object_pixel_m)
        self.camera = _camera(path_px, modes, seed, photons)
        self.object, self.probe = self.camera.sample, self.camera.probe
        self.positions_px = self.camera.position_px(self.positions_m)
        self.RE = _run_engine()
        self.stage_y = SimMotor("stage_y", units=STAGE_UNIT)
        self.stage_x = SimMotor("stage_x", units=STAGE_UNIT)
        self.detector = PtychoDetector(self.camera, self.stage_y, self.stage_x, folder, name="detector")
        self._in_loop(wait_for_connection(**{device.name: device.connect() for device in (self.stage_y, self.stage_x, self.detector)}))

    def ptycho_grid(self, detector: Any = None) -> Generator[Any, Any, Any]:
        """Plan: the scan over all positions, with the beamline's detector or another one."""
        detectors = [self.detector if detector is None else detector]
        return ptycho_grid(detectors, self.stage_y, self.stage_x, self.positions_m / STAGE_UNIT_M)

    def close(self) -> None:
        """Abort what is still paused, and end the RunEngine's thread and event loop."""
        if self.RE.state == "paused":
            self.RE.abort("the beamline is closed")
        if self.RE.loop.is_closed():
            return
        thread = self._in_loop(_own_thread())
        self.RE.loop.call_soon_threadsafe(self.RE.loop.stop)
        thread.join(_TIMEOUT_S)
        self.RE.loop.close()

    def _in_loop(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self.RE.loop).result(_TIMEOUT_S)

    def __enter__(self) -> Beamline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _camera(path_px: NDArray[np.float64], modes: int, seed: int, photons: float) -> Camera:
    if not 0 < photons <= _MOST_PHOTONS:
        raise DeviceError(f"a beam of {photons:g} photons per frame was asked for: give a number above 0, up to {_MOST_PHOTONS:g}.")
    side = GEOMETRY.shape[0]
    extent = np.ceil(np.ptp(path_px, axis=0)).astype(int) + side + 2 * _BORDER_PX
    origin = _BORDER_PX - path_px.min(axis=0)
    return Camera(
        sample=make_sample((int(extent[0]), int(extent[1])), seed),
        probe=np.sqrt(photons) * coherent_modes(annular_probe(side), modes),
        geometry=GEOMETRY,
        origin_px=(float(origin[0]), float(origin[1])),
        noise=np.random.default_rng((seed, 1)),
    )


def _run_engine() -> RunEngine:
    # The RunEngine imports ophyd to note its version; without this ophyd would start threads that look for EPICS servers.
    os.environ.setdefault("OPHYD_CONTROL_LAYER", "dummy")
    metadata = {"beamline": "sim", "energy_ev": GEOMETRY.energy_ev, "detector_distance_m": GEOMETRY.distance_m}
    # Signals can only be caught in the main thread.
    managers: list[Any] | None = None if threading.current_thread() is threading.main_thread() else []
    return RunEngine(metadata, loop=asyncio.new_event_loop(), context_managers=managers)


async def _own_thread() -> threading.Thread:
    return threading.current_thread()
