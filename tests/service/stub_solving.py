"""Solvers that are not there: what they do is written in the job's notes, as ``what=value``. Imported by name, also by real ranks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ptyplugin.model import Cancelled, CatalogError, FramesError, Job, Progress, Reconstruction, Site
from ptyplugin.service import Wish
from ptyplugin.solvers.ranks import failing_together
from ptyplugin.solvers.verbs.cuda.device import DeviceLost

ITERATIONS = 6


def solve(
    job: Job, folder: Path, site: Site, ranks: Any, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]
) -> Reconstruction | None:
    """Count the starts, iterate, and do at the third iteration what the notes ask of this rank.

    raise=R: rank R raises; rude=R: the same without telling the others; bug=R: an exception that is none of ours
    away=R: rank R finds no catalog
    kill=R: rank R is killed, the first time; killed_always=R: each time
    lost=R: the GPU of rank R fails
    say=T: every rank says so; tell=V: every rank says what this environment variable is
    writes=S: rank 0 writes for so many seconds, whatever it is told
    slow=S: an iteration lasts S seconds; hang=1: it never ends, whatever it is told
    """
    asked = dict(note.split("=") for note in job.notes)
    here = str(ranks.rank)
    if ranks.rank == 0:
        with (folder / "starts").open("a") as file:
            file.write("start\n")
    if said := asked.get("say", os.environ.get(asked.get("tell", ""))):
        os.write(2, f"{said}\n".encode())
    elif "tell" in asked:
        os.write(2, b"\n")
    with nullcontext() if "rude" in asked else failing_together(ranks):
        for iteration in range(1, ITERATIONS + 1):
            if iteration == 3:
                _misbehave(asked, here, folder)
            time.sleep(float(asked.get("slow", 0)))
            total = ranks.sum(np.ones(4))
            if ranks.vote(wish().ends):
                raise Cancelled("somebody asked for it.")
            if ranks.rank == 0:
                on_progress(Progress(job.key, "STUB", iteration, ITERATIONS, 0.1 * iteration, {"error": 1 / iteration}))
    return _reconstruction(job, float(total[0])) if ranks.rank == 0 else None


def _misbehave(asked: dict[str, str], here: str, folder: Path) -> None:
    if asked.get("raise") == here or asked.get("rude") == here:
        raise FramesError("frame 3 of a.h5 cannot be read: the file is cut off.")
    if asked.get("away") == here:
        raise CatalogError("the catalog does not answer.")
    if asked.get("lost") == here:
        raise DeviceLost("GPU 0 has failed.")
    if "writes" in asked and here == "0":
        (folder / "writes").touch()
        time.sleep(float(asked["writes"]))
        (folder / "written").touch()
    if asked.get("bug") == here:
        raise ZeroDivisionError("division by zero")
    mark = folder / "was_killed"
    if asked.get("killed_always") == here or (asked.get("kill") == here and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if "hang" in asked:
        (folder / "hangs").touch()
        time.sleep(1000)


def _reconstruction(job: Job, ranks: float) -> Reconstruction:
    return Reconstruction(
        object=np.ones((1, 16, 16), np.complex64),
        probe=np.ones((1, 8, 8), np.complex64),
        geometry=job.geometry.build(),
        positions_m=np.zeros((3, 2)),
        positions_px=np.zeros((3, 2)),
        mask=np.zeros((8, 8), np.uint8),
        progress=[Progress(job.key, "STUB", 1, 1, 0.1, {"error": 0.5})],
        quality={"error": 0.5, "ranks": ranks},
        provenance={"job": job.model_dump(mode="json"), "beamline": job.beamline},
    )
