"""A small ptychographic experiment, computed by plain float64 formulas that share nothing with the verbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rank_group import RankGroup

from ptyplugin.model import Geometry, MemoryFrames, Scan


@dataclass(frozen=True)
class Experiment:
    """Simulated frames as stored, and the truth behind them. ``corners`` (frame, yx) count from the truth's first pixel."""

    frames: MemoryFrames
    scan: Scan
    geometry: Geometry
    object: NDArray[np.complex128]
    probe: NDArray[np.complex128]
    corners: NDArray[np.int64]

    def phase_rms(self, reconstructed: NDArray[Any], positions_px: NDArray[np.float64]) -> float:
        """RMS difference (rad) of the object's phase in the middle of the scan, without the gauge: phase offset and ramp."""
        side = self.geometry.shape[0]
        low, high = self.corners.min(axis=0) + side // 2, self.corners.max(axis=0) + side // 2
        shift = np.rint(positions_px[0] - self.corners[0]).astype(int)
        mine = reconstructed[low[0] + shift[0] : high[0] + shift[0], low[1] + shift[1] : high[1] + shift[1]]
        return phase_difference(mine, self.object[low[0] : high[0], low[1] : high[1]])


def phase_difference(first: NDArray[Any], second: NDArray[Any]) -> float:
    """RMS of the phase between two images (rad) after removing an offset and a linear ramp."""
    ratio = first.astype(np.complex128) * np.conj(second)
    rows, columns = np.indices(ratio.shape)
    for _ in range(8):
        ratio *= np.exp(-1j * np.angle(ratio.sum()))
        ramp_y = np.angle((ratio[1:] * ratio[:-1].conj()).sum())
        ramp_x = np.angle((ratio[:, 1:] * ratio[:, :-1].conj()).sum())
        ratio *= np.exp(-1j * (ramp_y * rows + ramp_x * columns))
        design = np.stack([np.ones(ratio.size), rows.ravel(), columns.ravel()], axis=1)
        fit = np.linalg.lstsq(design, np.angle(ratio).ravel(), rcond=None)[0]
        ratio *= np.exp(-1j * (design @ fit).reshape(ratio.shape))
    return float(np.sqrt(np.mean(np.angle(ratio) ** 2)))


def _sample(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.complex128]:
    rows, columns = np.indices(shape)
    phase = 0.5 * np.sin(rows / 5.0) * np.cos(columns / 7.0)
    for _ in range(shape[0] * shape[1] // 250):
        y, x, radius = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(2, 5)
        phase[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] -= 0.4
    return np.asarray((0.95 + 0.05 * np.cos(phase)) * np.exp(1j * phase))


def _illumination(side: int, modes: int) -> NDArray[np.complex128]:
    """A defocused annular pupil; the further modes are it times y or x, weaker: as a beam that wobbles."""
    k = np.arange(side) - side // 2
    radius = np.hypot(*np.meshgrid(k, k, indexing="ij"))
    pupil = ((radius < 0.2 * side) & (radius > 0.05 * side)) * np.exp(1j * np.pi * 0.35 * radius**2 / (0.2 * side))
    first = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(pupil)))
    wobble = [np.ones_like(first), np.exp(0.35j * k)[:, None], np.exp(0.35j * k)[None, :]]
    weights = [1.0, 0.4, 0.3]
    return np.stack([np.roll(first, (3 * (m == 1), 3 * (m == 2)), (0, 1)) * wobble[m] * weights[m] for m in range(modes)])


def _diffused(side: int, rng: np.random.Generator) -> NDArray[np.complex128]:
    """A round beam behind a diffuser: the near field needs structure in the probe."""
    k = np.arange(side) - side / 2
    beam = np.exp(-(((k[:, None] ** 2 + k[None, :] ** 2) / (2 * (side / 4) ** 2)) ** 2))
    f = np.fft.fftfreq(side)
    grains = np.fft.ifft2(np.fft.fft2(rng.standard_normal((side, side))) * np.exp(-60 * (f[:, None] ** 2 + f[None, :] ** 2))).real
    return np.asarray(beam * np.exp(1.5j * grains / grains.std()))


def _detect(waves: NDArray[np.complex128], kernel: NDArray[np.complex128] | None) -> NDArray[np.float64]:
    """Intensity (y, x) on the detector as stored, of exit waves (mode, y, x)."""
    if kernel is not None:
        return np.asarray((np.abs(np.fft.ifft2(np.fft.fft2(waves) * kernel)) ** 2).sum(axis=0))
    side = waves.shape[-1]
    return np.asarray((np.abs(np.fft.fftshift(np.fft.fft2(waves), axes=(-2, -1))) ** 2).sum(axis=0) / side**2)


def simulate(
    side: int = 32,
    grid: tuple[int, int] = (7, 7),
    step: float = 4.0,
    photons: float = 1e5,
    modes: int = 1,
    near_field: bool = False,
    substeps: int = 1,
    noise: bool = True,
    seed: int = 3,
) -> Experiment:
    """Frames of a scan on a jittered grid; the stage moves by 2 px along x from one sub-step of a frame to the next."""
    rng = np.random.default_rng(seed)
    geometry = Geometry(8800.0, 0.5, 55e-6, (side, side), focus_distance_m=3e-3 if near_field else None)
    rows, columns = (axis.ravel() for axis in np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij"))
    corners = np.rint(np.stack([rows, columns], axis=1) * step + rng.uniform(-1.2, 1.2, (rows.size, 2)) + 2).astype(np.int64)
    corners -= corners.min(axis=0)
    sample = _sample(tuple(corners.max(axis=0) + side + 2 * substeps), rng)
    probe = _illumination(side, modes)
    if near_field:
        probe = _diffused(side, rng)[None]
    probe *= np.sqrt(photons / (np.abs(probe) ** 2).sum())
    kernel = _fresnel(geometry) if near_field else None
    moved = 2 * np.arange(substeps)
    counts = [sum(_detect(probe * sample[y : y + side, x + dx : x + dx + side], kernel) for dx in moved) / substeps for y, x in corners]
    counts = rng.poisson(counts).astype(np.uint16) if noise else np.asarray(counts, dtype=np.float32)
    steps = np.stack([np.stack([corners[:, 0], corners[:, 1] + dx], axis=1) for dx in moved], axis=1)
    positions_m = steps * np.asarray(geometry.object_pixel_m)
    return Experiment(MemoryFrames(counts), Scan(positions_m, np.arange(len(corners))), geometry, sample, probe, corners)


def _fresnel(geometry: Geometry) -> NDArray[np.complex128]:
    distance = geometry.focus_distance_m * geometry.distance_m / (geometry.focus_distance_m + geometry.distance_m)
    f = np.fft.fftfreq(geometry.shape[0], geometry.pixel_m * geometry.focus_distance_m / (geometry.focus_distance_m + geometry.distance_m))
    return np.asarray(np.exp(-1j * np.pi * geometry.wavelength_m * distance * (f[:, None] ** 2 + f[None, :] ** 2)))


@pytest.fixture(scope="session", name="simulate")
def _simulate() -> Callable[..., Experiment]:
    return simulate


@pytest.fixture(scope="session")
def make_sample() -> Callable[..., NDArray[np.complex128]]:
    """A sample of some shape (y, x), from a random generator."""
    return _sample


@pytest.fixture(scope="session", name="phase_difference")
def _phase_difference() -> Callable[..., float]:
    return phase_difference


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    """49 frames of 32 x 32 px, far field, one mode, Poisson noise."""
    return simulate()


@pytest.fixture(scope="session")
def wide() -> Experiment:
    """100 frames of 32 x 32 px, each showing a small part of the object."""
    return simulate(side=32, grid=(10, 10), step=4.0)


@pytest.fixture(scope="session")
def ranks_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], RankGroup]]:
    """So many MPI ranks, which tests share."""
    groups: dict[int, RankGroup] = {}

    def of(size: int) -> RankGroup:
        return groups.setdefault(size, RankGroup(tmp_path_factory.mktemp("ranks"), size))

    yield of
    for group in groups.values():
        group.close()
