"""Start probes: where they may come from, and how they come onto the grid of a reconstruction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptyplugin.io import StartProbe, read_probe
from ptyplugin.model import FileFormatError, Geometry

GEOMETRY = Geometry(energy_ev=10_000, distance_m=1.0, pixel_m=55e-6, shape=(64, 64))


def gauss(count: int, pixel_m: float) -> np.ndarray:
    at = (np.arange(count) - count // 2) * pixel_m / GEOMETRY.object_pixel_m[0]
    wave = np.exp(-(at[:, None] ** 2) / 40 - (at - 2.0) ** 2 / 30 + 0.02j * at**2)
    return np.stack([wave, 0.3 * at[:, None] / 8 * wave])


def power(modes: np.ndarray) -> float:
    return float(np.sum(np.abs(modes) ** 2))


def test_fitting_probe_is_left_alone() -> None:
    probe = StartProbe.of(gauss(64, GEOMETRY.object_pixel_m[0]), GEOMETRY.object_pixel_m, "here")
    modes, said = probe.on_grid(GEOMETRY)
    assert said is None
    assert modes is probe.modes


@pytest.mark.parametrize(("count", "shrink"), [(64, 1.7), (96, 1.0), (128, 2.0), (48, 0.75), (81, 1.31)])
def test_known_pixel_is_interpolated(count: int, shrink: float) -> None:
    """The same wave, sampled on two grids: one becomes the other."""
    pixel = GEOMETRY.object_pixel_m[0] / shrink
    modes, said = StartProbe.of(gauss(count, pixel), (pixel, pixel), "here").on_grid(GEOMETRY)
    assert said is not None
    right = gauss(64, GEOMETRY.object_pixel_m[0])
    right *= np.sqrt(power(gauss(count, pixel)) / power(right))
    assert np.abs(modes - right).max() < 0.01 * np.abs(right).max()
    assert power(modes) == pytest.approx(power(gauss(count, pixel)), rel=1e-5)


@pytest.mark.parametrize("count", [40, 63, 65, 100])
def test_unknown_pixel_is_cropped_or_padded_about_the_middle(count: int) -> None:
    array = np.zeros((count, count), complex)
    array[count // 2, count // 2 + 2] = 1 + 1j
    modes, said = StartProbe.of(array, None, "probe.npy").on_grid(GEOMETRY)
    assert said is not None
    assert f"{count} x {count} px" in said
    assert "64 x 64 px" in said
    assert "pixel size is not known" in said
    expected = np.zeros((1, 64, 64), complex)
    expected[0, 32, 34] = 1 + 1j
    np.testing.assert_allclose(modes, expected, atol=1e-6)


@pytest.mark.parametrize(("shape", "modes"), [((8, 8), 1), ((3, 8, 8), 3), ((1, 2, 8, 8), 2)])
def test_npy(tmp_path: Path, shape: tuple[int, ...], modes: int) -> None:
    np.save(tmp_path / "p.npy", np.ones(shape))
    probe = read_probe(tmp_path / "p.npy")
    assert probe.modes.shape == (modes, 8, 8)
    assert probe.modes.dtype == np.complex64
    assert probe.pixel_m is None


def test_scan_250_brings_its_pixel_size(shared: Path) -> None:
    probe = read_probe(shared / "data" / "aps_cnm_scan250_positions_probe_refined.hdf5")
    assert probe.modes.shape == (2, 256, 256)
    assert probe.pixel_m == (8e-9, 8e-9)
    far = Geometry(energy_ev=10_000, distance_m=0.9085028691030151, pixel_m=55e-6, shape=(256, 256))
    assert probe.on_grid(far)[1] is None
    finer, said = probe.on_grid(replace(far, shape=(512, 512)))
    assert said is not None
    assert np.abs(2 * finer[:, ::2, ::2] - probe.modes).max() < 1e-3 * np.abs(probe.modes).max()


def test_a_probe_that_does_not_fit_is_told() -> None:
    corner = np.zeros((256, 256), complex)
    corner[3:8, 3:8] = 1
    with pytest.raises(FileFormatError, match=r"only 0\.0% of the start probe's power fits onto 64 x 64 px"):
        StartProbe.of(corner, None, "probe.npy").on_grid(GEOMETRY)
    fine = GEOMETRY.object_pixel_m[0] / 8
    checks = np.where(np.indices((256, 256)).sum(axis=0) % 2, 1.0, -1.0)
    with pytest.raises(FileFormatError, match=r"only 0\.0% of the start probe's power"):
        StartProbe.of(checks, (fine, fine), "checks.h5").on_grid(GEOMETRY)


@pytest.mark.parametrize("pixel_m", [(0.0, 1e-8), (-1e-8, 1e-8), (np.nan, 1e-8)])
def test_a_pixel_that_cannot_be(pixel_m: tuple[float, float]) -> None:
    with pytest.raises(FileFormatError, match="the probe's pixel is"):
        StartProbe.of(np.ones((8, 8)), pixel_m, "probe.h5")


def test_illumination_of_a_cxi_file(shared: Path) -> None:
    probe = read_probe(shared / "data" / "aps_velociprobe_siemens.cxi")
    assert probe.modes.shape == (1, 128, 128)
    assert probe.pixel_m == pytest.approx((28.178e-9, 28.178e-9), rel=1e-4)


def test_files_without_a_probe(tmp_path: Path, shared: Path) -> None:
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["other"] = 1
    (tmp_path / "no.npy").write_bytes(b"nothing")
    np.save(tmp_path / "flat.npy", np.ones(5))
    np.save(tmp_path / "dark.npy", np.zeros((8, 8)))
    np.save(tmp_path / "nan.npy", np.full((8, 8), np.nan))
    np.save(tmp_path / "object.npy", np.array([None, 1], dtype=object), allow_pickle=True)
    for name, said in {
        "empty.h5": "holds no probe",
        "gone.h5": "does not exist",
        "gone.npy": "No such file",
        "no.npy": "no .npy file with a probe",
        "flat.npy": "of shape (5,)",
        "dark.npy": "dark",
        "nan.npy": "not finite",
        "object.npy": "no .npy file with a probe",
    }.items():
        with pytest.raises(FileFormatError) as caught:
            read_probe(tmp_path / name)
        assert said in str(caught.value)
        assert name in str(caught.value)
    with pytest.raises(FileFormatError, match="holds no probe"):
        read_probe(shared / "data" / "petra3_p25_nearfield_siemens.cxi")
