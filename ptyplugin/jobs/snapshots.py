"""The image of a job that runs, for whoever looks: one file in the job's folder, replaced now and then by rank 0."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from ptyplugin.model import ErrorName, Snapshot

_log = logging.getLogger(__name__)
_FILE = "snapshot.npz"


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True, ser_json_inf_nan="constants")

    job: str
    stage: str
    iteration: int
    iterations: int
    errors: dict[ErrorName, float]
    frames: int
    taken_s: float
    pixel_m: tuple[float, float]
    origin_m: tuple[float, float]


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Put ``snapshot`` in the place of the one before it in this folder of a job: whoever reads finds the one or the other, whole.

    Raises:
        OSError: it cannot be written; the one before stays.
    """
    said = _Said.model_validate(snapshot)
    new = folder / f".{_FILE}.new"
    with new.open("wb") as file:
        text = np.frombuffer(said.model_dump_json().encode(), np.uint8)
        np.savez(file, allow_pickle=False, said=text, object=snapshot.object, probe=snapshot.probe)
    new.replace(folder / _FILE)


def read_snapshot(folder: Path) -> Snapshot | None:
    """The last snapshot of the job in this folder; None if there is none that can be read."""
    path = folder / _FILE
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            said = _Said.model_validate_json(file["said"].tobytes())
            image, probe = _checked("object", file["object"], 2), _checked("probe", file["probe"], 3)
    except FileNotFoundError:
        return None
    except Exception as error:
        # What is torn or foreign fails in every way that ZIP, its compressions and .npy know.
        _log.warning("%s is no snapshot and is not looked at: %s", path, _first_line(error))
        return None
    return Snapshot(**said.model_dump(), object=image, probe=probe)


def remove_snapshot(folder: Path) -> None:
    """Remove the snapshot of the job in this folder, if there is one.

    Raises:
        OSError: it cannot be removed.
    """
    (folder / _FILE).unlink(missing_ok=True)


def _checked(name: str, array: NDArray[Any], axes: int) -> NDArray[np.complex64]:
    if array.dtype != np.complex64 or array.ndim != axes:
        raise ValueError(f"its {name} is {array.dtype} of {array.ndim} axes, not complex64 of {axes}")
    return array


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors(include_url=False)[0]["msg"])
    return f"{type(error).__name__}: {str(error)[:200]}".splitlines()[0]
