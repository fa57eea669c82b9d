"""What all tests share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import at_work
import h5py
import numpy as np
import pytest
from sharing_out import SharingOut

from ptyplugin.sim.optics import annular_probe, far_field
from ptyplugin.sim.sample import make_sample
from ptyplugin.solvers import devices
from ptyplugin.solvers.driver import Driver

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharingOut:
    """How ``pytest --numprocesses 2`` shares the tests out."""
    return SharingOut(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it aloud that there was no GPU."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if report.nodeid.startswith("tests/gpu/")]
    if skipped:
        reasons = {str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped}
        terminalreporter.write_line(f"NOT TESTED ON A GPU: {len(skipped)} tests of tests/gpu were skipped: {'; '.join(sorted(reasons))}")


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for a condition: until(lambda: ..., within_s=100, what="...")."""
    return at_work.until


@pytest.fixture(autouse=True)
def _logs_go_where_they_went() -> Iterator[None]:
    """A command that sets up logs for its process does so for the tests that come after it, whose stderr is another one."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.setLevel(level)
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("the folder 'shared' with real data is not beside the checkout")
    return folder


@pytest.fixture(autouse=True)
def _no_site_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests see neither the user's site file nor the user's home."""
    monkeypatch.delenv("PTYPLUGIN_SITE", raising=False)
    monkeypatch.delenv("TILED_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def _no_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only tests with the marker ``gpu`` see one: the others ask the same of every machine."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr(devices, "drivers_cards", lambda: Driver(trouble="there is no NVIDIA card or driver"))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session")
def small_cxi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CXI file of 36 simulated frames of 48 px with its start probe; DM(20) + ePIE(10) brings its error below 0.005."""
    side, step, energy_ev, pixel_m, distance_m = 48, 4, 8000.0, 75e-6, 1.0
    rng = np.random.default_rng(11)
    probe = annular_probe(side, pupil_px=9.0, spot_px=9.0) * np.sqrt(2e5)
    sample = make_sample((side + 5 * step + 2, side + 5 * step + 2), 3)
    at = np.array([(y, x) for y in range(6) for x in range(6)]) * step + rng.integers(0, 3, (36, 2))
    patches = np.stack([sample[y : y + side, x : x + side] for y, x in at])
    counts = np.stack([rng.poisson(far_field(probe[None] * patch[None])) for patch in patches]).astype(np.uint16)
    object_pixel_m = 1.239841984332e-06 / energy_ev * distance_m / (side * pixel_m)
    path = tmp_path_factory.mktemp("cxi") / "small.cxi"
    with h5py.File(path, "w") as file:
        detector, source = (file.create_group(f"entry_1/instrument_1/{name}") for name in ("detector_1", "source_1"))
        for name, value in {"data": counts, "distance": distance_m, "x_pixel_size": pixel_m, "y_pixel_size": pixel_m}.items():
            detector[name] = value
        detector["mask"] = np.zeros((side, side), np.uint32)
        source["energy"], source["illumination"] = energy_ev * 1.602176634e-19, probe[None].astype(np.complex64)
        file["entry_1/sample_1/geometry_1/translation"] = np.column_stack([at[:, 1], at[:, 0], np.zeros(36)]) * object_pixel_m
    return path
