"""Steps of ``python -m benchmarks.gpu`` that other programs do: two ranks, compute-sanitizer, a profiler, pty-chi."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.gpu_device import ROOT
from benchmarks.gpu_problem import iteration_ms
from benchmarks.gpu_steps import Bench, Row

#: Where NVIDIA's tools lie if they are not on the PATH.
_TOOLS = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-compute")
_READ, _WRITTEN, _TAKEN = "dram__bytes_read.sum", "dram__bytes_write.sum", "gpu__time_duration.sum"


def tests(bench: Bench) -> None:
    """tests/gpu: every verb and algorithm once more, in more ways."""
    wanted = ("pytest", "pytest_timeout", "h5py")
    absent = [name for name in wanted if importlib.util.find_spec(name) is None]
    if bench.shim or absent:
        bench.add({"left_out": f"{' and '.join(absent)} missing" if absent else "they need a GPU"})
        return
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=line", "-W", "default", "tests/gpu"]
    try:
        done = _done(command, bench.left())
        bench.add({"ok": done.returncode == 0, "end": _end(done.stdout)})
    except subprocess.TimeoutExpired as late:
        bench.add({"out_of_time": True, "end": _end(late.stdout)})


def ranks(bench: Bench) -> None:
    """Two ranks on one card beside one rank: the difference after 10 iterations. Its time means nothing: they share a card and the host."""
    launcher = _tool("mpiexec", (str(Path(sys.executable).parent),))
    if importlib.util.find_spec("mpi4py") is None or not launcher:
        bench.add({"left_out": f"{'mpiexec' if importlib.util.find_spec('mpi4py') else 'mpi4py'} is missing: pip install mpi4py mpich"})
        return
    command = [launcher, "-n", "2", sys.executable, "-m", "benchmarks.gpu_ranks", *(["--shim"] if bench.shim else [])]
    done = _done(command, bench.left())
    bench.add(json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": _end_of(done)})


def sanitizer(bench: Bench) -> None:
    """Every algorithm under compute-sanitizer: wrong addresses, and races in shared memory."""
    found = _tool("compute-sanitizer", _TOOLS)
    if not found:
        bench.add({"left_out": "compute-sanitizer is not installed"})
        return
    for tool in ("memcheck", "racecheck"):
        command = [found, "--tool", tool, "--error-exitcode", "9", *_step("small")]
        try:
            done = _done(command, bench.left() / 2 if tool == "memcheck" else bench.left())
        except subprocess.TimeoutExpired as late:
            bench.add({"tool": tool, "out_of_time": True, "end": _end(late.stdout)})
            continue
        summary = [line for line in done.stdout.splitlines() if "SUMMARY" in line]
        bench.add({"tool": tool, "ok": done.returncode == 0, "end": " ".join(summary) or _end_of(done)})


def profiler(bench: Bench) -> None:
    """Bytes that each kernel of a difference map moves through memory, per pixel, as the hardware counts them."""
    found = _tool("ncu", _TOOLS)
    if not found:
        bench.add({"left_out": "ncu (Nsight Compute) is not installed"})
        return
    metrics = ",".join((_READ, _WRITTEN, _TAKEN))
    options = ["--csv", "--print-units", "base", "--metrics", metrics, "--clock-control", "none", "--target-processes", "application-only"]
    done = _done([found, *options, *_step("profiled")], bench.left())
    if done.returncode:
        bench.add({"failed": _end_of(done)})
    for row in launches_of(done.stdout):
        bench.add(row)


def launches_of(output: str) -> list[Row]:
    """What ncu says of each kernel: launches, and means of one."""
    lines = output.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in csv.DictReader(lines[first:]):
        if line.get("Metric Name") and line.get("Metric Value"):
            values[line["Kernel Name"]][line["Metric Name"]].append(float(line["Metric Value"].replace(",", "")))
    names = {"read_bytes": _READ, "written_bytes": _WRITTEN, "ns": _TAKEN}
    return [
        {"kernel": kernel, "launches": len(said[_TAKEN]), **{name: sum(said[key]) / max(len(said[key]), 1) for name, key in names.items()}}
        for kernel, said in values.items()
    ]


def peers(bench: Bench) -> None:
    """pty-chi's difference map beside ours: the same frames, sizes and modes."""
    if importlib.util.find_spec("ptychi") is None or importlib.util.find_spec("torch") is None:
        bench.add({"left_out": "ptychi is missing: pip install --no-deps ptychi, beside torch"})
        return
    for side, modes in ((256, 1), (200, 5)):
        problem = bench.problem(side, modes)
        row: Row = {"side": side, "modes": modes, "frames": len(problem.frames)}
        ours = iteration_ms(problem.walk("DM(1000)", bench.verbs()(problem.geometry)), bench.device, 3)
        theirs = _ptychi_ms(problem, 2 if bench.small else 4)
        bench.add(row | {"ms": ours, "ptychi_ms": theirs, "ratio": theirs / ours})


def _ptychi_ms(problem: Any, rounds: int) -> float:
    """ms per iteration of pty-chi's difference map on the same GPU; the API is that of its documentation."""
    import statistics
    import time

    import numpy as np
    import ptychi.api as api
    import torch
    from ptychi.api.task import PtychographyTask

    options = api.DMOptions()
    how = options.reconstructor_options
    how.default_device, how.num_epochs, how.allow_nondeterministic_algorithms = api.Devices.GPU, 1000, True
    how.chunk_length = 256
    options.object_options.optimizable = options.probe_options.optimizable = True
    options.object_options.pixel_size_m = float(problem.geometry.object_pixel_m[0])
    options.probe_position_options.optimizable = False
    shape = problem.object_shape
    centres = problem.frames.corners[:, 0] + np.array(problem.frames.good.shape) / 2 - np.array(shape) / 2
    task = PtychographyTask(
        options,
        diffraction_data=np.fft.fftshift(np.asarray(problem.frames.counts), axes=(1, 2)),
        object_data=np.ones((1, *shape), np.complex64),
        probe_data=problem.probe[None].astype(np.complex64),
        probe_position_x_px=centres[:, 1].astype(np.float32),
        probe_position_y_px=centres[:, 0].astype(np.float32),
    )
    times = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        began = time.perf_counter()
        task.run(1)
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times[1:])


def _tool(name: str, folders: tuple[str, ...]) -> str:
    """A program on the PATH or in one of the folders; nothing if it is not there."""
    beside = (str(path) for folder in folders for path in (Path(folder) / name, *sorted(Path(folder).glob(f"*/{name}"))) if path.is_file())
    return shutil.which(name) or next(beside, "")


def _step(name: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.gpu", "--step", name]


def _done(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=max(seconds, 1))


def _end_of(done: subprocess.CompletedProcess[str]) -> str:
    return _end(done.stdout) + _end(done.stderr)


def _end(text: str | bytes | None) -> str:
    return (text.decode(errors="replace") if isinstance(text, bytes) else text or "")[-1500:]
