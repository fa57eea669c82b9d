"""Position capture, as a PandA does it: what the encoders said during each frame, in a file of its own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model.errors import DeviceError, DiskError
from ptyplugin.sim.ioc.async_devices import CAPTURED, CaptureIO
from ptyplugin.sim.ioc.database import YES_NO, Database, signals_of
from ptyplugin.sim.ioc.faults import Faults
from ptyplugin.sim.ioc.files import GrowingFile
from ptyplugin.sim.ioc.fly import Measured
from ptyplugin.sim.ioc.instrument import UNIT

POS = "pos:"


class Capture:
    """Serves the PVs of the position capture.

    rate: of the ion chamber in a steady beam, counts per second: it is captured too
    """

    def __init__(self, database: Database, folder: Path, rate: float, faults: Faults) -> None:
        self._pv, self._rate, self._faults = database, rate, faults
        self._file: GrowingFile | None = None
        #: Samples that are captured and not written yet.
        self._held: list[dict[str, NDArray[np.float64]]] = []
        for full, kind in signals_of(CaptureIO(database.prefix + POS)):
            database.add_kind(full.removeprefix(database.prefix), kind)
        for name, value in {"FilePath": f"{folder}/", "FileName": "positions", "SamplesPerFrame": 1}.items():
            database.begin(POS + name, value)
        database.after_put(f"{POS}Capture", self._capture)

    async def take(self, measured: Measured, first: int, end: int) -> None:
        """Capture the samples of the frames from ``first`` to before ``end``, if it is armed."""
        end = min(end, self._faults["capture_off"] or end)
        if self._file is None or end <= first:
            return
        encoders = measured.encoders[first:end]
        samples = encoders.shape[1]
        monitor = (measured.intensity[first:end] * self._rate * measured.exposure_s / samples).repeat(samples)
        self._held.append({"y": encoders[..., 0].ravel(), "x": encoders[..., 1].ravel(), "monitor": monitor})
        held = sum(len(each["y"]) for each in self._held)
        captured = self._file.count + held
        if held >= self._faults["late_positions"] * samples:
            self._write(self._file)
        await self._pv.set(f"{POS}NumCaptured_RBV", captured)

    def _write(self, file: GrowingFile) -> None:
        for values in self._held:
            file.append(values)
        self._held.clear()

    async def close(self) -> None:
        """Close the file if one is open."""
        file, self._file = self._file, None
        if file is not None:
            self._write(file)
            file.close()

    async def _capture(self, choice: str) -> None:
        await self.close()
        if choice == YES_NO[0]:
            return
        folder = Path(self._pv[f"{POS}FilePath"])
        path = folder / f"{self._pv[f'{POS}FileName']}.h5"
        try:
            if not os.access(folder, os.W_OK):
                raise DiskError(
                    f"the folder {folder} of captured positions is not there or cannot be written: make it, or give another one."
                )
            self._file = GrowingFile(path, dict.fromkeys(CAPTURED, ((), "f8")), {"y": UNIT, "x": UNIT})
        except DiskError as error:
            await self._pv.set(f"{POS}Capture", 0)
            raise DeviceError(str(error)) from error
        await self._pv.set(f"{POS}FullFileName_RBV", str(path))
        await self._pv.set(f"{POS}NumCaptured_RBV", 0)
