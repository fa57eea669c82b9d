"""Other packages on the same data in the same run: ``python -m benchmarks.peers [PACKAGE ...]``, or ``make bench-peers``.

Each lives in an environment of its own under .peers, installed by pip the first time. They are only run, by the scripts of
../shared/bench; their code is neither read nor used. One thread. What cannot be installed says so.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.__main__ import RESULTS, head, machine
from benchmarks.convergence import FASTEST, course
from benchmarks.problems import ROOT, SHARED, Absent, simulated, simulated_file
from benchmarks.table import Table
from benchmarks.timing import floor_ms

HOME = ROOT / ".peers"
#: Longer than this no peer may take (s).
_PATIENCE_S = 1800


@dataclass(frozen=True)
class Peer:
    """How to install a package, in steps of pip, and what to run: (algorithm, iterations). No runner: why it is left out."""

    steps: tuple[str, ...]
    runner: str
    runs: tuple[tuple[str, int], ...]
    left_out: str = ""


PEERS = {
    "ptylab": Peer(("ptylab psutil",), "bench_ptylab", (("mPIE", 20), ("ePIE", 20))),
    "ptychi": Peer(
        (
            'torch==2.13.0 torchvision scikit-image scikit-learn pandas tqdm matplotlib h5py "pydantic>=2,<3" mpi4py mpich',
            "--no-deps ptychi",
        ),
        "bench_ptychi",
        (("LSQML", 10), ("DM", 5)),
    ),
    "ptypy": Peer((), "", (), "the package index does not have it: it is installed from its source tree, and there is no runner for it"),
}


def python_of(name: str, peer: Peer) -> Path:
    """The Python of a peer's environment, installed if need be.

    Raises:
        Absent: it cannot be installed; the text says why.
    """
    folder = HOME / name
    python = folder / "bin" / "python"
    if (folder / "installed").exists():
        return python
    _do([sys.executable, "-m", "venv", str(folder)], f"{name}: no environment could be made")
    for step in peer.steps:
        words = [word.strip('"') for word in step.split()]
        _do([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words], f"pip install {step} failed")
    (folder / "installed").touch()
    return python


def _do(command: list[str], failed: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise Absent(f"{failed}: {''.join(last)[:160]}")


def rows(table: Table, name: str) -> None:
    """A row for each run of a peer."""
    peer = PEERS[name]
    try:
        if peer.left_out:
            raise Absent(peer.left_out)
        if not _runner(peer).is_file():
            raise Absent(f"no {_runner(peer).relative_to(ROOT.parent)} beside the checkout")
        python = python_of(name, peer)
    except Absent as absent:
        table.add(name, f"left out: {absent}", *[None] * 5)
        return
    for algorithm, iterations in peer.runs:
        table.add(*_row(name, peer, python, algorithm, iterations))


def _row(name: str, peer: Peer, python: Path, algorithm: str, iterations: int) -> list[str | float | int | None]:
    command = [str(python), str(_runner(peer)), str(simulated_file("A")), algorithm, str(iterations)]
    before = _floor()
    environment = {**os.environ, "BENCH_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S, env=environment)
    except subprocess.TimeoutExpired:
        return [name, f"{algorithm} not done after {_PATIENCE_S} s", None, None, None, None, None]
    floor = (before + _floor()) / 2
    lines = [dict(re.findall(r"(\w+)= *([-+.\w]+)", line)) for line in done.stdout.splitlines() if "err_rad=" in line]
    if not lines:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        return [name, f"{algorithm} FAILED: {''.join(last)[:160]}", None, None, None, None, None]
    ms = 1e3 * float(lines[-1]["cpu_s"]) / 400
    errors = ", ".join(f"{line['it']}: {float(line['err_rad']):.4f}" for line in lines)
    return [name, algorithm, iterations, ms, ms / floor, float(lines[-1]["cpu_s"]) * iterations, errors]


def _runner(peer: Peer) -> Path:
    return SHARED / "bench" / f"{peer.runner}.py"


def _floor() -> float:
    return statistics.median(floor_ms("scipy", (128, 128)) for _ in range(5))


def main() -> None:
    """The table, printed and written to benchmarks/results/peers.json and .md."""
    known = machine()
    columns = ["package", "algorithm", "iterations", "ms per frame", "to the floor", "CPU s", "phase error (rad) at iteration"]
    table = Table("Peers on A, from the wrong start probe, 1 thread", columns)
    table.notes.append("CPU time per frame and iteration; floor: two transforms of SciPy, before and after each.")
    problem = simulated("A")
    ours = course(problem, FASTEST)
    last = max(ours.errors)
    shown = ", ".join(f"{number}: {ours.errors[number]:.4f}" for number in (4, 10, 20, last))
    ms = 1e3 * ours.seconds / last / len(problem.counts)
    table.add("ptyplugin", FASTEST, last, ms, ms / ours.floor_ms, ours.seconds, shown)
    for name in sys.argv[1:] or PEERS:
        if name not in PEERS:
            raise SystemExit(f"there is no peer {name!r}: there are {', '.join(PEERS)}")
        rows(table, name)
        print(table.markdown(), flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "peers.json").write_text(json.dumps({"machine": known, "table": table.json()}, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "peers.md").write_text(head(known) + "\n" + table.markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
