"""Whether what a GPU gives is right: every verb and every algorithm beside the reference. Steps of ``python -m benchmarks.gpu``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_device import with_tests
from benchmarks.gpu_problem import geometry_of, made_up
from benchmarks.gpu_steps import Bench, Row
from ptyplugin.model import Geometry, MemoryFrames, Recipe, Scan
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.solver import Solver
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

#: Largest relative difference of object and probe after 10 iterations.
LIMIT = 1e-4
#: Not many iterations of mPIE with single frames: its momentum makes 4e-4 of what float32 rounds off in 10.
_EACH = (
    *("DM(10)", "DM(10, overlap_rounds=2, beta=0.8)", "RAAR(10)", "AP(10)", "AP(10, synchronise=2)", "LSQML(10)", "ML(10)"),
    *("ePIE(10)", "ePIE(10, batch=6)", "rPIE(10)", "mPIE(3)", "mPIE(10, batch=6)", 'LSQML(10, positions="gradient", positions_from=2)'),
)


def verbs(bench: Bench) -> None:
    """Each verb alone: the largest difference in units of what rounding allows (1 at most), and the names of those beyond."""
    with_tests()
    from verb_cases import Case, geometry_of

    cases: tuple[tuple[tuple[int, int], int, Any, bool], ...] = (
        *(((256, 256), 1, np.uint16, False), ((200, 200), 2, np.uint16, False), ((100, 100), 3, np.float32, False)),
        *(((64, 64), 2, np.uint16, True), ((65, 81), 2, np.float32, False), ((128, 192), 1, np.uint16, False)),
    )
    for shape, modes, kind, near_field in (((32, 32), 2, np.uint16, False),) if bench.small else cases:
        case, geometry = Case(shape, modes, 1, 1, kind), geometry_of(shape, near_field)
        judge = ReferenceVerbs(geometry)
        for scheme in ("S1",) if near_field else ("S3", "S1"):
            row: Row = {"shape": list(shape), "modes": modes, "counts": np.dtype(kind).name, "near_field": near_field, "scheme": scheme}
            bench.add(row | _beside(bench.verbs(scheme)(geometry), judge, case, geometry))


def _beside(do: Any, judge: Any, case: Any, geometry: Any) -> Row:
    from on_host import OnHost
    from verb_cases import EPS, distance, verb_results

    worst, beyond = 0.0, []
    for b in (case.b, case.one(4)):
        expected = verb_results(judge, case, b, geometry)
        for name, (value, terms) in verb_results(OnHost(do), case, b, geometry).items():
            off = distance(value, expected[name][0]) / (16 * EPS * np.sqrt(terms))
            worst = max(worst, off)
            beyond += [name] if not off <= 1 else []
    return {"worst": worst, "beyond": sorted(set(beyond)), "ok": not beyond}


def algorithms(bench: Bench) -> None:
    """Object and probe after 10 iterations beside the reference's, by both schemes."""
    side, frames = (32, 16) if bench.small else (64, 36)
    for recipe in _EACH[:1] + _EACH[8:9] if bench.small else _EACH:
        for modes, rest in ((2, 0.3),) if bench.small else ((1, 0.0), (2, 0.3)):
            expected = _solved(ReferenceVerbs, recipe, side, modes, frames, rest)
            for scheme in ("S3", "S1"):
                row: Row = {"recipe": recipe, "modes": modes, "rests": rest > 0, "scheme": scheme}
                try:
                    found = _solved(bench.verbs(scheme, 8), recipe, side, modes, frames, rest)
                    off = difference(found, expected)
                    bench.add(row | {"difference": off, "ok": off <= LIMIT})
                except Exception as error:  # the others are compared all the same
                    bench.add(row | {"failed": f"{type(error).__name__}: {error}", "ok": False})


def graphs(bench: Bench) -> None:
    """The same with sweeps recorded and not: the same bits are expected."""
    side, frames = (32, 16) if bench.small else (64, 36)
    for recipe in ("DM(8)", "RAAR(8)", "AP(8)", "ePIE(8)", "ePIE(8, batch=6)", "rPIE(8)", "mPIE(8)", "LSQML(8)")[
        : 1 if bench.small else None
    ]:
        with_graph, without = (_solved(bench.verbs("S3", 8, graph), recipe, side, 2, frames, 0.0) for graph in (True, False))
        off = difference(with_graph, without)
        bench.add({"recipe": recipe, "difference": off, "ok": off == 0})


def small_solver(
    verbs: Callable[[Any], Any],
    recipe: str,
    side: int,
    modes: int,
    frames: int,
    rest: float,
    ranks: Callable[[Geometry], Ranks] | None = None,
) -> Solver:
    """A small reconstruction. rest: px by which positions miss the pixels, at most; ranks: None: one"""
    problem = made_up(ReferenceVerbs, side, modes, frames, 2 * side)
    pixel = np.asarray(geometry_of(side).object_pixel_m)
    missed = rest * np.random.default_rng(2).uniform(-1, 1, problem.frames.corners.shape)
    scan = Scan((problem.frames.corners + missed) * pixel, np.arange(frames))
    counts = MemoryFrames(np.fft.fftshift(np.asarray(problem.frames.counts), axes=(1, 2)))
    how: dict[str, Any] = {"start_probe": problem.probe, "probe_modes": modes, "held_out": 0.0}
    how["ranks"] = ranks(problem.geometry) if ranks else None
    return Solver(counts, scan, problem.geometry, Recipe.parse(recipe), verbs=verbs, **how)


def _solved(*what: Any) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Object and probe of ``small_solver``."""
    solver = small_solver(*what)
    for _ in solver:
        pass
    return solver.object, solver.probe


def difference(found: Any, expected: Any) -> float:
    """Of two objects and probes, relative to the second: the larger one."""
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(found, expected, strict=True))
