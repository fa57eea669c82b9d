"""A scan that is made up on the device, and reconstructions of it by any verbs, iteration by iteration."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Geometry, Progress, Recipe
from ptyplugin.solvers.batches import RankFrames, in_blocks
from ptyplugin.solvers.beginning import start_state
from ptyplugin.solvers.ranks import OneRank
from ptyplugin.solvers.run import steps
from ptyplugin.solvers.state import State, weak_modes
from ptyplugin.solvers.verbs import Verbs
from ptyplugin.solvers.way import Walk

#: Photons of a frame; frames that are simulated at once; pixels of the object beyond the frames.
_PHOTONS, _AT_ONCE, _MARGIN = 1e6, 128, 4
#: Iterations before the clock starts: without the probe's update, with it, recorded, replayed.
_WARM = 4


#: Bytes per pixel, mode and iteration of a difference map beside the counts; those of a count, which modes share: see gpu_bytes.py.
WAVES_BYTES = {"S1": 128, "S3": 64}
COUNTS_BYTES = 2


def moved_bytes(scheme: str, modes: int) -> float:
    """Per pixel, mode and iteration of a difference map by S1 or S3, counts included."""
    return WAVES_BYTES[scheme] + COUNTS_BYTES / modes


@dataclass
class Problem:
    """A scan: its frames, held by the device, and what a reconstruction starts from.

    probe: (probe mode, y, x), the true one, blurred; counts: the sum of all
    """

    geometry: Geometry
    frames: RankFrames
    probe: NDArray[np.complex128]
    object_shape: tuple[int, int]
    counts: float

    @property
    def pixels(self) -> int:
        """Of a frame."""
        return int(self.frames.good.size)

    def walk(self, recipe: str, verbs: Verbs) -> Iterator[Progress]:
        """A reconstruction from the start, one iteration after the other."""
        return steps(*self.begun(recipe, verbs))

    def begun(self, recipe: str, verbs: Verbs) -> tuple[State, Walk]:
        """State and way before the first iteration."""
        count = len(self.frames)
        way = Walk(self.frames, verbs, OneRank(), count, self.counts, self.counts / count)
        way.stages = Recipe.parse(recipe).stages
        placement: Any = SimpleNamespace(object_shape=self.object_shape)
        return start_state(self.probe, len(self.probe), placement, self.frames, way), way


def geometry_of(side: int) -> Geometry:
    """Of frames of side x side px in the far field."""
    return Geometry(8000.0, 3.0, 75e-6, (side, side))


def made_up(verbs: Callable[[Geometry], Any], side: int, modes: int, frames: int, object_px: int) -> Problem:
    """So many frames of a sample that fills about object_px x object_px px, simulated by ``verbs``; no noise."""
    geometry, random = geometry_of(side), np.random.default_rng(7)
    corners = _corners(frames, side, object_px, random)
    extent = corners.max(axis=(0, 1)) + side + _MARGIN
    shape = (int(extent[0]), int(extent[1]))
    probe = _probe(side, modes)
    good = np.ones((side, side), dtype=bool)
    counts = np.zeros((frames, side, side), np.uint16)
    every = RankFrames(np.arange(frames), corners, np.zeros(corners.shape, np.float32), counts, good)
    total = _simulate(verbs(geometry), every, _sample(shape, random), probe)
    # As a user's start: the probe a little out of focus, so that the first iterations have something to do.
    k = np.fft.fftfreq(side)
    blur = np.exp(1j * np.pi * 30 * (k[:, None] ** 2 + k[None, :] ** 2))
    return Problem(geometry, every, np.fft.ifft2(np.fft.fft2(probe) * blur), shape, total)


def _simulate(do: Any, frames: RankFrames, sample: NDArray[Any], probe: NDArray[Any]) -> float:
    """Fill in the counts of ``frames``; gives the sum of all."""
    image, beam = do.array(sample[None].astype(np.complex64)), do.array(probe.astype(np.complex64))
    total = 0.0
    for b in in_blocks(frames, _AT_ONCE, len(frames)):
        model = do.model_counts(do.to_detector(do.exit_waves(image, beam, b), b), b)
        do.finish()
        np.rint(model, out=model)
        frames.counts[b.index] = model
        total += float(model.sum(dtype=np.float64))
    return total


def _corners(frames: int, side: int, object_px: int, random: np.random.Generator) -> NDArray[np.int32]:
    """(frame, 1, yx): a raster with jitter, row by row."""
    rows = round(frames**0.5)
    columns = -(-frames // rows)
    steps_px = (object_px - side - 2 * _MARGIN) / np.array([rows, columns])
    at = np.stack(np.divmod(np.arange(frames), columns), axis=1) * steps_px + random.uniform(0, 0.3, (frames, 2)) * steps_px
    return (np.rint(at) + _MARGIN).astype(np.int32)[:, None]


def _sample(shape: tuple[int, int], random: np.random.Generator) -> NDArray[np.complex64]:
    """(y, x): grains of a few pixels that turn the phase by up to a radian."""
    f = [np.fft.fftfreq(size) for size in shape]
    grains = np.fft.irfft2(
        np.fft.rfft2(random.standard_normal(shape)) * np.exp(-200 * (f[0][:, None] ** 2 + f[1][None, : shape[1] // 2 + 1] ** 2)), shape
    )
    return np.exp(0.5j * grains / grains.std()).astype(np.complex64)


def _probe(side: int, modes: int) -> NDArray[np.complex128]:
    """(mode, y, x): a round beam that diverges, and weak modes.

    Of smooth waves no pixel of the detector is dark by chance: there the phase is that of rounding, and any two implementations may differ
    by all of it.
    """
    k = np.arange(side) - side / 2
    square = k[:, None] ** 2 + k[None, :] ** 2
    beam = np.exp(-square / (2 * (side / 6) ** 2) + 1j * np.pi * square / side)[None]
    beam = np.concatenate([beam, weak_modes(beam, modes - 1)]) if modes > 1 else beam
    return np.asarray(beam * np.sqrt(_PHOTONS / (np.abs(beam) ** 2).sum()))


def iteration_ms(going: Iterator[Progress], device: Any, rounds: int) -> float:
    """Median time of an iteration as its user sees it, ms; without those that warm up, and those that measure the error."""
    times: list[float] = []
    for _ in range(_WARM):
        next(going)
    while len(times) < rounds:
        device.finish()
        began = time.perf_counter()
        progress = next(going)
        device.finish()
        if "error" not in progress.errors:
            times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def best_seconds(work: Callable[[], object], device: Any, rounds: int = 5) -> float:
    """Median time of ``work`` after it has been done once."""
    work()
    times = []
    for _ in range(rounds):
        device.finish()
        began = time.perf_counter()
        work()
        device.finish()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
