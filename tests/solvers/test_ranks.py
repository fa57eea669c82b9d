"""Two MPI ranks compute what one computes, and fail together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.solvers import OneRank, failing_together

pytestmark = pytest.mark.system

SCRIPT = Path(__file__).with_name("two_ranks.py")


class Launcher:
    """Runs two_ranks.py on one experiment."""

    def __init__(self, experiment: Any, folder: Path) -> None:
        self.folder = folder
        g, k = experiment.geometry, np.arange(32) - 16
        wrong = experiment.probe * np.exp(0.01j * (k[:, None] ** 2 + k[None, :] ** 2))
        np.savez(
            folder / "experiment.npz",
            counts=experiment.frames.counts,
            positions_m=experiment.scan.positions_m,
            probe=wrong,
            energy_ev=g.energy_ev,
            distance_m=g.distance_m,
            pixel_m=g.pixel_m,
        )

    def __call__(self, recipe: str, size: int, precision: str = "single", failure: str = "none") -> dict[str, NDArray[Any]]:
        arguments = [sys.executable, str(SCRIPT), str(self.folder), recipe, precision, str(size), failure]
        mpiexec = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(size)]
        done = subprocess.run(
            arguments if size == 1 else mpiexec + arguments,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        if not (self.folder / "result.npz").exists():
            return {}
        with np.load(self.folder / "result.npz") as z:
            result = dict(z)
        (self.folder / "result.npz").unlink()
        return result

    def failures(self) -> list[str]:
        return [path.read_text() for path in sorted(self.folder.glob("failure_*.txt"))]


@pytest.fixture
def launch(experiment: Any, tmp_path: Path) -> Launcher:
    return Launcher(experiment, tmp_path)


def distance(first: NDArray[Any], second: NDArray[Any]) -> float:
    return float(np.linalg.norm(first - second) / np.linalg.norm(first))


@pytest.mark.parametrize(
    ("size", "iterations", "precision", "tolerance"), [(2, 10, "single", 1e-4), (3, 10, "single", 1e-4), (2, 30, "double", 1e-9)]
)
def test_difference_map_does_not_depend_on_ranks(launch: Launcher, size: int, iterations: int, precision: str, tolerance: float) -> None:
    one, many = (launch(f"DM({iterations})", ranks, precision) for ranks in (1, size))
    assert distance(one["object"], many["object"]) < tolerance
    assert distance(one["probe"], many["probe"]) < tolerance


@pytest.mark.parametrize(
    ("recipe", "precision", "tolerance"),
    [("AP(10, synchronise=2)", "single", 1e-4), ("RAAR(10, synchronise=5)", "single", 1e-4), ("RAAR(30, synchronise=10)", "double", 1e-9)],
)
def test_other_projections_and_synchronised_frames_do_not_depend_on_ranks(
    launch: Launcher, recipe: str, precision: str, tolerance: float
) -> None:
    one, two = (launch(recipe, ranks, precision) for ranks in (1, 2))
    assert distance(one["object"], two["object"]) < tolerance
    assert distance(one["probe"], two["probe"]) < tolerance


def test_recomputed_waves_do_not_depend_on_ranks(launch: Launcher) -> None:
    recipe = "AP(20, overlap_rounds=2)"
    one, two = launch(recipe, 1, "double"), launch(recipe, 2, "double", "waves do not fit")
    assert distance(one["object"], two["object"]) < 1e-9
    assert distance(one["probe"], two["probe"]) < 1e-9


def test_background_and_intensities_do_not_depend_on_ranks(launch: Launcher) -> None:
    one, two = (launch('DM(9, background="smooth", intensities="fitted")', size, "double") for size in (1, 2))
    assert distance(two["object"], one["object"]) < 1e-6
    assert two["error"] == pytest.approx(one["error"], rel=1e-6)


def test_long_difference_maps_agree_in_quality(launch: Launcher, phase_difference: Callable[..., float]) -> None:
    one, two = (launch("DM(100)", ranks) for ranks in (1, 2))
    assert two["error"] == pytest.approx(float(one["error"]), rel=0.01)
    middle = (0, slice(16, -16), slice(16, -16))
    assert phase_difference(one["object"][middle], two["object"][middle]) < 0.01


def test_ranks_find_the_same_start_probe_as_one(launch: Launcher) -> None:
    one, two = (launch("DM(1)", ranks, failure="from data") for ranks in (1, 2))
    assert distance(one["probe"], two["probe"]) < 1e-5


def test_epie_on_two_ranks_converges_like_on_one(launch: Launcher) -> None:
    one, two = (launch("ePIE(60)", ranks) for ranks in (1, 2))
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
def test_all_ranks_end_when_one_does(launch: Launcher, failure: str, sentences: list[str]) -> None:
    assert launch("DM(20)", 2, failure=failure) == {}
    for got, sentence in zip(launch.failures(), sentences, strict=True):
        assert got.startswith(sentence)


def test_one_rank_has_nobody_to_wait_for() -> None:
    with pytest.raises(ZeroDivisionError), failing_together(OneRank()):
        _ = 1 / 0
