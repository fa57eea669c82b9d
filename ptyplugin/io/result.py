"""The result file: one HDF5 file per job, whole or absent. Its layout stands in docs/reference/result-file.md."""

from __future__ import annotations

import glob
import io
import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np

from ptyplugin.io.durable import to_disk
from ptyplugin.io.hdf5 import RESULT, cause, open_hdf5
from ptyplugin.model import ErrorName, FileFormatError, FramesError, Geometry, Progress, Reconstruction, RingCorrelation, Verdict

#: A temporary file that nobody has written to for so long was left behind by a writer that was killed.
_ABANDONED_S = 3600.0
_ARRAYS = ("object", "probe", "positions_m", "positions_px", "mask")
#: Not in every result.
_OPTIONAL = ("positions_start_px", "background", "intensities")
_ERRORS: tuple[ErrorName, ...] = get_args(ErrorName)
_GEOMETRY = ("energy_ev", "distance_m", "pixel_m", "focus_distance_m")
_DERIVED = ("wavelength_m", "object_pixel_m", "frame_shape_px")
_FRC = ("frequency_per_m", "correlation", "half_bit", "one_bit")
#: Attributes that are no plain number or text are JSON, and their names say so.
_JSON = "_json"
# Attributes above 64 kB (a job's positions) need 1.8; readers older than 1.10 are not expected.
_LIBVER = ("v108", "v110")


def write_result(path: Path, reconstruction: Reconstruction) -> None:
    """Write the result file: to a temporary name in the same folder, to the disk, then renamed.

    Raises:
        FileFormatError: the folder cannot be written to, or the disk is full; nothing is left behind.
    """
    # In memory first: on a full disk HDF5 has no one sentence, and prints tracebacks when it is closed.
    content = io.BytesIO()
    with h5py.File(content, "w", libver=_LIBVER) as file:
        _write(file, reconstruction)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as target:
            target.write(content.getbuffer())
        _as_others_may_read(temporary)
        to_disk(temporary)
        temporary.replace(path)
        to_disk(path.parent)
    except OSError as error:
        why = error.strerror or error
        raise FileFormatError(f"the result cannot be written to {path} ({why}): check the folder's permissions and the disk.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def read_result(path: Path) -> Reconstruction:
    """Read a result file back.

    Raises:
        FileFormatError: missing, damaged, or no result file.
    """
    try:
        file = open_hdf5(path)
    except FramesError as error:
        raise FileFormatError(f"the result file cannot be opened: {error}") from error
    with file:
        if file.attrs.get("format") != RESULT:
            raise FileFormatError(f"{path} is not a result file of ptyplugin: give the file that --output named.")
        try:
            return _read(file)
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            raise FileFormatError(f"{path}: the result file is damaged ({cause(error)}): run the reconstruction again.") from error


def _write(file: Any, reconstruction: Reconstruction) -> None:
    for name in (*_ARRAYS, *_OPTIONAL, "object_phase", "object_amplitude"):
        if (values := getattr(reconstruction, name)) is not None:
            file.create_dataset(name, data=values)
    _write_progress(file.create_group("progress"), reconstruction.progress)
    geometry = reconstruction.geometry
    numbers = {name: getattr(geometry, name) for name in _GEOMETRY if getattr(geometry, name) is not None}
    derived = {"wavelength_m": geometry.wavelength_m, "object_pixel_m": geometry.object_pixel_m, "frame_shape_px": geometry.shape}
    file.attrs.update({"format": RESULT, **numbers, **derived, f"quality{_JSON}": json.dumps(reconstruction.quality)})
    if reconstruction.frc is not None:
        _write_frc(file.create_group("frc"), reconstruction.frc)
    if reconstruction.verdict is not None:
        file.attrs.update(_verdict_attributes(reconstruction.verdict))
    for name, value in reconstruction.provenance.items():
        plain = isinstance(value, str | int | float)
        file.attrs[name if plain else name + _JSON] = value if plain else json.dumps(value)


def _write_frc(group: Any, frc: RingCorrelation) -> None:
    group.attrs["resolution_m"] = frc.resolution_m
    for name in _FRC:
        group[name] = getattr(frc, name)


def _read_frc(file: Any) -> RingCorrelation | None:
    if "frc" not in file:
        return None
    group = file["frc"]
    return RingCorrelation(**{name: group[name][()] for name in _FRC}, resolution_m=float(group.attrs["resolution_m"]))


def _verdict_attributes(verdict: Verdict) -> dict[str, str]:
    return {"verdict": verdict.word, "convergence": verdict.convergence, f"verdict_reasons{_JSON}": json.dumps(verdict.reasons)}


def _verdict_of(attributes: dict[str, Any]) -> Verdict | None:
    """The verdict among what the attributes say, taken out of it; files of older versions have none."""
    word, convergence, reasons = (attributes.pop(name, None) for name in ("verdict", "convergence", "verdict_reasons"))
    return Verdict(word, convergence, tuple(reasons)) if word else None


def _write_progress(group: Any, progress: list[Progress]) -> None:
    group.attrs["job"] = progress[0].job if progress else ""
    group.attrs["iterations"] = progress[0].iterations if progress else 0
    group["iteration"] = np.array([one.iteration for one in progress], dtype=np.int64)
    group["seconds"] = np.array([one.seconds for one in progress], dtype=np.float64)
    group.create_dataset("stage", data=[one.stage for one in progress], dtype=h5py.string_dtype())
    for name in _ERRORS:
        group[name] = np.array([one.errors.get(name, np.nan) for one in progress], dtype=np.float64)


def _read(file: Any) -> Reconstruction:
    arrays = {name: file[name][()] for name in (*_ARRAYS, *_OPTIONAL) if name in _ARRAYS or name in file}
    numbers = {name: float(file.attrs[name]) for name in _GEOMETRY if name in file.attrs}
    y, x = file.attrs["frame_shape_px"]
    provenance: dict[str, Any] = {}
    for name, value in file.attrs.items():
        if name.endswith(_JSON):
            provenance[name.removesuffix(_JSON)] = json.loads(value)
        elif name not in ("format", *_GEOMETRY, *_DERIVED):
            provenance[name] = value.item() if isinstance(value, np.generic) else value
    quality, verdict = provenance.pop("quality"), _verdict_of(provenance)
    geometry = Geometry(shape=(int(y), int(x)), **numbers)
    return Reconstruction(
        geometry=geometry,
        progress=_read_progress(file["progress"]),
        quality=quality,
        provenance=provenance,
        verdict=verdict,
        frc=_read_frc(file),
        **arrays,
    )


def _read_progress(group: Any) -> list[Progress]:
    job, iterations = str(group.attrs["job"]), int(group.attrs["iterations"])
    stages, seconds = group["stage"].asstr()[()], group["seconds"][()]
    columns = {name: group[name][()] for name in _ERRORS if name in group}
    progress = []
    for row, iteration in enumerate(group["iteration"][()]):
        errors = {name: float(column[row]) for name, column in columns.items() if np.isfinite(column[row])}
        progress.append(Progress(job, str(stages[row]), int(iteration), iterations, float(seconds[row]), errors))
    return progress


def _sweep(path: Path) -> None:
    """Take away what writers of ``path`` left behind when they were killed; not what one may be writing now."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError):  # it is another user's, or another writer sweeps too
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                left.unlink()


def _as_others_may_read(path: Path) -> None:
    """A temporary file is private; the result is read by the catalog's server, often another user."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
