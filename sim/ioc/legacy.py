"""The simulated instrument as ophyd devices, for a session whose environment leads to it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ophyd import Component, DetectorBase, Device, EpicsMotor, EpicsSignal, EpicsSignalRO, SingleTrigger
from ophyd.areadetector import SimDetectorCam
from ophyd.areadetector.filestore_mixins import FileStoreHDF5IterativeWrite
from ophyd.areadetector.plugins import HDF5Plugin_V34
from ophyd.signal import EpicsSignalBase

_PATIENCE_S = 20.0


class _Hdf5(HDF5Plugin_V34, FileStoreHDF5IterativeWrite):
    """The HDF5 plugin with documents of spec AD_HDF5."""


class LegacyDetector(SingleTrigger, DetectorBase):
    """The area detector with its HDF5 plugin; its name is the frames' data key."""

    cam = Component(SimDetectorCam, "cam1:")
    hdf1 = Component(_Hdf5, "HDF1:", write_path_template="")

    def __init__(self, prefix: str, folder: Path, *, name: str) -> None:
        super().__init__(prefix, name=name, image_name=name, read_attrs=["hdf1"])
        self.hdf1.read_attrs = []
        self.hdf1.write_path_template = f"{folder}/"

    def trigger(self) -> Any:
        """Take the frames of one point. Unlike its parent's it may be complete before it returns."""
        status = self._status = self._status_type(self)
        self._acquisition_signal.put(1, wait=False)
        self.generate_datum(self._image_name, time.time(), {})
        return status


class _Monochromator(Device):
    energy = Component(EpicsSignal, "Energy_RBV", write_pv="Energy", put_complete=True)


class _IonChamber(Device):
    rate = Component(EpicsSignalRO, "Rate_RBV")


@dataclass(frozen=True)
class LegacyDevices:
    """The instrument's devices, connected: stages in um and degrees, ``detector`` for step scans."""

    y: EpicsMotor
    x: EpicsMotor
    theta: EpicsMotor
    detector: LegacyDetector
    mono: _Monochromator
    ion_chamber: _IonChamber


def legacy_devices(prefix: str, folder: Path) -> LegacyDevices:
    """The instrument's ophyd devices, of which each run writes a new file into a folder."""
    with contextlib.suppress(RuntimeError):
        # 1 s, the default, is short on a busy machine. Where a session has signals already it is that session's matter.
        EpicsSignalBase.set_defaults(timeout=_PATIENCE_S, connection_timeout=_PATIENCE_S)
    found = LegacyDevices(
        y=EpicsMotor(f"{prefix}y", name="stage_y"),
        x=EpicsMotor(f"{prefix}x", name="stage_x"),
        theta=EpicsMotor(f"{prefix}theta", name="theta"),
        detector=LegacyDetector(f"{prefix}det:", folder.absolute(), name="detector"),
        mono=_Monochromator(f"{prefix}mono:", name="mono"),
        ion_chamber=_IonChamber(f"{prefix}ion:", name="ion_chamber"),
    )
    for name in found.__dataclass_fields__:
        getattr(found, name).wait_for_connection(timeout=_PATIENCE_S)
    return found
