"""Peak memory of a fresh process, interpreter and libraries included."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptyplugin.io import Hdf5Frames
from ptyplugin.model import DEFAULT_RECIPE, Geometry, Recipe, Scan
from ptyplugin.solvers import Solver

#: Allowed beside counts and exit waves, MB.
_BESIDE_MB = 350.0


def run(quick: bool) -> list[Any]:
    """DM, which keeps its waves, and the default recipe, which does not."""
    from benchmarks.table import Table, verdict
    from benchmarks.timing import libraries

    columns = ["data", "recipe", "modes", "FFT", "counts, MB", "waves, MB", "peak, MB", "beside, MB", "limit"]
    table = Table("Peak memory of a fresh process that reconstructs an HDF5 file", columns)
    table.notes.append(f"Limit: counts + waves + {_BESIDE_MB:.0f} MB, with waves only where an algorithm keeps them.")
    default = " + ".join(f"{stage.algorithm}(2)" for stage in Recipe.parse(DEFAULT_RECIPE).stages)
    cases = [("A", "DM(3)", 1, fft) for fft in libraries()] + [("A", default, 1, "scipy"), ("A", "DM(3)", 3, "scipy")]
    for name, recipe, modes, fft in cases + ([] if quick else [("B", "DM(2)", 1, "scipy")]):
        command = [sys.executable, "-m", "benchmarks.memory", str(_file(name)), recipe, str(modes), fft]
        done = subprocess.run(command, cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, check=True)
        said = json.loads(done.stdout.splitlines()[-1])
        kept = said["counts"] + said["waves"]
        table.add(
            name,
            recipe,
            modes,
            fft,
            said["counts"],
            said["waves"],
            said["peak"],
            said["peak"] - kept,
            verdict(said["peak"], kept + _BESIDE_MB),
        )
    return [table]


def _file(name: str) -> Path:
    """A scan as an HDF5 file, written once."""
    from benchmarks.problems import simulated, simulated_file

    path = simulated_file(name).with_suffix(".h5")
    if not path.is_file():
        problem = simulated(name)
        with h5py.File(path.with_suffix(".part"), "w") as file:
            file["counts"], file["corners"], file["probe"] = problem.counts, problem.corners, problem.start_probe
        path.with_suffix(".part").replace(path)
    return path


def main() -> None:
    """Reconstruct and say what that took: FILE RECIPE MODES FFT. Imports no more than that needs."""
    path, recipe, modes, fft = Path(sys.argv[1]), Recipe.parse(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    with h5py.File(path) as file:
        corners, probe = file["corners"][()], file["probe"][()]
    with Hdf5Frames(path, "counts") as frames:
        geometry = Geometry(8000.0, 3.0, 75e-6, frames.shape)
        scan = Scan(corners[:, None] * np.asarray(geometry.object_pixel_m), np.arange(len(corners)))
        going = Solver(frames, scan, geometry, recipe, start_probe=probe, probe_modes=modes, fft=fft)
        plan = going.plan()
        for _ in going:
            pass
    going.result()
    print(json.dumps({"counts": plan.counts_bytes / 1e6, "waves": plan.waves_bytes / 1e6, "peak": peak_bytes() / 1e6}))


def peak_bytes() -> int:
    """The most memory that this process has had; getrusage also knows what its parent had when it was forked."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lines = status.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
