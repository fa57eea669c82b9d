"""CXI files: the real ones, and made ones that lack something or contradict themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptyplugin.io import Hdf5Frames, content_id, open_cxi
from ptyplugin.model import FileFormatError, GeometryError, Orientation, ScanError, Site

DETECTOR = "entry_1/instrument_1/detector_1"
SOURCE = "entry_1/instrument_1/source_1"
TRANSLATION = "entry_1/sample_1/geometry_1/translation"


def made(path: Path, change: Callable[[Any], None] = lambda file: None) -> Path:
    with h5py.File(path, "w") as file:
        file[f"{DETECTOR}/data"] = np.arange(3 * 16 * 16, dtype=np.uint16).reshape(3, 16, 16)
        file[f"{DETECTOR}/mask"] = np.zeros((16, 16), np.uint32)
        for name, value in {"distance": 2.0, "x_pixel_size": 75e-6, "y_pixel_size": 75e-6}.items():
            file[f"{DETECTOR}/{name}"] = value
        file[f"{DETECTOR}/basis_vectors"] = [[0, -75e-6], [-75e-6, 0], [0, 0]]
        file[f"{SOURCE}/energy"] = 8000 * 1.602176634e-19
        file[TRANSLATION] = [[0, 0, 0], [1e-6, 0, 0], [0, 2e-6, 0]]
        change(file)
    return path


@pytest.mark.parametrize(
    ("name", "count", "side", "near", "probe_modes"),
    [
        ("aps_velociprobe_siemens.cxi", 516, 128, False, 1),
        ("aps_cnm_hxn_235_20frames.cxi", 20, 512, False, 0),
        ("petra3_p25_nearfield_siemens.cxi", 200, 100, True, 0),
    ],
)
def test_real_files(shared: Path, name: str, count: int, side: int, near: bool, probe_modes: int) -> None:
    path = shared / "data" / name
    cxi = open_cxi(path)
    with h5py.File(path) as file:
        entry = file["entry_1"]
        assert cxi.geometry.object_pixel_m == pytest.approx([entry.attrs["object_pixel_size"]] * 2, rel=1e-9)
        assert cxi.geometry.wavelength_m == pytest.approx(entry["instrument_1/source_1/wavelength"][()], rel=1e-9)
        if near:
            assert cxi.geometry.effective_distance_m == pytest.approx(entry.attrs["effective_distance"], rel=1e-9)
        np.testing.assert_array_equal(cxi.scan.positions_m[:, 0], entry["sample_1/geometry_1/translation"][()][:, 1::-1])
    assert (len(cxi.scan), cxi.geometry.shape, cxi.geometry.near_field) == (count, (side, side), near)
    # "the stored orientation wins by a factor 2.5 to 5 over the seven others" (README of the files)
    assert cxi.preparation.orientation == Orientation.IDENTITY
    assert (0 if cxi.start_probe is None else len(cxi.start_probe.modes)) == probe_modes
    local = Site(data_roots=[path.parent]).local_path(cxi.source.uri)
    with Hdf5Frames(local, cxi.source.dataset, mask_dataset=cxi.preparation.mask_dataset) as frames:
        assert (len(frames), frames.shape) == (count, (side, side))
        assert frames.mask is not None
        assert frames.mask.sum() == (5 if near else 0)


@pytest.mark.parametrize("orientation", list(Orientation))
def test_orientation_brings_rows_along_minus_y(tmp_path: Path, orientation: Orientation) -> None:
    """A frame stored along other axes, turned by the orientation, is the frame along (-y, -x)."""
    right = np.arange(256).reshape(16, 16)  # as it would be with rows along -y and columns along -x
    steps = [np.array([0, -1.0, 0]), np.array([-1.0, 0, 0])]
    stored, axes = right, steps
    if orientation.flips[0]:
        stored, axes = stored[::-1], [-axes[0], axes[1]]
    if orientation.flips[1]:
        stored, axes = stored[:, ::-1], [axes[0], -axes[1]]
    if orientation.transposes:
        stored, axes = stored.T, axes[::-1]

    def change(file: Any) -> None:
        file[f"{DETECTOR}/basis_vectors"][...] = 75e-6 * np.array(axes).T

    found = open_cxi(made(tmp_path / "a.cxi", change)).preparation.orientation
    turned = stored.T if found.transposes else stored
    turned = turned[:: -1 if found.flips[0] else 1, :: -1 if found.flips[1] else 1]
    np.testing.assert_array_equal(turned, right)


def test_wavelength_in_place_of_energy_and_no_basis_vectors(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        del file[f"{SOURCE}/energy"], file[f"{DETECTOR}/basis_vectors"], file[f"{DETECTOR}/mask"]
        file[f"{SOURCE}/wavelength"] = 1.5498024804150338e-10

    cxi = open_cxi(made(tmp_path / "a.cxi", change))
    assert cxi.geometry.energy_ev == pytest.approx(8000)
    assert cxi.preparation.orientation == Orientation.IDENTITY
    assert cxi.preparation.mask_dataset is None


@pytest.mark.parametrize(
    "entry",
    [f"{DETECTOR}/data", f"{DETECTOR}/distance", f"{DETECTOR}/x_pixel_size", f"{DETECTOR}/y_pixel_size", f"{SOURCE}/energy", TRANSLATION],
)
def test_each_missing_entry_is_named(tmp_path: Path, entry: str) -> None:
    def change(file: Any) -> None:
        del file[entry]

    with pytest.raises(FileFormatError, match=f"a.cxi has (no entry|neither) {entry}"):
        open_cxi(made(tmp_path / "a.cxi", change))


def set_to(name: str, value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]
        file[name] = value

    return change


def near_without_focus(file: Any) -> None:
    file["entry_1"].attrs["propagation"] = "near_field"


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (set_to(TRANSLATION, np.zeros((2, 3))), FileFormatError, "3 frames but 2 positions"),
        (set_to(TRANSLATION, np.zeros(3)), FileFormatError, "(frame, xyz) in metres"),
        (set_to(TRANSLATION, [[0, 0, 0], [np.nan, 0, 0], [1, 1, 0]]), ScanError, "1 of 3 positions are not finite (first: frame 1)"),
        (set_to(TRANSLATION, np.ones((3, 3))), ScanError, "all 3 positions are the same"),
        (set_to(f"{DETECTOR}/y_pixel_size", 55e-6), FileFormatError, "only square pixels"),
        (set_to(f"{DETECTOR}/distance", 2000.0), GeometryError, "distance_m = 2000"),
        (set_to(f"{DETECTOR}/distance", [1.0, 2.0]), FileFormatError, "one number is needed"),
        (set_to(f"{SOURCE}/energy", 8000.0), GeometryError, "energy_ev"),
        (set_to(f"{DETECTOR}/data", np.zeros((0, 16, 16), np.uint16)), FileFormatError, "0 frames but 3 positions"),
        (set_to(f"{DETECTOR}/data", np.zeros((16, 16), np.uint16)), FileFormatError, "counts (frame, y, x) are needed"),
        (set_to(f"{DETECTOR}/basis_vectors", [[1, 1], [1, -1], [0, 0]]), FileFormatError, "multiples of 90 degrees"),
        (set_to(f"{DETECTOR}/basis_vectors", [[1, 1], [0, 0], [0, 0]]), FileFormatError, "multiples of 90 degrees"),
        (near_without_focus, FileFormatError, "no entry entry_1/instrument_1/source_1/focus_to_sample_distance"),
    ],
)
def test_files_that_contradict_themselves(tmp_path: Path, change: Callable[[Any], None], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as caught:
        open_cxi(made(tmp_path / "a.cxi", change))
    assert said in str(caught.value)
    assert str(tmp_path / "a.cxi") in str(caught.value)


def no_frames(file: Any) -> None:
    set_to(f"{DETECTOR}/data", np.zeros((0, 16, 16), np.uint16))(file)
    set_to(TRANSLATION, np.zeros((0, 3)))(file)


def test_no_frames_at_all(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="0 frames with a position"):
        open_cxi(made(tmp_path / "a.cxi", no_frames))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_corrupt_file(tmp_path: Path, share: float) -> None:
    path = made(tmp_path / "a.cxi")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FileFormatError, match=r"a\.cxi"):
        open_cxi(path)


def test_a_folder_is_no_cxi_file(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="is not a file"):
        open_cxi(tmp_path)


def test_content_id_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    (tmp_path / "c").write_bytes(b"y")
    assert content_id(tmp_path / "a") == content_id(tmp_path / "b") != content_id(tmp_path / "c")
    assert content_id(tmp_path / "a") == "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
