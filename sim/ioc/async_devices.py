"""The simulated instrument as ophyd-async devices, for a session whose environment leads to it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ophyd_async.core import (
    DetectorTriggerLogic,
    PathProvider,
    SignalDict,
    SignalR,
    SignalRW,
    StandardReadable,
    StaticPathProvider,
    StrictEnum,
    TriggerInfo,
    UUIDFilenameProvider,
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
from ophyd_async.epics.core import PvSuffix, epics_signal_r, epics_signal_rw
from ophyd_async.epics.motor import Motor


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


@dataclass(frozen=True)
class Devices:
    """The instrument's devices, not connected yet: ``y``, ``x`` (um), ``theta`` (deg), ``detector``, ``mono``, ``ion_chamber``."""

    y: Motor
    x: Motor
    theta: Motor
    detector: FrameDetector
    mono: Monochromator
    ion_chamber: IonChamber

    async def connect(self, timeout_s: float = 10.0) -> None:
        """Connect all of them, in the event loop that will use them: the RunEngine's."""
        await asyncio.gather(*(getattr(self, name).connect(timeout=timeout_s) for name in self.__dataclass_fields__))


def devices(prefix: str, folder: Path) -> Devices:
    """The instrument's ophyd-async devices, of which each run writes new files into a folder."""
    paths = StaticPathProvider(UUIDFilenameProvider(), folder.absolute())
    return Devices(
        y=Motor(f"{prefix}y", name="y"),
        x=Motor(f"{prefix}x", name="x"),
        theta=Motor(f"{prefix}theta", name="theta"),
        detector=FrameDetector(f"{prefix}det:", paths, name="detector"),
        mono=Monochromator(f"{prefix}mono:", name="mono"),
        ion_chamber=IonChamber(f"{prefix}ion:", name="ion_chamber"),
    )
