"""The result file: what is written comes back, whole or not at all."""

from __future__ import annotations

import json
import os
import resource
import stat
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptyplugin.io import read_result, write_result
from ptyplugin.model import FileFormatError, Geometry, Progress, Reconstruction, Verdict


def some_result(near: bool = False, iterations: int = 3) -> Reconstruction:
    random = np.random.default_rng(3)

    def wave(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(np.complex64)

    progress = [
        Progress("0123456789abcdef", "DM" if step < 3 else "ePIE", step, iterations, 0.1 * step, {"running_error": 1 / step})
        for step in range(1, iterations)
    ]
    progress.append(Progress("0123456789abcdef", "ePIE", iterations, iterations, 1.5, {"error": 0.25, "running_error": 0.5}))
    return Reconstruction(
        object=wave(2, 40, 50),
        probe=wave(2, 16, 16),
        geometry=Geometry(8000.0, 2.0, 75e-6, (16, 16), 0.004 if near else None),
        positions_m=random.normal(size=(7, 2)),
        positions_px=random.normal(size=(7, 2)),
        positions_start_px=random.normal(size=(7, 2)) if near else None,
        mask=random.integers(0, 2, (16, 16), dtype=np.uint8),
        progress=progress,
        quality={"error": 0.25},
        verdict=Verdict("doubtful", "climbing", ("One thing.", "Another of 3 µm.")) if near else None,
        provenance={
            "key": "0123456789abcdef",
            "job": {"positions_m": [[[float(i), 1e-7]] for i in range(9000)]},
            "recipe": "DM(2) + ePIE(1)",
            "notes": ["one", "zwei µm"],
            "scan_id": 7,
            "scan_uid": None,
            "seconds": 1.5,
        },
    )


@pytest.mark.parametrize("near", [False, True])
def test_round_trip(tmp_path: Path, near: bool) -> None:
    written = some_result(near)
    write_result(tmp_path / "new" / "folder" / "a.h5", written)
    read = read_result(tmp_path / "new" / "folder" / "a.h5")
    for name in ("object", "probe", "positions_m", "positions_px", "mask"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
        assert getattr(read, name).dtype == getattr(written, name).dtype
    assert (read.positions_start_px is None) == (not near)
    assert read.verdict == written.verdict
    assert read.provenance.keys() == written.provenance.keys()
    np.testing.assert_array_equal(read.positions_start_px, written.positions_start_px)
    assert read.geometry == written.geometry
    assert read.progress == written.progress
    assert read.quality == written.quality
    assert read.provenance == written.provenance


def test_layout_for_readers_without_ptyplugin(tmp_path: Path) -> None:
    result = some_result()
    write_result(tmp_path / "a.h5", result)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["object"].dtype == file["probe"].dtype == np.complex64
        assert file["object_phase"].dtype == file["object_amplitude"].dtype == np.float32
        np.testing.assert_allclose(file["object_amplitude"][()] * np.exp(1j * file["object_phase"][()]), result.object[0], atol=1e-5)
        assert file["progress/iteration"][()].tolist() == [1, 2, 3]
        np.testing.assert_array_equal(file["progress/error"][()], [np.nan, np.nan, 0.25])
        assert file["progress/stage"].asstr()[()].tolist() == ["DM", "DM", "ePIE"]
        assert file.attrs["energy_ev"] == 8000.0
        assert "focus_distance_m" not in file.attrs
        assert file.attrs["object_pixel_m"] == pytest.approx(result.geometry.object_pixel_m)
        assert file.attrs["recipe"] == "DM(2) + ePIE(1)"
        assert json.loads(file.attrs["quality_json"]) == {"error": 0.25}


def test_no_progress(tmp_path: Path) -> None:
    result = some_result()
    result.progress.clear()
    write_result(tmp_path / "a.h5", result)
    assert read_result(tmp_path / "a.h5").progress == []


def test_others_may_read_it_and_nothing_else_is_left(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_result(tmp_path / "a.h5", some_result())
        write_result(tmp_path / "a.h5", some_result(near=True))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.h5").stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    assert read_result(tmp_path / "a.h5").geometry.near_field


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    names = [".a.h5.old.part", ".a.h5.young.part", ".b.h5.old.part", "a.h5.old.part"]
    for name in names:
        (tmp_path / name).write_text("")
        if "old" in name:
            os.utime(tmp_path / name, (0, 0))
    write_result(tmp_path / "a.h5", some_result())
    assert {path.name for path in tmp_path.iterdir()} == {"a.h5", *names[1:]}


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(tmp_path / "a.h5", some_result())

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileFormatError, match=r"cannot be written to .*a\.h5 \(No space left on device\)"):
        write_result(tmp_path / "a.h5", some_result(near=True))
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    assert not read_result(tmp_path / "a.h5").geometry.near_field


@pytest.mark.parametrize("room", [0, 3_000, 30_000, 150_000])
def test_a_full_disk_is_one_sentence(tmp_path: Path, room: int, capfd: pytest.CaptureFixture[str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(FileFormatError, match=r"cannot be written to .*a\.h5 \(File too large\): check") as caught:
            write_result(tmp_path / "a.h5", some_result())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("")
    with pytest.raises(FileFormatError, match="cannot be written"):
        write_result(tmp_path / "b" / "a.h5", some_result())


def test_files_that_are_no_result(tmp_path: Path, shared: Path) -> None:
    with pytest.raises(FileFormatError, match="is not a result file"):
        read_result(shared / "data" / "aps_velociprobe_siemens.cxi")
    with pytest.raises(FileFormatError, match="does not exist"):
        read_result(tmp_path / "gone.h5")
    write_result(tmp_path / "a.h5", some_result())
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["probe"]
    with pytest.raises(FileFormatError, match="damaged"):
        read_result(tmp_path / "a.h5")
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match=r"damaged|not a complete HDF5 file"):
        read_result(tmp_path / "a.h5")
