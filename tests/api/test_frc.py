"""Two halves of the frames say how finely the image resolves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import ptyplugin
from ptyplugin.api import half_sets, make_job, open_scan, ring_correlation
from ptyplugin.cli.app import app
from ptyplugin.io import read_result
from ptyplugin.model import Geometry, Reconstruction, ScanError

SIDE, OBJECT = 48, 192
GEOMETRY = Geometry(8000.0, 1.0, 75e-6, (SIDE, SIDE))
PIXEL_M = GEOMETRY.object_pixel_m[0]
#: Structure up to this frequency, cycles per pixel.
FINEST = 0.2


def reconstruction(image: NDArray[np.complex128], offset_px: float | NDArray[np.float64] = 0.0) -> Reconstruction:
    """An image of the middle of which many frames saw a part."""
    steps = np.arange(4, OBJECT - SIDE - 4, 8)
    positions = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float64)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    probe = np.exp(-(y**2 + x**2) / 200)[None].astype(np.complex64)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    return Reconstruction(image[None].astype(np.complex64), probe, GEOMETRY, (positions - offset_px) * PIXEL_M, positions, mask, [], {})


def noisy(seed: int, noise: float, shift_px: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.complex128]:
    """The same band-limited sample each time, moved, with other noise."""
    random = np.random.default_rng(1)
    y, x = np.meshgrid(np.fft.fftfreq(OBJECT), np.fft.fftfreq(OBJECT), indexing="ij")
    spectrum = np.fft.fft2(random.standard_normal((OBJECT, OBJECT))) * (np.hypot(y, x) < FINEST)
    spectrum *= np.exp(-2j * np.pi * (y * shift_px[0] + x * shift_px[1]))
    phase = np.fft.ifft2(spectrum).real
    random = np.random.default_rng(seed)
    grain = random.standard_normal((2, OBJECT, OBJECT))
    return np.asarray(1 + 0.3j * phase / phase.std() + noise * (grain[0] + 1j * grain[1]))


def test_the_finest_structure_is_found() -> None:
    found = ring_correlation(reconstruction(noisy(2, 0.15)), reconstruction(noisy(3, 0.15)))
    assert found.resolution_m == pytest.approx(PIXEL_M / (2 * FINEST), rel=0.05)
    per_pixel = found.frequency_per_m * PIXEL_M
    assert found.correlation[(per_pixel > 0.03) & (per_pixel < 0.9 * FINEST)].min() > 0.9
    assert np.abs(found.correlation[per_pixel > 1.15 * FINEST]).mean() < 0.15


def test_what_ptychography_leaves_free_does_not_matter() -> None:
    plain = ring_correlation(reconstruction(noisy(2, 0.15)), reconstruction(noisy(3, 0.15)))
    row, column = np.indices((OBJECT, OBJECT))
    turned = noisy(3, 0.15, (1.4, -2.7)) * 1.7 * np.exp(1j + 0.02j * row - 0.013j * column)
    found = ring_correlation(reconstruction(noisy(2, 0.15)), reconstruction(turned))
    assert found.resolution_m == pytest.approx(plain.resolution_m, rel=0.05)
    per_pixel = plain.frequency_per_m * PIXEL_M
    some = (per_pixel > 0.03) & (per_pixel < 0.9 * FINEST)
    np.testing.assert_allclose(found.correlation[some], plain.correlation[some], atol=0.05)


def test_images_on_other_canvases_are_laid_onto_each_other() -> None:
    whole = noisy(3, 0.15)
    moved = reconstruction(np.roll(whole, (5, 5), (0, 1)), -5.0)
    # What the second image has at a pixel is 5 px further on the canvas of the first.
    assert ring_correlation(reconstruction(noisy(2, 0.15)), moved).resolution_m == pytest.approx(PIXEL_M / (2 * FINEST), rel=0.05)


def test_noise_resolves_nothing() -> None:
    first, second = (1 + 0.1 * np.random.default_rng(seed).standard_normal((OBJECT, OBJECT)) for seed in (2, 3))
    assert ring_correlation(reconstruction(first), reconstruction(second)).resolution_m > 4 * PIXEL_M


def test_thresholds_are_those_of_van_heel_and_schatz() -> None:
    found = ring_correlation(reconstruction(noisy(2, 0.15)), reconstruction(noisy(3, 0.15)))
    assert 0.1716 < found.half_bit[-1] < 0.4  # (2 ** 0.5 - 1) / (2 ** 0.5 + 1) for many pixels
    assert 1 / 3 < found.one_bit[-1] < 0.5
    assert (np.diff(found.half_bit[1:]) < 0.03).all()


@pytest.mark.parametrize("apart_px", [135.0, np.array([138.0, 0.0])])
def test_too_little_in_common_is_told(apart_px: float | NDArray[np.float64]) -> None:
    """A corner; a strip of a few rows."""
    first, far = reconstruction(noisy(2, 0.15)), reconstruction(noisy(3, 0.15), apart_px)
    with pytest.raises(ScanError, match="well lit pixels in common"):
        ring_correlation(first, far)


def test_halves_share_no_frame_and_miss_none(small_cxi: Path) -> None:
    parts = make_job(open_scan(small_cxi))
    scans = [half.job.scan(None) for half in half_sets(parts)]
    assert sorted(np.concatenate([scan.frame_ids for scan in scans]).tolist()) == list(range(36))
    whole = parts.job.scan(None)
    for half, scan in zip(half_sets(parts), scans, strict=True):
        assert half.job.frame_count == len(scan) == 18
        np.testing.assert_array_equal(scan.positions_m, whole.positions_m[scan.frame_ids])
        np.testing.assert_array_equal(half.job.frames[0].indices(), scan.frame_ids)
        assert half.job.key == parts.job.key  # the key is of the source; halves are never handed over


def test_resolution_of_a_scan(small_cxi: Path) -> None:
    found = ptyplugin.resolution(small_cxi, "DM(20) + ePIE(10)")
    assert found.resolution_m < 4 * PIXEL_M
    assert found.correlation[4:8].min() > 0.5


def test_on_the_command_line(small_cxi: Path, tmp_path: Path) -> None:
    words = ["reconstruct", str(small_cxi), "--recipe", "DM(20) + ePIE(10)", "--resolution", "-o", str(tmp_path / "a.h5")]
    done = CliRunner().invoke(app, [*words, "--png", str(tmp_path / "a.png")])
    assert done.exit_code == 0, done.output
    written = read_result(tmp_path / "a.h5")
    assert written.frc is not None
    assert written.quality["resolution_m"] == written.frc.resolution_m
    assert f"resolves {written.frc.resolution_m * 1e9:.3g} nm (half period" in done.stdout
    assert written.frc.correlation.shape == written.frc.half_bit.shape == written.frc.frequency_per_m.shape
    said = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert said["quality"]["resolution_m"] == pytest.approx(written.frc.resolution_m, rel=0.01)
