"""What the doctor says, of machines that are not there and of this one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ptyplugin.api import card_lock
from ptyplugin.cli.app import app
from ptyplugin.model import CatalogAway, Site, SolverError
from ptyplugin.service import doctor, gpu_findings
from ptyplugin.service.doctor import Means, examine
from ptyplugin.service.findings import Finding
from ptyplugin.service.gpu_findings import cards_found, self_test_of_cards
from ptyplugin.solvers.devices import Devices
from ptyplugin.solvers.driver import Card, Cupy, Driver
from ptyplugin.solvers.selftest import Speed

CARD = Card(0, "NVIDIA H200", "11111111-0000-0000-0000-000000000000", 150 * 10**9, (9, 0))
V100 = Card(0, "Tesla V100", "33333333-0000-0000-0000-000000000000", 16 * 10**9, (7, 0))
LIBRARIES = {"cupy": "14.2.0", "nvrtc": "13.0", "cufft": "12.0.0", "nccl": "2.27.7"}
CUPY = Cupy({"cupy-cuda13x": "14.2.0"}, 13, LIBRARIES)
NOTHING = Devices(Driver(trouble="there is no NVIDIA card or driver"), Cupy(troubles={"cupy": "No module named 'cupy'"}))
WELL = Devices(Driver("580.65.06", (13, 0), (CARD,)), CUPY)


def means(devices: Devices = NOTHING, **other: Any) -> Means:
    there = Means(
        lambda: devices,
        lambda _: "MPICH 5",
        lambda _: Answering(),
        lambda: Finding("CPU self-test", "ok", ""),
        lambda *_: iter(()),
        lambda _: [],
    )
    return replace(there, **other)


class Answering:
    """A catalog that answers."""

    def keys(self) -> Any:
        return self

    def head(self, number: int) -> list[str]:
        return ["sim"]


def states(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.about: finding.state for finding in findings}


def test_a_machine_without_a_gpu_is_well_unless_one_is_asked_for() -> None:
    assert {state for about, state in states(examine(None, means=means())).items() if about not in ("GPU", "CuPy", "FFT", "site")} == {"ok"}
    found = states(examine(None, means=means()))
    assert (found["GPU"], found["CuPy"]) == ("missing", "not needed")
    asked = {finding.about: finding for finding in examine(None, "gpu", means())}
    assert (asked["GPU"].state, asked["CuPy"].state) == ("wrong", "wrong")
    assert asked["GPU"].said == "there is no NVIDIA card or driver"
    assert "pip install 'ptyplugin[gpu-cuda13]'" in asked["CuPy"].todo
    assert "GPU" not in states(examine(None, "cpu", means()))


def test_cards_and_libraries_are_told() -> None:
    second = replace(CARD, number=1, uuid="2", peers=(0,))
    found = {finding.about: finding for finding in cards_found(replace(WELL, driver=replace(WELL.driver, cards=(CARD, second))), True)}
    assert found["driver"].said == "NVIDIA 580.65.06, serves CUDA 13.0"
    assert found["GPU 0"].said == "NVIDIA H200, 150 GB, compute capability 9.0"
    assert (found["peer access"].state, "1 to 0" in found["peer access"].said) == ("missing", True)
    assert [found[name].said for name in ("NVRTC", "cuFFT", "NCCL")] == ["13.0", "12.0.0", "2.27.7"]
    assert "GPU" not in found


def test_what_keeps_a_card_from_being_used_is_told_with_what_to_do() -> None:
    lacking = replace(CUPY, versions={"cupy": "14.2.0", "nvrtc": "13.0"}, troubles={"cufft": "libcufft.so.12 is not there", "nccl": "no"})
    found = {finding.about: finding for finding in cards_found(replace(WELL, cupy=lacking), False)}
    assert (found["cuFFT"].state, found["cuFFT"].todo) == ("missing", "pip install 'ptyplugin[gpu-cuda13]'")
    assert found["GPU"] == Finding("GPU", "missing", "cannot be used: cuFFT was not found", "pip install 'ptyplugin[gpu-cuda13]'")
    broken = Cupy({"cupy-cuda13x": "14.2.0"}, 13, {}, {"cupy": "libcudart.so.13: cannot open shared object file"})
    (_, _, _, gpu) = cards_found(replace(WELL, cupy=broken), False)
    assert gpu.said == "cannot be used: cupy-cuda13x 14.2.0 cannot be imported (libcudart.so.13: cannot open shared object file)"
    assert gpu.todo == "pip install 'ptyplugin[gpu-cuda13]'"
    asked = states(cards_found(replace(WELL, cupy=lacking), True))
    assert (asked["cuFFT"], asked["NCCL"], asked["GPU"]) == ("wrong", "missing", "wrong")


def test_a_v100_needs_cuda_12() -> None:
    found = {finding.about: finding for finding in cards_found(Devices(Driver("580.65.06", (13, 0), (V100,)), CUPY), False)}
    assert "needs CUDA 12" in found["GPU 0"].said
    assert "gpu-cuda12" in found["GPU 0"].todo
    assert found["GPU"].todo.startswith("pip uninstall cupy-cuda13x")
    served = Devices(Driver("550.54.15", (12, 4), (V100,)), replace(CUPY, packages={"cupy-cuda12x": "14.2.0"}, cuda=12))
    assert set(states(cards_found(served, True)).values()) == {"ok"}


def test_ranks_that_do_not_find_each_other_are_wrong() -> None:
    def alone(ranks: int) -> str:
        raise SolverError("MPI made a group of 1 where 2 ranks were started.")

    def no_room(ranks: int) -> str:
        raise OSError(28, "No space left on device")

    found = {finding.about: finding for finding in examine(None, means=means(greet=no_room))}
    assert (found["MPI"].state, "No space left" in found["MPI"].said) == ("wrong", True)
    found = {finding.about: finding for finding in examine(None, means=means(greet=alone))}
    assert found["MPI"].state == "wrong"
    assert "a group of 1" in found["MPI"].said
    assert "pip install" in found["MPI"].todo


def test_the_site_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (tmp_path / "file").touch()
    uri = "http://user:secret@127.0.0.1:8000/?api_key=hidden"
    site = Site(home=tmp_path / "home", results_dir=tmp_path / "file" / "results", data_roots=[raw, tmp_path / "gone"], tiled_uri=uri)
    monkeypatch.setenv("TILED_API_KEY", "hidden")
    found = list(examine(site, means=means()))
    assert {finding.about: finding.state for finding in found if finding.about != "data root"}["results"] == "wrong"
    assert [finding.state for finding in found if finding.about == "data root"] == ["ok", "wrong"]
    (tiled,) = (finding for finding in found if finding.about == "Tiled")
    assert tiled == Finding("Tiled", "ok", "http://127.0.0.1:8000/ answers, with the key in TILED_API_KEY")
    assert not any(word in str(found) for word in ("secret", "hidden"))
    assert not (tmp_path / "home").exists()

    less = {finding.about: finding for finding in examine(site, means=means(missing=lambda _: ["create:node", "write:data"]))}["Tiled"]
    assert (less.state, less.said) == ("missing", "the key in TILED_API_KEY does not allow create:node, write:data")

    def away(site: Site) -> Any:
        raise CatalogAway("the catalog at http://127.0.0.1:8000 does not answer: is it running?")

    assert states(examine(site, means=means(client=away)))["Tiled"] == "wrong"
    (nobody_named_one,) = (finding for finding in examine(None, means=means()) if finding.about == "site")
    assert (nobody_named_one.state, "PTYPLUGIN_SITE" in nobody_named_one.todo) == ("missing", True)
    assert "Tiled" in nobody_named_one.said


def test_limits_of_a_container_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(doctor, "_CPU_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setattr(doctor, "_LITTLE_SHARED", 2**60)
    found = {finding.about: finding for finding in examine(None, means=means())}
    assert "time of only 0.5 of them" in found["processor"].said
    assert "--shm-size" in found["memory"].todo


@pytest.mark.parametrize(("apart", "state"), [(1e-6, "ok"), (1e-3, "wrong"), (float("nan"), "wrong")])
def test_a_processor_that_computes_something_else_is_found(monkeypatch: pytest.MonkeyPatch, apart: float, state: str) -> None:
    monkeypatch.setattr(doctor, "difference", lambda verbs: apart)
    monkeypatch.setattr(doctor, "speed_of_cpu", lambda: Speed(1e10, 5e3))
    said = doctor.self_test_of_cpu()
    assert said.state == state
    assert "copies 10 GB/s and makes 5,000 transforms" in said.said


def test_a_card_in_use_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_lock, "_take", lambda uuid: "process 7 since noon")
    (found,) = self_test_of_cards(WELL, lambda number: pytest.fail("opened"))
    assert (found.state, "process 7 since noon" in found.said) == ("missing", True)


def test_a_card_that_fails_its_self_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(number: int) -> Any:
        raise SolverError("GPU 0 failed: unspecified launch failure.")

    monkeypatch.setattr(card_lock, "FOLDER", tmp_path / "locks")
    assert [finding.state for finding in self_test_of_cards(WELL, broken)] == ["wrong"]
    monkeypatch.setattr(gpu_findings, "_tested", lambda card, opens: Finding("GPU 0 self-test", "ok", str(card)))
    assert [finding.state for finding in self_test_of_cards(WELL)] == ["ok"]


@pytest.mark.system
def test_this_machine() -> None:
    """With two real ranks, compiled code and the reference."""
    done = CliRunner().invoke(app, ["doctor", "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    about = {finding["about"]: finding for finding in said["findings"]}
    assert said["ok"]
    assert "2 ranks started and found each other" in about["MPI"]["said"]
    assert "transforms of 256 x 256 px a second" in about["CPU self-test"]["said"]


def test_a_person_reads_lines_and_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [Finding("MPI", "ok", "MPICH 5"), Finding("GPU", "wrong", "there is none", "buy one [today]")]
    monkeypatch.setattr(doctor, "examine", lambda site, device: iter(findings))
    done = CliRunner().invoke(app, ["doctor", "--device", "gpu"])
    assert done.exit_code == 1
    assert [line.split() for line in done.stdout.splitlines()[:3]] == [
        ["ok", "MPI", "MPICH", "5"],
        ["wrong", "GPU", "there", "is", "none"],
        ["to", "do", "buy", "one", "[today]"],
    ]
    assert done.stdout.rstrip().endswith("Not well: GPU.")
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


@pytest.mark.parametrize(("slots", "state"), [([2], "ok"), ([2, 1], "warning"), ([3], "warning")])
def test_more_ranks_than_cores_are_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slots: list[int], state: str) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    site = Site.model_validate({"home": tmp_path, "slot": [{"ranks": ranks} for ranks in slots]})
    (found,) = [finding for finding in examine(site, "cpu", means()) if finding.about == "slots"]
    assert found.state == state
    if state == "warning":
        assert found.said == "3 ranks share the 2 core(s) that this process may use, and slow each other down"
        assert "at most 2" in found.todo


def test_a_slot_that_cannot_be_is_told(tmp_path: Path) -> None:
    site = Site.model_validate({"home": tmp_path, "slot": [{"gpus": [7]}]})
    (found,) = [finding for finding in examine(site, "cpu", means()) if finding.about == "slots"]
    assert (found.state, "wants GPU 7" in found.said) == ("wrong", True)
