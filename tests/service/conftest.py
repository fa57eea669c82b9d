"""A site, jobs whose notes say what the stub solver shall do, and waiting that ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ptyplugin.model import FrameBlock, GeometryNumbers, Hdf5Source, Job, RunSource, Site
from ptyplugin.service.solving import Task

STUB = "stub_solving:solve"


@pytest.fixture(autouse=True)
def _stub_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(home=tmp_path / "home", ranks=2)


@pytest.fixture
def make_job() -> Callable[..., Job]:
    def make_job(seed: int = 0, **asked: object) -> Job:
        return Job(
            beamline="sim",
            source=RunSource(run_uid="run-1", key="detector", scan_id=7),
            geometry=GeometryNumbers(energy_ev=8000, distance_m=2, pixel_m=75e-6, shape=(128, 128)),
            recipe="DM(20)",
            seed=seed,
            frames=[FrameBlock(source=Hdf5Source(uri="file://localhost/a.h5", dataset="/entry/data/data"), ranges=[(0, 3)])],
            frame_ids=[(0, 3)],
            positions_m=[[(0.0, 0.0)], [(0.0, 1e-6)], [(1e-6, 0.0)]],
            notes=[f"{what}={value}" for what, value in asked.items()],
        )

    return make_job


@pytest.fixture
def task_of(site: Site) -> Callable[[Job], Task]:
    def task_of(job: Job) -> Task:
        folder = site.jobs / job.key
        folder.mkdir(parents=True)
        (folder / "job.json").write_bytes(job.to_bytes())
        return Task(folder, site)

    return task_of
