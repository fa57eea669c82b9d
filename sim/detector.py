"""The area detector of today: an ophyd-async StandardDetector with a real file and stream_resource, stream_datum documents."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from ophyd_async.core import (
    DetectorAcquireLogic,
    DetectorDataLogic,
    DetectorTriggerLogic,
    StandardDetector,
    StreamableDataProvider,
    StreamResourceDataProvider,
    StreamResourceInfo,
)
from ophyd_async.sim import SimMotor

from ptyplugin.sim.acquisition import Acquisition
from ptyplugin.sim.camera import Camera
from ptyplugin.sim.frame_file import DATASET


class _TriggerLogic(DetectorTriggerLogic):
    def __init__(self, acquisition: Acquisition) -> None:
        self._acquisition = acquisition

    async def prepare_internal(self, num: int, livetime: float, deadtime: float) -> None:
        self._acquisition.exposures = num
        self._acquisition.period_s = livetime + deadtime


class _AcquireLogic(DetectorAcquireLogic):
    def __init__(self, acquisition: Acquisition) -> None:
        self._acquisition = acquisition
        self._task: asyncio.Task[None] | None = None

    async def start_acquiring(self) -> None:
        if self._acquisition.period_s == 0:
            # Done here, so that a failure ends the plan now and not after the timeout of the trigger.
            await self._acquisition.expose()
        else:
            self._task = asyncio.create_task(self._acquisition.expose())

    async def wait_for_idle(self) -> None:
        if self._task is not None:
            await self._task

    async def ensure_stopped(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


class _DataLogic(DetectorDataLogic):
    def __init__(self, acquisition: Acquisition) -> None:
        self._acquisition = acquisition

    async def prepare_unbounded(self, datakey_name: str) -> StreamableDataProvider:
        shape = self._acquisition.camera.geometry.shape
        path = self._acquisition.open_file(datakey_name)
        frames = StreamResourceInfo(
            data_key=datakey_name,
            shape=shape,
            chunk_shape=(1, *shape),
            dtype_numpy=np.dtype(np.uint16).str,
            parameters={"dataset": DATASET},
        )
        return StreamResourceDataProvider(
            uri=f"file://localhost{quote(path.as_posix())}",
            resources=[frames],
            mimetype="application/x-hdf5",
            collections_written_signal=self._acquisition.frames_written,
        )

    async def stop(self) -> None:
        self._acquisition.close_file()

    def get_hinted_fields(self, datakey_name: str) -> Sequence[str]:
        return [datakey_name]


class PtychoDetector(StandardDetector):
    """Area detector that counts what the camera sees at the stages' true position, into one HDF5 file per run.

    Exposures take no time unless the plan prepares a livetime. Frames per point: prepare ``collections_per_event``.
    """

    def __init__(self, camera: Camera, stage_y: SimMotor, stage_x: SimMotor, folder: Path, name: str = "") -> None:
        acquisition = Acquisition(camera, stage_y, stage_x, folder)
        self.add_detector_logics(_TriggerLogic(acquisition), _AcquireLogic(acquisition), _DataLogic(acquisition))
        super().__init__(name=name)
