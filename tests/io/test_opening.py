"""From a job's references to its frames."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptyplugin.io import open_frames
from ptyplugin.model import (
    BesideSource,
    FileSource,
    FrameBlock,
    Frames,
    FramesError,
    GeometryNumbers,
    Hdf5Source,
    Job,
    JobError,
    MemoryFrames,
    OutsideDataRoots,
    Preparation,
    RunSource,
    Site,
    TiledSource,
    put_beside,
)

COUNTS = np.random.default_rng(5).integers(0, 9, (10, 8, 9), dtype=np.uint16)
RUN = RunSource(run_uid="u-1", stream="primary", key="detector", scan_id=4)


def file_of(path: Path, counts: np.ndarray) -> Hdf5Source:
    with h5py.File(path, "w") as file:
        file["data"] = counts
        file["mask"] = (np.arange(72).reshape(8, 9) == 3).astype(np.uint8)
    return Hdf5Source(uri=f"file://localhost{path}", dataset="/data")


def job_of(*blocks: FrameBlock, **change: Any) -> Job:
    count = sum(len(block.indices()) for block in blocks)
    fields: dict[str, Any] = {
        "beamline": "sim",
        "source": RUN,
        "geometry": GeometryNumbers(energy_ev=8000, distance_m=2, pixel_m=75e-6, shape=(8, 9)),
        "recipe": "DM(2)",
        "frames": list(blocks),
        "frame_ids": [(0, count)],
        "positions_m": [[[1e-6 * i, 0.0]] for i in range(count)],
    }
    return Job(**{**fields, **change})


def block(source: Any, *ranges: tuple[int, int]) -> FrameBlock:
    return FrameBlock(source=source, ranges=list(ranges))


def test_blocks_are_joined_in_the_order_of_the_scan(tmp_path: Path) -> None:
    first, second = file_of(tmp_path / "a b.h5", COUNTS[:6]), file_of(tmp_path / "b.h5", COUNTS[6:])
    first = first.model_copy(update={"uri": first.uri.replace(" ", "%20")})
    arrays: dict[str, Any] = {}
    reference = put_beside("frames.npy", COUNTS[:2], arrays)
    np.save(tmp_path / "frames.npy", arrays["frames.npy"])
    beside = BesideSource(name=reference.name, sha256=reference.sha256)
    job = job_of(block(first, (4, 6), (0, 2)), block(second, (1, 4)), block(beside, (1, 2)), block(first, (3, 4)))
    with open_frames(job, Site(data_roots=[tmp_path]), tmp_path, None) as frames:
        right = COUNTS[[4, 5, 0, 1, 7, 8, 9, 1, 3]]
        assert (len(frames), frames.shape, frames.dtype, frames.mask) == (9, (8, 9), np.uint16, None)
        np.testing.assert_array_equal(frames.read(np.arange(9)), right)
        np.testing.assert_array_equal(frames.read(np.array([8, 0, 5, 5])), right[[8, 0, 5, 5]])
        assert frames.read(np.array([], np.int64)).shape == (0, 8, 9)
        with pytest.raises(FramesError, match="the job has 9 frames"):
            frames.read(np.array([9]))


def test_mask_comes_from_the_file(tmp_path: Path) -> None:
    job = job_of(block(file_of(tmp_path / "a.h5", COUNTS), (0, 10)), preparation=Preparation(mask_dataset="/mask"))
    with open_frames(job, Site(data_roots=[tmp_path]), None, None) as frames:
        assert frames.mask is not None
        assert np.flatnonzero(frames.mask).tolist() == [3]


def catalog(asked: list[TiledSource]) -> Any:
    def from_catalog(source: TiledSource) -> Frames:
        asked.append(source)
        return MemoryFrames(COUNTS)

    return from_catalog


def test_file_that_is_not_mounted_is_read_through_the_catalog(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = Hdf5Source(uri=f"file://host{tmp_path}/gone.h5", dataset="/data")
    asked: list[TiledSource] = []
    with (
        caplog.at_level(logging.WARNING),
        open_frames(job_of(block(source, (2, 5))), Site(data_roots=[tmp_path]), None, catalog(asked)) as frames,
    ):
        np.testing.assert_array_equal(frames.read(np.arange(3)), COUNTS[2:5])
    assert asked == [TiledSource(run_uid="u-1", stream="primary", key="detector")]
    assert "gone.h5 is not there; the frames of run u-1 are read through the catalog" in caplog.text


def test_catalog_is_not_asked_where_it_could_not_be_right(tmp_path: Path) -> None:
    here, gone = file_of(tmp_path / "a.h5", COUNTS), Hdf5Source(uri=f"file://{tmp_path}/gone.h5", dataset="/data")
    asked: list[TiledSource] = []
    site = Site(data_roots=[tmp_path])
    with pytest.raises(FramesError, match=r"gone\.h5 does not exist"):
        open_frames(job_of(block(here, (0, 2)), block(gone, (0, 2))), site, None, catalog(asked))
    with pytest.raises(FramesError, match=r"gone\.h5 does not exist"):
        open_frames(job_of(block(gone, (0, 2)), source=FileSource(content_id="c", name="n")), site, None, catalog(asked))
    with pytest.raises(FramesError, match=r"gone\.h5 does not exist"):
        open_frames(job_of(block(gone, (0, 2))), site, None, None)
    assert asked == []


@pytest.mark.parametrize("name", ["there.h5", "gone.h5", "../secret/there.h5", "link.h5"])
def test_outside_data_roots_is_never_circumvented(tmp_path: Path, name: str) -> None:
    for folder in ("secret", "data"):
        (tmp_path / folder).mkdir()
    file_of(tmp_path / "secret" / "there.h5", COUNTS)
    (tmp_path / "data" / "link.h5").symlink_to(tmp_path / "secret" / "there.h5")
    folder = "data" if name in ("link.h5", "../secret/there.h5") else "secret"
    source = Hdf5Source(uri=f"file://{tmp_path}/{folder}/{name}", dataset="/data")
    asked: list[TiledSource] = []
    with pytest.raises(OutsideDataRoots, match=r"lies outside the site's data_roots .*add its folder"):
        open_frames(job_of(block(source, (0, 2))), Site(data_roots=[tmp_path / "data"]), None, catalog(asked))
    assert asked == []


def test_external_link_is_checked_without_the_path_map(tmp_path: Path) -> None:
    """The map would turn the forbidden path that HDF5 opens into an allowed one that it does not."""
    for folder in ("secret", "data"):
        (tmp_path / folder).mkdir()
    file_of(tmp_path / "secret" / "a.h5", COUNTS)
    with h5py.File(tmp_path / "data" / "a.h5", "w") as file:
        file["data"] = h5py.ExternalLink(str(tmp_path / "secret" / "a.h5"), "/data")
    source = Hdf5Source(uri=f"file://{tmp_path}/data/a.h5", dataset="/data")
    site = Site(data_roots=[tmp_path / "data"], path_map={str(tmp_path / "secret"): str(tmp_path / "data")})
    with pytest.raises(OutsideDataRoots, match="secret"):
        open_frames(job_of(block(source, (0, 2))), site, None, None)


def test_frames_that_do_not_fit(tmp_path: Path) -> None:
    source = file_of(tmp_path / "a.h5", COUNTS)
    other = file_of(tmp_path / "b.h5", COUNTS.transpose(0, 2, 1).astype(np.uint32))
    site = Site(data_roots=[tmp_path])
    with pytest.raises(FramesError, match="all be of one shape and type, these are 8 x 9 uint16, 9 x 8 uint32"):
        open_frames(job_of(block(source, (0, 2)), block(other, (0, 2))), site, None, None)
    with pytest.raises(FramesError, match="frames are 9 x 8 px, the job says 8 x 9"):
        open_frames(job_of(block(other, (0, 2))), site, None, None)
    with pytest.raises(FramesError, match="lists 2 frames for 3 positions"):
        open_frames(job_of(block(source, (0, 2)), frame_ids=[(0, 3)]), site, None, None)
    with pytest.raises(FramesError, match="none at all"):
        open_frames(job_of(), site, None, None)


def test_transposed_frames_fit_the_prepared_shape(tmp_path: Path) -> None:
    job = job_of(block(file_of(tmp_path / "a.h5", COUNTS.transpose(0, 2, 1)), (0, 2)))
    job = job.model_copy(update={"preparation": Preparation.model_validate({"orientation": "transpose_flip_x"})})
    with open_frames(job, Site(data_roots=[tmp_path]), None, None) as frames:
        assert frames.shape == (9, 8)


def test_a_pixel_that_one_file_masks_is_masked(tmp_path: Path) -> None:
    first, second = (file_of(tmp_path / f"{name}.h5", COUNTS[:2]) for name in "ab")
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        file["mask"][0] = 7 * (np.arange(9) == 5)
    job = job_of(block(first, (0, 2)), block(second, (0, 2)), preparation=Preparation(mask_dataset="/mask"))
    with open_frames(job, Site(data_roots=[tmp_path]), None, None) as frames:
        assert frames.mask is not None
        assert np.flatnonzero(frames.mask).tolist() == [3, 5]


def test_mask_cannot_come_through_the_catalog(tmp_path: Path) -> None:
    source = Hdf5Source(uri=f"file://{tmp_path}/gone.h5", dataset="/data")
    job = job_of(block(source, (0, 2)), preparation=Preparation(mask_dataset="/mask"))
    with pytest.raises(FramesError, match="mask /mask lies in the detector's file, which is not there"):
        open_frames(job, Site(data_roots=[tmp_path]), None, catalog([]))


def test_arrays_beside_the_job(tmp_path: Path) -> None:
    source = BesideSource(name="frames.npy", sha256="0" * 64)
    with pytest.raises(JobError, match="without a folder"):
        open_frames(job_of(block(source, (0, 2))), Site(), None, None)
    np.save(tmp_path / "frames.npy", COUNTS)
    with pytest.raises(JobError, match="not the array that was submitted"):
        open_frames(job_of(block(source, (0, 2))), Site(), tmp_path, None)


def test_catalog_source_needs_a_catalog() -> None:
    source = TiledSource(run_uid="u-1", stream="primary", key="detector")
    with pytest.raises(FramesError, match="set tiled_uri"):
        open_frames(job_of(block(source, (0, 2))), Site(), None, None)
    with open_frames(job_of(block(source, (8, 10))), Site(), None, catalog([])) as frames:
        np.testing.assert_array_equal(frames.read(np.array([1])), COUNTS[9:])
