"""Synchronisation against explicit pairs of frames, and what it is for."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import Geometry, Stage
from ptyplugin.solvers import OneRank
from ptyplugin.solvers.algorithms import algorithm_of
from ptyplugin.solvers.batches import Batch, Batches, RankFrames, in_blocks
from ptyplugin.solvers.ranks import AfterVerbs
from ptyplugin.solvers.state import State, fill_waves, window_of
from ptyplugin.solvers.synchronisation import Gramian, leading_eigenvector, synchronise
from ptyplugin.solvers.verbs import Verbs
from ptyplugin.solvers.verbs.cpu import CpuVerbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

SIDE = 12
GEOMETRY = Geometry(8000.0, 1.0, 75e-6, (SIDE, SIDE))
INERTIA = 1e-3
VERBS: dict[str, Callable[[], Verbs]] = {
    "reference": lambda: ReferenceVerbs(GEOMETRY, np.complex64),
    "double": lambda: ReferenceVerbs(GEOMETRY, np.complex128),
    "cpu": lambda: CpuVerbs(GEOMETRY, threads=2),
}


def random(rng: np.random.Generator, *shape: int) -> NDArray[np.complex128]:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


class Scan:
    """7 x 8 frames of 12 x 12 px, 5 px apart, at most 24 neighbours each; waves P O_j with wrong phases and some noise."""

    def __init__(self, modes: int = 1, substeps: int = 1, noise: float = 0.05) -> None:
        rng = np.random.default_rng(5)
        grid = 5 * np.mgrid[:7, :8].reshape(2, -1).T.astype(np.int32)
        self.corners = np.stack([grid + np.array([0, s], np.int32) for s in range(substeps)], axis=1)
        count = len(grid)
        beam = np.exp(-((np.arange(SIDE) - 5.5) ** 2) / 20)
        self.probe = random(rng, modes, SIDE, SIDE) * beam[:, None] * beam
        self.object = 1 + 0.3 * random(rng, 1, *(grid.max(axis=0) + SIDE + substeps))
        self.wrong = np.exp(2j * np.pi * rng.random(count)) if noise < 1 else np.ones(count)
        self.frames = RankFrames(
            np.arange(count),
            self.corners,
            np.zeros(self.corners.shape, np.float32),
            np.ones((count, SIDE, SIDE), np.float32),
            np.ones((SIDE, SIDE), bool),
        )
        waves = ReferenceVerbs(GEOMETRY, np.complex128).exit_waves(self.object, self.probe, self.frames.batch(0, count))
        self.waves = (waves + noise * random(rng, *waves.shape)) * self.wrong[:, None, None, None]

    def made_for(self, do: Verbs, size: int = 56) -> tuple[State, Batches]:
        window = window_of(self.corners, (SIDE, SIDE))
        arrays = (array.astype(do.dtype) for array in (self.object, self.probe, self.waves))
        return State(*arrays, window), in_blocks(self.frames, size, len(self.frames))

    def pairs(self) -> NDArray[np.complex128]:
        """H from its definition: pixels where frame i and frame j meet, each in its place in the frame, pair by pair."""
        count, substeps = self.corners.shape[:2]
        light = np.zeros(self.object.shape[1:])
        power = (np.abs(self.probe) ** 2).sum(axis=0) / substeps
        for y, x in self.corners.reshape(-1, 2):
            light[y : y + SIDE, x : x + SIDE] += power
        light += INERTIA * light.max()
        split = self.waves.reshape(count, len(self.probe), substeps, SIDE, SIDE)
        parts = (self.probe.conj()[:, None] * split).sum(axis=1) / np.sqrt(substeps)
        H = np.zeros((count, count), complex)
        for i, j in np.ndindex(count, count):
            for s, t in np.ndindex(substeps, substeps):
                low = np.maximum(self.corners[i, s], self.corners[j, t])
                high = np.minimum(self.corners[i, s], self.corners[j, t]) + SIDE
                if (low < high).all():
                    mine, other = (
                        parts[frame, step][tuple(slice(*edge) for edge in zip(low - corner, high - corner, strict=True))]
                        for frame, step, corner in ((i, s, self.corners[i, s]), (j, t, self.corners[j, t]))
                    )
                    H[i, j] += (mine.conj() * other / light[low[0] : high[0], low[1] : high[1]]).sum()
        lengths = np.sqrt((np.abs(self.waves) ** 2).sum(axis=(1, 2, 3)))
        return H / np.outer(lengths, lengths)


def aligned(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Largest difference of two lists of phases, one common phase removed."""
    first, second = first / np.abs(first), second / np.abs(second)
    common = np.vdot(second, first)
    return float(np.abs(first - second * common / abs(common)).max())


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize(("modes", "substeps", "size"), [(1, 1, 56), (1, 1, 9), (2, 2, 56), (2, 1, 1)])
def test_products_and_eigenvector_are_those_of_explicit_pairs(name: str, modes: int, substeps: int, size: int) -> None:
    scan, do = Scan(modes, substeps), VERBS[name]()
    H = scan.pairs()
    assert ((np.abs(H) > 0).sum(axis=1) - 1 <= 32).all()
    state, batches = scan.made_for(do, size)
    gramian = Gramian(state, batches, do, OneRank(), INERTIA)
    exact = 1e-10 if name == "double" else 2e-6
    for v in random(np.random.default_rng(1), 3, len(H)):
        assert np.abs(gramian.times(v) - H @ v).max() < exact * np.linalg.norm(v)
    values, vectors = np.linalg.eigh(H)
    found = leading_eigenvector(gramian.times, gramian.lengths.astype(complex), OneRank())
    assert np.vdot(found, H @ found).real > values[-1] - 1e-3 * (1 - values[-1])
    assert aligned(found, vectors[:, -1]) < 0.05


@pytest.mark.parametrize("name", VERBS)
def test_wrong_phases_of_frames_are_found(name: str) -> None:
    scan, do = Scan(noise=0.0), VERBS[name]()
    state, batches = scan.made_for(do)
    synchronise(state, batches, do, AfterVerbs(OneRank(), do.finish), 1e-9)
    turned = np.einsum("nwyx,nwyx->n", state.waves, scan.waves.conj())
    assert aligned(turned, scan.wrong.conj()) < 2e-3
    lengths = [np.linalg.norm(waves.reshape(56, -1), axis=1) for waves in (state.waves, scan.waves)]
    np.testing.assert_allclose(*lengths, rtol=1e-5)


def test_waves_that_agree_stay() -> None:
    scan, do = Scan(noise=0.0), VERBS["cpu"]()
    scan.waves /= scan.wrong[:, None, None, None]
    state, batches = scan.made_for(do)
    before = state.waves.copy()
    synchronise(state, batches, do, OneRank(), 1e-9)
    assert np.abs(state.waves - before).max() < 1e-5 * np.abs(before).max()


def test_dark_and_missing_frames_do_no_harm() -> None:
    scan, do = Scan(noise=0.0), VERBS["cpu"]()
    scan.waves[11] = 0
    state, batches = scan.made_for(do, 20)
    synchronise(state, batches, do, OneRank(), 1e-9)
    assert not state.waves[11].any()
    assert np.isfinite(state.waves).all()
    none = State(state.object, state.probe, state.waves[:0], (slice(0, 0), slice(0, 0)))
    arrays = (array[:0] for array in (scan.frames.numbers, scan.frames.corners, scan.frames.rests, scan.frames.counts))
    nothing = RankFrames(*arrays, scan.frames.good)
    synchronise(none, in_blocks(nothing, 20, 56), do, OneRank(), 1e-9)


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("size", [5, 1])
def test_the_verbs_follow_their_equations(name: str, size: int) -> None:
    scan, do = Scan(2, 2), VERBS[name]()
    state, _ = scan.made_for(do)
    b: Batch = scan.frames.batch(3, 3 + size)
    O, P, psi = state.object, state.probe, state.waves[b.index]
    weights = random(np.random.default_rng(2), size)
    num, expected = do.sums(O)[0], do.sums(O)
    do.spread(num, psi, weights, P, b)
    do.object_sums(*expected, psi * weights.astype(np.complex64)[:, None, None, None], P, b)
    do.finish()
    np.testing.assert_allclose(num, expected[0], atol=1e-5 * np.abs(expected[0]).max())
    products, powers = do.gather(psi, O, P, b), do.frame_powers(psi, b)
    do.finish()
    model = np.asarray(do.exit_waves(O, P, b))
    np.testing.assert_allclose(products, (psi.conj() * model).sum(axis=(1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(powers, (np.abs(psi) ** 2).sum(axis=(1, 2, 3)), rtol=1e-5)
    adjoint = np.vdot(O, num), (products.conj() * weights).sum()
    assert adjoint[0] == pytest.approx(adjoint[1], rel=1e-5)
    turned = psi.copy()
    do.frame_phases(turned, weights, b)
    do.finish()
    np.testing.assert_allclose(turned, psi * weights[:, None, None, None], rtol=1e-5)


@pytest.mark.parametrize("algorithm_name", ["AP", "RAAR", "DM"])
def test_synchronisation_spares_iterations(algorithm_name: str) -> None:
    """A long scan with a known probe: news travels along it frame by frame, or at once."""
    never = error_after(60, algorithm_name, 0)
    # The paths are chaotic: how much is gained depends on the FFT library (measured: 0.001 to 0.22 of the error without).
    for period in (2, 3):
        assert error_after(60, algorithm_name, period) < 0.3 * never


def error_after(iterations: int, name: str, period: int) -> float:
    """Of the object, without noise: 4 x 40 frames of 16 x 16 px, 4 px apart."""
    rng, side = np.random.default_rng(8), 16
    grid = 4 * np.mgrid[:4, :40].reshape(2, -1).T.astype(np.int32)
    shape, count = tuple(grid.max(axis=0) + side), len(grid)
    radius = np.hypot(*(np.indices((side, side)) - 7.5))
    pupil = ((radius < 5) & (radius > 1.5)) * np.exp(0.12j * radius**2)
    probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(pupil)))[None]
    frequencies = np.fft.fftfreq(shape[0])[:, None] ** 2 + np.fft.fftfreq(shape[1]) ** 2
    smooth = np.fft.ifft2(np.fft.fft2(rng.standard_normal((2, *shape))) * np.exp(-60 * frequencies)).real
    smooth /= smooth.std()
    truth = ((0.7 + 0.1 * smooth[0]) * np.exp(0.8j * smooth[1]))[None]
    geometry, everything = Geometry(8000.0, 1.0, 75e-6, (side, side)), (slice(0, shape[0]), slice(0, shape[1]))
    frames = RankFrames(
        np.arange(count),
        grid[:, None],
        np.zeros((count, 1, 2), np.float32),
        np.empty((count, side, side), np.float32),
        np.ones((side, side), bool),
    )
    b, judge = frames.batch(0, count), ReferenceVerbs(geometry, np.complex128)
    frames.counts[...] = np.abs(judge.to_detector(judge.exit_waves(truth, probe, b), b)[:, 0]) ** 2 / side**2
    do, batches = CpuVerbs(geometry), in_blocks(frames, count, count)
    state = State(np.ones_like(truth, np.complex64), probe.astype(np.complex64), np.empty((0, 1, side, side)), everything)
    fill_waves(state, batches, do)
    given = {"synchronise": period, "probe_from": 1_000_000, "object_inertia": 1e-6, "overlap_rounds": 1, "slack": 0.0}
    algorithm, options = algorithm_of(Stage(name, iterations, given))
    for iteration in range(1, iterations + 1):
        algorithm.sweep(state, batches, do, AfterVerbs(OneRank(), do.finish), options, iteration)
    do.finish()
    image, there = (canvas[0, 6:-6, 6:-6] for canvas in (state.object, truth))
    common = np.vdot(image, there)
    return float(np.linalg.norm(image * common / abs(common) - there) / np.linalg.norm(there))
