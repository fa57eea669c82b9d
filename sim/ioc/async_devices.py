"""The simulated instrument as ophyd-async devices, for a session whose environment leads to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import aioca
import numpy as np
from event_model import DataKey
from ophyd_async.core import (
    Array1D,
    AsyncStatus,
    DetectorDataLogic,
    DetectorTriggerLogic,
    FlyableLogic,
    PathProvider,
    SignalDict,
    SignalR,
    SignalRW,
    StandardDetector,
    StandardFlyable,
    StandardReadable,
    StaticPathProvider,
    StreamableDataProvider,
    StreamResourceDataProvider,
    StreamResourceInfo,
    StrictEnum,
    TriggerInfo,
    UUIDFilenameProvider,
    wait_for_value,
)
from ophyd_async.core import StandardReadableFormat as Format
from ophyd_async.epics.adcore import (
    ADAcquireLogic,
    ADBaseIO,
    ADWriterFactory,
    AreaDetector,
    prepare_exposures,
    trigger_info_from_num_images,
)
from ophyd_async.epics.core import EpicsDevice, PvSuffix, epics_signal_r, epics_signal_rw
from ophyd_async.epics.motor import Motor

from ptyplugin.sim.ioc.trajectory import Trajectory

#: How long a fly scan may take beyond its own time, and how long a frame of it may take to be computed, seconds.
_PATIENCE_S, _PREPARE_S = 60.0, 0.1
#: How long an IOC that is gone is waited for, only to tell it to stop, seconds.
_GONE_S = 1.0


def _pv(signal: SignalR[Any]) -> str:
    return str(signal.source.partition("://")[2])


async def _check_connected(signal: SignalR[Any]) -> None:
    """Raises ConnectionError if the signal's IOC is gone; one that is slow is another matter."""
    try:
        await aioca.connect(_pv(signal), timeout=_GONE_S)
    except aioca.CANothing as error:
        raise ConnectionError(signal.source) from error


async def _while_connected(status: AsyncStatus, signal: SignalR[Any]) -> None:
    """Wait for the status; raises ConnectionError as soon as the signal's IOC is gone, of which no put is ever told."""
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def hear(value: Any) -> None:
        if not value.ok and not lost.done():
            lost.set_exception(ConnectionError(signal.source))

    watched = aioca.camonitor(_pv(signal), hear, notify_disconnect=True)
    try:
        await asyncio.wait({status.task, lost}, return_when=asyncio.FIRST_COMPLETED)
        if lost.done():
            lost.result()
        await status
    finally:
        watched.close()
        lost.cancel()


class TriggerMode(StrictEnum):
    """What begins an exposure of the detector."""

    INTERNAL = "Internal"
    EXTERNAL = "External"


class DetectorDriver(ADBaseIO):
    """The detector's driver: areaDetector's base, and what triggers it."""

    trigger_mode: Annotated[SignalRW[TriggerMode], PvSuffix.rbv("TriggerMode")]


@dataclass
class _TriggerLogic(DetectorTriggerLogic):
    driver: DetectorDriver

    async def prepare_internal(self, num: int, livetime: float, deadtime: float) -> None:
        await self.driver.trigger_mode.set(TriggerMode.INTERNAL)
        await prepare_exposures(self.driver, num, livetime, deadtime)

    async def prepare_edge(self, num: int, livetime: float) -> None:
        await self.driver.trigger_mode.set(TriggerMode.EXTERNAL)
        await prepare_exposures(self.driver, num, livetime)

    def get_deadtime(self, config_values: SignalDict) -> float:
        return 0.0

    async def default_trigger_info(self) -> TriggerInfo:
        return await trigger_info_from_num_images(self.driver)


class FrameDetector(AreaDetector[DetectorDriver]):
    """The area detector with its HDF5 plugin: exposures of its own, or one for each trigger of a fly scan."""

    def __init__(self, prefix: str, path_provider: PathProvider, name: str = "") -> None:
        driver = DetectorDriver(prefix + "cam1:")
        super().__init__(
            driver,
            prefix,
            ADWriterFactory.hdf(path_provider),
            acquire_logic=ADAcquireLogic(driver),
            trigger_logic=_TriggerLogic(driver),
            name=name,
        )

    @AsyncStatus.wrap
    async def unstage(self) -> None:
        """Stop it, if its IOC is there."""
        await _check_connected(self.driver.acquire)
        await super().unstage()


class Monochromator(StandardReadable):
    """Photon energy in electronvolts; to set it is to wait until it is there."""

    def __init__(self, prefix: str, name: str = "") -> None:
        with self.add_children_as_readables(Format.HINTED_SIGNAL):
            self.energy = epics_signal_rw(float, f"{prefix}Energy_RBV", f"{prefix}Energy")
        super().__init__(name=name)


class IonChamber(StandardReadable):
    """Intensity of the beam in counts per second."""

    def __init__(self, prefix: str, name: str = "") -> None:
        with self.add_children_as_readables(Format.HINTED_SIGNAL):
            self.rate: SignalR[float] = epics_signal_r(float, f"{prefix}Rate_RBV")
        super().__init__(name=name)


#: What the position capture writes, dataset -> its data key, and its unit. Encoders go by the names of their motors.
CAPTURED = {"y": ("stage_y", "um"), "x": ("stage_x", "um"), "monitor": ("ion_chamber", "")}


class CaptureIO(EpicsDevice):
    """PVs of the position capture."""

    file_path: Annotated[SignalRW[str], PvSuffix("FilePath")]
    file_name: Annotated[SignalRW[str], PvSuffix("FileName")]
    full_file_name: Annotated[SignalR[str], PvSuffix("FullFileName_RBV")]
    samples_per_frame: Annotated[SignalRW[int], PvSuffix.rbv("SamplesPerFrame")]
    capture: Annotated[SignalRW[bool], PvSuffix.rbv("Capture")]
    num_captured: Annotated[SignalR[int], PvSuffix("NumCaptured_RBV")]


class _CaptureTriggerLogic(DetectorTriggerLogic):
    """Whatever is captured is triggered by the fly scan."""

    async def prepare_edge(self, num: int, livetime: float) -> None: ...


class _CaptureProvider(StreamResourceDataProvider):
    async def make_datakeys(self, collections_per_event: int) -> dict[str, DataKey]:
        keys: dict[str, DataKey] = await super().make_datakeys(collections_per_event)
        for name, unit in CAPTURED.values():
            keys[name]["units"] = unit
        return keys


@dataclass
class _CaptureDataLogic(DetectorDataLogic):
    io: CaptureIO
    path_provider: PathProvider

    async def prepare_unbounded(self, datakey_name: str) -> StreamableDataProvider:
        place = self.path_provider(datakey_name)
        await asyncio.gather(self.io.file_path.set(str(place.directory_path)), self.io.file_name.set(place.filename))
        await self.io.capture.set(True)
        return _CaptureProvider(
            uri=f"{place.directory_uri}{place.filename}.h5",
            resources=[
                StreamResourceInfo(
                    data_key=key,
                    shape=(),
                    chunk_shape=(16384,),
                    dtype_numpy="<f8",
                    parameters={"dataset": f"/{name}"},
                )
                for name, (key, _) in CAPTURED.items()
            ],
            mimetype="application/x-hdf5",
            collections_written_signal=self.io.num_captured,
        )

    async def stop(self) -> None:
        await self.io.capture.set(False)

    def get_hinted_fields(self, datakey_name: str) -> Sequence[str]:
        return [key for key, _ in CAPTURED.values()]


class PositionCapture(StandardDetector):
    """What the encoders of y and x, um, and the beam's monitor said during each frame of a fly scan, in a file of its own.

    Samples per frame: set ``io.samples_per_frame``, and prepare as many ``collections_per_event``. ``motors``: names of those of y and x.
    """

    motors = CAPTURED["y"][0], CAPTURED["x"][0]

    def __init__(self, prefix: str, path_provider: PathProvider, name: str = "") -> None:
        self.io = CaptureIO(prefix)
        self.add_detector_logics(_CaptureTriggerLogic(), _CaptureDataLogic(self.io, path_provider))
        super().__init__(name=name)

    @AsyncStatus.wrap
    async def unstage(self) -> None:
        """Stop it, if its IOC is there."""
        await _check_connected(self.io.capture)
        await super().unstage()


@dataclass
class _FlyLogic(FlyableLogic[Trajectory, Any]):
    fly: FlyScan

    async def on_prepare(self, value: Trajectory) -> Any:
        fly = self.fly
        await asyncio.gather(
            fly.y.set(np.ascontiguousarray(value.positions[:, 0])),
            fly.x.set(np.ascontiguousarray(value.positions[:, 1])),
            fly.exposure.set(value.exposure_s),
            fly.period.set(value.period_s),
            fly.line_length.set(value.line_length),
            fly.turn_time.set(value.turn_s),
        )
        await fly.prepare_.set(True, timeout=_PATIENCE_S + len(value.positions) * _PREPARE_S)
        return float(value.starts_s[-1]) + value.period_s

    async def on_kickoff(self, ctx: Any) -> Any:
        return self.fly.start.set(True, timeout=ctx + _PATIENCE_S)

    async def on_complete(self, ctx: Any) -> None:
        await _while_connected(ctx, self.fly.start)

    async def on_unstage(self) -> None:
        await _check_connected(self.fly.start)
        await self.stop()

    async def stop(self) -> None:
        if await self.fly.start.get_value():
            await self.fly.start.set(False)
            await wait_for_value(self.fly.start, False, timeout=_PATIENCE_S)


class FlyScan(StandardFlyable[Trajectory, Any]):
    """The controller of fly scans: prepare it with a ``Trajectory``, then kickoff and complete.

    ``status`` says what it does, or why it does not.
    """

    def __init__(self, prefix: str, name: str = "") -> None:
        self.y = epics_signal_rw(Array1D[np.float64], f"{prefix}Y")
        self.x = epics_signal_rw(Array1D[np.float64], f"{prefix}X")
        self.exposure = epics_signal_rw(float, f"{prefix}Exposure")
        self.period = epics_signal_rw(float, f"{prefix}Period")
        self.line_length = epics_signal_rw(int, f"{prefix}LineLength")
        self.turn_time = epics_signal_rw(float, f"{prefix}TurnTime")
        self.prepare_ = epics_signal_rw(bool, f"{prefix}Prepare_RBV", f"{prefix}Prepare")
        self.start = epics_signal_rw(bool, f"{prefix}Start_RBV", f"{prefix}Start")
        self.frame = epics_signal_r(int, f"{prefix}Frame_RBV")
        self.status = epics_signal_r(str, f"{prefix}Status_RBV")
        super().__init__(name=name)

    @cached_property
    def flyable_logic(self) -> _FlyLogic:
        """How it flies."""
        return _FlyLogic(self)


@dataclass(frozen=True)
class Devices:
    """The instrument's devices, not connected yet: stages in um and degrees, ``detector`` and ``capture`` for a fly scan by ``fly``."""

    y: Motor
    x: Motor
    theta: Motor
    detector: FrameDetector
    capture: PositionCapture
    fly: FlyScan
    mono: Monochromator
    ion_chamber: IonChamber

    async def connect(self, timeout_s: float = 10.0) -> None:
        """Connect all of them, in the event loop that will use them: the RunEngine's."""
        await asyncio.gather(*(getattr(self, name).connect(timeout=timeout_s) for name in self.__dataclass_fields__))


def devices(prefix: str, folder: Path) -> Devices:
    """The instrument's ophyd-async devices, of which each run writes new files into a folder."""
    paths = StaticPathProvider(UUIDFilenameProvider(), folder.absolute())
    return Devices(
        y=Motor(f"{prefix}y", name="stage_y"),
        x=Motor(f"{prefix}x", name="stage_x"),
        theta=Motor(f"{prefix}theta", name="theta"),
        detector=FrameDetector(f"{prefix}det:", paths, name="detector"),
        capture=PositionCapture(f"{prefix}pos:", paths, name="capture"),
        fly=FlyScan(f"{prefix}fly:", name="fly"),
        mono=Monochromator(f"{prefix}mono:", name="mono"),
        ion_chamber=IonChamber(f"{prefix}ion:", name="ion_chamber"),
    )
