"""Run by test_plan.py: reconstruct a file of frames within a limit, and say what that took.

usage: measured_run.py FILE RECIPE LIMIT_MB
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import numpy as np

from ptyplugin.io import Hdf5Frames
from ptyplugin.model import Geometry, Recipe, Scan
from ptyplugin.solvers import Solver
from ptyplugin.solvers.memory import _address_space_now, _resident_now
from ptyplugin.solvers.verbs import cpu

SIDE = 128


def main(path: Path, recipe: str, limit_mb: int) -> None:
    k = np.arange(SIDE) - SIDE / 2
    probe = np.exp(-(k[:, None] ** 2 + k[None, :] ** 2) / 200) * (1 + 0.1j)
    geometry = Geometry(8000.0, 2.0, 75e-6, (SIDE, SIDE))
    cpu.CpuVerbs(geometry, 2)
    start_bytes = _resident_now()
    if limit_mb:
        limit = _address_space_now() + limit_mb * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with Hdf5Frames(path, "counts") as frames:
        side = int(np.ceil(len(frames) ** 0.5))
        steps = np.stack(np.divmod(np.arange(len(frames)), side), axis=1) * 4.0
        scan = Scan((steps * np.asarray(geometry.object_pixel_m))[:, None], np.arange(len(frames)))
        solver = Solver(frames, scan, geometry, Recipe.parse(recipe), start_probe=probe)
        plan = solver.plan()
        for _ in solver:
            pass
    said = {name: getattr(plan, name) for name in ("streams", "counts_bytes", "waves_bytes", "needed_bytes")}
    # Not getrusage: that also knows what the process had that this one was forked from.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak_bytes = int(status.split("VmHWM:")[1].split()[0]) * 1024
    print(json.dumps({**said, "start_bytes": start_bytes, "peak_bytes": peak_bytes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
