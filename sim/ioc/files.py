"""HDF5 files that grow while others read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from ptyplugin.model.errors import DiskError
from ptyplugin.sim.frame_file import DATASET

#: Seconds from the epoch of POSIX to that of EPICS, 1990-01-01: areaDetector counts from there.
EPICS_EPOCH_S = 631152000
_ATTRIBUTES = "/entry/instrument/NDAttributes"
#: areaDetector's chunk of what is one number per frame.
_NUMBERS_PER_CHUNK = 16384


class GrowingFile:
    """A new HDF5 file of datasets that grow along their first axis, in single-writer multiple-reader mode.

    datasets: name in the file -> shape of one entry and type; entries with a shape are one chunk each, bitshuffle/LZ4

    Raises:
        DiskError: the file is there already, or cannot be written.
    """

    def __init__(self, path: Path, datasets: Mapping[str, tuple[tuple[int, ...], Any]], units: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.count = 0
        try:
            self._file = h5py.File(path, "x", libver="latest")
        except OSError as error:
            raise DiskError(f"the simulated detector cannot make the file {path} ({error}): choose another name or folder.") from error
        self._datasets = {name: self._grown(name, shape, dtype) for name, (shape, dtype) in datasets.items()}
        for name, unit in (units or {}).items():
            self._datasets[name].attrs["units"] = unit
        self._file.swmr_mode = True

    def _grown(self, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        compression = hdf5plugin.Bitshuffle(cname="lz4") if shape else {}
        chunks = (1, *shape) if shape else (_NUMBERS_PER_CHUNK,)
        return self._file.create_dataset(name, (0, *shape), maxshape=(None, *shape), chunks=chunks, dtype=dtype, **compression)

    def append(self, entries: Mapping[str, NDArray[Any]]) -> int:
        """Add entries (entry, ...) to each dataset, as many to each; the number that a reader can see now."""
        added = len(next(iter(entries.values())))
        for name, values in entries.items():
            dataset = self._datasets[name]
            dataset.resize(self.count + added, axis=0)
            dataset[self.count :] = values
            dataset.flush()
        self.count += added
        return self.count

    def close(self) -> None:
        """Close the file; twice does no harm."""
        self._file.close()


class DetectorFile(GrowingFile):
    """What areaDetector's HDF5 plugin writes: frames (frame, y, x) uint16, and the id and time of each."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        numbers = {"NDArrayUniqueId": "i4", "NDArrayTimeStamp": "f8", "NDArrayEpicsTSSec": "u4", "NDArrayEpicsTSnSec": "u4"}
        super().__init__(path, {DATASET: (shape, "u2"), **{f"{_ATTRIBUTES}/{name}": ((), kind) for name, kind in numbers.items()}})

    def add(self, frames: NDArray[np.uint16], ids: NDArray[np.int64], times_s: NDArray[np.float64]) -> int:
        """Add frames (frame, y, x) with their unique ids and POSIX times (frame); how many there are now."""
        epics_s = times_s - EPICS_EPOCH_S
        numbers: dict[str, NDArray[Any]] = {
            "NDArrayUniqueId": ids,
            "NDArrayTimeStamp": epics_s,
            "NDArrayEpicsTSSec": epics_s.astype(np.uint32),
            "NDArrayEpicsTSnSec": (epics_s % 1 * 1e9).astype(np.uint32),
        }
        return self.append({DATASET: frames, **{f"{_ATTRIBUTES}/{name}": values for name, values in numbers.items()}})
