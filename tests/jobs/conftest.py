"""Jobs to hand over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptyplugin.model import BesideSource, FrameBlock, GeometryNumbers, Hdf5Source, Job, RunSource, Site, put_beside


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(home=tmp_path / "home")


@pytest.fixture
def job() -> Job:
    return Job(
        beamline="sim",
        source=RunSource(run_uid="run-1", key="detector", scan_id=7),
        geometry=GeometryNumbers(energy_ev=8000, distance_m=2, pixel_m=75e-6, shape=(128, 128)),
        recipe="DM(20)",
        frames=[FrameBlock(source=Hdf5Source(uri="file://localhost/data/a.h5", dataset="/entry/data/data"), ranges=[(0, 3)])],
        frame_ids=[(0, 3)],
        positions_m=[[(0.0, 0.0)], [(0.0, 1e-6)], [(1e-6, 0.0)]],
    )


@pytest.fixture
def beside_job(job: Job) -> tuple[Job, dict[str, np.ndarray]]:
    """A job whose frames came inside events."""
    arrays: dict[str, np.ndarray] = {}
    array = put_beside("frames.npy", np.arange(3 * 128 * 128, dtype=np.uint16).reshape(3, 128, 128), arrays)
    block = FrameBlock(source=BesideSource(name=array.name, sha256=array.sha256), ranges=[(0, 3)])
    return job.model_copy(update={"frames": [block], "seed": 100}), arrays
