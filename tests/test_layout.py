"""Guards for the layout: four top-level folders that are sub-packages, and links that only tools follow."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from sharing_out import LONGEST, TOGETHER, group_of

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("callbacks", "profiles", "sim", "solvers")
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def _package_folders() -> dict[str, Path]:
    """Every folder with an __init__.py, as dotted package name -> folder relative to the checkout."""
    found = {}
    for top in ("ptyplugin", *ROOMS):
        for folder, inner, files in os.walk(ROOT / top, followlinks=False):
            inner[:] = [name for name in inner if name != "__pycache__"]
            if "__init__.py" in files:
                relative = Path(folder).relative_to(ROOT)
                prefix = "" if top == "ptyplugin" else "ptyplugin."
                found[prefix + ".".join(relative.parts)] = relative
    return found


def test_every_package_is_listed() -> None:
    assert sorted(SETUPTOOLS["packages"]) == sorted(_package_folders())


def test_package_dir_maps_every_package_outside_ptyplugin() -> None:
    outside = {name: str(path) for name, path in _package_folders().items() if path.parts[0] in ROOMS}
    assert SETUPTOOLS["package-dir"] == {"ptyplugin": "ptyplugin", **outside}


@pytest.mark.parametrize("room", ROOMS)
def test_links_are_relative_and_point_to_the_room(room: str) -> None:
    link = ROOT / "ptyplugin" / room
    assert link.is_symlink()
    assert os.readlink(link) == f"../{room}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_refuses_to_be_imported_by_its_bare_name(room: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {room}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"import this folder as ptyplugin.{room}, not as {room}" in done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the files that git tracks, by way of the sdist."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "--null", "-T", "-", "-cf", str(out / "tree.tar")], cwd=ROOT, input=tracked, check=True)
    subprocess.run(["tar", "-xf", str(out / "tree.tar"), "-C", str(source)], check=True)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_what_git_holds(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "--", "ptyplugin", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    expected = set()
    for line in tracked.splitlines():
        path = Path(line)
        if path.suffix in {".py", ".toml", ".cu", ".cuh", ".typed"}:
            expected.add(str(path if path.parts[0] == "ptyplugin" else "ptyplugin" / path))
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected


def test_the_wheel_works_in_a_clean_venv_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Dependencies come from this environment through PYTHONPATH, where its editable finder of ptyplugin is not active."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    environment = {**os.environ, "PYTHONPATH": libraries}
    code = (
        "import ptyplugin, ptyplugin.callbacks, ptyplugin.solvers.verbs, ptyplugin.sim, ptyplugin.cli\n"
        "from ptyplugin.profiles import load_profile\n"
        "print(ptyplugin.__file__, load_profile('sim').name)"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0].startswith(str(tmp_path / "venv"))
    assert done.stdout.split()[1] == "sim"
    helped = subprocess.run(
        [tmp_path / "venv" / "bin" / "ptyplugin", "--help"], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert helped.returncode == 0, helped.stderr
    assert "reconstruct" in helped.stdout


def test_no_function_is_longer_than_60_lines_and_no_file_longer_than_500() -> None:
    import ast

    long = []
    for top in ("ptyplugin", *ROOMS):
        for path in (ROOT / top).rglob("*.py"):
            if path.relative_to(ROOT).parts[:2] in {("ptyplugin", room) for room in ROOMS}:
                continue
            text = path.read_text()
            if text.count("\n") > 500:
                long.append(f"{path}: {text.count(chr(10))} lines")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60:
                    long.append(f"{path}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines")
    assert not long


def test_what_shares_a_server_is_one_group_and_what_takes_long_is_there() -> None:
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")]
    groups = {group_of(f"{file}::test_it[a]") for file in files}
    assert set(LONGEST) <= groups
    for beginning, group in TOGETHER.items():
        assert {group_of(file) for file in files if file.startswith(beginning)} == {group}
