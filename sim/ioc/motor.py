"""A motor record: moves with velocity and acceleration, and puts that are complete when the motor has arrived."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
from ophyd import EpicsMotor
from ophyd_async.epics.motor import Motor

from ptyplugin.sim.ioc.database import Database, legacy_signals_of, signals_of
from ptyplugin.sim.ioc.motion import Path, Ramp

#: How often a moving motor says where it is, seconds.
_TICK_S = 0.05

#: Fields that no device class names, and those that are not 0, empty or the first choice.
_FIELDS: dict[str, float | int | str] = {
    "": 0.0,
    "VBAS": 0.0,
    "DVAL": 0.0,
    "DRBV": 0.0,
    "DIFF": 0.0,
    "MRES": 1e-3,
    "ERES": 1e-3,
    "SREV": 200,
    "UREV": 0.2,
    "PREC": 4,
    "RDBD": 1e-3,
    "DMOV": 1,
    "MISS": 0,
    "MSTA": 2,
    "DESC": "simulated stage",
    "RTYP": "motor",
}
_CHOICES = {"DIR": ("Pos", "Neg"), "SPMG": ("Stop", "Pause", "Move", "Go")}


class MotorRecord:
    """One motor record, by the rest of its name after the database's prefix.

    encoder: what the readback says at a time of ``time.monotonic``, given where the motor is; limits: lowest and highest position
    """

    def __init__(
        self,
        database: Database,
        name: str,
        *,
        unit: str,
        velocity: float,
        limits: tuple[float, float],
        encoder: Callable[[Path, float], float] | None = None,
    ) -> None:
        self.path: Path = Ramp.rest(0.0)
        self.moves_left: int | None = None
        self._pv, self._name = database, name
        self._encoder = encoder or (lambda path, now: float(path.at(np.asarray([now]))[0]))
        self._serve(unit, velocity, limits)

    def _serve(self, unit: str, velocity: float, limits: tuple[float, float]) -> None:
        pv, name = self._pv, self._name
        low, high = limits
        fields = {"VELO": velocity, "VMAX": 100 * velocity, "ACCL": 0.02, "LLM": low, "HLM": high, "DLLM": low, "DHLM": high}
        for field, value in {**_FIELDS, **fields, "EGU": unit}.items():
            pv.add(f"{name}.{field}".rstrip("."), value, units=unit)
        for field, choices in _CHOICES.items():
            pv.add(f"{name}.{field}", choices[-1] if field == "SPMG" else choices[0], choices=choices)
        for full, kind in signals_of(Motor(pv.prefix + name)):
            rest = full.removeprefix(pv.prefix)
            if rest not in pv:
                pv.add(rest, "") if kind is str else pv.add_kind(rest, kind)
        for full, _ in legacy_signals_of(EpicsMotor, pv.prefix + name):
            if full.removeprefix(pv.prefix) not in pv:
                pv.add(full.removeprefix(pv.prefix), 0)
        # The record's own name and its field VAL are one thing.
        value = pv.channels[pv.prefix + name] = pv.channels[f"{pv.prefix}{name}.VAL"]
        value.reported_record_type = "motor"
        for full, channel in pv.channels.items():
            if full in {f"{pv.prefix}{name}.{field}" for field in ("VAL", "RBV")}:
                channel._data["units"] = unit
        for field in ("LLM", "HLM"):
            pv.after_put(f"{name}.{field}", self._limited)
        pv.limit(f"{name}.VAL", low, high)
        pv.after_put(f"{name}.VAL", self._asked_to_move)
        pv.after_put(f"{name}.STOP", self._asked_to_stop)

    async def set_unit(self, unit: str) -> None:
        """What the record says that its unit is."""
        await self._pv.set(f"{self._name}.EGU", unit)
        for field in ("VAL", "RBV"):
            await self._pv.set_units(f"{self._name}.{field}", unit)

    async def follow(self, path: Path) -> None:
        """Move along a path until its end, or until the motor is stopped or sent elsewhere. Time is that of ``time.monotonic``."""
        self.path = path
        await self._say_moving(True)
        while self.path is path and (left := path.end_s - time.monotonic()) > 0:
            await self.say_where()
            await asyncio.sleep(min(left, _TICK_S))
        if self.path is path:
            await self.say_where()
            await self._say_moving(False)

    async def go(self, target: float) -> None:
        """Move to a position, as a client's put does."""
        pv, name = self._pv, self._name
        await pv.set(f"{name}.VAL", target)
        await self.follow(Ramp(time.monotonic(), self._here(), target, max(pv[f"{name}.VELO"], 1e-9), pv[f"{name}.ACCL"]))

    async def halt(self) -> None:
        """Stop here and now."""
        self.path = Ramp.rest(self._here())
        await self._pv.set(f"{self._name}.VAL", self._here())
        await self.say_where()
        await self._say_moving(False)

    async def say_where(self) -> None:
        """Write the readbacks."""
        at = self._encoder(self.path, time.monotonic())
        for field in ("RBV", "DRBV"):
            await self._pv.set(f"{self._name}.{field}", at)

    def _here(self) -> float:
        return float(self.path.at(np.asarray([time.monotonic()]))[0])

    async def _asked_to_move(self, target: float) -> None:
        stalls = self.moves_left is not None and self.moves_left <= 0
        if self.moves_left is not None:
            self.moves_left -= 1
        await self._pv.set(f"{self._name}.MISS", int(stalls))
        if stalls:
            await self.follow(Ramp.rest(self._here()))
        else:
            await self.go(target)

    async def _limited(self, _: float) -> None:
        self._pv.limit(f"{self._name}.VAL", self._pv[f"{self._name}.LLM"], self._pv[f"{self._name}.HLM"])

    async def _asked_to_stop(self, wanted: int) -> None:
        await self._pv.set(f"{self._name}.STOP", 0)
        if wanted and not self._pv[f"{self._name}.DMOV"]:
            await self.halt()

    async def _say_moving(self, moving: bool) -> None:
        await self._pv.set(f"{self._name}.MOVN", int(moving))
        await self._pv.set(f"{self._name}.DMOV", int(not moving))
