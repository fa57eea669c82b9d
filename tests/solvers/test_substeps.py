"""Fly scans: the stage moves while a frame is taken, and the positions on the way are known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import Geometry, MemoryFrames, Recipe, Scan
from ptyplugin.solvers import solve

SIDE, STEP, PHOTONS = 64, 13.0, 1e6


@dataclass(frozen=True)
class FlyScan:
    """49 frames of 64 x 64 px; during each the stage goes half a step along x. ``corners`` (frame, substep, yx), px of the sample."""

    counts: NDArray[np.uint16]
    corners: NDArray[np.int64]
    probe: NDArray[np.complex128]
    sample: NDArray[np.complex128]
    geometry: Geometry

    @cached_property
    def middle(self) -> tuple[slice, slice]:
        """Rows and columns of the sample that lie well inside of the scan."""
        places = self.corners.mean(axis=1)
        low, high = (np.rint(edge).astype(int) + SIDE // 2 for edge in (places.min(axis=0), places.max(axis=0)))
        return slice(low[0], high[0]), slice(low[1], high[1])


def defocused(side: int) -> NDArray[np.complex128]:
    """A probe from an annular pupil, out of focus and a little astigmatic."""
    k = np.arange(side) - side // 2
    radius, outer = np.hypot(k[:, None], k[None, :]), 0.17 * side
    pupil = 1 / (1 + np.exp((radius - outer) / 0.6)) * (1 - 1 / (1 + np.exp((radius - 0.3 * outer) / 0.6)))
    phase = np.pi * 0.27 / outer * (radius**2 + 0.075 * (k[:, None] ** 2 - k[None, :] ** 2))
    probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(pupil * np.exp(1j * phase))))
    return np.asarray(probe * np.sqrt(PHOTONS / (np.abs(probe) ** 2).sum()))


@pytest.fixture(scope="module")
def fly(make_sample: Any) -> FlyScan:
    rng, probe = np.random.default_rng(7), defocused(SIDE)
    grid = np.stack(np.meshgrid(np.arange(7), np.arange(7), indexing="ij"), axis=-1).reshape(-1, 2)
    first = np.rint(grid * STEP + rng.uniform(-1.2, 1.2, grid.shape) + 8).astype(np.int64)
    moved = np.rint(np.linspace(-0.25, 0.25, 9) * STEP).astype(int)
    corners = first[:, None] + np.stack([0 * moved, moved], axis=1)
    sample = make_sample(tuple(first.max(axis=0) + SIDE + 8), rng)
    counts = np.zeros((len(first), SIDE, SIDE))
    for frame, places in enumerate(corners):
        for y, x in places:
            wave = np.fft.fftshift(np.fft.fft2(probe * sample[y : y + SIDE, x : x + SIDE]))
            counts[frame] += np.abs(wave) ** 2 / SIDE**2 / len(places)
    return FlyScan(rng.poisson(counts).astype(np.uint16), corners, probe, sample, Geometry(8800.0, 0.5, 55e-6, (SIDE, SIDE)))


@pytest.mark.parametrize("recipe", ["LSQML(50)", "ePIE(50)", "DM(40) + AP(25)", "ML(50)"])
def test_what_the_motion_blurs_is_sharp_where_the_way_is_known(fly: FlyScan, phase_difference: Any, recipe: str) -> None:
    def phase_rms(corners: NDArray[Any]) -> float:
        """RMS phase error (rad), told these positions (frame, substep, yx)."""
        scan = Scan(corners * np.asarray(fly.geometry.object_pixel_m), np.arange(len(corners)))
        result = solve(MemoryFrames(fly.counts), scan, fly.geometry, recipe=Recipe.parse(recipe), start_probe=fly.probe)
        assert result is not None
        shift = np.rint(result.positions_px[0] - corners[0].mean(axis=0)).astype(int)
        rows, columns = (slice(part.start + by, part.stop + by) for part, by in zip(fly.middle, shift, strict=True))
        return float(phase_difference(result.object[0, rows, columns], fly.sample[fly.middle]))

    blurred, known = phase_rms(fly.corners.mean(axis=1, keepdims=True)), phase_rms(fly.corners)
    assert known < 0.65 * blurred
