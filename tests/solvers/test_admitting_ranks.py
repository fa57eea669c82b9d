"""Two MPI ranks admit the same frames: what they compute is what one does, and nobody is lost when one cannot read."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from portions import ORDERS, grown
from ranks_admitting import CASES

pytestmark = pytest.mark.system

SCRIPT = Path(__file__).with_name("ranks_admitting.py")


@pytest.fixture(scope="module")
def folder(wide: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks have found."""
    folder, g = tmp_path_factory.mktemp("ranks"), wide.geometry
    numbers = np.array([g.energy_ev, g.distance_m, g.pixel_m])
    known = {"counts": wide.frames.counts, "positions_m": wide.scan.positions_m, "probe": wide.probe, "numbers": numbers}
    np.savez(folder / "experiment.npz", **known)
    mpiexec = str(Path(sys.executable).with_name("mpiexec"))
    command = [mpiexec, "-n", "2", sys.executable, str(SCRIPT), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def said(folder: Path, what: str) -> list[Any]:
    return [json.loads((folder / f"said_{rank}.json").read_text())[what] for rank in range(2)]


@pytest.mark.parametrize(("name", "tolerance"), [("DM", 1e-9), ("ML", 1e-7)])
def test_they_compute_what_one_does(wide: Any, folder: Path, name: str, tolerance: float) -> None:
    recipe, precision = CASES[name]
    one = grown(wide, recipe, 4, 3, ORDERS["up"], precision=precision).result()
    assert one is not None
    with np.load(folder / "found.npz") as found:
        assert np.linalg.norm(found[f"{name} object"] - one.object) < tolerance * np.linalg.norm(one.object)
        assert found[f"{name} error"] == pytest.approx(one.quality["error"], rel=1e-6)


@pytest.mark.parametrize("name", ["ePIE", "LSQML"])
def test_they_converge_as_one_does(wide: Any, folder: Path, name: str) -> None:
    one = grown(wide, CASES[name][0], 4, 3, ORDERS["up"]).result()
    assert one is not None
    with np.load(folder / "found.npz") as found:
        assert found[f"{name} error"] < 1.15 * one.quality["error"]


def test_frames_stay_with_their_rank_and_new_ones_come_where_fewest_are(folder: Path) -> None:
    first, second = said(folder, "owned")
    for mine in (first, second):
        for before, after in itertools.pairwise(mine):
            assert after[: len(before)] == before
    for ours in zip(first, second, strict=True):
        assert sorted(ours[0] + ours[1]) == list(range(len(ours[0] + ours[1])))
    counts = [[len(each) for each in mine] for mine in (first, second)]
    assert counts == [[21, 21, 22, 50], [20, 21, 21, 50]]


def test_what_one_cannot_read_all_refuse_and_go_on(folder: Path) -> None:
    for unreadable, unequal, then in said(folder, "refused"):
        assert unreadable.startswith("FramesError: ")
        assert "frame 70 cannot be read: the file is truncated." in unreadable
        assert unequal.startswith("ScanError: 80 frames but 70 positions")
        assert then == "3 iterations, 39 frames"
    assert said(folder, "refused")[0][0] == "FramesError: Rank 1: frame 70 cannot be read: the file is truncated."


def test_what_one_refuses_before_the_first_iteration_all_refuse(folder: Path) -> None:
    sentences = [refusal for refusal, _ in said(folder, "unlike")]
    assert sentences[0].startswith("SolverError: Rank 1: 80 frames but 70 positions")
    assert sentences[1].startswith("ScanError: 80 frames but 70 positions")
    assert [then for _, then in said(folder, "unlike")] == ["3 iterations, 60 frames"] * 2
