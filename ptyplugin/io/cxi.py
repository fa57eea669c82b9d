"""CXI files (Maia 2012, doi:10.1038/nmeth.2110), the entries that ptychography needs.

``entry_1/instrument_1/detector_1/{data, mask, distance, x_pixel_size, y_pixel_size, basis_vectors}``,
``entry_1/instrument_1/source_1/{energy [J] or wavelength [m], illumination, focus_to_sample_distance}``,
``entry_1/sample_1/geometry_1/translation`` (frame, xyz) m. The patch of frame i starts at row = +translation[i, 1] / pixel,
column = +translation[i, 0] / pixel where the detector's rows run along -y and its columns along -x (the CXI default).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptyplugin.io.hdf5 import RESULT, cause, open_hdf5
from ptyplugin.io.start_probe import StartProbe
from ptyplugin.model import (
    ENERGY_UNITS_EV,
    FileFormatError,
    FramesError,
    Geometry,
    GeometryError,
    Hdf5Source,
    Orientation,
    Preparation,
    Scan,
    ScanError,
)
from ptyplugin.model.geometry import HC_EV_M
from ptyplugin.model.steps import check_steps

_DETECTOR = "entry_1/instrument_1/detector_1"
_SOURCE = "entry_1/instrument_1/source_1"
_TRANSLATION = "entry_1/sample_1/geometry_1/translation"


@dataclass(frozen=True, slots=True)
class CxiScan:
    """What a CXI file says about a scan; its frames stay in the file.

    geometry: of the whole frame; crop it with ``dataclasses.replace(geometry, shape=...)``
    start_probe: the file's illumination, or None
    notes: sentences for people: what was taken from where
    """

    scan: Scan
    geometry: Geometry
    source: Hdf5Source
    preparation: Preparation
    start_probe: StartProbe | None
    notes: list[str] = field(default_factory=list)


def open_cxi(path: Path) -> CxiScan:
    """Read everything of a CXI file but its frames.

    Raises:
        FileFormatError: no CXI file, damaged, an entry is missing (it is named), or frames and positions do not match.
        ScanError, GeometryError: numbers that cannot be; the message begins with the file.
    """
    try:
        file = open_hdf5(path)
    except FramesError as error:
        raise FileFormatError(f"this CXI file cannot be opened: {error}") from error
    with file:
        try:
            return _Reader(file, path).scan()
        except (OSError, RuntimeError) as error:
            raise FileFormatError(f"{path}: the CXI file is damaged ({cause(error)}): copy it again from its source.") from error


class _Reader:
    def __init__(self, file: Any, path: Path) -> None:
        self.file = file
        self.path = path

    def scan(self) -> CxiScan:
        if self.file.attrs.get("format") == RESULT:
            raise FileFormatError(
                f"{self.path} is a result of ptyplugin, not a scan: give the scan that it was made of. To start from the probe in it, "
                "give it as --probe; to see it, open the picture that --png made."
            )
        data = self.need(f"{_DETECTOR}/data")
        if data.ndim != 3 or data.dtype.kind not in "uif":
            raise FileFormatError(f"{self.path}: {_DETECTOR}/data has shape {data.shape} of {data.dtype}; counts (frame, y, x) are needed.")
        try:
            scan, geometry = self.positions(len(data)), self.geometry(data.shape[1:])
            check_steps(scan.positions_m[:, 0], geometry)
        except (ScanError, GeometryError) as error:
            raise type(error)(f"{self.path}: {error}") from error
        mask = f"{_DETECTOR}/mask"
        preparation = Preparation(orientation=self.orientation(), mask_dataset=f"/{mask}" if mask in self.file else None)
        source = Hdf5Source(uri=self.path.resolve().as_uri(), dataset=f"/{_DETECTOR}/data")
        probe = self.illumination(geometry)
        notes = [] if probe is None else ["The reconstruction starts from the illumination in the CXI file."]
        return CxiScan(scan, geometry, source, preparation, probe, notes)

    def need(self, name: str) -> Any:
        found = self.file.get(name)
        if not isinstance(found, h5py.Dataset):
            raise FileFormatError(
                f"{self.path} has no entry {name}: it is no CXI file of a ptychography scan, or was not written to its end."
            )
        return found

    def number(self, name: str) -> float:
        value = np.asarray(self.need(name)[()])
        if value.size != 1 or value.dtype.kind not in "uif":
            raise FileFormatError(f"{self.path}: {name} has shape {value.shape} of {value.dtype}; one number is needed.")
        return float(value.reshape(-1)[0])

    def positions(self, frames: int) -> Scan:
        translation = np.asarray(self.need(_TRANSLATION)[()])
        if translation.ndim != 2 or translation.shape[1] < 2 or translation.dtype.kind not in "uif":
            raise FileFormatError(f"{self.path}: {_TRANSLATION} has shape {translation.shape}; (frame, xyz) in metres is needed.")
        if len(translation) != frames:
            raise FileFormatError(
                f"{self.path} has {frames} frames but {len(translation)} positions in {_TRANSLATION}: they must be one for one; "
                "was the scan stopped while the file was written?"
            )
        return Scan(translation[:, [1, 0]].astype(np.float64), np.arange(frames))

    def geometry(self, shape: tuple[int, int]) -> Geometry:
        pixel_x, pixel_y = self.number(f"{_DETECTOR}/x_pixel_size"), self.number(f"{_DETECTOR}/y_pixel_size")
        if abs(pixel_x - pixel_y) > 1e-6 * pixel_x:
            raise FileFormatError(f"{self.path}: the pixels are {pixel_y:g} x {pixel_x:g} m; only square pixels can be reconstructed.")
        return Geometry(self.energy_ev(), self.number(f"{_DETECTOR}/distance"), pixel_x, shape, self.focus_distance_m())

    def energy_ev(self) -> float:
        if f"{_SOURCE}/energy" in self.file:
            return self.number(f"{_SOURCE}/energy") * ENERGY_UNITS_EV["J"]
        if f"{_SOURCE}/wavelength" in self.file:
            wavelength_m = self.number(f"{_SOURCE}/wavelength")
            return HC_EV_M / wavelength_m if wavelength_m > 0 else np.inf
        raise FileFormatError(f"{self.path} has neither {_SOURCE}/energy [J] nor {_SOURCE}/wavelength [m]: add one of them.")

    def focus_distance_m(self) -> float | None:
        name, said = f"{_SOURCE}/focus_to_sample_distance", self.file["entry_1"].attrs.get("propagation")
        if said == "near_field" or (said is None and name in self.file):
            return self.number(name)
        return None

    def orientation(self) -> Orientation:
        """The symmetry that turns the detector's axes to rows along -y, columns along -x.

        Column k of basis_vectors (xyz, axis) is the step in metres from one pixel to the next along the frame's axis k.
        """
        name = f"{_DETECTOR}/basis_vectors"
        if name not in self.file:
            return Orientation.IDENTITY
        basis = np.asarray(self.need(name)[()], dtype=np.float64)
        if basis.shape == (2, 3):
            basis = basis.T
        if basis.shape != (3, 2):
            raise FileFormatError(f"{self.path}: {name} has shape {basis.shape}; (xyz, detector axis) = (3, 2) is needed.")
        along = np.abs(basis[:2]).argmax(axis=0)
        largest = np.abs(basis[:2]).max(axis=0)
        if along[0] == along[1] or not (largest > 0.99 * np.linalg.norm(basis, axis=0)).all():
            raise FileFormatError(f"{self.path}: {name} is turned against the axes x and y; only multiples of 90 degrees can be undone.")
        transposes = along[0] == 0
        step_y, step_x = (basis[1, 1], basis[0, 0]) if transposes else (basis[1, 0], basis[0, 1])
        return _symmetry(bool(transposes), step_y > 0, step_x > 0)

    def illumination(self, geometry: Geometry) -> StartProbe | None:
        name = f"{_SOURCE}/illumination"
        if name not in self.file:
            return None
        return StartProbe.of(self.need(name)[()], geometry.object_pixel_m, f"{self.path}: {name}")


def _symmetry(transposes: bool, flip_y: bool, flip_x: bool) -> Orientation:
    return next(one for one in Orientation if one.transposes == transposes and one.flips == (flip_y, flip_x))
