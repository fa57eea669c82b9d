"""Ranks whose arrays lie on devices compute what one computes, by every transport, and fail together."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from at_work import until
from fake_cards import UNIQUE_ID, FakeNccl, fake_link
from numpy.typing import NDArray
from shim import HostDevice

from ptyplugin.solvers import device_ranks, transports
from ptyplugin.solvers.device_ranks import link_of
from ptyplugin.solvers.transports import Nccl, Watch, bands_of, real_parts, stretches
from ptyplugin.solvers.verbs.cuda.device import DeviceLost

SCRIPT = Path(__file__).with_name("device_ranks_run.py")


@dataclass(frozen=True)
class Found:
    """What each rank said, and the images by name."""

    said: list[dict[str, Any]]
    images: dict[str, NDArray[Any]]

    def distance(self, name: str, other: str) -> float:
        one, two = self.images[name], self.images[other]
        return float(np.linalg.norm(two - one) / np.linalg.norm(one))


def run(folder: Path, ranks: int, what: str) -> Found:
    mpiexec = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(ranks)]
    command = [*mpiexec, sys.executable, str(SCRIPT), str(folder), what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    images: dict[str, NDArray[Any]] = {}
    for path in folder.glob("images_*.npz"):
        with np.load(path) as z:
            images |= dict(z)
    return Found([json.loads((folder / f"said_{rank}.json").read_text()) for rank in range(ranks)], images)


@pytest.fixture(scope="module")
def two(simulate: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Two ranks, started once for all that they are asked for."""
    folder, e = tmp_path_factory.mktemp("ranks"), simulate(side=64, grid=(6, 6), step=8.0)
    k = np.arange(64) - 32
    wrong = e.probe * np.exp(0.003j * (k[:, None] ** 2 + k[None, :] ** 2))
    g = e.geometry
    known = {"energy_ev": g.energy_ev, "distance_m": g.distance_m, "pixel_m": g.pixel_m}
    np.savez(folder / "experiment.npz", counts=e.frames.counts, positions_m=e.scan.positions_m, probe=wrong, **known)
    return run(folder, 2, "all")


@pytest.mark.system
@pytest.mark.parametrize(
    "recipe",
    [
        "DM(10)",
        'AP(10, synchronise=5, background="smooth", intensities="fitted", positions="gradient")',
        "RAAR(10, overlap_rounds=2)",
        "ML(10)",
    ],
)
def test_what_sums_over_all_frames_does_not_depend_on_ranks(two: Found, recipe: str) -> None:
    assert two.distance(f"one {recipe} object", f"all {recipe} object") < 1e-4
    assert two.distance(f"one {recipe} probe", f"all {recipe} probe") < 1e-4


@pytest.mark.system
@pytest.mark.parametrize("recipe", ["LSQML(5)", "ePIE(4, batch=3)"])
def test_what_merges_copies_converges_on_two_ranks_as_on_one(two: Found, recipe: str) -> None:
    assert two.images[f"all {recipe} error"] < 1.15 * two.images[f"one {recipe} error"]


@pytest.mark.system
def test_nccl_computes_what_the_host_does(two: Found) -> None:
    assert two.distance("all DM(10) object", "NCCL object") < 1e-6
    assert two.distance("all DM(10) probe", "NCCL probe") < 1e-6


@pytest.mark.system
def test_transports_are_taken_where_they_work_on_all_ranks(two: Found) -> None:
    staged = "MPI through the host's memory"
    for said in two.said:
        assert said["chosen"].pop("NCCL") == "NCCL"
        assert set(said["chosen"].values()) == {staged}
        assert len(said["chosen"]) == 7


@pytest.mark.system
def test_all_ranks_end_when_one_loses_its_device(two: Found) -> None:
    staged, nccl = zip(*(said["broken"] for said in two.said), strict=True)
    assert staged == (["RankFailed: Rank 1: the GPU fell off the bus."], ["DeviceLost: the GPU fell off the bus."])
    assert nccl == ([*staged[0], "abort"], [*staged[1], "abort"])


@pytest.mark.system
def test_sums_over_two_ranks_by_every_transport(two: Found) -> None:
    check_sums(two)


@pytest.mark.system
def test_sums_over_three_ranks_of_which_one_touches_nothing(tmp_path: Path) -> None:
    check_sums(run(tmp_path, 3, "sums"))


def check_sums(found: Found) -> None:
    for said in found.said:
        assert set(said["differences"]) == {"plain", "pinned", "MPI", "NCCL"}
        for differences in said["differences"].values():
            assert max(differences.values()) < 1e-6
        # Rows 3 to 32 of two complex modes and of their real denominator; three views of 42 numbers; one rank after the other.
        assert said["calls"] == [30 * 30 * 2] * 2 + [30 * 30] + [42] * 3


def test_what_lies_side_by_side_is_one_sum(device: HostDevice) -> None:
    buffer = device.zeros(5 * 6, np.float32)
    num, den = buffer[:20].view(np.complex64).reshape((2, 5)), buffer[20:].reshape((2, 5))
    parts = [part for X in (num, den) for part in real_parts(X)]
    assert [(stretch.pointer, stretch.length) for stretch in stretches(parts)] == [(buffer.data.ptr, 30)]
    apart = [part for X in (num[:1], den) for part in real_parts(X)]
    assert [stretch.length for stretch in stretches(apart)] == [10, 10]


def test_bands_hold_everything_once_and_one_kind_each(device: HostDevice) -> None:
    arrays = [device.put(np.arange(count, dtype=kind)) for count, kind in ((7, np.float32), (30, np.float32), (5, np.float64))]
    bands = list(bands_of(arrays, 40))
    assert all(sum(part.nbytes for part in band) <= 40 and len({part.dtype for part in band}) == 1 for band in bands)
    flat = np.concatenate([device.get(part) for band in bands for part in band])  # type: ignore[arg-type]
    assert flat.tolist() == [*range(7), *range(30), *range(5)]
    assert len(bands) == 5


def test_a_card_is_known_by_its_uuid_and_nccl_where_it_can_be_loaded(monkeypatch: pytest.MonkeyPatch, device: HostDevice) -> None:
    cupy = pytest.importorskip("cupy")
    monkeypatch.setattr(
        device_ranks, "drivers_cards", lambda: SimpleNamespace(cards=[SimpleNamespace(uuid="a"), SimpleNamespace(uuid="b")])
    )
    monkeypatch.setattr(device_ranks, "loaded_cupy", lambda: SimpleNamespace(versions={"cupy": "14"}))
    card: Any = SimpleNamespace(stream="work", number=1)
    assert link_of(card) == (cupy.cuda, None, "work", "b")
    assert link_of(device) is None


def test_errors_of_nccl_are_those_of_a_device_that_is_lost() -> None:
    class Failing(FakeNccl):
        def groupEnd(self) -> None:  # noqa: N802
            raise RuntimeError("NCCL_ERROR_UNHANDLED_CUDA_ERROR")

    device = HostDevice()
    alone: Any = SimpleNamespace(size=1, rank=0)
    nccl = Nccl(alone, fake_link(Failing(alone), "card"), UNIQUE_ID)
    with pytest.raises(DeviceLost, match=r"sums by NCCL failed: NCCL_ERROR_UNHANDLED_CUDA_ERROR\. The job"):
        nccl.add([device.zeros(3, np.float32)])
    nccl.abort()
    with pytest.raises(DeviceLost, match="a rank has failed"):
        nccl.prepare()


class Communicator:
    """Of NCCL: notes what it is asked for."""

    def __init__(self, error: str = "") -> None:
        self.aborts, self._error = 0, error

    def abort(self) -> None:
        self.aborts += 1

    def check(self) -> None:
        if self._error:
            raise RuntimeError(self._error)


@pytest.mark.parametrize(
    ("error", "patience_s", "trouble"), [("", 0.05, "it has been under way for 1 s"), ("NCCL_ERROR_REMOTE", 60.0, "NCCL_ERROR_REMOTE")]
)
def test_a_sum_that_has_no_end_is_ended(monkeypatch: pytest.MonkeyPatch, error: str, patience_s: float, trouble: str) -> None:
    monkeypatch.setattr(transports, "_LOOK_EVERY_S", 0.01)
    communicator = Communicator(error)
    watch = Watch(communicator.abort, communicator.check, patience_s)
    watch.over(SimpleNamespace(done=False))
    until(lambda: communicator.aborts > 0 and watch._thread is None)
    watch.give_up("a rank has failed")
    assert (watch.trouble, communicator.aborts) == (trouble, 1)


def test_an_abort_that_fails_too_leaves_the_next_transport_to_be_tried(caplog: pytest.LogCaptureFixture) -> None:
    def abort() -> None:
        raise RuntimeError("NCCL_ERROR_INVALID_ARGUMENT")

    watch = Watch(abort, lambda: None, 60.0)
    watch.give_up("a rank has failed")
    assert watch.trouble == "a rank has failed"
    assert "NCCL_ERROR_INVALID_ARGUMENT" in caplog.text


def test_nobody_watches_when_all_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "_LOOK_EVERY_S", 0.01)
    communicator, event = Communicator(), SimpleNamespace(done=False)
    watch = Watch(communicator.abort, communicator.check, 60.0)
    watch.over(event)
    assert watch._thread is not None
    event.done = True
    until(lambda: watch._thread is None)
    assert (watch.trouble, communicator.aborts) == ("", 0)
