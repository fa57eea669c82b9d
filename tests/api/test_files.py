"""open_scan, make_job and reconstruct on CXI files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import ptyplugin
from ptyplugin.api import folder_of, make_job, open_scan, reconstruct, solve_job
from ptyplugin.io import read_result, write_result
from ptyplugin.model import (
    Cancelled,
    DeviceError,
    FileFormatError,
    FramesError,
    GeometryError,
    Hdf5Source,
    Job,
    JobError,
    OutsideDataRoots,
    Progress,
    RecipeError,
    ScanError,
    Site,
    Stage,
)


def changed(small_cxi: Path, folder: Path, name: str, value: Any) -> Path:
    """A copy of the small file with another dataset."""
    path = folder / "changed.cxi"
    path.write_bytes(small_cxi.read_bytes())
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = value
    return path


def test_file_becomes_a_scan(small_cxi: Path) -> None:
    scan = open_scan(str(small_cxi))
    assert (len(scan.scan), scan.geometry.shape, scan.job.beamline) == (36, (48, 48), "files")
    assert scan.start_probe is not None
    with scan.frames() as frames:
        assert frames.read(np.arange(2)).shape == (2, 48, 48)
    assert "small.cxi: 36 frames" in repr(scan)


def test_reconstruct_and_write(small_cxi: Path, tmp_path: Path) -> None:
    steps: list[Progress] = []
    result = reconstruct(open_scan(small_cxi), "DM(20) + ePIE(10)", on_progress=steps.append)
    assert result.quality["error"] < 0.005
    assert [one.iteration for one in steps] == list(range(1, 31))
    known = result.provenance
    assert Job.model_validate(known["job"]).key == known["key"] == steps[0].job
    assert (known["recipe"], known["beamline"], known["scan_uid"]) == ("DM(20) + ePIE(10)", "files", None)
    assert known["versions"]["ptyplugin"] == ptyplugin.__version__
    assert known["notes"] == ["The reconstruction starts from the illumination in the CXI file."]
    write_result(tmp_path / "a.h5", result)
    assert read_result(tmp_path / "a.h5").provenance == known


def test_package_gives_the_three_words(small_cxi: Path) -> None:
    result = ptyplugin.reconstruct(ptyplugin.open_scan(small_cxi), Stage("ePIE", 2))
    assert repr(result).startswith("<Reconstruction of 36 frames: object (1, ")
    assert repr(result).endswith(f"error {result.quality['error']:.4g}, doubtful>")
    assert len(result.progress) == 2
    assert "results" in dir(ptyplugin)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ptyplugin.nothing


def test_key_is_of_the_content_and_of_what_is_asked(small_cxi: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other_name.cxi"
    copy.write_bytes(small_cxi.read_bytes())
    scan = open_scan(small_cxi)
    key = make_job(scan).job.key
    assert make_job(open_scan(copy)).job.key == key
    assert make_job(scan, ranks=4, device="cpu").job.key == key
    others = [
        make_job(scan, "DM(3)"),
        make_job(scan, probe_modes=2),
        make_job(scan, object_modes=2),
        make_job(scan, subpixel="none"),
        make_job(scan, seed=1),
        make_job(scan, crop_px=32),
        make_job(scan, probe=np.ones((48, 48))),
        make_job(open_scan(changed(small_cxi, tmp_path, "entry_1/instrument_1/detector_1/distance", 1.1))),
    ]
    assert len({key, *(parts.job.key for parts in others)}) == 1 + len(others)


def test_crop_makes_object_pixels_larger_and_takes_the_probe_along(small_cxi: Path) -> None:
    scan = open_scan(small_cxi)
    parts = make_job(scan, "ePIE(20)", crop_px=24)
    assert parts.job.geometry.build().object_pixel_m[0] == pytest.approx(2 * scan.geometry.object_pixel_m[0])
    assert parts.arrays["start_probe.npy"].shape == (1, 24, 24)
    assert "48 x 48 px of 43.05 nm was interpolated to 24 x 24 px of 86.1 nm" in parts.job.notes[-1]
    with folder_of(parts) as folder:
        result = solve_job(parts.job, folder, scan.site)
    assert result is not None
    assert result.quality["error"] < 0.05


@pytest.mark.parametrize(
    ("count", "asked", "modes", "used", "noted"), [(2, None, 2, 2, False), (2, 3, 3, 2, False), (3, 2, 2, 2, True), (1, None, 1, 1, False)]
)
def test_modes_of_a_given_probe(small_cxi: Path, count: int, asked: int | None, modes: int, used: int, noted: bool) -> None:
    probe = np.ones((count, 48, 48), np.complex64) * np.arange(count, 0, -1)[:, None, None]
    parts = make_job(open_scan(small_cxi), probe=probe, probe_modes=asked)
    assert (parts.job.probe_modes, len(parts.arrays["start_probe.npy"])) == (modes, used)
    assert any("the first 2 are used" in note for note in parts.job.notes) == noted


def test_start_probe_changes_the_course(small_cxi: Path, tmp_path: Path) -> None:
    scan = open_scan(small_cxi)
    assert scan.start_probe is not None
    np.save(tmp_path / "p.npy", scan.start_probe.modes * 3)
    right = reconstruct(scan, "ePIE(1)", probe=tmp_path / "p.npy")
    wrong = reconstruct(scan, "ePIE(1)", probe=np.ones((48, 48)))
    assert right.quality["error"] < 0.5 * wrong.quality["error"]


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"recipe": "XY(3)"}, RecipeError, "XY"),
        ({"recipe": "DM(3, nonsense=1)"}, RecipeError, "nonsense"),
        ({"recipe": "DM(3"}, RecipeError, "is no recipe"),
        ({"crop_px": 64}, GeometryError, "64 px is larger than the frames of 48 px"),
        ({"crop_px": 2}, GeometryError, "too small"),
        ({"crop_px": 20.5}, JobError, "preparation.crop_px = 20.5 cannot be"),
        ({"seed": -1}, JobError, "seed = -1 cannot be"),
        ({"probe_modes": 0}, JobError, "probe_modes = 0 cannot be"),
        ({"object_modes": 0}, JobError, "object_modes = 0 cannot be"),
        ({"ranks": 0}, JobError, "resources.ranks = 0 cannot be"),
        ({"device": "tpu"}, JobError, "resources.device = 'tpu' cannot be"),
        ({"probe": "gone.npy"}, FileFormatError, "gone.npy"),
        ({"probe": np.zeros((48, 48))}, FileFormatError, "the array given: the probe is dark"),
    ],
)
def test_wrong_wishes(small_cxi: Path, options: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as caught:
        make_job(open_scan(small_cxi), **options)
    assert said in str(caught.value)


def test_no_gpu(small_cxi: Path) -> None:
    parts = make_job(open_scan(small_cxi), device="gpu")
    with folder_of(parts) as folder, pytest.raises(DeviceError, match="there is no NVIDIA card or driver; or use device cpu"):
        solve_job(parts.job, folder, open_scan(small_cxi).site)


@pytest.mark.parametrize("value", [np.full((36, 3), np.nan), np.zeros((36, 3))])
def test_impossible_positions(small_cxi: Path, tmp_path: Path, value: Any) -> None:
    path = changed(small_cxi, tmp_path, "entry_1/sample_1/geometry_1/translation", value)
    with pytest.raises(ScanError, match=r"changed\.cxi: .*positions are (not finite|the same)"):
        open_scan(path)


def test_opening_a_file_allows_its_folder_and_no_other(small_cxi: Path, tmp_path: Path) -> None:
    scan = open_scan(small_cxi, site=Site(data_roots=[tmp_path / "data"]))
    with scan.frames() as frames:
        assert len(frames) == 36
    elsewhere = scan.job.frames[0].model_copy(update={"source": Hdf5Source(uri=(tmp_path / "a.h5").as_uri(), dataset="/data")})
    job = scan.job.model_copy(update={"frames": [elsewhere]})
    with pytest.raises(OutsideDataRoots, match="add its folder to data_roots"):
        solve_job(job, None, scan.site)


def test_frames_damaged_after_opening(small_cxi: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.cxi"
    path.write_bytes(small_cxi.read_bytes())
    scan = open_scan(path)
    with h5py.File(path, "r+") as file:
        del file["entry_1/instrument_1/detector_1/data"]
    with pytest.raises(FramesError, match=r"damaged\.cxi has no dataset"):
        reconstruct(scan, "ePIE(1)")


def test_cancelled(small_cxi: Path) -> None:
    with pytest.raises(Cancelled):
        reconstruct(small_cxi, "ePIE(50)", cancelled=lambda: True)


def test_many_positions_lie_beside_the_job(small_cxi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptyplugin.model.job.INLINE_FRAMES", 10)
    scan = open_scan(small_cxi)
    assert set(scan.parts.arrays) == {"positions.npy"}
    assert len(scan.scan) == 36
    result = reconstruct(scan, "ePIE(2)")
    np.testing.assert_array_equal(result.positions_m, scan.scan.positions_m[:, 0])
