"""Time in ratio to the least that any engine needs: two Fourier transforms a wave, in place and in the cache, in turns with the work."""

from __future__ import annotations

import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ptyplugin.solvers import Solver
from ptyplugin.solvers.verbs.cpu_fft import FftName, fft_of

#: Two transforms of 128 x 128 px on one core of the machine on which the limits in milliseconds were set, ms.
REFERENCE_FLOOR_MS = {"scipy": 0.12, "pyfftw": 0.064}
_FRAMES = 100


@dataclass(frozen=True)
class Taken:
    """Medians, ms per frame and iteration; ``least``: ratio of the minima."""

    floor_ms: float
    taken_ms: float
    least: float

    @property
    def ratio(self) -> float:
        """To the floor."""
        return self.taken_ms / self.floor_ms


def libraries() -> list[FftName]:
    """The libraries of Fourier transforms that are installed."""
    return ["scipy", "pyfftw"] if importlib.util.find_spec("pyfftw") else ["scipy"]


def floor_ms(fft: FftName, shape: tuple[int, int], waves: int = 1, frames: int = _FRAMES) -> float:
    """Forward and backward transform of a frame's waves, ms of CPU time; once."""
    transform = fft_of(fft, shape)
    wave = transform.empty((1, waves, *shape))
    rng = np.random.default_rng(0)
    start = (rng.standard_normal(wave.shape) + 1j * rng.standard_normal(wave.shape)).astype(np.complex64)
    taken = 0.0
    for number in range(frames):
        if number % 4 == 0:  # an unscaled inverse soon leaves float32
            wave[...] = start
        began = time.process_time()
        transform.forward(wave)
        transform.backward(wave)
        taken += time.process_time() - began
    return 1e3 * taken / frames


@contextmanager
def cores(count: int) -> Iterator[None]:
    """Solvers made inside use so many threads."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    everything = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(everything)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, everything)


def iteration_ms(going: Solver, frames: int, iterations: int, clock: Callable[[], float] = time.process_time) -> list[float]:
    """Times of iterations per frame, ms; without the first, which reads and compiles, and those in which errors are measured."""
    times = []
    while len(times) < iterations:
        began = clock()
        progress = next(going)
        if progress.iteration > 1 and "error" not in progress.errors:
            times.append(1e3 * (clock() - began) / frames)
    return times


def beside_floor(make: Callable[[], Solver], fft: FftName, shape: tuple[int, int], frames: int, waves: int, rounds: int) -> Taken:
    """One thread: iterations and bare transforms by turns, CPU time."""
    with cores(1):
        going = make()
    floors, times = [], []
    iteration_ms(going, frames, 1)
    for _ in range(rounds):
        floors.append(floor_ms(fft, shape, waves))
        times += iteration_ms(going, frames, 1)
    return Taken(statistics.median(floors), statistics.median(times), min(times) / min(floors))
