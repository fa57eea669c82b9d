"""The area detector's PVs: camera, HDF5 plugin, PVA plugin."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ophyd.areadetector import EigerDetectorCam, SimDetectorCam
from ophyd.areadetector.plugins import HDF5Plugin_V34
from ophyd_async.epics.adcore import NDFileHDF5IO, NDPluginBaseIO

from ptyplugin.model.errors import DeviceError, DiskError
from ptyplugin.sim.ioc.async_devices import DetectorDriver
from ptyplugin.sim.ioc.database import YES_NO, Database, legacy_signals_of, signals_of
from ptyplugin.sim.ioc.eiger_files import EigerSeries
from ptyplugin.sim.ioc.faults import Faults
from ptyplugin.sim.ioc.files import DetectorFile
from ptyplugin.sim.ioc.images import Images
from ptyplugin.sim.ioc.instrument import Instrument
from ptyplugin.sim.ioc.motion import Path as StagePath

logger = logging.getLogger(__name__)

CAM, HDF, PVA = "det:cam1:", "det:HDF1:", "det:Pva1:"
_PORT = "SIM1"
#: PVs of the camera that are about an Eiger's own writer of files.
_EIGER = re.compile(r"(FW(Enable|NamePattern|NImagesPerFile)|FilePath)(_RBV)?|SequenceId")

#: Choices that no class tells, or that it tells in another order than areaDetector has them.
_CHOICES = {
    **dict.fromkeys(("BlockingCallbacks", "AutoSave", "StoreAttr", "StorePerform", "DimAttDatasets"), YES_NO),
    **dict.fromkeys(("ReadFile", "WriteFile", "DeleteDriverFile", "SWMRActive", "XMLValid"), YES_NO),
    **dict.fromkeys(("ArrayCallbacks", "EnableCallbacks"), ("Disable", "Enable")),
    "FWEnable": YES_NO,
    "SWMRSupported": ("Not Supported", "Supported"),
    "FrameType": ("Normal", "Background", "FlatField"),
}


class AreaDetector:
    """The detector: takes frames by itself or as it is triggered, writes them, and sends them.

    stages: gives the paths of y and x now; folder: where files go before a client says where
    """

    def __init__(
        self,
        database: Database,
        instrument: Instrument,
        stages: Callable[[], tuple[StagePath, StagePath]],
        faults: Faults,
        images: Images,
        folder: Path,
    ) -> None:
        self._pv, self._instrument, self._stages, self._faults, self._images = database, instrument, stages, faults, images
        self._file: DetectorFile | None = None
        self._series: EigerSeries | None = None
        self._taken = 0
        self._running = False
        self._enough = asyncio.Event()
        self._idle = asyncio.Event()
        self._serve(folder)

    def _serve(self, folder: Path) -> None:
        pv, prefix = self._pv, self._pv.prefix
        classes = ((DetectorDriver, CAM), (NDFileHDF5IO, HDF), (NDPluginBaseIO, PVA))
        legacy = {name: text for cls, part in ((SimDetectorCam, CAM), (HDF5Plugin_V34, HDF)) for name, text in legacy_signals_of(cls, part)}
        for full, kind in (signal for cls, part in classes for signal in signals_of(cls(prefix + part))):
            name = full.removeprefix(prefix)
            if name in pv:
                continue
            if choices := _CHOICES.get(name.rpartition(":")[2].removesuffix("_RBV")):
                pv.add(name, choices[0], choices=choices)
            elif kind is str and not legacy.get(name, True):
                # What ophyd does not read as a long text is a record's short one.
                pv.add(name, "")
            else:
                pv.add_kind(name, kind)
        eiger = {name: text for name, text in legacy_signals_of(EigerDetectorCam, CAM) if _EIGER.fullmatch(name.removeprefix(CAM))}
        for name, text in {**legacy, **eiger}.items():
            self._add_legacy(name, text)
        pv.add(f"{PVA}PvName_RBV", f"{prefix}Pva1:Image")
        for name, value in _first_values(self._instrument.shape, folder).items():
            pv.begin(name, value)
        for name, call in {
            f"{CAM}Acquire": self._acquire,
            f"{HDF}Capture": self._capture,
            f"{HDF}FilePath": self._find_folder,
            f"{HDF}FlushNow": self._flush,
        }.items():
            pv.after_put(name, call)

    def _add_legacy(self, name: str, text: bool) -> None:
        last = name.rpartition(":")[2].removesuffix("_RBV")
        if name in self._pv:
            return
        twin = name.removesuffix("_RBV") if name.endswith("_RBV") else f"{name}_RBV"
        if twin in self._pv:
            self._pv.add_like(name, twin)
        elif choices := _CHOICES.get(last):
            self._pv.add(name, choices[0], choices=choices)
        elif last == "PluginType":
            self._pv.add(name, "NDFileHDF5")
        else:
            self._pv.add(name, "" if text else 0, text=text)

    async def take(self, frames: NDArray[np.uint16]) -> None:
        """Frames (frame, y, x) have been triggered from outside: they count if the detector waits for triggers."""
        if self._running and self._pv[f"{CAM}TriggerMode"] == "External":
            await self._deliver(frames[: self._left()])
            if not self._left():
                self._enough.set()

    async def close(self) -> None:
        """Close the file if one is open."""
        await self._stop_writing()

    @property
    def armed(self) -> bool:
        """Whether it waits for triggers or takes frames."""
        return self._running

    def _left(self) -> int:
        if self._pv[f"{CAM}ImageMode"] == "Continuous":
            return 1 << 30
        return int((1 if self._pv[f"{CAM}ImageMode"] == "Single" else self._pv[f"{CAM}NumImages"]) - self._taken)

    async def _acquire(self, choice: str) -> None:
        """The put of 1 is complete when all frames are there, or the detector has been stopped."""
        if choice == YES_NO[0]:
            self._enough.set()
            if self._running:
                await self._idle.wait()
            return
        if self._running:
            return
        self._running, self._taken = True, 0
        self._enough.clear()
        self._idle.clear()
        await self._pv.set(f"{CAM}DetectorState", "Acquire")
        try:
            await self._open_series()
            if self._pv[f"{CAM}TriggerMode"] == "External":
                await self._enough.wait()
            else:
                await self._take_by_itself()
            self._close_series()
        finally:
            self._running = False
            await self._pv.set(f"{CAM}DetectorState", "Disconnected" if self._is_off() else "Idle")
            await self._pv.set(f"{CAM}Acquire", 0)
            self._idle.set()

    async def _take_by_itself(self) -> None:
        while not self._enough.is_set() and self._left() > 0:
            exposure_s = max(self._pv[f"{CAM}AcquireTime"], 0.0)
            start_s = time.monotonic()
            await self._pause(exposure_s)
            if self._enough.is_set():
                return
            exposure = self._instrument.expose(self._stages(), start_s, exposure_s)
            await self._deliver(exposure.counts[None])
            if self._is_off():
                await self._enough.wait()
            if self._left() > 0:
                await self._pause(start_s + self._pv[f"{CAM}AcquirePeriod"] - time.monotonic())

    async def _pause(self, time_s: float) -> None:
        """Wait, or not any longer if the acquisition is stopped."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._enough.wait(), max(time_s, 0.0))

    def _is_off(self) -> bool:
        return 0 < self._faults["detector_off"] <= self._taken

    async def _deliver(self, frames: NDArray[np.uint16]) -> None:
        """Number frames (frame, y, x), write and send them, and say so."""
        if off := self._faults["detector_off"]:
            frames = frames[: max(off - self._taken, 0)]
        if not len(frames):
            return
        first = int(self._pv[f"{CAM}ArrayCounter"]) + 1
        ids = np.arange(first, first + len(frames))
        times_s = np.full(len(frames), time.time())
        self._taken += len(frames)
        await self._write(frames, ids, times_s)
        if self._series is not None:
            self._series.add(frames)
        if self._pv[f"{CAM}ArrayCallbacks"] == "Enable":
            self._send(frames, ids, times_s)
        for part in (CAM, HDF, PVA):
            await self._pv.set(f"{part}ArrayCounter", int(ids[-1]))
            await self._pv.set(f"{part}UniqueId_RBV", int(ids[-1]))
        await self._pv.set(f"{CAM}NumImagesCounter_RBV", self._taken)

    async def _open_series(self) -> None:
        if not self._pv.is_on(f"{CAM}FWEnable"):
            return
        number = int(self._pv[f"{CAM}SequenceId"]) + 1
        await self._pv.set(f"{CAM}SequenceId", number)
        name = self._pv[f"{CAM}FWNamePattern"].replace("$id", str(number))
        self._series = EigerSeries(
            Path(self._pv[f"{CAM}FilePath"]) / name,
            int(self._pv[f"{CAM}FWNImagesPerFile"]),
            self._instrument.camera.geometry,
            float(self._pv[f"{CAM}AcquireTime"]),
        )

    def _close_series(self) -> None:
        series, self._series = self._series, None
        if series is not None:
            series.close()

    def _send(self, frames: NDArray[np.uint16], ids: NDArray[np.int64], times_s: NDArray[np.float64]) -> None:
        if self._pv[f"{PVA}EnableCallbacks"] != "Enable":
            return
        dropped, doubled = self._faults["drop_frames"], self._faults["duplicate_ids"]
        for frame, unique_id, time_s in zip(frames, ids.tolist(), times_s.tolist(), strict=True):
            if dropped and unique_id % dropped == 0:
                continue
            for _ in range(2 if doubled and unique_id % doubled == 0 else 1):
                self._images.post(frame, unique_id, time_s)

    async def _write(self, frames: NDArray[np.uint16], ids: NDArray[np.int64], times_s: NDArray[np.float64]) -> None:
        if self._file is None or self._pv[f"{HDF}EnableCallbacks"] != "Enable":
            return
        wanted = self._pv[f"{HDF}NumCapture"]
        room = wanted - self._file.count if wanted > 0 else len(frames)
        if room > 0:
            count = self._file.add(frames[:room], ids[:room], times_s[:room])
            await self._pv.set(f"{HDF}NumCaptured_RBV", count)
            if count == wanted:
                await self._stop_writing()

    async def _capture(self, choice: str) -> None:
        await self._stop_writing(say=False)
        if choice == YES_NO[0]:
            return
        path = self._path()
        try:
            self._file = DetectorFile(path, self._instrument.shape)
        except DiskError as error:
            await self._pv.set(f"{HDF}Capture", 0)
            await self._pv.set(f"{HDF}WriteMessage", str(error)[:500])
            raise DeviceError(str(error)) from error
        logger.info("writing %s", path)
        await self._pv.set(f"{HDF}FullFileName_RBV", str(path))
        await self._pv.set(f"{HDF}NumCaptured_RBV", 0)
        if self._pv.is_on(f"{HDF}AutoIncrement"):
            await self._pv.set(f"{HDF}FileNumber", int(self._pv[f"{HDF}FileNumber"]) + 1)

    async def _stop_writing(self, say: bool = True) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
        if say:
            await self._pv.set(f"{HDF}Capture", 0)

    def _path(self) -> Path:
        """The file's name as areaDetector makes it: the template takes folder, name and number, as many as it asks for."""
        template = self._pv[f"{HDF}FileTemplate"]
        values = (self._pv[f"{HDF}FilePath"], self._pv[f"{HDF}FileName"], self._pv[f"{HDF}FileNumber"])
        try:
            return Path(template % values[: len(re.findall(r"%[^%]", template))])
        except (TypeError, ValueError) as error:
            raise DeviceError(f"the file template {template!r} is none ({error}): give one like %s%s_%6.6d.h5.") from error

    async def _find_folder(self, folder: str) -> None:
        path = Path(folder)
        if self._pv[f"{HDF}CreateDirectory"] and not path.exists():
            path.mkdir(parents=True, exist_ok=True)
        if not folder.endswith("/"):
            await self._pv.set(f"{HDF}FilePath", f"{folder}/")
        await self._pv.set(f"{HDF}FilePathExists_RBV", int(path.is_dir() and os.access(path, os.W_OK)))

    async def _flush(self, _: str) -> None:
        """Frames are flushed as they are written."""
        await self._pv.set(f"{HDF}FlushNow", 0)


def _first_values(shape: tuple[int, int], folder: Path) -> dict[str, int | float | str]:
    """What is not 0, empty or the first choice at the start."""
    values: dict[str, int | float | str] = {
        f"{CAM}AcquireTime": 0.01,
        f"{CAM}AcquirePeriod": 0.01,
        f"{CAM}NumImages": 1,
        f"{CAM}NumExposures": 1,
        f"{CAM}ImageMode": "Multiple",
        f"{HDF}FilePath": f"{folder}/",
        f"{HDF}FilePathExists_RBV": "Yes",
        f"{HDF}FileTemplate": "%s%s_%6.6d.h5",
        f"{HDF}FileName": "frames",
        f"{HDF}FileWriteMode": "Stream",
        f"{HDF}AutoIncrement": "Yes",
        f"{CAM}ArrayCallbacks": "Enable",
        f"{CAM}FilePath": f"{folder}/",
        f"{CAM}FWNamePattern": "series_$id",
        f"{CAM}FWNImagesPerFile": 1000,
        f"{HDF}Compression": "BSLZ4",
        f"{HDF}SWMRMode": "Yes",
        f"{HDF}NumFramesChunks": 1,
    }
    for part in (CAM, HDF, PVA):
        values[f"{part}PortName_RBV"] = _PORT if part == CAM else part.split(":")[1]
        values[f"{part}ColorMode_RBV"] = "Mono"
        values[f"{part}DataType_RBV"] = "UInt16"
        values[f"{part}ADCoreVersion_RBV"] = "3.4.0"
        for name, side in zip(("X", "Y"), reversed(shape), strict=True):
            values[f"{part}ArraySize{name}_RBV"] = side
        for name, side in zip(("0", "1"), reversed(shape), strict=True):
            values[f"{part}ArraySize{name}_RBV"] = side
        if part != CAM:
            values[f"{part}NDArrayPort"] = _PORT
            values[f"{part}EnableCallbacks"] = "Enable"
            values[f"{part}QueueSize"] = 20
    for name, side in zip(("X", "Y"), reversed(shape), strict=True):
        values[f"{CAM}Size{name}"] = values[f"{CAM}MaxSize{name}_RBV"] = side
    values |= {f"{CAM}Manufacturer_RBV": "ptyplugin", f"{CAM}Model_RBV": "simulated Eiger"}
    return values
