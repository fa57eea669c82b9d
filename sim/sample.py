"""A sample that shows what a microscope can see: a Siemens star on textured grains, with discs of many sizes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, spatial

Field = NDArray[np.float64]

_SPOKES = 36
_STAR_SHARE = 0.28
_GRAIN_PX = 26.0
_EDGE_PX = 0.6


def make_sample(shape: tuple[int, int], seed: int) -> NDArray[np.complex128]:
    """Transmission (y, x) of a sample, complex, amplitude in 0.6 .. 1, phase in radians around 0.

    Structure at all scales: a Siemens star in the middle (spokes down to 2 px), discs of 2 to 12 px radius, grains of about
    26 px with sharp boundaries, and a smooth texture. Amplitude and phase are different mixtures of the four, so that neither
    can be had from the other. The same seed gives the same sample.
    """
    rng = np.random.default_rng(seed)
    star, inside = _star(shape)
    grains = np.where(inside, 0.0, _grains(shape, rng))
    discs = np.where(inside, 0.0, _discs(shape, rng))
    texture = _texture(shape, 14.0, rng)
    phase = 0.12 * texture + 0.45 * grains - 0.55 * star - 0.5 * discs
    absorption = 0.02 * texture + 0.10 * grains + 0.16 * star + 0.28 * discs
    phase, absorption = (ndimage.gaussian_filter(field, _EDGE_PX) for field in (phase, absorption))
    amplitude = np.clip(np.exp(-(absorption - absorption.min())), 0.6, 1.0)
    return np.asarray(amplitude * np.exp(1j * (phase - phase.mean())))


def _star(shape: tuple[int, int]) -> tuple[Field, NDArray[np.bool_]]:
    """Spokes and two rings (0 or 1), and the disc that they fill."""
    y, x = np.indices(shape) - np.reshape(shape, (2, 1, 1)) / 2
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    outer = _STAR_SHARE * min(shape)
    spokes = (np.sin(_SPOKES * angle) > 0) & (radius < outer)
    gaps = np.zeros(shape, dtype=bool)
    for share in (0.35, 0.7):
        gaps |= np.abs(radius - share * outer) < 2.0
    return np.asarray(spokes & ~gaps, dtype=np.float64), np.asarray(radius < outer + 6.0)


def _grains(shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Voronoi cells, each with its own thickness in 0 .. 1, and grooves between them."""
    count = max(4, round(shape[0] * shape[1] / _GRAIN_PX**2))
    seeds = rng.uniform((0.0, 0.0), shape, (count, 2))
    y, x = np.indices(shape)
    nearest = spatial.cKDTree(seeds).query(np.stack([y.ravel(), x.ravel()], axis=1), k=2)
    distance, cell = np.asarray(nearest[0]), np.asarray(nearest[1])
    thickness = rng.uniform(0.2, 1.0, count)[cell[:, 0]]
    groove = distance[:, 1] - distance[:, 0] < 2.0
    return np.asarray(np.where(groove, 0.0, thickness).reshape(shape))


def _discs(shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Discs (0 or 1) of 2 to 12 px radius, one per 3000 square pixels."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    discs = np.zeros(shape, dtype=bool)
    for _ in range(round(shape[0] * shape[1] / 3000)):
        centre_y, centre_x = rng.uniform((0.0, 0.0), shape)
        discs |= (y - centre_y) ** 2 + (x - centre_x) ** 2 < rng.uniform(2.0, 12.0) ** 2
    return np.asarray(discs, dtype=np.float64)


def _texture(shape: tuple[int, int], scale_px: float, rng: np.random.Generator) -> Field:
    """Smooth random field with mean 0 and standard deviation 1."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), scale_px, mode="wrap")
    return np.asarray((field - field.mean()) / field.std())
