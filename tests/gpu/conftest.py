"""A GPU for the tests of this folder, or the reason why there is none; it also stands where other tests have the CPU's shim."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import frames_on_device
import pytest
import test_cuda_frames
import test_cuda_sweeps
import test_cuda_verbs

from ptyplugin.solvers.devices import look, why_not
from ptyplugin.solvers.verbs.cuda.device import Device, open_device


def _of_solvers() -> ModuleType:
    """conftest.py of tests/solvers, whose simulated experiment is used here too."""
    path = Path(__file__).resolve().parents[1] / "solvers" / "conftest.py"
    spec = importlib.util.spec_from_file_location("conftest_of_solvers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_SOLVERS = _of_solvers()
simulate, phase_difference = _SOLVERS._simulate, _SOLVERS._phase_difference


@pytest.fixture(scope="session")
def card() -> Device:
    """The first GPU; without one, its tests are skipped, and say what is missing."""
    missing = why_not(look())
    if missing:
        pytest.skip(f"needs a GPU: {missing}")
    return open_device(0)


@pytest.fixture
def device(card: Device, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The GPU, for whoever asks for the shim as well."""
    for module in (frames_on_device, test_cuda_frames, test_cuda_sweeps, test_cuda_verbs):
        monkeypatch.setattr(module, "HostDevice", lambda *_, **__: card)
    return card
