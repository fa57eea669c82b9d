"""The path over the sample: even, jittered, any number of points."""

import numpy as np
import pytest
from scipy import spatial

from ptyplugin.model import ScanError
from ptyplugin.sim.plans import fermat_spiral, jittered_raster


@pytest.mark.parametrize("points", [1, 2, 3, 5, 12, 49, 50, 55, 200])
def test_every_number_of_points_is_met(points: int) -> None:
    path = jittered_raster(points, step=20.0, jitter=2.0, seed=0)
    assert path.shape == (points, 2)
    assert (np.abs(path.max(axis=0) + path.min(axis=0)) < 4.0 + 1e-9).all(), "the path lies around 0"


@pytest.mark.parametrize("points", [49, 50, 55, 60, 200])
def test_the_rectangle_is_filled_evenly(points: int) -> None:
    path = jittered_raster(points, step=20.0, jitter=2.0, seed=0)
    low, high = path.min(axis=0), path.max(axis=0)
    probes = np.random.default_rng(1).uniform(low, high, (2000, 2))
    farthest = spatial.cKDTree(path).query(probes)[0].max()
    assert farthest < 20.0, "a probe of 76 px must reach every spot from within a step"
    assert spatial.cKDTree(path).query(path, k=2)[0][:, 1].min() > 12.0


def test_a_step_is_about_as_asked() -> None:
    path = jittered_raster(196, step=20.0, jitter=0.0, seed=0)
    np.testing.assert_allclose(np.linalg.norm(np.diff(path, axis=0), axis=1), 20.0)


def test_jitter_breaks_the_raster_and_comes_from_the_seed() -> None:
    path = jittered_raster(49, step=20.0, jitter=2.0, seed=0)
    still = jittered_raster(49, step=20.0, jitter=0.0, seed=0)
    assert 0.5 < (path - still).std() <= 2.0
    assert np.abs(path - still).max() <= 2.0
    np.testing.assert_array_equal(path, jittered_raster(49, step=20.0, jitter=2.0, seed=0))
    assert not np.array_equal(path, jittered_raster(49, step=20.0, jitter=2.0, seed=1))


def test_no_points_are_refused() -> None:
    with pytest.raises(ScanError, match="0 points"):
        jittered_raster(0, step=20.0, jitter=2.0, seed=0)


def test_a_spiral_covers_a_disc_evenly() -> None:
    path = fermat_spiral(400, step=2.0)
    radius = np.hypot(*path.T)
    np.testing.assert_allclose(radius.max(), 2.0 * np.sqrt(400 / np.pi), rtol=0.01)
    assert np.count_nonzero(radius < radius.max() / 2) == 100
    apart = np.hypot(*(path[:, None] - path).transpose(2, 0, 1)) + 1e9 * np.eye(400)
    assert apart.min(axis=1).min() > 1.5
    assert apart.min(axis=1).max() < 2.5


def test_a_spiral_needs_a_point() -> None:
    with pytest.raises(ScanError, match="0 points was asked for: give at least 1"):
        fermat_spiral(0, step=1.0)
