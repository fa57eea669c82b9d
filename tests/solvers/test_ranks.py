"""Two MPI ranks compute what one computes, and fail together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rank_group import Outcome, RankGroup

from ptyplugin.solvers import OneRank, failing_together

pytestmark = pytest.mark.system

Launch = Callable[..., Outcome]


def defocused(experiment: Any) -> NDArray[Any]:
    k = np.arange(32) - 16
    return np.asarray(experiment.probe * np.exp(0.01j * (k[:, None] ** 2 + k[None, :] ** 2)))


@pytest.fixture
def launch(experiment: Any, ranks_of: Callable[[int], RankGroup]) -> Launch:
    """Solve with so many ranks, from a wrong probe."""

    def launch(recipe: str, size: int, **how: Any) -> Outcome:
        return ranks_of(size)(experiment, defocused(experiment), recipe, **how)

    return launch


def distance(first: NDArray[Any], second: NDArray[Any]) -> float:
    return float(np.linalg.norm(first - second) / np.linalg.norm(first))


@pytest.mark.parametrize(
    ("size", "iterations", "precision", "tolerance"), [(2, 10, "single", 1e-4), (3, 10, "single", 1e-4), (2, 30, "double", 1e-9)]
)
def test_difference_map_does_not_depend_on_ranks(launch: Launch, size: int, iterations: int, precision: str, tolerance: float) -> None:
    one, many = (launch(f"DM({iterations})", ranks, precision=precision).arrays for ranks in (1, size))
    assert distance(one["object"], many["object"]) < tolerance
    assert distance(one["probe"], many["probe"]) < tolerance


@pytest.mark.parametrize(
    ("recipe", "precision", "tolerance"),
    [("AP(10, synchronise=2)", "single", 1e-4), ("RAAR(10, synchronise=5)", "single", 1e-4), ("RAAR(30, synchronise=10)", "double", 1e-9)],
)
def test_other_projections_and_synchronised_frames_do_not_depend_on_ranks(
    launch: Launch, recipe: str, precision: str, tolerance: float
) -> None:
    one, two = (launch(recipe, ranks, precision=precision).arrays for ranks in (1, 2))
    assert distance(one["object"], two["object"]) < tolerance
    assert distance(one["probe"], two["probe"]) < tolerance


def test_recomputed_waves_do_not_depend_on_ranks(launch: Launch) -> None:
    recipe = "AP(20, overlap_rounds=2)"
    one, two = (launch(recipe, size, precision="double", waves_fit=size == 1).arrays for size in (1, 2))
    assert distance(one["object"], two["object"]) < 1e-9
    assert distance(one["probe"], two["probe"]) < 1e-9


def test_background_and_intensities_do_not_depend_on_ranks(launch: Launch) -> None:
    one, two = (launch('DM(9, background="smooth", intensities="fitted")', size, precision="double").arrays for size in (1, 2))
    assert distance(two["object"], one["object"]) < 1e-6
    assert two["error"] == pytest.approx(one["error"], rel=1e-6)


def test_long_difference_maps_agree_in_quality(launch: Launch, phase_difference: Callable[..., float]) -> None:
    one, two = (launch("DM(100)", ranks).arrays for ranks in (1, 2))
    assert two["error"] == pytest.approx(float(one["error"]), rel=0.01)
    middle = (0, slice(16, -16), slice(16, -16))
    assert phase_difference(one["object"][middle], two["object"][middle]) < 0.01


def test_ranks_find_the_same_start_probe_as_one(experiment: Any, ranks_of: Callable[[int], RankGroup]) -> None:
    one, two = (ranks_of(size)(experiment, None, "DM(1)").arrays for size in (1, 2))
    assert distance(one["probe"], two["probe"]) < 1e-5


def test_epie_on_two_ranks_converges_like_on_one(launch: Launch) -> None:
    one, two = (launch("ePIE(60)", ranks).arrays for ranks in (1, 2))
    assert two["error"] < 1.15 * one["error"]


@pytest.mark.parametrize(
    ("failure", "sentences"),
    [
        ("frames", ["RankFailed: Rank 1: frame 7 cannot be read", "FramesError: frame 7 cannot be read"]),
        ("in the loop", ["RankFailed: Rank 1: a bug on this rank", "ValueError: a bug on this rank"]),
        (
            "cancel",
            ["Cancelled: the reconstruction was stopped in iteration 3", "Cancelled: the reconstruction was stopped in iteration 3"],
        ),
    ],
)
def test_all_ranks_end_when_one_does(launch: Launch, failure: str, sentences: list[str]) -> None:
    found = launch("DM(20)", 2, failure=failure)
    assert found.arrays == {}
    for got, sentence in zip(found.failures, sentences, strict=True):
        assert got.startswith(sentence)


def test_one_rank_has_nobody_to_wait_for() -> None:
    with pytest.raises(ZeroDivisionError), failing_together(OneRank()):
        _ = 1 / 0
