"""ePIE, rPIE and mPIE: their verbs, batches, momentum, ranks, and what they reach."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments import run
from numpy.typing import NDArray

from ptyplugin.model import Geometry, Recipe, RecipeError
from ptyplugin.solvers import check_recipe
from ptyplugin.solvers.algorithms import pie
from ptyplugin.solvers.batches import Batch, RankFrames, in_random_batches
from ptyplugin.solvers.verbs.cpu import CpuVerbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

GEOMETRY = Geometry(8000.0, 1.0, 75e-6, (24, 20))


def wrong_probe(experiment: Any) -> NDArray[Any]:
    k = np.arange(32) - 16
    return np.asarray(experiment.probe * np.exp(0.01j * (k[:, None] ** 2 + k[None, :] ** 2)))


def random(rng: np.random.Generator, *shape: int) -> NDArray[np.complex64]:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def frames_of(count: int) -> RankFrames:
    corners = np.zeros((count, 1, 2), np.int32)
    counts = np.arange(count, dtype=np.uint16)[:, None, None] * np.ones((1, 8, 8), np.uint16)
    return RankFrames(np.arange(count), corners, corners.astype(np.float32), counts, np.ones((8, 8), bool))


@pytest.mark.parametrize("do", [ReferenceVerbs(GEOMETRY), CpuVerbs(GEOMETRY, 1, "scipy")], ids=["reference", "cpu"])
def test_momentum_is_what_its_equation_says(do: Any) -> None:
    rng = np.random.default_rng(1)
    X, velocity = random(rng, 2, 30, 31), random(rng, 2, 30, 31)
    before = do.copy(X)
    X += 0.1
    v = 0.7 * velocity + 0.1
    expected = X + 0.7 * v
    do.momentum(X, before, velocity, 0.7)
    for mine, right in ((velocity, v), (X, expected), (before, expected)):
        np.testing.assert_allclose(mine, right, atol=1e-6)


@pytest.mark.parametrize("do", [ReferenceVerbs(GEOMETRY), CpuVerbs(GEOMETRY, 2, "scipy")], ids=["reference", "cpu"])
@pytest.mark.parametrize("damping", [1.0, 0.2])
def test_a_batch_steps_by_the_light_of_all_its_frames(do: Any, damping: float) -> None:
    """By its definition, in plain loops."""
    rng = np.random.default_rng(2)
    O, P, d = random(rng, 1, 40, 36), random(rng, 2, 24, 20), random(rng, 3, 2, 24, 20)
    corners = np.array([[[0, 0]], [[5, 9]], [[16, 16]]], np.int32)
    b = Batch(np.arange(3), corners, np.zeros((3, 1, 2), np.float32), np.ones((3, 24, 20), np.uint16), np.ones((24, 20), bool))
    light, change = np.zeros((40, 36)), np.zeros((40, 36), complex)
    for (y, x), waves in zip(corners[:, 0], d, strict=True):
        light[y : y + 24, x : x + 20] += (np.abs(P) ** 2).sum(axis=0)
        change[y : y + 24, x : x + 20] += (P.conj() * waves).sum(axis=0)
    expected = O[0] + 0.6 * change / ((1 - damping) * light + damping * light.max())
    do.object_step(O, P, d, b, 0.6, damping)
    do.finish()
    np.testing.assert_allclose(O[0], expected, atol=2e-5)


def test_random_batches_hold_every_frame_once() -> None:
    for size, most in ((1, 11), (4, 11), (20, 11)):
        batches = in_random_batches(frames_of(11), size, most, (1, 2))
        counts = [np.unique(b.counts) for b in batches]
        np.testing.assert_array_equal(np.sort(np.concatenate(counts)), np.arange(11))
        assert max(map(len, counts)) == min(size, 11)
        again, other = (in_random_batches(frames_of(11), size, most, (1, seed)) for seed in (2, 3))
        assert all((np.unique(b.counts) == one).all() for b, one in zip(again, counts, strict=True))
        if size < 11:
            assert any(np.unique(b.counts).tolist() != one.tolist() for b, one in zip(other, counts, strict=True))


@pytest.mark.parametrize("count", [1, 3, 4, 100])
def test_parts_are_the_same_batches_and_as_many_on_every_rank(count: int) -> None:
    ranks = [in_random_batches(frames_of(frames), 3, 11, (1, 2)) for frames in (11, 5, 0)]
    for batches in ranks:
        parts = [list(part) for part in batches.parts(count)]
        assert len(parts) == min(count, 4)
        assert [len(b) for part in parts for b in part] == [len(b) for b in batches]
        assert min(map(len, parts)) >= 1


def test_rpie_and_mpie_are_faster_than_epie(experiment: Any) -> None:
    """On the way from a wrong start probe."""
    errors = [run(experiment, f"{name}(8)", start_probe=wrong_probe(experiment)).quality["error"] for name in ("ePIE", "rPIE", "mPIE")]
    assert max(errors[1:]) < 0.8 * errors[0]


@pytest.mark.parametrize("recipe", ["rPIE(60)", "mPIE(60)", "mPIE(60, batch=7, object_step=0.5, probe_step=1.0)", "ePIE(60, batch=3)"])
def test_they_find_the_sample(experiment: Any, recipe: str) -> None:
    result = run(experiment, recipe, start_probe=wrong_probe(experiment))
    assert result.quality["error"] < 0.0035
    assert experiment.phase_rms(result.object[0], result.positions_px) < 0.06


def test_modes_and_substeps_in_batches(simulate: Callable[..., Any]) -> None:
    experiment = simulate(modes=2, substeps=2, photons=1e6)
    single, batch = (run(experiment, f"mPIE(40, batch={size})", probe_modes=2).quality["error"] for size in (1, 6))
    assert single < 0.002
    assert batch < 0.004


@pytest.mark.parametrize("recipe", ["mPIE(4)", "mPIE(4, batch=5)"])
def test_the_compiled_verbs_and_the_reference_agree(simulate: Callable[..., Any], recipe: str) -> None:
    e = simulate(side=24, grid=(5, 5))
    # A rough probe: the smooth one leaves pixels of the first waves dark, and there the phase is rounding.
    rough = e.probe * (1 + 0.3 * random(np.random.default_rng(0), *e.probe.shape))
    mine, judge = (run(e, recipe, start_probe=rough, verbs=verbs).object for verbs in ("cpu", "reference"))
    assert np.linalg.norm(mine - judge) < 1e-4 * np.linalg.norm(judge)


def test_steps_shrink_and_noise_averages(simulate: Callable[..., Any]) -> None:
    experiment = simulate(photons=3e3)
    restless, settled = (run(experiment, f"mPIE(60, slow_from={first})", start_probe=experiment.probe) for first in (1000, 10))
    assert settled.quality["error"] < 0.97 * restless.quality["error"]
    assert experiment.phase_rms(settled.object[0], settled.positions_px) < experiment.phase_rms(restless.object[0], restless.positions_px)


def test_nothing_runs_away_in_weak_light_over_many_sweeps(simulate: Callable[..., Any]) -> None:
    experiment = simulate(side=24, grid=(5, 5), photons=2e3)
    for name in ("ePIE", "rPIE", "mPIE"):
        result = run(experiment, f"{name}(120)", probe_modes=2)
        errors = [event.errors["error"] for event in result.progress if "error" in event.errors]
        assert errors[-1] < 1.1 * min(errors)
        assert np.abs(result.object).max() <= 2.5


def test_what_epie_has_no_need_of_is_no_option_of_it() -> None:
    for wrong in ("ePIE(1, friction=0.5)", "ePIE(1, object_damping=0.5)", "rPIE(1, friction=0.5)"):
        with pytest.raises(RecipeError, match="has no option"):
            check_recipe(Recipe.parse(wrong))
    check_recipe(Recipe.parse("mPIE(1, friction=0.5, object_damping=0.5, probe_damping=0.5, batch=4, parts=2)"))


def test_the_page_knows_their_options() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "recipe.md").read_text(encoding="utf-8")
    page = page.partition("## ePIE, rPIE, mPIE")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|" + 3 * r" *([\d.]*) *\|", page, re.MULTILINE)
    for column, kind in enumerate((pie.EpieOptions, pie.RpieOptions, pie.MpieOptions), start=1):
        shown = {row[0]: float(row[column]) for row in rows if row[column]}
        assert shown == {field.name: field.default for field in dataclasses.fields(kind)}


@pytest.mark.system
def test_two_ranks_need_no_more_than_a_third_more_sweeps(experiment: Any, ranks_of: Any) -> None:
    two = ranks_of(2)(experiment, wrong_probe(experiment), "mPIE(26)").arrays
    one = run(experiment, "mPIE(20)", start_probe=wrong_probe(experiment))
    assert two["error"] < 1.1 * one.quality["error"]
    phase = experiment.phase_rms(two["object"][0], one.positions_px)
    assert phase < 1.1 * experiment.phase_rms(one.object[0], one.positions_px)
