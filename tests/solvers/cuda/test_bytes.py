"""What a difference map moves through a GPU's memory, counted by the benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
#: The most bytes per pixel, mode and iteration.
LIMITS = {"S1": 130, "S3": 66}


@pytest.fixture(scope="module")
def counted() -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.gpu_bytes", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_difference_map_moves_no_more_than_it_may(counted: list[dict[str, Any]]) -> None:
    assert {(each["scheme"], each["modes"]) for each in counted} == {(scheme, modes) for scheme in LIMITS for modes in (1, 3)}
    for each in counted:
        moved = sum(kernel["read"] + kernel["written"] for kernel in each["moved"])
        assert moved == pytest.approx(each["formula"], abs=0.01), "the formula of the benchmarks"
        assert moved <= LIMITS[each["scheme"]]


def test_the_count_sees_what_kernels_read_and_write(counted: list[dict[str, Any]]) -> None:
    """Those of S1 by their equations: 8 bytes a value, 2 a count, which three modes share."""
    by_s1 = next(each for each in counted if each["scheme"] == "S1" and each["modes"] == 1)
    moved = {kernel["kernel"]: (kernel["read"], kernel["written"], kernel["again"]) for kernel in by_s1["moved"]}
    assert moved == {
        "reflect": (8, 8, 0),
        "cuFFT": (32, 32, 0),
        "onto_modulus": (8 + 2, 8, 0),
        "advance": (16, 8, 0),
        "object_sums": (0, 0, 8),
        "probe_sums": (8, 0, 0),
    }
