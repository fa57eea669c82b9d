"""Taking exposures: what the detectors of both generations of ophyd share."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import numpy as np
from ophyd_async.core import soft_signal_r_and_setter
from ophyd_async.sim import SimMotor

from ptyplugin.sim.camera import Camera
from ptyplugin.sim.frame_file import FrameFile

#: The stages move in micrometres, as their data keys say.
STAGE_UNIT = "um"
STAGE_UNIT_M = 1e-6


class Acquisition:
    """Exposures of the camera, where the stages really stand, into one file per run.

    exposures: taken by one ``expose()``; period_s: from one to the next; frames_written: signal, frames in the open file
    """

    def __init__(self, camera: Camera, stage_y: SimMotor, stage_x: SimMotor, folder: Path) -> None:
        self.camera = camera
        self.exposures = 1
        self.period_s = 0.0
        self.frames_written, self._set_frames_written = soft_signal_r_and_setter(int)
        self._stages = (stage_y, stage_x)
        self._folder = folder.absolute()
        self._file: FrameFile | None = None

    def open_file(self, prefix: str) -> Path:
        """Open a new file, named ``prefix`` and a random number as at many facilities."""
        self._file = FrameFile(self._folder / f"{prefix}-{uuid.uuid4()}.h5", self.camera.geometry.shape)
        self._set_frames_written(0)
        return self._file.path

    def close_file(self) -> None:
        """Close the file if one is open."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    async def expose(self) -> None:
        """Take the exposures and write them."""
        if self._file is None:
            raise RuntimeError("the detector has no open file: stage it before it is triggered")
        for _ in range(self.exposures):
            await asyncio.sleep(self.period_s)
            at = [await stage.user_readback.get_value() for stage in self._stages]
            frame = self.camera.expose(np.asarray(at) * STAGE_UNIT_M)
            self._set_frames_written(self._file.append(frame))
