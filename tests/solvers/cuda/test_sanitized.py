"""Whole sweeps by the kernels for GPUs under AddressSanitizer: each read out of bounds ends the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(400)
def test_sweeps_read_nothing_out_of_bounds() -> None:
    library = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    sanitized = {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0", "SHIM_FLAGS": "-fsanitize=address"}
    sweeps = Path(__file__).with_name("test_cuda_sweeps.py")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        str(sweeps),
        "-k",
        "as_it_comes",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **sanitized})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
