"""Processes of Python that others of ours start."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from ptyplugin.model.own_python import own_python
from ptyplugin.service.tied import tied_to_us

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("before", [list, tied_to_us])
def test_a_file_in_the_current_folder_does_not_stand_in_for_the_standard_library(before, tmp_path: Path) -> None:
    for name in ("platform", "os", "signal"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the visitor was imported')")
    done = subprocess.run([*before(), *own_python("platform")], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(platform.system())


def test_they_are_all_started_so() -> None:
    files = {path.resolve() for room in ("ptyplugin", "callbacks", "profiles", "sim", "solvers") for path in (ROOT / room).rglob("*.py")}
    starting = [path for path in files if "sys.executable" in path.read_text(encoding="utf-8")]
    assert sorted(str(path.relative_to(ROOT)) for path in starting) == [
        "ptyplugin/model/own_python.py",
        "ptyplugin/service/engines.py",  # its mpiexec lies beside it
        "ptyplugin/service/tied.py",
    ]
