"""Files as an Eiger's own writer makes them: a master file with links to data files."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from ptyplugin.model.errors import DiskError
from ptyplugin.model.geometry import Geometry
from ptyplugin.sim.frame_file import DATASET

_HC_EV_M = 1.239841984332e-06


class EigerSeries:
    """The frames of one acquisition. Like a real Eiger's, its files can be read when it is closed.

    name: path without what comes after the series' number: ``_master.h5``, ``_data_000001.h5``, ...; per_file: frames of a data file

    Raises:
        DiskError: a file that is there already, or cannot be written.
    """

    def __init__(self, name: Path, per_file: int, geometry: Geometry, exposure_s: float) -> None:
        self._name, self._per_file, self._geometry, self._exposure_s = name, max(per_file, 1), geometry, exposure_s
        self._waiting: list[NDArray[np.uint16]] = []
        self._files: list[Path] = []

    def add(self, frames: NDArray[np.uint16]) -> None:
        """Add frames (frame, y, x)."""
        self._waiting.extend(frames)
        while len(self._waiting) >= self._per_file:
            self._write(self._waiting[: self._per_file])
            del self._waiting[: self._per_file]

    def close(self) -> None:
        """Write what is left, and the master file."""
        if self._waiting:
            self._write(self._waiting)
        geometry, shape = self._geometry, self._geometry.shape
        with self._new(Path(f"{self._name}_master.h5")) as file:
            for number, path in enumerate(self._files, 1):
                file[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(path.name, DATASET)
            file["entry/instrument/beam/incident_wavelength"] = _HC_EV_M / geometry.energy_ev * 1e10
            detector = file.create_group("entry/instrument/detector")
            detector["x_pixel_size"] = detector["y_pixel_size"] = geometry.pixel_m
            detector["detector_distance"] = geometry.distance_m
            detector["beam_center_y"], detector["beam_center_x"] = (side / 2 for side in shape)
            detector["frame_time"] = detector["count_time"] = self._exposure_s
            detector["detectorSpecific/pixel_mask"] = np.zeros(shape, np.uint32)

    def _write(self, frames: list[NDArray[np.uint16]]) -> None:
        path = Path(f"{self._name}_data_{len(self._files) + 1:06d}.h5")
        with self._new(path) as file:
            stack = np.stack(frames)
            file.create_dataset(DATASET, data=stack, chunks=(1, *stack.shape[1:]), **hdf5plugin.Bitshuffle(cname="lz4"))
        self._files.append(path)

    def _new(self, path: Path) -> h5py.File:
        try:
            return h5py.File(path, "x")
        except OSError as error:
            raise DiskError(f"the simulated Eiger cannot make the file {path} ({error}): choose another name pattern or folder.") from error
