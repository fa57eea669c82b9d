"""The controller of fly scans: moves both stages along a trajectory and triggers detector and position capture together."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model.errors import DeviceError, PtypluginError
from ptyplugin.sim.ioc.async_devices import FlyScan
from ptyplugin.sim.ioc.database import YES_NO, Database, signals_of
from ptyplugin.sim.ioc.faults import Faults
from ptyplugin.sim.ioc.instrument import UNIT_M, Instrument
from ptyplugin.sim.ioc.motion import Track
from ptyplugin.sim.ioc.motor import MotorRecord
from ptyplugin.sim.ioc.trajectory import MOST_FRAMES, Trajectory

FLY = "fly:"
#: How often frames that are due are handed on, seconds.
_TICK_S = 0.01

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """What a fly scan will measure, computed in advance.

    frames: (frame, y, x); encoders: (frame, sample, yx) in the stages' unit; intensity: (frame), 1 on average; ends_s: (frame)
    exposure_s: of each frame
    """

    tracks: tuple[Track, Track]
    frames: NDArray[np.uint16]
    encoders: Floats
    intensity: Floats
    ends_s: Floats
    exposure_s: float


Trigger = Callable[[Measured, int, int], Awaitable[None]]


class FlyController:
    """Serves the PVs of fly scans.

    triggers: called with what was measured and the first and last frame (exclusive) that are due
    """

    def __init__(
        self,
        database: Database,
        instrument: Instrument,
        stages: tuple[MotorRecord, MotorRecord],
        faults: Faults,
        triggers: list[Trigger],
    ) -> None:
        self._pv, self._instrument, self._stages, self._faults, self._triggers = database, instrument, stages, faults, triggers
        self._measured: Measured | None = None
        self._known: tuple[bytes, Measured] | None = None
        self._abort = threading.Event()
        self._running = False
        for full, kind in signals_of(FlyScan(database.prefix + FLY)):
            name = full.removeprefix(database.prefix)
            if name in (f"{FLY}Y", f"{FLY}X"):
                database.add(name, 0.0, length=MOST_FRAMES)
            else:
                database.add_kind(name, kind)
        for name, value in {"Exposure": 0.01, "Period": 0.01, "TurnTime": 0.1}.items():
            database.begin(FLY + name, value)
        for name, call in {"Prepare": self._prepare, "Start": self._start}.items():
            database.after_put(FLY + name, call)

    def _trajectory(self) -> Trajectory:
        pv = self._pv
        y, x = np.atleast_1d(pv[f"{FLY}Y"]), np.atleast_1d(pv[f"{FLY}X"])
        if len(y) != len(x):
            raise DeviceError(f"a trajectory of {len(y)} positions y and {len(x)} positions x was put: give as many of both.")
        exposure_s, period_s, turn_s = (float(pv[FLY + name]) for name in ("Exposure", "Period", "TurnTime"))
        found = Trajectory(np.stack([y, x], axis=1), exposure_s, period_s, int(pv[f"{FLY}LineLength"]), turn_s)
        for name, positions in zip("yx", found.positions.T, strict=True):
            low, high = pv[f"{name}.LLM"], pv[f"{name}.HLM"]
            if positions.min() < low or positions.max() > high:
                raise DeviceError(
                    f"a trajectory from {positions.min():g} to {positions.max():g} of {name} was put, beyond {low:g} .. {high:g}."
                )
        return found

    async def _prepare(self, choice: str) -> None:
        """The put of 1 is complete when all is computed and the stages stand at the begin."""
        if choice == YES_NO[0]:
            return
        self._measured = None
        await self._say("Preparing", 0)
        try:
            trajectory = self._trajectory()
            self._abort.clear()
            measured = await asyncio.to_thread(self._measure, trajectory, self._samples(), self._faults["motor_stalled"])
            begins = [float(track.positions[0]) for track in measured.tracks]
            await asyncio.gather(*(stage.go(begin) for stage, begin in zip(self._stages, begins, strict=True)))
        except PtypluginError as error:
            await self._say(str(error), 0)
            raise
        finally:
            await self._pv.set(f"{FLY}Prepare", 0)
        self._measured = measured
        await self._say("Prepared", 0)

    def _samples(self) -> int:
        return max(int(self._pv["pos:SamplesPerFrame"]), 1)

    def _measure(self, trajectory: Trajectory, samples: int, stalled: int) -> Measured:
        """All that the scan will see; the same trajectory is computed once."""
        key = trajectory.positions.tobytes() + repr((trajectory, samples, stalled, self._instrument.camera.geometry.energy_ev)).encode()
        if self._known is not None and self._known[0] == key:
            return self._known[1]
        tracks, starts_s = trajectory.tracks(), trajectory.starts_s
        if 0 < stalled < len(starts_s):
            tracks = (tracks[0], tracks[1].stalled(starts_s[stalled]))
        exposures = []
        for start_s in starts_s.tolist():
            if self._abort.is_set():
                raise DeviceError("the fly scan was stopped while it was prepared: prepare it again.")
            exposures.append(self._instrument.expose(tracks, start_s, trajectory.exposure_s))
        times_s = starts_s[:, None] + (np.arange(samples) + 0.5) / samples * trajectory.exposure_s
        encoders = self._instrument.encoders_m(tracks, times_s.ravel()) / UNIT_M
        measured = Measured(
            tracks,
            np.asarray([exposure.counts for exposure in exposures]),
            encoders.reshape(len(starts_s), samples, 2),
            np.asarray([exposure.intensity for exposure in exposures]),
            starts_s + trajectory.exposure_s,
            trajectory.exposure_s,
        )
        self._known = (key, measured)
        return measured

    async def _start(self, choice: str) -> None:
        """The put of 1 is complete when the last frame has been handed on, or the scan has been stopped."""
        if choice == YES_NO[0]:
            self._abort.set()
            return
        measured, self._measured = self._measured, None
        if self._running or measured is None:
            await self._pv.set(f"{FLY}Start", int(self._running))
            raise DeviceError("a fly scan was started that is not prepared, or runs already: put Prepare first.")
        self._running = True
        self._abort.clear()
        await self._say("Running", 0)
        begin_s = time.monotonic()
        moving = [
            asyncio.create_task(stage.follow(track.later(begin_s))) for stage, track in zip(self._stages, measured.tracks, strict=True)
        ]
        try:
            await self._fly(measured, begin_s)
        finally:
            if self._abort.is_set():
                await asyncio.gather(*(stage.halt() for stage in self._stages))
            await asyncio.gather(*moving)
            self._running = False
            await self._pv.set(f"{FLY}Start", 0)
            await self._pv.set(f"{FLY}Status_RBV", "Stopped" if self._abort.is_set() else "Done")

    async def _fly(self, measured: Measured, begin_s: float) -> None:
        done, total = 0, len(measured.frames)
        while done < total and not self._abort.is_set():
            due = int(np.searchsorted(measured.ends_s, time.monotonic() - begin_s, side="right"))
            if due > done:
                for trigger in self._triggers:
                    await trigger(measured, done, due)
                done = due
                await self._pv.set(f"{FLY}Frame_RBV", done)
            await asyncio.sleep(_TICK_S)

    async def _say(self, status: str, frame: int) -> None:
        await self._pv.set(f"{FLY}Status_RBV", status)
        await self._pv.set(f"{FLY}Frame_RBV", frame)
