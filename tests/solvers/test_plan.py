"""What is needed is said first, done within it, and refused if it cannot be."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptyplugin.model import MemoryFrames, Recipe, SolverError
from ptyplugin.solvers import OneRank, Solver, memory
from ptyplugin.solvers.memory import memory_of_rank

SCRIPT = Path(__file__).with_name("measured_run.py")

MB = 1_000_000


def plan_of(experiment: Any, recipe: str, **how: Any) -> Any:
    return Solver(experiment.frames, experiment.scan, experiment.geometry, Recipe.parse(recipe), **how).plan()


def test_counts_stay_in_memory_as_long_as_they_fit(experiment: Any) -> None:
    # 49 frames as if they had 2048 x 2048 px: 411 MB.
    counts = np.broadcast_to(np.uint16(1), (49, 2048, 2048))
    geometry = type(experiment.geometry)(8800.0, 0.5, 55e-6, (2048, 2048))
    large = Solver(MemoryFrames(counts), experiment.scan, geometry, Recipe.parse("ePIE(2)"), memory_bytes=2200 * MB)
    assert not large.plan().streams
    assert "counts in memory" in str(large.plan())
    small = Solver(MemoryFrames(counts), experiment.scan, geometry, Recipe.parse("ePIE(2)"), memory_bytes=large.plan().needed_bytes - 1)
    plan = small.plan()
    assert plan.streams
    assert plan.needed_bytes < large.plan().needed_bytes - 1
    assert "counts streamed from disk, 411 MB" in str(plan)
    with pytest.raises(SolverError, match=r"49 frames of 2048 x 2048 px .* GB of memory, there are .*: crop the frames"):
        Solver(MemoryFrames(counts), experiment.scan, geometry, Recipe.parse("ePIE(2)"), memory_bytes=500 * MB)


def test_what_stores_waves_is_refused_with_what_does_not(experiment: Any) -> None:
    counts = np.broadcast_to(np.uint16(1), (49, 1024, 1024))
    geometry = type(experiment.geometry)(8800.0, 0.5, 55e-6, (1024, 1024))
    how: Any = (MemoryFrames(counts), experiment.scan, geometry)
    with pytest.raises(SolverError, match="411 MB are waves that a stage of DM stores; LSQML and ePIE store none"):
        Solver(*how, Recipe.parse("DM(1)"), memory_bytes=900 * MB)
    assert not Solver(*how, Recipe.parse("ePIE(1)"), memory_bytes=900 * MB).plan().keeps_waves


def test_a_large_batch_is_refused_by_its_name(experiment: Any) -> None:
    counts = np.broadcast_to(np.uint16(1), (49, 1024, 1024))
    geometry = type(experiment.geometry)(8800.0, 0.5, 55e-6, (1024, 1024))
    with pytest.raises(SolverError, match=r"use smaller batches \(batch=\.\.\.\)"):
        Solver(MemoryFrames(counts), experiment.scan, geometry, Recipe.parse("LSQML(1, batch=49)"), memory_bytes=1300 * MB)


def test_scattered_reading_is_told(experiment: Any) -> None:
    counts = np.broadcast_to(np.uint16(1), (49, 2048, 2048))
    geometry = type(experiment.geometry)(8800.0, 0.5, 55e-6, (2048, 2048))
    hinted = []
    for batches in ("sparse", "compact"):
        recipe = Recipe.parse(f'LSQML(1, batch=1, batches="{batches}")')
        solver = Solver(MemoryFrames(counts), experiment.scan, geometry, recipe)
        tight = Solver(MemoryFrames(counts), experiment.scan, geometry, recipe, memory_bytes=solver.plan().needed_bytes - 1).plan()
        assert tight.streams
        hinted.append('batches="compact" reads neighbours' in str(tight))
    assert hinted == [True, False]


@pytest.mark.parametrize(("kind", "size"), [(np.uint8, 2), (np.int16, 2), (np.uint16, 2), (np.uint32, 4), (np.float32, 4)])
def test_counts_are_planned_as_wide_as_they_may_become(experiment: Any, kind: Any, size: int) -> None:
    frames = MemoryFrames((experiment.frames.counts % 100).astype(kind))
    plan = Solver(frames, experiment.scan, experiment.geometry, Recipe.parse("ePIE(1)")).plan()
    assert plan.counts_bytes == 49 * 32 * 32 * size


class Two(OneRank):
    """One of two ranks that are alike."""

    size = 2


def test_memory_is_what_the_least_limit_leaves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = memory.memory_of_machine()
    assert memory_of_rank(OneRank(), 700 * MB) == 700 * MB
    assert memory_of_rank(Two(), 700 * MB) == 350 * MB
    assert memory_of_rank(OneRank()) <= 0.9 * machine
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "600")
    assert memory.memory_of_machine() == min(600 * 2**20, machine)
    monkeypatch.delenv("SLURM_MEM_PER_NODE")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (memory._address_space_now() + 2**28 + 100 * MB, -1))
    assert memory_of_rank(OneRank()) == pytest.approx(memory._resident_now() + 100 * MB, rel=0.05)


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/user/job\n", {"user/job/memory.max": "max", "user/memory.max": "400000000"}, 400_000_000),
        ("0::/\n", {"memory.max": "300000000"}, 300_000_000),
        ("5:cpu:/x\n4:memory:/job\n", {"memory/job/memory.limit_in_bytes": "200000000"}, 200_000_000),
        ("4:memory:/job\n", {"memory/job/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_limits_of_control_groups_are_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, groups: str, files: dict[str, str], limit: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    read = memory._text
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_text", lambda path: groups if path == Path("/proc/self/cgroup") else read(path))
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    found = list(memory._cgroup_limits())
    assert min(found, default=None) == limit


def _measured(folder: Path, frames: int, recipe: str, limit_mb: int = 0) -> dict[str, Any]:
    """What a run of its own process says about its memory; ``limit_mb``: addresses that it may take beyond those of its start."""
    path = folder / "frames.h5"
    if not path.exists():
        counts = np.random.default_rng(0).poisson(5, (200, 128, 128)).astype(np.uint16)
        with h5py.File(path, "w") as file:
            stored = file.create_dataset("counts", (frames, 128, 128), np.uint16, chunks=(1, 128, 128))
            for start in range(0, frames, 200):
                stored[start : start + 200] = counts[: frames - start]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(path), recipe, str(limit_mb)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.system
def test_data_larger_than_memory_stream(tmp_path: Path) -> None:
    """393 MB of frames under a limit (as of ``ulimit -v``) of 700 MB beyond the start, most of which is not used."""
    said = _measured(tmp_path, 12_000, "LSQML(1, batch=200)", limit_mb=700)
    assert said["streams"]
    assert said["peak_bytes"] < said["start_bytes"] + said["counts_bytes"]
    assert said["peak_bytes"] < said["needed_bytes"]


@pytest.mark.system
def test_a_run_in_memory_needs_little_more_than_counts_and_waves(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    _measured(tmp_path / "few", 60, "DM(2)")  # else what compiles the loops is measured
    said = _measured(tmp_path, 1500, "DM(2)")
    assert not said["streams"]
    assert said["peak_bytes"] < said["counts_bytes"] + said["waves_bytes"] + 350 * MB
    assert said["peak_bytes"] < said["needed_bytes"]


@pytest.mark.system
@pytest.mark.parametrize(
    "recipe",
    [
        "ML(1)",
        'LSQML(2, positions="gradient", positions_from=1)',
        'LSQML(2, positions="correlation", positions_from=1)',
        'AP(6, background="smooth", intensities="fitted")',
    ],
)
def test_no_more_waves_are_kept_than_the_plan_knows_of(tmp_path: Path, recipe: str) -> None:
    """Those of all frames would be 197 MB, more than there is between what is needed and what is said."""
    said = _measured(tmp_path, 1500, recipe)
    assert said["peak_bytes"] < said["needed_bytes"]
