"""Whole reconstructions by the kernels for GPUs, on the CPU: against the reference, recorded or not, resident or streamed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from shim import HostDevice

from ptyplugin.model import Geometry, Recipe
from ptyplugin.solvers.algorithms import _ALGORITHMS, pie
from ptyplugin.solvers.solver import Solver
from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs

CudaFactory = Callable[[Geometry], CudaVerbs]
RECIPES = [
    "DM(10)",
    "DM(6, overlap_rounds=2, synchronise=3)",
    "RAAR(10)",
    "AP(10)",
    "ePIE(3)",
    "rPIE(6, batch=5)",
    "mPIE(6, batch=9, parts=2)",
    "LSQML(6)",
    'LSQML(6, noise="poisson", batches="compact")',
    "ML(6)",
]


def rough(probe: NDArray[Any]) -> NDArray[Any]:
    """The smooth probe leaves pixels of the first waves dark, and there the phase is rounding."""
    rng = np.random.default_rng(0)
    return probe * (1 + 0.3 * (rng.standard_normal(probe.shape) + 1j * rng.standard_normal(probe.shape)))


def solved(e: Any, recipe: str, verbs: Any, **how: Any) -> Solver:
    solver = Solver(e.frames, e.scan, e.geometry, Recipe.parse(recipe), verbs=verbs, start_probe=rough(e.probe), **how)
    for _ in solver:
        pass
    return solver


def cuda(device: HostDevice, **settings: Any) -> CudaFactory:
    """Verbs on ``device``: fused; and what is set after that."""

    def make(geometry: Geometry) -> CudaVerbs:
        verbs = CudaVerbs(geometry, device, fused=settings.get("fused", True))
        for name in ("records", "batch_bytes", "counts_bytes", "atomics"):
            if name in settings:
                setattr(verbs, name, settings[name])
        return verbs

    return make


def agree(mine: Solver, judge: Solver) -> None:
    for one, other in ((mine.object, judge.object), (mine.probe, judge.probe)):
        assert np.linalg.norm(one - other) <= 1e-4 * np.linalg.norm(other)
    first, second = mine.result(), judge.result()
    assert first is not None
    assert second is not None
    assert first.quality["error"] == pytest.approx(second.quality["error"], rel=1e-3)
    assert first.verdict.word == second.verdict.word


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_algorithm_agrees_with_the_reference(simulate: Callable[..., Any], device: HostDevice, recipe: str) -> None:
    e = simulate(side=24, grid=(5, 5))
    agree(solved(e, recipe, cuda(device)), solved(e, recipe, "reference"))


@pytest.mark.parametrize("fused", [False, True], ids=["S1", "S3"])
@pytest.mark.parametrize("recipe", ["DM(6)", "mPIE(3, batch=6)", "LSQML(4)"])
@pytest.mark.parametrize(
    ("what", "how"),
    [
        ({"modes": 2}, {"probe_modes": 2, "object_modes": 2}),
        ({"near_field": True, "photons": 1e6}, {}),
        ({"substeps": 2}, {}),
    ],
    ids=["modes", "near field", "sub-steps"],
)
def test_models_agree_with_the_reference(
    simulate: Callable[..., Any], device: HostDevice, recipe: str, what: dict[str, Any], how: dict[str, Any], fused: bool
) -> None:
    e = simulate(side=24, grid=(4, 4), **what)
    agree(solved(e, recipe, cuda(device, fused=fused), **how), solved(e, recipe, "reference", **how))


def recomputed(e: Any, recipe: str, verbs: Any, **how: Any) -> Solver:
    """To the end, without stored waves."""
    solver = Solver(e.frames, e.scan, e.geometry, Recipe.parse(recipe), verbs=verbs, start_probe=rough(e.probe), **how)
    next(solver)
    solver._there().way.recomputes_waves = True
    solver.recipe = f"{recipe} + {recipe}"
    for _ in solver:
        pass
    return solver


@pytest.mark.parametrize("fused", [False, True], ids=["S1", "S3"])
@pytest.mark.parametrize(
    ("options", "what", "how"),
    [
        ("probe_from=2, slack=0.2", {}, {}),
        ("overlap_rounds=2", {"modes": 2}, {"probe_modes": 2, "object_modes": 2}),
        ("overlap_rounds=2", {"near_field": True, "photons": 1e6}, {}),
        ('positions="gradient", positions_from=2', {"substeps": 2}, {}),
    ],
    ids=["one round", "modes", "near field", "sub-steps"],
)
def test_recomputed_waves_agree_with_stored_ones(
    simulate: Callable[..., Any], options: str, what: dict[str, Any], how: dict[str, Any], fused: bool
) -> None:
    e = simulate(side=24, grid=(4, 4), **what)
    block = {"batch_bytes": 5 * 8 * 24 * 24, "fused": fused}
    stored = solved(e, f"AP(3, {options}) + AP(3, {options})", cuda(HostDevice(), **block), **how)
    mine = recomputed(e, f"AP(3, {options})", cuda(HostDevice(), **block), **how)
    for one, other in ((mine.object, stored.object), (mine.probe, stored.probe)):
        assert np.linalg.norm(one - other) <= 1e-6 * np.linalg.norm(other)


def test_a_recorded_sweep_with_recomputed_waves_gives_the_same_bits(simulate: Callable[..., Any]) -> None:
    e = simulate(side=24, grid=(4, 4))
    mine, judge = (recomputed(e, "AP(4)", cuda(HostDevice(), records=records)) for records in (True, False))
    np.testing.assert_array_equal(mine.object, judge.object)
    np.testing.assert_array_equal(mine.probe, judge.probe)


@pytest.mark.parametrize("recipe", ["DM(5)", "RAAR(5)", "AP(5)", "ePIE(5)", "mPIE(5, batch=5)", "LSQML(5)"])
def test_a_recorded_sweep_gives_the_same_bits(simulate: Callable[..., Any], recipe: str) -> None:
    e = simulate(side=24, grid=(4, 4))
    mine, judge = (solved(e, recipe, cuda(HostDevice(), records=records)) for records in (True, False))
    np.testing.assert_array_equal(mine.object, judge.object)
    np.testing.assert_array_equal(mine.probe, judge.probe)


def test_a_sweep_as_it_comes_one_that_is_recorded_and_one_that_is_done_again(
    simulate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shortest run that has all three: test_sanitized.py has it done under AddressSanitizer."""
    e, device, done = simulate(side=24, grid=(4, 4)), HostDevice(), []
    record = device.record

    def noted(run: Callable[[], Any]) -> Any:
        replay, given = record(run)
        done.append("recorded")
        return lambda: done.append("again") or replay(), given

    monkeypatch.setattr(device, "record", noted)
    assert np.isfinite(solved(e, "mPIE(3, batch=5)", cuda(device)).object).all()
    assert done == ["recorded", "again"]


@pytest.mark.parametrize("options", ["", ", batch=5", ", batch=5, probe_from=3"])
def test_a_recorded_sweep_is_done_again_with_steps_of_another_length(
    simulate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    e, device = simulate(side=24, grid=(4, 4)), HostDevice()
    asked: list[int] = []
    sweep = pie.sweep
    algorithm = replace(_ALGORITHMS["mPIE"], sweep=lambda *how: asked.append(how[-1]) or sweep(*how))
    recipe = f"mPIE(7, slow_from=2{options})"
    judge = solved(e, recipe, cuda(HostDevice(), records=False))
    longer = solved(e, recipe.replace("slow_from=2", "slow_from=7"), cuda(HostDevice()))
    monkeypatch.setitem(_ALGORITHMS, "mPIE", algorithm)
    mine = solved(e, recipe, cuda(device))
    assert len(asked) == (4 if "probe_from" in options else 2)  # two of each phase; all others were done again
    np.testing.assert_array_equal(mine.object, judge.object)
    np.testing.assert_array_equal(mine.probe, judge.probe)
    assert np.linalg.norm(mine.object - longer.object) > 1e-3 * np.linalg.norm(longer.object)


def test_long_runs_of_shrinking_steps_agree_with_the_reference(simulate: Callable[..., Any], device: HostDevice) -> None:
    e = simulate(side=24, grid=(5, 5))
    recipe = "mPIE(8, batch=6, slow_from=3)"
    agree(solved(e, recipe, cuda(device)), solved(e, recipe, "reference"))


@pytest.mark.parametrize("recipe", ["DM(4)", "mPIE(4)", "LSQML(4)", "ML(3)"])
def test_streamed_counts_give_the_same_bits(simulate: Callable[..., Any], recipe: str) -> None:
    e = simulate(side=24, grid=(5, 5))
    frame = 24 * 24
    block = {"batch_bytes": 4 * 8 * frame}
    mine = solved(e, recipe, cuda(HostDevice(), counts_bytes=9 * 2 * frame, **block))
    judge = solved(e, recipe, cuda(HostDevice(), **block))
    np.testing.assert_array_equal(mine.object, judge.object)
    np.testing.assert_array_equal(mine.probe, judge.probe)


@pytest.mark.parametrize(
    "refined",
    [
        'positions="gradient", positions_from=2',
        'positions="correlation", positions_from=2',
        'positions="trials", positions_from=2',
        'background="smooth", intensities="fitted"',
        "probe_support=0.8, centre_probe=2",
        'probe="fixed"',
    ],
)
def test_refinements_agree_with_the_reference(simulate: Callable[..., Any], device: HostDevice, refined: str) -> None:
    """Tables on the device are brought up to date between sweeps that are done again."""
    e = simulate(side=24, grid=(5, 5))
    recipe = f"LSQML(6, {refined})"
    agree(solved(e, recipe, cuda(device)), solved(e, recipe, "reference"))


def test_three_kernels_do_a_batch_of_waves(simulate: Callable[..., Any], device: HostDevice) -> None:
    e = simulate(side=24, grid=(4, 4))
    solved(e, "DM(5)", cuda(device))
    launches = device.launches
    assert [launches[f"fused_{kernel}"] for kernel in ("rows", "columns", "finish")] == [5, 5, 5]
    assert launches["object_sums"] >= 5


@pytest.mark.parametrize("recipe", ["DM(4)", "LSQML(4)"])
def test_atomic_sums_agree_with_the_reference(simulate: Callable[..., Any], device: HostDevice, recipe: str) -> None:
    e = simulate(side=24, grid=(4, 4), substeps=2)
    agree(solved(e, recipe, cuda(device, atomics=True)), solved(e, recipe, "reference"))
    assert device.launches["scatter"]
    assert not device.launches["object_sums"]


@pytest.mark.parametrize("recipe", ["DM(4)", "mPIE(3)", "ML(4)", 'LSQML(6, positions="gradient", positions_from=1)'])
def test_what_goes_on_from_a_checkpoint_ends_with_the_same_bits(simulate: Callable[..., Any], recipe: str) -> None:
    e = simulate(side=24, grid=(4, 4))

    def solver() -> Solver:
        return Solver(e.frames, e.scan, e.geometry, Recipe.parse(recipe), verbs=cuda(HostDevice()), start_probe=e.probe)

    first, second, whole = solver(), solver(), solver()
    for progress in first:
        if progress.iteration == 2:
            break
    second.resume(first.checkpoint())
    for each in (second, whole):
        for _ in each:
            pass
    np.testing.assert_array_equal(second.object, whole.object)
    np.testing.assert_array_equal(second.probe, whole.probe)
