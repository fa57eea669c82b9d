"""The detector's HDF5 file: one chunk per frame, bitshuffle/LZ4, readable while it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

#: Where areaDetector's HDF5 plugin puts the frames.
DATASET = "/entry/data/data"


class FrameFile:
    """An open file of frames (frame, y, x) uint16, in single-writer multiple-reader mode; each frame is flushed."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self.path = path
        self._file = h5py.File(path, "x", libver="latest")
        self._frames: Any = self._file.create_dataset(
            DATASET,
            shape=(0, *shape),
            maxshape=(None, *shape),
            chunks=(1, *shape),
            dtype=np.uint16,
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        self._file.swmr_mode = True

    def append(self, frame: NDArray[np.uint16]) -> int:
        """Add a frame (y, x); the number of frames that a reader can see now."""
        count = len(self._frames) + 1
        self._frames.resize(count, axis=0)
        self._frames[count - 1] = frame
        self._frames.flush()
        return count

    def close(self) -> None:
        """Close the file; twice does no harm."""
        self._file.close()
