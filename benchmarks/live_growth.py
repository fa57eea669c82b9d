"""Frames that are admitted to a reconstruction: how long the others wait for them, and what memory that takes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Geometry, MemoryFrames, Recipe, Scan
from ptyplugin.solvers import Solver

#: Seconds that 500 frames may take, beside reading them, and peak memory beyond the plan, MB.
_LIMIT_S, _BEYOND_MB = 0.5, 100.0
#: Frames of 128 px at first and after each portion; different frames among them.
_FRAMES, _DIFFERENT, _SIDE = (250, 500, 1000, 1500, 2000, 2500), 50, 128


def run(quick: bool) -> list[Any]:
    """One table, each row a fresh process."""
    from benchmarks.table import Table, verdict

    table = Table("Frames admitted to a reconstruction, 128 px", ["recipe", "at first", "frames then", "reading, s", "beside, s", "limit"])
    memory = Table("Peak memory while frames are admitted", ["recipe", "plan, MB", "peak, MB", "limit"])
    memory.notes.append("The frames themselves, as their file would have them, are left out.")
    for recipe in ("DM(50)", "LSQML(50)")[: 1 if quick else 2]:
        command = [sys.executable, "-m", "benchmarks.live_growth", recipe]
        done = subprocess.run(command, cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, check=True)
        said = json.loads(done.stdout.splitlines()[-1])
        for frames, reading, beside in said["portions"]:
            table.add(recipe, _FRAMES[0], frames, reading, beside, verdict(beside, _LIMIT_S))
        memory.add(recipe, said["plan"], said["peak"], verdict(said["peak"], said["plan"] + _BEYOND_MB))
    return [table, memory]


class _Repeated:
    """A few frames, again and again; ``seconds`` that reading took."""

    mask = None

    def __init__(self, counts: NDArray[np.uint16], count: int) -> None:
        self._counts, self._count, self.seconds = counts, count, 0.0
        self.shape, self.dtype = (counts.shape[1], counts.shape[2]), counts.dtype

    def __len__(self) -> int:
        return self._count

    def read(self, frames: NDArray[np.int64]) -> NDArray[np.uint16]:
        begun = time.perf_counter()
        counts = MemoryFrames(self._counts).read(frames % len(self._counts))
        self.seconds += time.perf_counter() - begun
        return counts


def main() -> None:
    """Admit portions and say what that took: RECIPE."""
    from benchmarks.memory import peak_bytes

    rng, k = np.random.default_rng(0), np.arange(_SIDE) - _SIDE / 2
    squares = np.add.outer(k**2, k**2)
    counts = rng.poisson(1e3 * np.exp(-squares / 400), (_DIFFERENT, _SIDE, _SIDE)).astype(np.uint16)
    probe = np.fft.fftshift(np.fft.ifft2(np.exp(-squares / 800 + 0.02j * squares)))
    geometry = Geometry(8000.0, 3.0, 75e-6, (_SIDE, _SIDE))
    steps = np.stack(np.divmod(np.arange(_FRAMES[-1]), 50), axis=1) * 6.0 + rng.uniform(-1, 1, (_FRAMES[-1], 2))
    positions_m = steps * np.asarray(geometry.object_pixel_m)

    def first(count: int) -> tuple[_Repeated, Scan]:
        return _Repeated(counts, count), Scan(positions_m[:count], np.arange(count))

    solver, portions = Solver(*first(_FRAMES[0]), geometry, Recipe.parse(sys.argv[1]), start_probe=probe, device="cpu"), []
    for count in _FRAMES[1:]:
        next(solver)
        frames, scan = first(count)
        begun = time.perf_counter()
        solver.admit(frames, scan)
        taken = time.perf_counter() - begun
        portions.append([count, frames.seconds, taken - frames.seconds])
    next(solver)
    print(json.dumps({"portions": portions, "plan": solver.plan().needed_bytes / 1e6, "peak": peak_bytes() / 1e6}))


if __name__ == "__main__":
    main()
