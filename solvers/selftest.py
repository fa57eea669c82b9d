"""A few seconds of work that show whether a device computes, how fast it copies and transforms, and whether what it gives is right."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Geometry, MemoryFrames, Recipe, Scan
from ptyplugin.solvers.solver import Solver
from ptyplugin.solvers.verbs.choice import VerbsChoice
from ptyplugin.solvers.verbs.cpu_fft import FftName, best_fft, fft_of
from ptyplugin.solvers.verbs.cuda.device import Device

#: Side of the frames that are transformed, px.
SIDE_PX = 256
#: Seconds of each measurement, at least; the best of its rounds counts.
_SECONDS = 0.25
#: What two implementations may differ by after some iterations of a difference map, relative to the largest value.
LARGEST_DIFFERENCE = 1e-4
#: What is reconstructed to compare: iterations, frames on a square grid, side of a frame and its steps, px.
_RECIPE, _GRID, _SIDE, _STEP = Recipe.parse("DM(5)"), 4, 64, 8
_GPU_BYTES, _GPU_FRAMES = 2**28, 64
_CPU_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class Speed:
    """Bytes read and written by a copy per second; 2-D transforms of ``SIDE_PX`` squared, complex64, per second."""

    copy: float
    transforms: float


def speed_of_cpu() -> Speed:
    """Of one thread."""
    source, target = np.ones(_CPU_BYTES, np.uint8), np.zeros(_CPU_BYTES, np.uint8)
    plan = fft_of(best_fft(), (SIDE_PX, SIDE_PX))
    wave = plan.empty((1, SIDE_PX, SIDE_PX))
    wave[...] = 0

    def there_and_back() -> None:
        plan.forward(wave)
        plan.backward(wave)

    return Speed(2 * _CPU_BYTES * _rate(lambda: np.copyto(target, source)), 2 * _rate(there_and_back))


def speed_of(device: Device) -> Speed:
    """Of a GPU."""
    half = min(_GPU_BYTES, device.memory()[0] // 8)
    source, target = device.zeros((half,), np.uint8), device.zeros((half,), np.uint8)
    waves = device.zeros((_GPU_FRAMES, SIDE_PX, SIDE_PX), np.complex64)

    def copied() -> None:
        device.fill(target, source)
        device.finish()

    def there_and_back() -> None:
        device.fft(waves, False)
        device.fft(waves, True)
        device.finish()

    return Speed(2 * half * _rate(copied), 2 * _GPU_FRAMES * _rate(there_and_back))


def difference(verbs: VerbsChoice, fft: FftName | None = None) -> float:
    """By how much object and probe of a small difference map differ from those of the reference, relative to their largest values."""
    given, judge = _solved(verbs, fft), _reference()
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(given, judge, strict=True))


@cache
def _reference() -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    return _solved("reference", None)


def _solved(verbs: VerbsChoice, fft: FftName | None) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    frames, scan, geometry, probe = made_up()
    solver = Solver(frames, scan, geometry, _RECIPE, start_probe=probe, verbs=verbs, fft=fft, held_out=0)
    for _ in solver:
        pass
    return solver.object, solver.probe


def made_up() -> tuple[MemoryFrames, Scan, Geometry, NDArray[np.complex128]]:
    """Frames of a sample that is not there, its scan, geometry and probe."""
    random = np.random.default_rng(1)
    geometry = Geometry(8000.0, 1.0, 75e-6, (_SIDE, _SIDE))
    at = np.array([(y, x) for y in range(_GRID) for x in range(_GRID)]) * _STEP + random.integers(0, 3, (_GRID**2, 2))
    extent = _SIDE + _GRID * _STEP
    sample = np.exp(1j * random.uniform(0, 1, (extent, extent)))
    k = np.arange(_SIDE) - _SIDE / 2
    # Behind a diffuser: where no light comes, the phase of a wave is that of its rounding.
    beam = np.exp(-(k[:, None] ** 2 + k[None, :] ** 2) / (2 * (_SIDE / 8) ** 2))
    probe = 100 * beam * np.exp(2j * np.pi * random.uniform(0, 1, beam.shape))
    patches = np.stack([sample[y : y + _SIDE, x : x + _SIDE] for y, x in at])
    intensities = np.fft.fftshift(np.abs(np.fft.fft2(probe * patches)) ** 2, axes=(-2, -1)) / _SIDE**2
    scan = Scan((at * np.asarray(geometry.object_pixel_m))[:, None], np.arange(len(at)))
    return MemoryFrames(np.rint(intensities).astype(np.uint16)), scan, geometry, probe


def _rate(work: Callable[[], object]) -> float:
    """How often per second ``work`` can be done."""
    work()
    best, end = 0.0, time.perf_counter() + _SECONDS
    while (begun := time.perf_counter()) < end:
        work()
        best = max(best, 1 / (time.perf_counter() - begun))
    return best
