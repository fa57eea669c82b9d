"""A live job on a host that has neither the detector's file nor its network: whole collect batches come through the catalog."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptyplugin.catalog import CatalogFrames
from ptyplugin.io import open_frames
from ptyplugin.model import FrameBlock, GeometryNumbers, Growth, Hdf5Source, Job, RunSource, Site

pytestmark = pytest.mark.system

BATCH, BATCHES, RATE = 20, 5, 100.0
COUNTS = np.random.default_rng(3).poisson(5, (BATCH * BATCHES, 12, 16)).astype(np.uint16)
UID = "livecata-0000-4000-8000-000000000000"


class Detector:
    """A fly scan whose frames lie in a file that only the catalog's server sees; documents go to a TiledWriter as they come."""

    def __init__(self, path: Path, client: Any) -> None:
        from bluesky_tiled_plugins import TiledWriter

        self._file = h5py.File(path, "w", libver="latest")
        shape = (0, 1, *COUNTS.shape[1:])
        self._data = self._file.create_dataset("/entry/data/data", shape, "u2", maxshape=(None, *shape[1:]), chunks=(1, *shape[1:]))
        self._file.swmr_mode = True
        self._write = TiledWriter(client["sim/raw"], batch_size=1)
        frames = {"source": "det", "dtype": "array", "shape": [1, 12, 16], "dtype_numpy": "<u2", "external": "STREAM:"}
        head = {"uid": f"{UID}-primary", "run_start": UID, "time": 1001.0, "name": "primary", "hints": {}, "configuration": {}}
        start = {"uid": UID, "time": 1000.0, "scan_id": 77, "plan_name": "fly", "energy_ev": 8000.0, "detector_distance_m": 3.0}
        self._write("start", start)
        self._write("descriptor", {**head, "data_keys": {"detector": frames}, "object_keys": {"detector": ["detector"]}})
        resource = {"uid": f"{UID}-r", "run_start": UID, "data_key": "detector", "mimetype": "application/x-hdf5"}
        parameters = {"dataset": "/entry/data/data", "chunk_shape": [1, 12, 16]}
        self._write("stream_resource", {**resource, "uri": f"file://localhost{path}", "parameters": parameters})

    def collect(self, batch: int) -> None:
        first, stop = batch * BATCH, (batch + 1) * BATCH
        self._data.resize(stop, axis=0)
        self._data[first:stop, 0] = COUNTS[first:stop]
        self._data.flush()
        numbers = {"indices": {"start": first, "stop": stop}, "seq_nums": {"start": first + 1, "stop": stop + 1}}
        self._write("stream_datum", {"uid": f"{UID}-r/{batch}", "stream_resource": f"{UID}-r", "descriptor": f"{UID}-primary", **numbers})

    def stop(self) -> None:
        stop = {"uid": f"{UID}-s", "run_start": UID, "time": 1100.0, "exit_status": "success", "num_events": {"primary": len(COUNTS)}}
        self._write("stop", stop)
        self._file.close()


def test_whole_batches_come_through_the_catalog(client: Any, site: Site, folder: Path, tmp_path: Path) -> None:
    detector = Detector(folder / "data" / "live.h5", client)
    away = site.model_copy(update={"home": tmp_path, "path_map": {str(folder / "data"): str(folder / "data" / "not_mounted")}})
    source = Hdf5Source(uri=f"file://localhost{folder}/data/live.h5", dataset="/entry/data/data")

    def block(first: int, count: int) -> dict[str, Any]:
        positions = [[(1e-6 * number, 0.0)] for number in range(first, first + count)]
        return {
            "frames": [FrameBlock(source=source, ranges=[(first, first + count)])],
            "frame_ids": [(first, first + count)],
            "positions_m": positions,
        }

    job = Job(
        beamline="sim",
        purpose="live",
        source=RunSource(run_uid=UID, key="detector", begun_s=1000.0),
        geometry=GeometryNumbers(energy_ev=8000, distance_m=2, pixel_m=75e-6, shape=(12, 16)),
        recipe="DM(2)",
        **block(0, BATCH),
    )

    def measure() -> None:
        for batch in range(BATCHES):
            detector.collect(batch)
            time.sleep(BATCH / RATE)
        detector.stop()

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        with open_frames(job, away, None, lambda wanted: CatalogFrames(client, away, "sim", wanted)) as frames:
            for batch in range(1, BATCHES):
                frames.grow(Growth(job=job.key, first=len(frames), **block(batch * BATCH, BATCH)), None)
            np.testing.assert_array_equal(frames.read(np.arange(len(COUNTS))), COUNTS)
            assert ["came from the catalog" in note for note in frames.notes] == [True]
    finally:
        thread.join()
