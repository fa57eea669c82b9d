"""The verbs for processors against the reference: each verb alone, whole sweeps, threads, and what is noted and done later."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from verb_cases import EPS, Case, distance, geometry_of, random, verb_results

from ptyplugin.model import Recipe
from ptyplugin.solvers import solve
from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cpu import CpuVerbs
from ptyplugin.solvers.verbs.cpu_fft import FftName
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

needs_pyfftw = pytest.mark.skipif(importlib.util.find_spec("pyfftw") is None, reason="pyFFTW is not installed (the extra [fast])")
LIBRARIES = ["scipy", pytest.param("pyfftw", marks=needs_pyfftw)]


@pytest.mark.parametrize("fft", LIBRARIES)
@pytest.mark.parametrize("near_field", [False, True], ids=["far", "near"])
@pytest.mark.parametrize(
    ("shape", "modes", "object_modes", "substeps", "threads", "kind"),
    [
        ((64, 64), 1, 1, 1, 1, np.uint16),
        ((64, 48), 3, 2, 2, 2, np.uint16),
        ((100, 100), 2, 1, 1, 2, np.float32),
        ((128, 128), 1, 1, 2, 2, np.uint16),
        ((192, 192), 1, 2, 1, 1, np.uint16),
        ((200, 200), 2, 1, 1, 2, np.uint16),
        ((256, 256), 1, 1, 1, 2, np.uint16),
        ((65, 81), 2, 2, 1, 2, np.float32),
    ],
)
def test_every_verb_agrees_with_the_reference(
    shape: tuple[int, int], modes: int, object_modes: int, substeps: int, threads: int, kind: Any, near_field: bool, fft: FftName
) -> None:
    case, geometry = Case(shape, modes, object_modes, substeps, kind), geometry_of(shape, near_field)
    mine, judge = CpuVerbs(geometry, threads, fft), ReferenceVerbs(geometry)
    for b in (case.b, case.one(0), case.one(4)):
        expected = verb_results(judge, case, b, geometry)
        for name, (value, terms) in verb_results(mine, case, b, geometry).items():
            assert distance(value, expected[name][0]) <= 16 * EPS * np.sqrt(terms), f"{name} of {len(b)} frames"


@pytest.mark.parametrize("fft", LIBRARIES)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("recipe", ["DM(10)", "DM(10, overlap_rounds=2, beta=0.8, slack=0.0)", "ePIE(10)", "rPIE(10, object_damping=0.3)"])
@pytest.mark.parametrize("what", [{}, {"modes": 2}, {"near_field": True, "photons": 1e6}, {"substeps": 2}], ids=str)
def test_sweeps_agree_with_the_reference_after_ten_iterations(
    simulate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, what: dict[str, Any], recipe: str, threads: int, fft: FftName
) -> None:
    monkeypatch.setattr("ptyplugin.solvers.verbs.cpu.best_fft", lambda: fft)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(threads)), raising=False)
    e = simulate(side=24, grid=(5, 5), **what)
    # A rough probe: the smooth one leaves pixels of the first waves dark, and there the phase is rounding, another one for each FFT.
    rough = e.probe * (1 + 0.3 * random(np.random.default_rng(0), *e.probe.shape))
    how = {"recipe": Recipe.parse(recipe), "start_probe": rough, "probe_modes": what.get("modes", 1)}
    mine, judge = (solve(e.frames, e.scan, e.geometry, verbs=verbs, **how) for verbs in ("cpu", "reference"))
    assert mine is not None
    assert judge is not None
    assert np.linalg.norm(mine.object - judge.object) <= 1e-4 * np.linalg.norm(judge.object)
    assert np.linalg.norm(mine.probe - judge.probe) <= 1e-4 * np.linalg.norm(judge.probe)
    for event, expected in zip(mine.progress, judge.progress, strict=True):
        assert event.errors == pytest.approx(expected.errors, rel=1e-3)


@pytest.mark.parametrize("fft", LIBRARIES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_threads_give_the_same_bits(
    simulate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, threads: int, fft: FftName
) -> None:
    monkeypatch.setattr("ptyplugin.solvers.verbs.cpu.best_fft", lambda: fft)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(threads)), raising=False)
    e = simulate(modes=2)
    first, second = (solve(e.frames, e.scan, e.geometry, recipe=Recipe.parse("DM(20)"), probe_modes=2) for _ in range(2))
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.object, second.object)
    np.testing.assert_array_equal(first.probe, second.probe)


@pytest.fixture(params=[1, 3], ids=["1 thread", "3 threads"])
def verbs(request: pytest.FixtureRequest) -> CpuVerbs:
    return CpuVerbs(geometry_of((20, 16), False), request.param, "scipy")


@pytest.fixture
def case() -> Case:
    return Case((20, 16), 2, 1, 1, np.uint16)


def test_waves_that_somebody_holds_outlive_their_program(verbs: CpuVerbs, case: Case) -> None:
    w = verbs.exit_waves(case.O, case.P, case.b)
    expected = ReferenceVerbs(geometry_of((20, 16), False)).exit_waves(case.O, case.P, case.b)
    verbs.clip_modulus(case.O, 0.5)
    assert distance(np.asarray(w), expected) < 16 * EPS
    num, den = verbs.sums(case.O)
    verbs.object_sums(num, den, w, case.P, case.b)
    verbs.finish()
    judge = np.zeros_like(num)
    ReferenceVerbs(geometry_of((20, 16), False)).object_sums(judge, np.zeros_like(den), expected, case.P, case.b)
    assert distance(num, judge) < 64 * EPS


def test_waves_whose_memory_was_reused_are_not_given_out(verbs: CpuVerbs, case: Case) -> None:
    w = verbs.exit_waves(case.O, case.P, case.b)
    verbs.to_detector(w, case.b)
    with pytest.raises(RuntimeError, match="gone"):
        np.asarray(w)


def test_a_step_that_needs_a_finished_sum_waits_for_it(verbs: CpuVerbs, case: Case) -> None:
    """Sums over all frames are used as an object at once: frame by frame it would be half a sum."""
    judge = ReferenceVerbs(geometry_of((20, 16), False))
    waves = []
    for do in (verbs, judge):
        num, den = do.sums(case.O)
        do.object_sums(num, den, case.psi, case.P, case.b)
        psi = case.psi.copy()
        do.advance(psi, do.exit_waves(num, case.P, case.b), num, case.P, case.b, 0.5, 1, 1)
        do.probe_sums(np.zeros_like(case.P), np.zeros(case.b.good.shape, np.float32), psi, num, case.b)
        do.finish()
        waves.append(psi)
    assert distance(*waves) < 64 * EPS


def test_frames_of_another_batch_and_another_order_are_other_frames(verbs: CpuVerbs, case: Case) -> None:
    judge = ReferenceVerbs(geometry_of((20, 16), False))
    halves = [
        Batch(index, case.b.corners[index], case.b.rests[index], case.b.counts[index], case.b.good) for index in (slice(0, 2), slice(2, 5))
    ]
    results = []
    for do in (verbs, judge):
        psi, residual = case.psi.copy(), do.zero()
        num, den = do.sums(case.O)
        for b in halves:
            A = do.to_detector(do.reflect(psi[b.index], case.O, case.P, b, 2, -1), b)
            residual += do.onto_modulus(A, b, 0.5)
            do.advance(psi[b.index], do.to_sample(A, b), case.O, case.P, b, 1, 1, -1)
        do.advance(psi, psi[::-1], case.O, case.P, case.b, 1, 0, 1)
        for b in halves:
            do.object_sums(num, den, psi[b.index], case.P, b)
        total = residual.read()
        do.finish()
        results.append((num, den, np.asarray(total)))
    for mine, expected in zip(*results, strict=True):
        assert distance(mine, expected) < 2000 * EPS


def test_what_is_not_finite_is_seen(verbs: CpuVerbs, case: Case) -> None:
    case.P[0, 3, 3] = np.nan
    for b in (case.b, case.one(1)):
        residual = verbs.modulus_residual(verbs.to_detector(verbs.exit_waves(case.O, case.P, b), b), b)
        assert np.isnan(residual.read())
    O = case.O.copy()
    O[0, 2, 2] = np.nan + 1j
    verbs.clip_modulus(O, 1.0)
    assert np.isnan(O[0, 2, 2])


def test_an_error_in_a_thread_is_raised(verbs: CpuVerbs, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(w: Any) -> None:
        raise MemoryError("no more")

    for thread in verbs._crew.threads:
        monkeypatch.setattr(thread.fft, "forward", broken, raising=True)
    total = verbs.zero() + verbs.modulus_residual(verbs.to_detector(verbs.exit_waves(case.O, case.P, case.b), case.b), case.b)
    with pytest.raises(MemoryError, match="no more"):
        total.read()


def test_an_empty_batch_changes_nothing(verbs: CpuVerbs, case: Case) -> None:
    none = slice(5, 5)
    b = Batch(none, case.b.corners[none], case.b.rests[none], case.b.counts[none], case.b.good)
    O, P = case.O.copy(), case.P.copy()
    A = verbs.to_detector(verbs.exit_waves(O, P, b), b)
    assert verbs.onto_modulus(A, b, 0).read() == 0
    w = verbs.reflect(verbs.to_sample(A, b), O, P, b, -1, 1)
    verbs.object_step(O, P, w, b, 1, 1)
    verbs.probe_step(P, verbs.cut(O, b), w, b, 1, 1)
    num, den = verbs.sums(O)
    verbs.object_sums(num, den, w, P, b)
    verbs.finish()
    np.testing.assert_array_equal(O, case.O)
    np.testing.assert_array_equal(P, case.P)
    assert not num.any()
    assert not den.any()


def test_importing_the_solvers_compiles_nothing() -> None:
    code = "import sys, ptyplugin.solvers; sys.exit('numba' in sys.modules or 'pyfftw' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
