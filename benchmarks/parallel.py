"""What a second thread and a second MPI rank gain, and that the image stays as good."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.problems import ROOT, Problem, simulated, simulated_file
from benchmarks.table import Table, verdict
from benchmarks.timing import cores, iteration_ms
from ptyplugin.model import Recipe, RecipeError
from ptyplugin.solvers import check_recipe

#: By algorithm: iterations whose phase errors are compared, and least gain over two ranks.
ALGORITHMS = {"DM": 1.75, "RAAR": 1.75, "AP": 1.75, "ML": 1.75, 'LSQML(batches="compact")': 1.75, "LSQML": 1.75, "ePIE": 1.5, "mPIE": 1.5}


def recipe_of(algorithm: str, iterations: int) -> Recipe | None:
    """So many iterations of an algorithm that may have options; None where this version does not have it."""
    name, _, options = algorithm.rstrip(")").partition("(")
    recipe = Recipe.parse(f"{name}({iterations}{', ' if options else ''}{options})")
    try:
        check_recipe(recipe)
    except RecipeError:
        return None
    return recipe


def run(quick: bool) -> list[Table]:
    """Threads, then ranks."""
    return [_threads(quick), _ranks(quick)]


def _threads(quick: bool) -> Table:
    problem, rounds = simulated("A"), 2 if quick else 8
    table = Table("A second thread: A, SciPy", ["algorithm", "1 thread, ms", "2 threads, ms", "gain", "gain by CPU", "limit"])
    table.notes.append(
        "Wall time per frame and iteration, medians of turns; gain by CPU: of the calling thread's CPU time, which is the wall time of a "
        "machine that nobody else uses."
    )
    if (os.cpu_count() or 1) < 2:
        table.notes.append("This machine has one core only: nothing to see.")
        return table
    for algorithm, limit in list(ALGORITHMS.items())[: 1 if quick else None]:
        recipe = recipe_of(algorithm, 1000)
        if recipe is None or algorithm in ("ePIE", "mPIE"):
            continue  # those of one frame after the other use one thread
        _threads_row(table, problem.some(60) if quick else problem, algorithm, recipe, rounds, limit)
    return table


def _threads_row(table: Table, problem: Problem, algorithm: str, recipe: Recipe, rounds: int, limit: float) -> None:
    going, wall, cpu = {}, {1: [], 2: []}, {1: [], 2: []}
    for threads in (1, 2):
        with cores(threads):
            going[threads] = problem.solver(recipe, fft="scipy")
        iteration_ms(going[threads], len(problem.counts), 1)
    for _ in range(rounds):
        for threads, solver in going.items():
            wall[threads] += iteration_ms(solver, len(problem.counts), 1, time.perf_counter)
            cpu[threads] += iteration_ms(solver, len(problem.counts), 1, time.thread_time)
    gains = [statistics.median(times[1]) / statistics.median(times[2]) for times in (wall, cpu)]
    table.add(algorithm, statistics.median(wall[1]), statistics.median(wall[2]), *gains, verdict(max(gains), limit, most=False))


def _ranks(quick: bool) -> Table:
    iterations = 4 if quick else 20
    columns = ["algorithm", "1 rank, ms", "2 ranks, ms", "gain", "rad, 1 rank", "rad, 2 ranks", "sweeps ratio", "limits"]
    table = Table(f"A second MPI rank: A, SciPy, 1 thread each, {iterations} iterations", columns)
    table.notes.append(
        "Wall time per frame and iteration, medians. Sweeps ratio: iterations with two ranks to the phase error that one rank has at the "
        "end (within 2 %), by those of one rank. Limits: gain; sweeps ratio <= 1.3."
    )
    mpiexec = Path(sys.executable).parent / "mpiexec"
    if not mpiexec.exists():
        table.notes.append("mpiexec is not installed: left out.")
        return table
    simulated_file("A")
    for algorithm, limit in list(ALGORITHMS.items())[: 1 if quick else None]:
        if recipe_of(algorithm, 1) is None:
            continue
        command = [
            str(mpiexec),
            "-n",
            "2",
            sys.executable,
            "-m",
            "benchmarks.two_ranks",
            algorithm,
            str(iterations),
            "60" if quick else "400",
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if "Error" in line][-1:]
            table.add(algorithm, f"FAILED: {''.join(said)[:160]}", *[None] * 6)
            continue
        one, two = json.loads(done.stdout.splitlines()[-1])
        gain, rad = one["ms"] / two["ms"], one["rad"][str(iterations)]
        needed = next((int(number) for number, error in two["rad"].items() if error <= 1.02 * rad), None)
        sweeps = None if needed is None else needed / iterations
        said = [verdict(gain, limit, most=False), verdict(sweeps, 1.3) if sweeps else "MISSED: not reached"]
        table.add(algorithm, one["ms"], two["ms"], gain, rad, two["rad"][str(iterations)], sweeps, "; ".join(said))
    return table
