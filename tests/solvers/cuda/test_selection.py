"""From the wish for a device to the result that says what it was made on: with a card that the CPU stands for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shim import HostDevice

from ptyplugin.api import card_lock, folder_of, make_job, open_scan, reconstruct, solve_job, solver
from ptyplugin.model import DeviceBusy, DeviceError, Recipe, Site, SolverError
from ptyplugin.service import gpu_findings
from ptyplugin.service.gpu_findings import self_test_of_cards
from ptyplugin.solvers import Solver, devices
from ptyplugin.solvers.devices import Devices
from ptyplugin.solvers.driver import Card, Cupy, Driver
from ptyplugin.solvers.selftest import Speed, made_up
from ptyplugin.solvers.verbs.cuda import device as cuda_device

CARD = Card(0, "a card", "11111111-0000-0000-0000-000000000000", 2**30, (9, 0))
THERE = Devices(
    Driver("580.1", (13, 0), (CARD,)), Cupy({"cupy-cuda13x": "14"}, 13, {"cupy": "14", "nvrtc": "13", "cufft": "12", "nccl": "2"})
)


@pytest.fixture(autouse=True)
def _a_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "drivers_cards", lambda: THERE.driver)
    monkeypatch.setattr(devices, "loaded_cupy", lambda: THERE.cupy)
    monkeypatch.setattr(cuda_device, "open_device", lambda number: HostDevice(2**30))
    monkeypatch.setattr(card_lock, "FOLDER", tmp_path / "locks")
    monkeypatch.setattr(card_lock, "WAIT_S", 0.0)


def test_the_result_says_what_it_was_made_on(small_cxi: Path) -> None:
    on_card, on_cpu = (reconstruct(small_cxi, "DM(2)", device=device) for device in ("auto", "cpu"))
    assert on_card.provenance["device"] == "GPU 0, a card"
    assert on_card.provenance["verbs"] == "cuda"
    assert (on_cpu.provenance["device"], on_cpu.provenance["verbs"]) == ("CPU", "cpu")
    assert on_card.quality["error"] == pytest.approx(on_cpu.quality["error"], rel=1e-3)


def test_the_site_says_it_for_jobs_that_do_not(small_cxi: Path) -> None:
    scan = open_scan(small_cxi)
    for wish, of_site, used in (("auto", "cpu", "CPU"), ("auto", "gpu", "GPU 0, a card"), ("gpu", "cpu", "GPU 0, a card")):
        parts = make_job(scan, "DM(1)", device=wish)
        with folder_of(parts) as folder:
            made = solve_job(parts.job, folder, Site(data_roots=scan.site.data_roots, device=of_site))
        assert made is not None
        assert made.provenance["device"] == used


def test_a_card_belongs_to_one_process_until_it_lets_go(small_cxi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process is played by one that does not know what this one holds."""
    mine = solver(small_cxi, "DM(1)")
    held = dict(card_lock._held)
    card_lock._held.clear()
    with pytest.raises(DeviceBusy, match=r"GPU 0, a card is in use by process \d+ since 20"):
        solver(small_cxi, "DM(1)", device="gpu")
    other = solver(small_cxi, "DM(1)")
    assert other.device_used.startswith("CPU (GPU 0, a card is in use by process ")
    card_lock._held.update(held)
    mine.close()
    assert not card_lock._held
    assert solver(small_cxi, "DM(1)", device="gpu").device_used == "GPU 0, a card"
    assert not card_lock._held  # nobody refers to that solver


def test_a_card_that_is_not_used_is_not_kept_from_others(small_cxi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(number: int) -> Any:
        raise SolverError("its memory is full.")

    monkeypatch.setattr(cuda_device, "open_device", broken)
    mine = solver(small_cxi, "DM(1)")
    assert mine.device_used == "CPU (GPU 0, a card cannot be used (its memory is full))"
    assert not card_lock._held


@pytest.mark.parametrize("how", [{"precision": "double"}, {"verbs": "reference"}, {"verbs": "cpu"}])
def test_what_a_gpu_cannot_do_is_done_by_the_processor(how: Any) -> None:
    frames, scan, geometry, probe = made_up()
    assert Solver(frames, scan, geometry, Recipe.parse("DM(1)"), start_probe=probe, **how).device_used == "CPU"
    with pytest.raises(DeviceError, match="single precision and with verbs of its own"):
        Solver(frames, scan, geometry, Recipe.parse("DM(1)"), start_probe=probe, device="gpu", **how)


def test_the_doctor_tests_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_findings, "speed_of", lambda device: Speed(4e12, 1e6))
    (found,) = self_test_of_cards(THERE)
    assert found.state == "ok"
    assert found.said.startswith(
        "it copies 4,000 GB/s and makes 1,000,000 transforms of 256 x 256 px a second; 1.07 GB of 1.07 GB are free"
    )
    assert "; the difference map is the reference's to" in found.said


def test_speed_is_measured_through_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptyplugin.solvers.selftest._SECONDS", 0.01)
    monkeypatch.setattr("ptyplugin.solvers.selftest._GPU_FRAMES", 2)
    device = HostDevice(2**26)
    speed = gpu_findings.speed_of(device)
    assert speed.copy > 0
    assert speed.transforms > 0
    assert device.launches["fft"] >= 2


@pytest.mark.system
def test_two_ranks_share_a_card(small_cxi: Path, tmp_path: Path) -> None:
    mpiexec, script = Path(sys.executable).parent / "mpiexec", Path(__file__).with_name("ranks_on_a_card.py")
    words = [mpiexec, "-launcher", "fork", "-rmk", "user", "-n", "2", sys.executable, script, small_cxi, tmp_path / "locks"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=150)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 GPU 0, a card 2 1", "1 GPU 0, a card 2 0"]
