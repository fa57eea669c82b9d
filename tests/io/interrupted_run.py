"""Run by test_checkpoint_files.py under mpiexec: reconstruct, with a checkpoint after each second iteration.

usage: interrupted_run.py FOLDER whole,killed|resumed RECIPE ...
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from ptyplugin.io import Checkpoints
from ptyplugin.model import Geometry, MemoryFrames, Recipe, Scan
from ptyplugin.solvers import MpiRanks, Solver


def experiment(side: int = 32) -> dict[str, Any]:
    """36 frames at positions between pixels, and the probe that they were made with."""
    rng, k = np.random.default_rng(5), np.arange(side) - side / 2
    probe = np.exp(-(k[:, None] ** 2 + k[None, :] ** 2) * (0.02 + 0.01j))
    sample = np.exp(1j * rng.random((side + 20, side + 20)))
    corners = np.stack(np.divmod(np.arange(36), 6), axis=1) * 3 + rng.integers(0, 2, (36, 2))
    waves = np.stack([probe * sample[y : y + side, x : x + side] for y, x in corners])
    counts = rng.poisson(200 * np.abs(np.fft.fftshift(np.fft.fft2(waves), axes=(-2, -1))) ** 2 / side).astype(np.uint16)
    geometry = Geometry(8000.0, 1.0, 75e-6, (side, side))
    positions_m = (corners + rng.uniform(-0.4, 0.4, (36, 2))) * np.asarray(geometry.object_pixel_m)
    return {
        "frames": MemoryFrames(counts),
        "scan": Scan(positions_m[:, None], np.arange(36)),
        "geometry": geometry,
        "start_probe": probe,
    }


def run(folder: Path, what: str, recipe: str, ranks: MpiRanks, last: bool) -> None:
    solver = Solver(**experiment(), recipe=Recipe.parse(recipe), ranks=ranks, fft="scipy")
    files, began_after = Checkpoints(folder, ranks), 0
    if what == "resumed" and (found := files.newest(solver.refuses)):
        solver.resume(found)
        began_after = found.iteration
    for progress in solver:
        if what == "killed" and progress.iteration == 4:
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return
        if what == "killed" and progress.iteration == 2:
            files.write(solver.checkpoint())
    if ranks.rank == 0:
        np.savez(folder / f"{what}.npz", object=solver.object, probe=solver.probe, began_after=began_after)


def main(folder: Path, what: str, *recipes: str) -> None:
    ranks = MpiRanks(MPI.COMM_WORLD)
    for each, (number, recipe) in product(what.split(","), enumerate(recipes)):
        (folder / str(number)).mkdir(exist_ok=True)
        run(folder / str(number), each, recipe, ranks, recipe == recipes[-1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
