"""The simulated beamline's PVs, put together."""

from __future__ import annotations

import asyncio
from pathlib import Path as FilePath

import numpy as np

from ptyplugin.sim.ioc.area_detector import AreaDetector
from ptyplugin.sim.ioc.capture import Capture
from ptyplugin.sim.ioc.database import Database
from ptyplugin.sim.ioc.faults import FAULTS, Faults
from ptyplugin.sim.ioc.fly import FlyController, Measured
from ptyplugin.sim.ioc.images import Images
from ptyplugin.sim.ioc.instrument import UNIT, UNIT_M, Instrument
from ptyplugin.sim.ioc.motion import Path
from ptyplugin.sim.ioc.motor import MotorRecord

#: Micrometres per second, and how far the scan stages go to either side, micrometres.
_VELOCITY, _LIMIT = 1000.0, 200.0
_DEGREES_PER_S = 90.0
#: Energies of the monochromator, electronvolts, how fast it is, and how much it differs from what is asked.
_LOWEST_EV, _HIGHEST_EV, _EV_PER_S = 5000.0, 25000.0, 2000.0
#: Counts per second of the ion chamber in a steady beam, and how often it says so.
_RATE, _RATE_EVERY_S = 1e5, 0.5


class Beamline:
    """Everything that the IOC serves: two scan stages, a rotation, energy, an ion chamber, the detector, and faults.

    faults: numbers of those that are on from the start
    """

    def __init__(self, prefix: str, instrument: Instrument, images: Images, folder: FilePath, faults: dict[str, int]) -> None:
        self.database = Database(prefix)
        self._instrument = instrument
        self._faults = Faults(self.database, faults)
        self.stages = (self._scan_stage(0, "y"), self._scan_stage(1, "x"))
        MotorRecord(self.database, "theta", unit="deg", velocity=_DEGREES_PER_S, limits=(-180.0, 180.0))
        self.detector = AreaDetector(self.database, instrument, self._paths, self._faults, images, folder)
        self._serve_energy()
        self._capture = Capture(self.database, folder, _RATE, self._faults)
        FlyController(self.database, instrument, self.stages, self._faults, [self._trigger_detector, self._capture.take])
        self.database.add("ion:Rate_RBV", _RATE, units="1/s")
        for name, call in {"motor_stalled": self._stall, "wrong_unit": self._say_units}.items():
            self.database.after_put(FAULTS[name][0], call)

    async def run(self) -> None:
        """What happens by itself."""
        await self._say_units(self._faults["wrong_unit"])
        await self._stall(self._faults["motor_stalled"])
        while True:
            await self.database.set("ion:Rate_RBV", _RATE * self._instrument.flicker())
            await asyncio.sleep(_RATE_EVERY_S)

    async def close(self) -> None:
        """Close the files."""
        await self.detector.close()
        await self._capture.close()

    async def _trigger_detector(self, measured: Measured, first: int, end: int) -> None:
        await self.detector.take(measured.frames[first:end])

    def _scan_stage(self, axis: int, name: str) -> MotorRecord:
        def encoder(path: Path, now_s: float) -> float:
            paths = (path, path)
            return float(self._instrument.encoders_m(paths, np.asarray([now_s]))[0, axis] / UNIT_M)

        return MotorRecord(self.database, name, unit=UNIT, velocity=_VELOCITY, limits=(-_LIMIT, _LIMIT), encoder=encoder)

    def _paths(self) -> tuple[Path, Path]:
        return self.stages[0].path, self.stages[1].path

    def _serve_energy(self) -> None:
        pv, energy_ev = self.database, self._instrument.camera.geometry.energy_ev
        for name in ("mono:Energy", "mono:Energy_RBV"):
            pv.add(name, energy_ev, units="eV")
        pv.add("mono:Energy_keV_RBV", energy_ev / 1000, units="keV")
        pv.limit("mono:Energy", _LOWEST_EV, _HIGHEST_EV)
        pv.after_put("mono:Energy", self._set_energy, mirrored=False)

    async def _set_energy(self, energy_ev: float) -> None:
        await asyncio.sleep(abs(energy_ev - self.database["mono:Energy_RBV"]) / _EV_PER_S)
        self._instrument.set_energy(energy_ev)
        await self.database.set("mono:Energy", energy_ev)
        await self.database.set("mono:Energy_keV_RBV", energy_ev / 1000)

    async def _stall(self, moves: int) -> None:
        self.stages[1].moves_left = moves or None

    async def _say_units(self, wrong: int) -> None:
        for stage in self.stages:
            await stage.set_unit("mm" if wrong else UNIT)
