"""The benchmark for GPUs, on the CPU's shim: that it runs, writes what it finds, and survives what fails."""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _from_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def run(out: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--shim", "--out", str(out), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(out.read_text())
    return result


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("gpu") / "all.json")


def test_every_step_is_done_and_right(everything: dict[str, Any]) -> None:
    from benchmarks.gpu import STEPS

    steps = everything["steps"]
    assert list(steps) == list(STEPS)
    assert {name: step.get("where") for name, step in steps.items() if step["state"] != "done"} == {}
    rows = [row for step in steps.values() for row in step["rows"]]
    assert [row for row in rows if not row.get("ok", True) or "failed" in row] == []
    compared = {name for name, step in steps.items() if any("ok" in row for row in step["rows"])}
    assert compared == {"verbs", "algorithms", "graphs", "ranks"}
    assert {row["algorithm"] for row in steps["engines"]["rows"]} >= {"RAAR", "AP", "ePIE, batch 1", "LSQML", "ML"}


def test_the_page_shows_what_was_found(everything: dict[str, Any]) -> None:
    from benchmarks.gpu_table import page

    shown = page({"gpu.json": everything})
    for title in ("the best of each", "Beside the reference", "Other algorithms", "cuFFT alone", "warm: s"):
        assert title in shown
    assert "nothing was measured" not in shown
    assert "compute-sanitizer is not installed" in shown or "memcheck" in shown


def test_a_cards_name_driver_and_libraries_are_told(everything: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu_device, gpu_table
    from ptyplugin.solvers import devices
    from ptyplugin.solvers.driver import Card, Cupy, Driver

    card = Card(0, "NVIDIA Example", "GPU-1", 2**36, (9, 0))
    there = devices.Devices(Driver("580.1", (13, 0), (card,)), Cupy({"cupy-cuda13x": "14.2.0"}, 13, {"cufft": "12.0"}))
    monkeypatch.setattr(devices, "look", lambda: there)
    assert gpu_device.missing(False) == ""
    known = gpu_device.machine(False)
    assert (known["driver"], known["compute_capability"], known["libraries"]) == ("580.1", "9.0", {"cufft": "12.0"})
    shown = gpu_table.page({"gpu-example.json": everything | {"machine": known | {"date": "today"}}})
    assert "# Measured: NVIDIA Example\n\n`gpu-example.json`, today: driver 580.1 (CUDA 13.0), " in shown


def test_checkers_watch_both_schemes() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--shim", "--step", "small"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_the_page_in_the_documentation_is_that_of_the_stored_results() -> None:
    from benchmarks.gpu_table import PAGE, RESULTS, page, stored

    assert PAGE.read_text(encoding="utf-8") == page(stored(sorted(RESULTS.glob("gpu*.json")))), "run python -m benchmarks.gpu_table"


def test_steps_in_processes_of_their_own_give_the_same_rows(tmp_path: Path) -> None:
    result = run(tmp_path / "apart.json", "--apart", "--steps", "transforms")
    (row,) = result["steps"]["transforms"]["rows"]
    assert result["steps"]["transforms"]["state"] == "done"
    assert row.keys() == {"side", "batch", "ms_per_frame", "ms_of_10000"}


def test_without_time_every_step_is_skipped(tmp_path: Path) -> None:
    result = run(tmp_path / "late.json", "--minutes", "0.01")
    assert {step["state"] for step in result["steps"].values()} == {"skipped"}


@pytest.mark.parametrize("words", [["--shim"], ["--quick"], ["--shim", "--quick"]])
def test_times_that_mean_nothing_are_not_written_where_the_page_looks(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    from benchmarks import gpu
    from benchmarks.gpu_table import RESULTS

    monkeypatch.setattr(sys, "argv", ["gpu", *words])
    said = gpu._arguments()
    assert said.out.parent == RESULTS
    assert not said.out.match("gpu*.json")
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert gpu._arguments().out == RESULTS / "gpu.json"


def asked(**words: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"shim": True, "quick": False, "apart": False, **words})


def test_a_step_that_fails_keeps_its_rows_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu

    def failing(bench: Any) -> None:
        bench.add({"found": 1})
        for _ in range(2):
            logging.getLogger("ptyplugin.solvers.verbs").warning("this sweep cannot be recorded")
        raise ValueError("an illegal address")

    monkeypatch.setattr(gpu, "work_of", lambda name: failing)
    rows: list[Any] = []
    went = gpu.here("copy", asked(), 10, rows.append)
    assert rows == [{"found": 1}]
    assert (went["state"], went["why"]) == ("failed", "ValueError: an illegal address")
    assert went["warnings"] == ["this sweep cannot be recorded"]


def test_a_step_whose_time_is_up_ends_with_its_next_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu

    def slow(bench: Any) -> None:
        for found in range(1000):
            time.sleep(0.02)
            bench.add({"found": found})

    monkeypatch.setattr(gpu, "work_of", lambda name: slow)
    rows: list[Any] = []
    assert gpu.here("copy", asked(), 0.1, rows.append)["state"] == "out of time"
    assert 0 < len(rows) < 1000


def test_a_process_that_dies_is_a_step_that_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks import gpu

    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\nexit 77\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    rows: list[Any] = []
    assert gpu.apart("copy", asked(), 10, rows.append) == {"state": "failed", "why": "its process ended with code 77"}
    assert rows == []


def test_what_is_missing_is_named_with_the_line_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu_device

    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("scipy", "cupy") else there(name))
    said = gpu_device.missing(False)
    assert "scipy and cupy are missing" in said
    assert "-m pip install scipy 'cupy-cuda13x[ctk]'" in said
    assert "scipy is missing" in gpu_device.missing(True)


def test_a_profilers_words_become_means_of_a_launch() -> None:
    from benchmarks.gpu_others import launches_of

    head = '"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'
    lines = [
        f'"{launch}","1","advance","{metric}","byte","{value}"'
        for launch in range(2)
        for metric, value in (
            ("dram__bytes_read.sum", f"1,{launch}00"),
            ("dram__bytes_write.sum", "500"),
            ("gpu__time_duration.sum", "30"),
        )
    ]
    found = launches_of("\n".join(["==PROF== Connected", head, *lines]))
    assert found == [{"kernel": "advance", "launches": 2, "read_bytes": 1050.0, "written_bytes": 500.0, "ns": 30.0}]
    assert launches_of("==ERROR== no permission") == []
