"""A job that only says hello: whether ranks start the way the daemon starts them, find each other, and bring a result home."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ptyplugin.io import read_result
from ptyplugin.jobs import JOB_FILE
from ptyplugin.model import FrameBlock, GeometryNumbers, Hdf5Source, Job, Progress, Reconstruction, RunSource, Site, SolverError
from ptyplugin.service.group import Patience
from ptyplugin.service.mpiexec import Mpiexec
from ptyplugin.service.solving import Task, Wish
from ptyplugin.solvers import Ranks

#: Seconds that ranks get to start, and to say something.
_PATIENCE = Patience(start_s=30.0, silence_s=30.0)
_SIDE = 8


def greet(ranks: int = 2) -> str:
    """Start so many ranks on this machine and have them count each other; the MPI library that they use.

    Raises:
        PtypluginError: they do not start, do not find each other, or do not come home; the message says why.
    """
    with tempfile.TemporaryDirectory(prefix="ptyplugin-") as folder:
        task = Task(Path(folder) / "hello", Site(home=Path(folder), results_dir=Path(folder)))
        task.folder.mkdir()
        (task.folder / JOB_FILE).write_bytes(_job().to_bytes())
        try:
            with Mpiexec(task.folder, ranks, solve=f"{__name__}:hello", patience=_PATIENCE) as group:
                made = read_result(group.run(task, lambda _: None, lambda: Wish.GO_ON))
        except SolverError as error:
            # Its log goes with the folder.
            said = task.log.read_text(errors="replace").strip().splitlines() if task.log.exists() else []
            raise SolverError(f"{error} {said[-1]}" if said else str(error)) from error
    return str(made.provenance["mpi"])


def hello(
    job: Job, folder: Path, site: Site, ranks: Ranks, on_progress: Callable[[Progress], None], cancelled: Callable[[], bool]
) -> Reconstruction | None:
    """A SolveFunction: count the ranks, all together.

    Raises:
        SolverError: they are not as many as there should be.
    """
    from mpi4py import MPI

    there = ranks.sum(np.eye(ranks.size)[ranks.rank])
    if not np.array_equal(there, np.ones(ranks.size)):
        raise SolverError(f"the sum over {ranks.size} ranks is {there}, not 1 for each: MPI does not work on this machine.")
    library = " ".join(MPI.Get_library_version().split("\n")[0].replace("\0", "").split())
    return _result(job, library) if ranks.rank == 0 else None


def _result(job: Job, library: str) -> Reconstruction:
    square: Any = np.ones((1, _SIDE, _SIDE), np.complex64)
    nowhere = np.zeros((1, 2))
    said = {"job": job.model_dump(mode="json"), "beamline": job.beamline, "mpi": library}
    return Reconstruction(square, square, job.geometry.build(), nowhere, nowhere, np.zeros((_SIDE, _SIDE), np.uint8), [], {}, said)


def _job() -> Job:
    """A job whose frames nobody reads."""
    return Job(
        beamline="hello",
        source=RunSource(run_uid="hello", key="detector"),
        geometry=GeometryNumbers(energy_ev=8000, distance_m=1, pixel_m=75e-6, shape=(_SIDE, _SIDE)),
        recipe="DM(1)",
        frames=[FrameBlock(source=Hdf5Source(uri="file:///hello.h5", dataset="hello"), ranges=[(0, 1)])],
        frame_ids=[(0, 1)],
        positions_m=[[(0.0, 0.0)]],
    )
