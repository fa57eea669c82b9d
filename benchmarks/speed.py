"""How fast an iteration of each algorithm is, on one thread, in ratio to the bare transforms of the same run."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.problems import Problem, simulated
from benchmarks.table import Table, verdict
from benchmarks.timing import REFERENCE_FLOOR_MS, beside_floor, libraries
from ptyplugin.model import Recipe, RecipeError
from ptyplugin.solvers import check_recipe


@dataclass(frozen=True)
class Limit:
    """Most that an iteration may take: ratios to the floor, for 1 and 3 modes by library; or ms on the reference machine."""

    ratios: dict[tuple[str, int], float] | None = None
    reference_ms: float | None = None

    def of(self, fft: str, modes: int) -> float | None:
        """As a ratio to the floor of 128 x 128 px."""
        if self.ratios is not None:
            return self.ratios.get((fft, modes))
        return None if modes > 1 or self.reference_ms is None else self.reference_ms / REFERENCE_FLOOR_MS[fft]


_PROJECTIONS = Limit({("scipy", 1): 2.2, ("pyfftw", 1): 2.4, ("scipy", 3): 1.9, ("pyfftw", 3): 1.9})
ALGORITHMS = {
    "DM": _PROJECTIONS,
    "RAAR": _PROJECTIONS,
    "AP": _PROJECTIONS,
    "ePIE": Limit(reference_ms=0.35),
    "mPIE": Limit(reference_ms=0.35),
    "LSQML": Limit(reference_ms=0.5),
    "ML": Limit(reference_ms=0.8),
}
#: ms per frame and iteration of peers on A, one thread, where two FFTs of SciPy took 0.12 ms.
_PEERS = {"DM": "PtyPy 0.92-1.08, pty-chi 4.5", "ePIE": "PtyLab 0.69, PtyPy 0.81", "mPIE": "PtyLab 0.64", "LSQML": "pty-chi 2.86"}
_PEERS |= {"RAAR": "PtyPy 1.02, pty-chi 7.7", "ML": "PtyPy 1.70"}


def run(quick: bool) -> list[Table]:
    """Tables for A with 1 and 3 modes, B, and C with its 3 modes."""
    tables = []
    for name, modes, algorithms in (
        ("A", 1, list(ALGORITHMS)),
        ("A", 3, ["DM", "LSQML"]),
        ("B", 1, ["DM", "LSQML"]),
        ("C", 3, ["DM", "ePIE", "LSQML"]),
    ):
        problem = simulated(name)
        tables.append(_table(problem.some(40) if quick else problem, modes, algorithms, 3 if quick or name == "B" else 7))
    return tables


def _table(problem: Problem, modes: int, algorithms: list[str], rounds: int) -> Table:
    rows, columns = problem.counts.shape[1:]
    table = Table(
        f"Time of an iteration: {problem.name}, {len(problem.counts)} frames of {rows} x {columns} px, {modes} mode(s), 1 thread",
        ["algorithm", "FFT", "ms per frame", "floor, ms", "ratio", "of minima", "limit", "peers, ms"],
        notes=["CPU time, medians; the first iteration (reading, compiling) and those that measure the error are left out."],
    )
    for algorithm in algorithms:
        for fft in libraries():
            _row(table, problem, algorithm, fft, modes, rounds)
    return table


def _row(table: Table, problem: Problem, algorithm: str, fft: str, modes: int, rounds: int) -> None:
    recipe = Recipe.parse(f"{algorithm}(1000)")
    try:
        check_recipe(recipe)
    except RecipeError:
        table.add(algorithm, fft, "not in this version", None, None, None, None, None)
        return
    count, shape = len(problem.counts), problem.counts.shape[1:]
    taken = beside_floor(lambda: problem.solver(recipe, probe_modes=modes, fft=fft), fft, shape, count, modes, rounds)
    limit = ALGORITHMS[algorithm].of(fft, modes) if shape[0] == 128 else None
    said = None if limit is None else verdict(taken.ratio, limit)
    peers = _PEERS.get(algorithm) if problem.name == "A" and modes == 1 else None
    table.add(algorithm, fft, taken.taken_ms, taken.floor_ms, taken.ratio, taken.least, said, peers)
