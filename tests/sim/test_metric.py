"""The phase metric: the same number as the benchmarks', blind to what ptychography cannot know."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_scripts import script
from numpy.typing import NDArray
from scipy import ndimage

from ptyplugin.model import ScanError
from ptyplugin.sim.metric import phase_rms, truth_on_canvas
from ptyplugin.sim.plans import jittered_raster
from ptyplugin.sim.sample import make_sample

SIDE = 32


@pytest.fixture(scope="module")
def bench(shared: Path) -> Any:
    return script(shared, "common")


def scan() -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    positions = np.rint(jittered_raster(49, 9.0, 1.0, seed=1))
    positions = positions - positions.min(axis=0) + 4
    extent = positions.max(axis=0).astype(int) + SIDE + 4
    return make_sample((int(extent[0]), int(extent[1])), seed=5), positions


def moved(wave: NDArray[np.complex128], by: tuple[float, float]) -> NDArray[np.complex128]:
    return np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(wave), by))


def disturbed(truth: NDArray[np.complex128], case: int) -> NDArray[np.complex128]:
    rng = np.random.default_rng(case)
    y, x = np.indices(truth.shape)
    wave = truth * np.exp(1j * rng.uniform(0.0, 0.3) * ndimage.gaussian_filter(rng.standard_normal(truth.shape), 1.0) * 5)
    wave = moved(wave, (rng.uniform(-3, 3), rng.uniform(-3, 3)))
    wave = wave * np.exp(1j * (rng.uniform(-0.2, 0.2) * y + rng.uniform(-0.2, 0.2) * x + rng.uniform(-3, 3))) * rng.uniform(0.2, 5)
    if case % 3 == 0:
        wave[0, :3] = np.nan
    return wave


@pytest.mark.parametrize("case", range(8))
def test_same_number_as_the_benchmarks(bench: Any, case: int) -> None:
    truth, positions = scan()
    wave = disturbed(truth, case)
    expected = bench.phase_rms(wave, truth, positions.astype(int), SIDE)
    assert phase_rms(wave, truth, positions, SIDE) == pytest.approx(expected, rel=1e-6)


def test_same_number_as_the_benchmarks_on_measured_data(bench: Any) -> None:
    path = Path(bench.__file__ or "").parents[1] / "data" / "reference"
    found = sorted(path.glob("*velociprobe*.npz"))
    if not found:
        pytest.skip("no reference reconstruction of measured data beside the checkout")
    with np.load(found[0]) as stored:
        name = max((key for key in stored.files if np.iscomplexobj(stored[key])), key=lambda key: stored[key].size)
        wave = np.squeeze(stored[name])
    positions = np.array([[0, 0], [wave.shape[0] - 128, wave.shape[1] - 128]])
    smoothed = ndimage.gaussian_filter(wave.real, 1.0) + 1j * ndimage.gaussian_filter(wave.imag, 1.0)
    expected = bench.phase_rms(smoothed, wave, positions, 128)
    assert expected > 0.01
    assert phase_rms(smoothed, wave, positions, 128) == pytest.approx(expected, rel=1e-6)


def test_factor_ramp_and_translation_do_not_count() -> None:
    truth, positions = scan()
    y, x = np.indices(truth.shape)
    wave = 3.0 * np.exp(0.7j) * moved(truth, (2.0, -1.0)) * np.exp(1j * (0.11 * y - 0.05 * x))
    assert phase_rms(wave, truth, positions, SIDE) < 1e-3


def test_a_known_error_is_measured() -> None:
    truth, positions = scan()
    checks = np.where(np.indices(truth.shape).sum(axis=0) % 2, 0.1, -0.1)
    assert phase_rms(truth * np.exp(1j * checks), truth, positions, SIDE) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("offset", [(0, 0), (7, 3), (-9, 5), (40, -60)])
def test_truth_is_brought_to_the_reconstruction(offset: tuple[int, int]) -> None:
    truth, positions = scan()
    canvas = (truth.shape[0] + 10, truth.shape[1] - 6)
    on_canvas = truth_on_canvas(truth, positions, positions - np.array(offset), canvas)
    assert on_canvas.shape == canvas
    y, x = np.indices(canvas) + np.reshape(offset, (2, 1, 1))
    inside = (y >= 0) & (x >= 0) & (y < truth.shape[0]) & (x < truth.shape[1])
    np.testing.assert_array_equal(on_canvas[inside], truth[y[inside], x[inside]])
    assert (on_canvas[~inside] == 1).all()


def test_different_numbers_of_frames_are_refused() -> None:
    truth, positions = scan()
    with pytest.raises(ScanError, match="49 true positions but 48"):
        truth_on_canvas(truth, positions, positions[1:], (80, 80))


def test_a_scan_without_central_region_is_refused() -> None:
    truth, _ = scan()
    with pytest.raises(ScanError, match="larger area"):
        phase_rms(truth, truth, np.array([[4, 4], [9, 9]]), SIDE)
