"""The area detector of yesterday: documents as ophyd's AreaDetector with an HDF5 plugin makes them (resource, datum)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ophyd_async.core import AsyncStatus
from ophyd_async.sim import SimMotor

from ptyplugin.sim.acquisition import Acquisition
from ptyplugin.sim.camera import Camera


class LegacyDetector:
    """Area detector with ``frames_per_point`` frames at each point and documents of spec AD_HDF5; one HDF5 file per run."""

    parent = None

    def __init__(self, camera: Camera, stage_y: SimMotor, stage_x: SimMotor, folder: Path, *, name: str, frames_per_point: int = 1) -> None:
        self.name = name
        self._acquisition = Acquisition(camera, stage_y, stage_x, folder)
        self._acquisition.exposures = frames_per_point
        self._resource: dict[str, Any] = {}
        self._documents: list[tuple[str, dict[str, Any]]] = []
        self._reading: dict[str, Any] = {}
        self._points = 0

    def stage(self) -> list[Any]:
        """Open a new file."""
        path = self._acquisition.open_file(self.name)
        self._resource = {
            "uid": str(uuid.uuid4()),
            "spec": "AD_HDF5",
            "root": "/",
            "resource_path": str(path.relative_to("/")),
            "resource_kwargs": {"frame_per_point": self._acquisition.exposures},
            "path_semantics": "posix",
        }
        self._documents = [("resource", self._resource)]
        self._points = 0
        return [self]

    def unstage(self) -> list[Any]:
        """Close the file."""
        self._acquisition.close_file()
        return [self]

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        """Take the frames of one point."""
        await self._acquisition.expose()
        datum_id = f"{self._resource['uid']}/{self._points}"
        datum = {"datum_id": datum_id, "resource": self._resource["uid"], "datum_kwargs": {"point_number": self._points}}
        self._documents.append(("datum", datum))
        self._reading = {self.name: {"value": datum_id, "timestamp": time.time()}}
        self._points += 1

    def read(self) -> dict[str, Any]:
        """The datum's id under the detector's name."""
        return self._reading

    def describe(self) -> dict[str, Any]:
        """The data key: frames (frame of the point, y, x) outside the event."""
        return {
            self.name: {
                "source": f"SIM:{self.name}",
                "dtype": "array",
                "dtype_numpy": np.dtype(np.uint16).str,
                "shape": [self._acquisition.exposures, *self._acquisition.camera.geometry.shape],
                "external": "FILESTORE:",
            }
        }

    def collect_asset_docs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The documents since the last call: the resource once, then one datum per point."""
        documents, self._documents = self._documents, []
        yield from documents

    def read_configuration(self) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        """Nothing to configure."""
        return {}
