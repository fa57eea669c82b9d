"""Frames out of HDF5 files: good ones, growing ones, and every way in which they can be wrong."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.io import Hdf5Frames
from ptyplugin.model import FramesError, OutsideDataRoots

COUNTS = np.arange(12 * 6 * 5, dtype=np.uint16).reshape(12, 6, 5)


def written(path: Path, counts: NDArray[np.uint16] = COUNTS, **options: object) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data", data=counts, **options)
        file["entry/mask"] = (np.arange(30).reshape(6, 5) == 7).astype(np.uint32) * 4
        file["entry/small_mask"] = np.zeros((3, 3), np.uint8)
        file["entry/words"] = np.array([b"a", b"b"])
    return path


@pytest.mark.parametrize("leading", [(12,), (3, 4), (2, 3, 2), (12, 1)])
@pytest.mark.parametrize("asked", [[0, 1, 2], [11], [5, 4, 9, 3, 3, 0], list(range(12)), []])
def test_frames_are_numbered_over_all_leading_axes(tmp_path: Path, leading: tuple[int, ...], asked: list[int]) -> None:
    path = written(tmp_path / "a.h5", COUNTS.reshape(*leading, 6, 5))
    with Hdf5Frames(path, "/entry/data") as frames:
        assert (len(frames), frames.shape, frames.dtype, frames.mask) == (12, (6, 5), np.uint16, None)
        np.testing.assert_array_equal(frames.read(np.array(asked, np.int64)), COUNTS[asked])


def test_single_frame_without_leading_axis(tmp_path: Path) -> None:
    with Hdf5Frames(written(tmp_path / "a.h5", COUNTS[3]), "entry/data") as frames:
        np.testing.assert_array_equal(frames.read(np.array([0])), COUNTS[3:4])


def test_compressed_chunks_of_many_frames(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", chunks=(5, 6, 5), **hdf5plugin.Bitshuffle())
    with Hdf5Frames(path, "entry/data") as frames:
        np.testing.assert_array_equal(frames.read(np.array([11, 2, 7])), COUNTS[[11, 2, 7]])


def test_mask_is_one_where_the_file_says_bad(tmp_path: Path) -> None:
    with Hdf5Frames(written(tmp_path / "a.h5"), "entry/data", mask_dataset="/entry/mask") as frames:
        assert frames.mask is not None
        assert frames.mask.dtype == np.uint8
        assert np.flatnonzero(frames.mask).tolist() == [7]
        assert frames.mask.max() == 1


@pytest.mark.parametrize(
    ("dataset", "mask", "said"),
    [
        ("/entry/nothing", None, "no dataset '/entry/nothing'"),
        ("/entry", None, "is a group"),
        ("/entry/words", None, "has shape (2,)"),
        ("/entry/data", "/entry/no_mask", "no dataset '/entry/no_mask'"),
        ("/entry/data", "/entry/small_mask", "shape (3, 3), its frames (6, 5)"),
    ],
)
def test_wrong_datasets(tmp_path: Path, dataset: str, mask: str | None, said: str) -> None:
    path = written(tmp_path / "a.h5")
    with pytest.raises(FramesError) as caught:
        Hdf5Frames(path, dataset, mask_dataset=mask)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FramesError, match=r"gone.h5 does not exist: check the path"):
        Hdf5Frames(tmp_path / "gone.h5", "data")


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all" * 100])
def test_not_hdf5(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(FramesError, match="not a complete HDF5 file"):
        Hdf5Frames(tmp_path / "a.h5", "data")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_file_fails_in_a_sentence(tmp_path: Path, share: float) -> None:
    counts = np.random.default_rng(1).integers(0, 60000, (12, 64, 64), dtype=np.uint16)
    path = written(tmp_path / "a.h5", counts, chunks=(1, 64, 64))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FramesError, match=r"truncated|damaged"), Hdf5Frames(path, "entry/data", deadline_s=0.1) as frames:
        frames.read(np.arange(12))


def test_damaged_chunk(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", chunks=(1, 6, 5), compression="gzip")
    with h5py.File(path) as file:
        chunk = file["entry/data"].id.get_chunk_info(4)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(data)
    with Hdf5Frames(path, "entry/data") as frames:
        np.testing.assert_array_equal(frames.read(np.array([3])), COUNTS[3:4])
        with pytest.raises(FramesError, match=r"frames 4\.\.4 of /entry/data cannot be read"):
            frames.read(np.array([4]))


@pytest.mark.parametrize("frame", [12, -1])
def test_frames_that_are_not_there(tmp_path: Path, frame: int) -> None:
    with (
        Hdf5Frames(written(tmp_path / "a.h5"), "entry/data", deadline_s=0.05) as frames,
        pytest.raises(FramesError, match=f"has 12 frames; frame {frame} was asked for"),
    ):
        frames.read(np.array([frame]))


def test_growing_file_is_waited_for(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as writer:
        data = writer.create_dataset("data", shape=(3, 6, 5), maxshape=(None, 6, 5), chunks=(1, 6, 5), dtype=np.uint16)
        data[:] = COUNTS[:3]
        writer.swmr_mode = True

        def grow() -> None:
            data.resize(12, axis=0)
            data[3:] = COUNTS[3:]
            data.flush()

        with Hdf5Frames(tmp_path / "a.h5", "data", deadline_s=30) as frames:
            assert len(frames) == 3
            later = threading.Timer(0.2, grow)
            later.start()
            np.testing.assert_array_equal(frames.read(np.arange(12)), COUNTS)
            later.join()


def test_file_still_held_by_its_writer(tmp_path: Path) -> None:
    with written(tmp_path / "a.h5").open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)  # as HDF5 does while it writes without SWMR
        with pytest.raises(FramesError, match="still open for writing"):
            Hdf5Frames(tmp_path / "a.h5", "entry/data", deadline_s=0.1)


def pointing(folder: Path, way: str) -> Path:
    """A file whose frames lie in ``secret/frames`` beside it: by external link, virtual dataset, external storage."""
    (folder / "secret").mkdir()
    written(folder / "secret" / "frames.h5")
    (folder / "secret" / "frames.raw").write_bytes(COUNTS.tobytes())
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        if way == "link":
            file["data"] = h5py.ExternalLink("secret/frames.h5", "/entry/data")
        elif way == "virtual":
            layout = h5py.VirtualLayout(COUNTS.shape, COUNTS.dtype)
            layout[:] = h5py.VirtualSource("secret/frames.h5", "/entry/data", COUNTS.shape)
            file.create_virtual_dataset("data", layout)
        else:
            raw = [(str(folder / "secret" / "frames.raw"), 0, COUNTS.nbytes)]
            file.create_dataset("data", COUNTS.shape, COUNTS.dtype, external=raw)
    return path


@pytest.mark.parametrize("way", ["link", "virtual", "storage"])
def test_files_that_a_file_points_to_obey_the_same_rule(tmp_path: Path, way: str) -> None:
    def allowed(path: Path) -> None:
        if path.resolve().parent != tmp_path.resolve():
            raise OutsideDataRoots(f"{path} lies outside")

    path = pointing(tmp_path, way)
    with Hdf5Frames(path, "data") as frames:
        np.testing.assert_array_equal(frames.read(np.arange(12)), COUNTS)
    with pytest.raises(OutsideDataRoots, match="secret"):
        Hdf5Frames(path, "data", allowed=allowed)


def test_missing_source_of_a_virtual_dataset_is_no_dark_frame(tmp_path: Path) -> None:
    path = pointing(tmp_path, "virtual")
    (tmp_path / "secret" / "frames.h5").unlink()
    with pytest.raises(FramesError, match=r"points to .*frames\.h5, which does not exist"):
        Hdf5Frames(path, "data")
