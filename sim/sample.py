"""A sample that shows what a microscope can see: a Siemens star on textured grains, with discs of many sizes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, spatial

Field = NDArray[np.float64]

_SPOKES = 36
_STAR_SHARE = 0.22
_GRAIN_PX = 26.0
_TEXTURE_PX = 14.0
_EDGE_PX = 0.9


def make_sample(shape: tuple[int, int], seed: int) -> NDArray[np.complex128]:
    """Transmission (y, x) of a sample, complex, amplitude in 0.6 .. 1, phase in radians around 0.

    Structure at all scales: a Siemens star in the middle (spokes down to a pixel), discs of 2 to 12 px radius, grains of about
    26 px with grooves between them, and a smooth texture. Edges are about a pixel soft. Amplitude and phase are different
    mixtures of the four, so that neither can be had from the other. The same seed gives the same sample.
    """
    rng = np.random.default_rng(seed)
    star, inside = _star(shape)
    grains, discs, texture = _grains(shape, rng), _discs(shape, rng), _texture(shape, rng)
    grains, discs = grains * (1.0 - inside), discs * (1.0 - inside)
    phase = 0.12 * texture + 0.45 * grains - 0.55 * star - 0.5 * discs
    absorption = 0.02 * texture + 0.10 * grains + 0.16 * star + 0.28 * discs
    amplitude = np.clip(np.exp(-(absorption - absorption.min())), 0.6, 1.0)
    return np.asarray(amplitude * np.exp(1j * (phase - phase.mean())))


def _step(distance_px: Field) -> Field:
    """0 far outside, 1 far inside an edge at distance 0."""
    return np.asarray(0.5 + 0.5 * np.tanh(distance_px / _EDGE_PX))


def _star(shape: tuple[int, int]) -> tuple[Field, Field]:
    """Spokes, parted by two rings, and the disc that they fill."""
    y, x = np.indices(shape) - np.reshape(shape, (2, 1, 1)) / 2
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    outer = _STAR_SHARE * min(shape)
    spokes = _step(np.sin(_SPOKES * angle) * radius / _SPOKES) * _step(outer - radius)
    for share in (0.35, 0.7):
        spokes = spokes * _step(np.abs(radius - share * outer) - 2.0)
    return spokes, _step(outer + 5.0 - radius)


def _grains(shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Voronoi cells, each with its own thickness in 0.2 .. 1, and grooves between them."""
    count = max(4, round(shape[0] * shape[1] / _GRAIN_PX**2))
    seeds = rng.uniform((0.0, 0.0), shape, (count, 2))
    y, x = np.indices(shape)
    nearest = spatial.cKDTree(seeds).query(np.stack([y.ravel(), x.ravel()], axis=1), k=2)
    distance, cell = np.asarray(nearest[0]), np.asarray(nearest[1])
    groove = np.exp(-(((distance[:, 1] - distance[:, 0]) / 3.0) ** 2))
    return np.asarray((rng.uniform(0.2, 1.0, count)[cell[:, 0]] * (1.0 - groove)).reshape(shape))


def _discs(shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Discs of 2 to 12 px radius, one per 3000 square pixels."""
    discs = np.zeros(shape)
    for _ in range(round(shape[0] * shape[1] / 3000)):
        centre, radius = rng.uniform((0.0, 0.0), shape), rng.uniform(2.0, 12.0)
        first = np.maximum(centre.astype(int) - 20, 0)
        window = discs[first[0] : first[0] + 40, first[1] : first[1] + 40]
        y, x = np.indices(window.shape) + np.reshape(first - centre, (2, 1, 1))
        np.maximum(window, _step(radius - np.hypot(y, x)), out=window)
    return discs


def _texture(shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Smooth random field with mean 0 and standard deviation 1."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), _TEXTURE_PX, mode="wrap")
    return np.asarray((field - field.mean()) / field.std())
