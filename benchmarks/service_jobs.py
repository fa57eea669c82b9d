"""Jobs of the benchmark ``service``: imported by name, by the ranks of a warm group."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ptyplugin.model import Cancelled, FrameBlock, GeometryNumbers, Hdf5Source, Job, Progress, Reconstruction, RunSource, Site
from ptyplugin.service import Wish
from ptyplugin.service.resuming import solve_job

SIDE = 16


def job_of(seed: int) -> Job:
    """A job whose frames nobody reads."""
    return Job(
        beamline="bench",
        source=RunSource(run_uid="bench", key="detector"),
        geometry=GeometryNumbers(energy_ev=8000, distance_m=1, pixel_m=75e-6, shape=(SIDE, SIDE)),
        recipe="DM(1)",
        seed=seed,
        frames=[FrameBlock(source=Hdf5Source(uri="file:///bench.h5", dataset="bench"), ranges=[(0, 1)])],
        frame_ids=[(0, 1)],
        positions_m=[[(0.0, 0.0)]],
    )


def nothing(
    job: Job, folder: Path, site: Site, ranks: Any, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]
) -> Reconstruction | None:
    """One vote, and no result: what the way to the ranks and back takes."""
    ranks.vote(False)
    raise Cancelled("there is nothing to do.")


def empty(
    job: Job, folder: Path, site: Site, ranks: Any, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]
) -> Reconstruction | None:
    """One iteration, and a small result."""
    ranks.vote(False)
    if ranks.rank:
        return None
    progress = Progress(job.key, "none", 1, 1, 0.0, {"error": 0.5})
    on_progress(progress)
    square: Any = np.ones((1, SIDE, SIDE), np.complex64)
    nowhere, mask = np.zeros((1, 2)), np.zeros((SIDE, SIDE), np.uint8)
    said = {"job": job.model_dump(mode="json"), "beamline": job.beamline}
    return Reconstruction(square, square, job.geometry.build(), nowhere, nowhere, mask, [progress], {"error": 0.5}, said)


def noted(
    job: Job, folder: Path, site: Site, ranks: Any, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]
) -> Reconstruction | None:
    """The real solver, with a checkpoint every half second, which writes down when it iterates."""

    def hear(progress: Progress) -> None:
        with (folder / "iterations").open("a") as file:
            file.write(f"{progress.iteration} {time.time()}\n")
        on_progress(progress)

    return solve_job(job, folder, site, ranks, hear, wish, every_s=0.5)
