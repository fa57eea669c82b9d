"""AP with waves that are stored, and with waves that are recomputed since they do not fit: the same, in less memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ptyplugin.model import MemoryFrames, Recipe, SolverError
from ptyplugin.solvers import Solver
from ptyplugin.solvers.algorithms import algorithm_of
from ptyplugin.solvers.batches import Batches, RankFrames
from ptyplugin.solvers.ranks import OneRank
from ptyplugin.solvers.state import State, fill_waves
from ptyplugin.solvers.verbs.cpu import CpuVerbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

MB = 1_000_000


def solver_of(e: Any, recipe: str, **how: Any) -> Solver:
    given = {"start_probe": e.probe * np.exp(0.3j), "fft": "scipy"} | how
    return Solver(e.frames, e.scan, e.geometry, Recipe.parse(recipe), **given)


def tight(e: Any, recipe: str, **how: Any) -> Solver:
    """With a byte less than what is needed to store waves."""
    return solver_of(e, recipe, memory_bytes=solver_of(e, recipe, **how).plan().needed_bytes - 1, **how)


def both(e: Any, recipe: str, **how: Any) -> tuple[Solver, Solver]:
    """Stored and recomputed, to the end."""
    stored, recomputed = solver_of(e, recipe, **how), tight(e, recipe, **how)
    assert [each.plan().recomputes_waves for each in (stored, recomputed)] == [False, True]
    for each in (stored, recomputed):
        for _ in each:
            pass
    return stored, recomputed


CASES: Any = pytest.mark.parametrize(
    ("recipe", "what", "how"),
    [
        ("AP(5, probe_from=3, slack=0.2)", {}, {}),
        ("AP(5, overlap_rounds=2)", {}, {}),
        ("AP(4, overlap_rounds=2)", {"near_field": True, "photons": 1e6}, {}),
        ("AP(4)", {"modes": 2}, {"probe_modes": 2, "object_modes": 2}),
        ("AP(4)", {"substeps": 2}, {}),
        ('AP(6, positions="gradient", positions_from=2)', {}, {}),
    ],
    ids=["probe_from", "overlap_rounds", "near field", "modes", "sub-steps", "positions"],
)


@CASES
def test_waves_that_are_recomputed_are_the_same_bits(
    simulate: Callable[..., Any], recipe: str, what: dict[str, Any], how: dict[str, Any]
) -> None:
    stored, recomputed = both(simulate(side=24, grid=(4, 4), **what), recipe, verbs="reference", **how)
    np.testing.assert_array_equal(recomputed.object, stored.object)
    np.testing.assert_array_equal(recomputed.probe, stored.probe)


@CASES
def test_compiled_verbs_agree_too(simulate: Callable[..., Any], recipe: str, what: dict[str, Any], how: dict[str, Any]) -> None:
    stored, recomputed = both(simulate(side=24, grid=(4, 4), **what), recipe, **how)
    for mine, judge in ((recomputed.object, stored.object), (recomputed.probe, stored.probe)):
        assert np.linalg.norm(mine - judge) <= 1e-6 * np.linalg.norm(judge)


def test_less_memory_is_taken(simulate: Callable[..., Any]) -> None:
    e = simulate(side=64)
    peaks = []
    for solver in (solver_of(e, "AP(3)"), tight(e, "AP(3)")):
        next(solver)
        tracemalloc.start()
        try:
            next(solver)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    waves = len(e.frames) * 64 * 64 * 8
    assert peaks[1] < waves / 2  # those that are stored were there before
    assert tight(e, "AP(3)").plan().needed_bytes <= solver_of(e, "AP(3)").plan().needed_bytes - waves * 0.9


class Noting(OneRank):
    """Notes what ranks do together."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def sum(self, value: Any) -> Any:
        self.calls.append(getattr(value, "shape", "a number"))
        return super().sum(value)

    def sum_canvas(self, num: Any, den: Any, window: Any) -> Any:
        self.calls.append(("canvas", num.shape, den.shape))
        return super().sum_canvas(num, den, window)


@pytest.mark.parametrize("make", [ReferenceVerbs, lambda g: CpuVerbs(g, 2, "scipy")], ids=["reference", "cpu"])
def test_ranks_that_store_recompute_or_have_no_frames_meet_as_often(experiment: Any, make: Callable[..., Any]) -> None:
    do = make(experiment.geometry)
    corners, rests = experiment.corners[:5, None].astype(np.int32), np.zeros((5, 1, 2), np.float32)
    frames = RankFrames(np.arange(5), corners, rests, experiment.frames.counts[:5], np.ones((32, 32), bool))
    algorithm, options = algorithm_of(Recipe.parse("AP(1, overlap_rounds=2)").stages[0])
    noted = []
    for part, stores in ((frames, True), (frames, False), (frames.part(0, 0), True), (frames.part(0, 0), False)):
        image, probe = (X.astype(np.complex64) for X in (experiment.object[None], experiment.probe))
        state, batches = State(image, probe, np.zeros((0, 1, 32, 32), np.complex64), (slice(0, 60), slice(0, 60))), Batches(part, 3, 2)
        if stores:
            fill_waves(state, batches, do)
        ranks = Noting()
        total = algorithm.sweep(state, batches, do, ranks, options, 2).read()
        assert (total > 0) == (len(part) > 0)
        noted.append(ranks.calls)
    assert noted[0].count(("canvas", experiment.object[None].shape, experiment.object.shape)) == 2
    assert noted[1:] == noted[:1] * 3


def large(experiment: Any, recipe: str, memory_mb: int | None = None) -> Solver:
    """49 frames as if they had 1024 x 1024 px: 103 MB of counts, 411 MB of waves."""
    geometry = type(experiment.geometry)(8800.0, 0.5, 55e-6, (1024, 1024))
    frames = MemoryFrames(np.broadcast_to(np.uint16(1), (49, 1024, 1024)))
    memory = None if memory_mb is None else memory_mb * MB
    return Solver(frames, experiment.scan, geometry, Recipe.parse(recipe), memory_bytes=memory)


def test_the_plan_stores_waves_that_fit_then_recomputes_them_then_streams_counts(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptyplugin.solvers.solver._threads", lambda ranks: 1)
    needed = large(experiment, "AP(1)").plan().needed_bytes // MB
    whole, less = large(experiment, "AP(1)", needed + 1).plan(), large(experiment, "AP(1)", needed - 1).plan()
    assert (whole.keeps_waves, whole.recomputes_waves, whole.streams) == (True, False, False)
    assert "1 wave(s) per frame, stored" in str(whole)
    assert (less.keeps_waves, less.recomputes_waves, less.streams) == (False, True, False)
    assert "1 wave(s) per frame, waves recomputed, since they do not fit; counts in memory" in str(less)
    assert less.needed_bytes == whole.needed_bytes - whole.waves_bytes
    least = large(experiment, "AP(1)", less.needed_bytes // MB - 1).plan()
    assert (least.recomputes_waves, least.streams) == (True, True)


@pytest.mark.parametrize("recipe", ["AP(1, synchronise=2)", "DM(1)", "AP(1) + RAAR(1)"])
def test_what_needs_waves_is_refused_where_they_do_not_fit(experiment: Any, recipe: str) -> None:
    with pytest.raises(SolverError, match=r"411 MB are waves that a stage of .* stores; .* AP without synchronise recomputes them"):
        large(experiment, recipe, 900)
    assert large(experiment, "AP(1) + LSQML(1, batch=2)", 900).plan().recomputes_waves


def test_synchronised_frames_keep_their_waves(experiment: Any) -> None:
    solver = solver_of(experiment, "AP(2, synchronise=2)")
    assert solver.plan().keeps_waves
    next(solver)
    assert solver._there().state.waves.shape[0] > 40


@pytest.mark.parametrize(("before", "after"), [(solver_of, tight), (tight, solver_of), (tight, tight)])
def test_a_checkpoint_has_no_waves_and_goes_on_with_more_or_less_memory(experiment: Any, before: Any, after: Any) -> None:
    recipe = "AP(5, overlap_rounds=2)"
    first, second, whole = (make(experiment, recipe, verbs="reference") for make in (before, after, solver_of))
    for _ in range(2):
        next(first)
    kept = first.checkpoint()
    assert not len(kept.arrays["state.waves"])
    second.resume(kept)
    next(second)
    assert len(second._there().state.waves) == (0 if after is tight else len(second._there().way.frames))
    for each in (second, whole):
        for _ in each:
            pass
    np.testing.assert_array_equal(second.object, whole.object)
    result = second.result()
    assert result is not None
    assert result.provenance["resumed"] == ["after iteration 2"]


def test_a_stage_that_comes_later_is_planned_too(simulate: Callable[..., Any]) -> None:
    e = simulate(side=24, grid=(4, 4))
    solver = solver_of(e, "ePIE(1)", memory_bytes=tight(e, "AP(1)").plan().there_bytes)
    next(solver)
    assert not solver.plan().recomputes_waves
    solver.recipe = "ePIE(1) + AP(2)"
    next(solver)
    assert solver.plan().recomputes_waves
    assert not len(solver._there().state.waves)
