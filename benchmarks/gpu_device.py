"""The device of the GPU benchmarks, real or the CPU's shim, and what has to be installed for it."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: Modules that a reconstruction on a GPU imports, and the packages that bring them.
_NEEDED = {"numpy": "numpy", "scipy": "scipy", "pydantic": "pydantic", "cupy": "'cupy-cuda13x[ctk]'"}
_SEEN = ("cupy-cuda12x", "cupy-cuda13x", "numpy", "scipy", "torch", "ptychi", "mpi4py")


def missing(shim: bool) -> str:
    """What is missing and the line that mends it, in one sentence; nothing if all is there."""
    wanted = {module: package for module, package in _NEEDED.items() if not (shim and module == "cupy")}
    absent = {module: package for module, package in wanted.items() if importlib.util.find_spec(module) is None}
    if absent:
        line = f"{Path(sys.executable).name} -m pip install {' '.join(absent.values())}"
        return f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing: {line}"
    if shim:
        return "" if shutil.which("g++") else "the shim needs a C++ compiler, g++"
    from ptyplugin.solvers.devices import look, why_not

    return why_not(look())


def with_tests() -> None:
    """Let modules that tests share be imported: the shim, and what compares verbs."""
    for folder in ("tests/solvers", "tests/solvers/cuda"):
        if str(ROOT / folder) not in sys.path:
            sys.path.append(str(ROOT / folder))


def opened(shim: bool) -> Any:
    """The device."""
    if shim:
        with_tests()
        from shim import HostDevice

        return HostDevice()
    from ptyplugin.solvers.verbs.cuda.device import open_device

    return open_device(0)


def machine(shim: bool) -> dict[str, Any]:
    """What the numbers depend on."""
    known: dict[str, Any] = {"python": platform.python_version(), "versions": _versions()}
    if shim:
        return known | {"device": "none: the CPU's shim, whose times mean nothing"}
    from ptyplugin.solvers.devices import look

    there = look()
    card = there.usable[0]
    return known | {
        "device": card.name,
        "compute_capability": ".".join(map(str, card.capability)),
        "memory_bytes": card.memory_bytes,
        "driver": there.driver.version,
        "driver_cuda": ".".join(map(str, there.driver.cuda)),
        "libraries": dict(there.cupy.versions),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _SEEN:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
