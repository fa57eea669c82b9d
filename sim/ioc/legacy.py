"""The simulated instrument as ophyd devices, for a session whose environment leads to it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ophyd import Component, DetectorBase, Device, EpicsMotor, EpicsSignal, EpicsSignalRO, EpicsSignalWithRBV, SingleTrigger
from ophyd.areadetector import SimDetectorCam
from ophyd.areadetector.filestore_mixins import FileStoreBase, FileStoreHDF5IterativeWrite, new_short_uid
from ophyd.areadetector.plugins import HDF5Plugin_V34
from ophyd.signal import EpicsSignalBase

_PATIENCE_S = 20.0


class _Hdf5(HDF5Plugin_V34, FileStoreHDF5IterativeWrite):
    """The HDF5 plugin with documents of spec AD_HDF5."""


class _EigerFiles(Device, FileStoreBase):
    """An Eiger's own writer with documents of spec AD_EIGER2: a series of files for each point."""

    enable = Component(EpicsSignalWithRBV, "FWEnable")
    file_path = Component(EpicsSignalWithRBV, "FilePath", string=True)
    name_pattern = Component(EpicsSignalWithRBV, "FWNamePattern", string=True)
    images_per_file = Component(EpicsSignalWithRBV, "FWNImagesPerFile")
    sequence_id = Component(EpicsSignalRO, "SequenceId")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filestore_spec = "AD_EIGER2"
        self.stage_sigs["enable"] = 1

    def stage(self) -> Any:
        """Name the files of a new run."""
        name = new_short_uid()
        self.file_path.set(self.write_path_template).wait(_PATIENCE_S)
        self.name_pattern.set(f"{name}_$id").wait(_PATIENCE_S)
        staged = super().stage()
        self._fn = Path(self.write_path_template) / name
        self._generate_resource({"images_per_file": int(self.images_per_file.get())})
        return staged

    def generate_datum(self, key: str, timestamp: float, datum_kwargs: dict[str, Any]) -> Any:
        """The datum of the series that comes next."""
        return super().generate_datum(key, timestamp, {**datum_kwargs, "seq_id": int(self.sequence_id.get()) + 1})


class _Detector(SingleTrigger, DetectorBase):
    """An area detector whose name is its frames' data key. writer: attribute of what writes them into a folder."""

    cam = Component(SimDetectorCam, "cam1:")

    def __init__(self, prefix: str, folder: Path, writer: str, *, name: str) -> None:
        super().__init__(prefix, name=name, image_name=name, read_attrs=[writer])
        getattr(self, writer).read_attrs = []
        getattr(self, writer).write_path_template = f"{folder}/"
        # A fly scan leaves the detector to its triggers.
        self.stage_sigs["cam.trigger_mode"] = 0

    def trigger(self) -> Any:
        """Take the frames of one point. Unlike its parent's it may be complete before it returns."""
        status = self._status = self._status_type(self)
        self.generate_datum(self._image_name, time.time(), {})
        self._acquisition_signal.put(1, wait=False)
        return status


class LegacyDetector(_Detector):
    """The area detector with its HDF5 plugin; documents of spec AD_HDF5."""

    hdf1 = Component(_Hdf5, "HDF1:", write_path_template="")

    def __init__(self, prefix: str, folder: Path, *, name: str) -> None:
        super().__init__(prefix, folder, "hdf1", name=name)


class LegacyEiger(_Detector):
    """The area detector with an Eiger's own files; documents of spec AD_EIGER2."""

    files = Component(_EigerFiles, "cam1:", write_path_template="")

    def __init__(self, prefix: str, folder: Path, *, name: str) -> None:
        super().__init__(prefix, folder, "files", name=name)


class _Monochromator(Device):
    energy = Component(EpicsSignal, "Energy_RBV", write_pv="Energy", put_complete=True)


class _IonChamber(Device):
    rate = Component(EpicsSignalRO, "Rate_RBV")


@dataclass(frozen=True)
class LegacyDevices:
    """The instrument's devices, connected: stages in um and degrees; ``detector``, or ``eiger`` in its place, for step scans."""

    y: EpicsMotor
    x: EpicsMotor
    theta: EpicsMotor
    detector: LegacyDetector
    eiger: LegacyEiger
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
        eiger=LegacyEiger(f"{prefix}det:", folder.absolute(), name="detector"),
        mono=_Monochromator(f"{prefix}mono:", name="mono"),
        ion_chamber=_IonChamber(f"{prefix}ion:", name="ion_chamber"),
    )
    for name in found.__dataclass_fields__:
        getattr(found, name).wait_for_connection(timeout=_PATIENCE_S)
    return found
