"""Start probes from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptyplugin.io.cxi import open_cxi
from ptyplugin.io.hdf5 import cause, open_hdf5
from ptyplugin.io.start_probe import StartProbe
from ptyplugin.model import FileFormatError, FramesError

_WHAT_HOLDS_ONE = "give a .npy file, a result file, an HDF5 file with a dataset 'probe', or a CXI file with an illumination."


def read_probe(path: Path) -> StartProbe:
    """A start probe from a .npy file, a result file, an HDF5 file with a dataset ``probe``, or the illumination of a CXI file.

    Raises:
        FileFormatError: the file is missing or damaged, or there is no probe in it.
    """
    if path.suffix == ".npy":
        return _read_npy(path)
    try:
        file = open_hdf5(path)
    except FramesError as error:
        raise FileFormatError(f"the probe file cannot be opened: {error}") from error
    with file:
        try:
            found = file.get("probe")
            if isinstance(found, h5py.Dataset):
                return StartProbe.of(found[()], _pixel_m(file), str(path))
            is_cxi = "entry_1" in file
        except (OSError, RuntimeError) as error:
            raise FileFormatError(f"{path}: the probe cannot be read ({cause(error)}): the file is damaged.") from error
    probe = open_cxi(path).start_probe if is_cxi else None
    if probe is None:
        raise FileFormatError(f"{path} holds no probe: {_WHAT_HOLDS_ONE}")
    return probe


def _read_npy(path: Path) -> StartProbe:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FileFormatError(f"{path} is no .npy file with a probe ({error}): save it with numpy.save.") from error
    return StartProbe.of(array, None, str(path))


def _pixel_m(file: Any) -> tuple[float, float] | None:
    """The probe's pixel: that of a result file, else that of the object beside it (the files of pty-chi and Ptychodus)."""
    if "object_pixel_m" in file.attrs:
        y, x = file.attrs["object_pixel_m"]
        return float(y), float(x)
    beside = file["object"].attrs if "object" in file else {}
    if beside.get("pixel_height_m", 0) > 0 and beside.get("pixel_width_m", 0) > 0:
        return float(beside["pixel_height_m"]), float(beside["pixel_width_m"])
    return None
