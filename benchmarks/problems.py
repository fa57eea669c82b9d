"""The problems: simulated scans A, B, C of the folder ``shared`` beside the checkout, and the real ones. What is absent says so."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Geometry, MemoryFrames, Scan
from ptyplugin.sim.metric import phase_rms, truth_on_canvas
from ptyplugin.solvers import Solver

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
#: Simulated scans are made once.
CACHE = ROOT / ".benchmarks"


class Absent(Exception):
    """Something that a part needs is not here; the text says what."""


@dataclass(frozen=True)
class Problem:
    """A simulated scan. counts: (frame, y, x), zero frequency in the middle; corners: (frame, yx) px in the truth (y, x)."""

    name: str
    counts: NDArray[np.uint16]
    corners: NDArray[np.int64]
    truth: NDArray[np.complex64]
    start_probe: NDArray[np.complex64]
    modes: int

    @property
    def geometry(self) -> Geometry:
        """Its geometry."""
        return Geometry(8000.0, 3.0, 75e-6, (self.counts.shape[1], self.counts.shape[2]))

    @property
    def scan(self) -> Scan:
        """Its positions."""
        return Scan(self.corners[:, None] * np.asarray(self.geometry.object_pixel_m), np.arange(len(self.counts)))

    def some(self, count: int) -> Problem:
        """So many frames in the middle of the scan."""
        distances = np.abs(self.corners - self.corners.mean(axis=0)).max(axis=1)
        near = np.sort(np.argsort(distances, kind="stable")[:count])
        return Problem(self.name, self.counts[near], self.corners[near], self.truth, self.start_probe, self.modes)

    def solver(self, recipe: Any, **how: Any) -> Solver:
        """A solver of it, from the wrong start probe of its generator; no frame is held out, as with the peers."""
        given = {"start_probe": self.start_probe, "probe_modes": self.modes, "held_out": 0.0} | how
        return Solver(MemoryFrames(self.counts), self.scan, self.geometry, recipe, **given)

    def phase_rms(self, image: NDArray[Any]) -> float:
        """RMS of the phase (rad) of an object (y, x) of one of its solvers, in the middle of the scan."""
        corners = self.scan.place(self.geometry).corners[:, 0]
        return phase_rms(image, truth_on_canvas(self.truth, self.corners, corners, image.shape), corners, self.counts.shape[1])


@cache
def script(name: str) -> Any:
    """A script of ``shared/bench`` as a module.

    Raises:
        Absent: it is not there.
    """
    path = SHARED / "bench" / f"{name}.py"
    if not path.is_file():
        raise Absent(f"no {path.relative_to(ROOT.parent)} beside the checkout")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def simulated_file(name: str) -> Path:
    """The .npz file of the scan A, B or C, made if need be.

    Raises:
        Absent: its generator is not there.
    """
    path = CACHE / f"{name}.npz"
    if not path.is_file():
        generator = script("make_dataset")
        CACHE.mkdir(exist_ok=True)
        part = path.with_suffix(".part.npz")
        with redirect_stdout(sys.stderr):
            generator.main(name, str(part))
        part.replace(path)
    return path


@cache
def simulated(name: str) -> Problem:
    """The simulated scan A, B or C.

    Raises:
        Absent: its generator is not there.
    """
    with np.load(simulated_file(name)) as stored:
        counts, corners = stored["data"].astype(np.uint16), stored["pos"].astype(np.int64)
        return Problem(name, counts, corners, stored["obj"], stored["probe_init"], int(stored["nmodes"]))


def real(name: str) -> Path:
    """A real scan of ``shared/data``.

    Raises:
        Absent: it is not there.
    """
    path = SHARED / "data" / name
    if not path.is_file():
        raise Absent(f"no {path.relative_to(ROOT.parent)} beside the checkout")
    return path
