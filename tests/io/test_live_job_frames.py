"""Which ways to its frames a job takes, live and final, and how it grows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frame_ways import COUNTS, SwmrFile, spooled, wait_until

from ptyplugin.io import open_frames
from ptyplugin.io.spool_writer import SpoolWriter
from ptyplugin.model import (
    CatalogAway,
    CatalogError,
    FrameBlock,
    Frames,
    FramesError,
    GeometryNumbers,
    Growth,
    Hdf5Source,
    Job,
    MemoryFrames,
    OutsideDataRoots,
    Preparation,
    RunSource,
    Site,
    TiledSource,
)


def job_of(source: Any, ranges: list[tuple[int, int]], purpose: str = "live", **change: Any) -> Job:
    count = sum(stop - start for start, stop in ranges)
    return Job(
        beamline="sim",
        source=RunSource(run_uid="u-1", key="detector", begun_s=time.time()),
        purpose=purpose,
        geometry=GeometryNumbers(energy_ev=8000, distance_m=2, pixel_m=75e-6, shape=(8, 9)),
        recipe="DM(2)",
        frames=[FrameBlock(source=source, ranges=ranges)],
        frame_ids=[(0, count)],
        positions_m=[[[1e-6 * i, 0.0]] for i in range(count)],
        **change,
    )


def growth_of(job: Job, source: Any, first: int, start: int, stop: int) -> Growth:
    positions = [[(1e-6 * i, 0.0)] for i in range(stop - start)]
    block = FrameBlock(source=source, ranges=[(start, stop)])
    return Growth(job=job.key, first=first, frames=[block], frame_ids=[(first, first + stop - start)], positions_m=positions)


def test_a_live_job_grows(tmp_path: Path, site: Site, file: SwmrFile, writer: SpoolWriter) -> None:
    source = Hdf5Source(uri=f"file://localhost{tmp_path}/a.h5", dataset="data")
    file.write(0, 6)
    job = job_of(source, [(0, 6)], preparation=Preparation(mask_dataset="mask"))
    with open_frames(job, site, None, None) as frames:
        assert (len(frames), frames.mask is not None) == (6, True)
        file.write(6, 8)
        frames.grow(growth_of(job, source, 6, 6, 9), None)
        frames.grow(growth_of(job, source, 9, 20, 22), None)
        assert (len(frames), frames.has(np.arange(11)).tolist()) == (11, [True] * 8 + [False] * 3)
        spooled(writer, range(30))
        wait_until(lambda: frames.has(np.arange(11)).all())
        right = COUNTS[[*range(9), 20, 21]]
        np.testing.assert_array_equal(frames.read(np.arange(11)), right)
        np.testing.assert_array_equal(frames.read(np.array([10, 0, 9, 9])), right[[10, 0, 9, 9]])
        with pytest.raises(FramesError, match="has 11 frames, and growth begins at 13"):
            frames.grow(growth_of(job, source, 13, 22, 23), None)
        frames.grow(Growth(job=job.key, first=11, ended=True), None)
        assert len(frames) == 11
        assert any("the spool of SIM:Pva1:Image" in note for note in frames.notes)


def test_the_spool_is_not_asked_for_a_file_that_began_before_the_run(
    tmp_path: Path, site: Site, file: SwmrFile, writer: SpoolWriter
) -> None:
    """Its frame 20 is the first of this run, and so not the 20th in the spool."""
    source = Hdf5Source(uri=f"file://localhost{tmp_path}/a.h5", dataset="data")
    file.write(0, 22)
    spooled(writer, range(40))
    with open_frames(job_of(source, [(20, 24)]), site, None, None) as frames:
        time.sleep(0.3)
        assert frames.has(np.arange(4)).tolist() == [True, True, False, False]
        file.write(22, 24)
        np.testing.assert_array_equal(frames.read(np.arange(4)), COUNTS[20:24])


def test_a_live_job_does_without_the_mask_of_a_file_that_is_not_there(tmp_path: Path, site: Site, writer: SpoolWriter) -> None:
    source = Hdf5Source(uri=f"file://localhost{tmp_path}/a.h5", dataset="data")
    job = job_of(source, [(0, 2)], preparation=Preparation(mask_dataset="mask"))
    spooled(writer, range(2))
    with open_frames(job, site, None, None) as frames:
        assert frames.mask is None
        assert "bad pixels are told by their counts only" in frames.notes[0]


def test_a_final_job_takes_the_spool_only_where_neither_file_nor_catalog_is(tmp_path: Path, site: Site, writer: SpoolWriter) -> None:
    source = Hdf5Source(uri=f"file://localhost{tmp_path}/a.h5", dataset="data")
    job = job_of(source, [(0, 4)], purpose="final")
    spooled(writer, range(4), COUNTS + 1)

    def catalog(_: TiledSource) -> Frames:
        return MemoryFrames(COUNTS)

    def without_it(_: TiledSource) -> Frames:
        raise CatalogError("there is no such run.")

    class Gone(MemoryFrames):
        """Of a file that is not there for the catalog either."""

        def read(self, frames: np.ndarray) -> np.ndarray:
            raise FramesError("frames cannot be read through the catalog.")

    def away(_: TiledSource) -> Frames:
        raise CatalogAway("the catalog does not answer.")

    with open_frames(job, site, None, catalog) as frames:
        np.testing.assert_array_equal(frames.read(np.arange(4)), COUNTS[:4])
    for none in (None, without_it, lambda _: Gone(COUNTS)):
        with open_frames(job, site, None, none) as frames:
            np.testing.assert_array_equal(frames.read(np.arange(4)), COUNTS[:4] + 1)
            assert "came from the spool" in frames.notes[0]
    with pytest.raises(CatalogAway):
        open_frames(job, site, None, away)


def test_a_final_job_takes_from_the_spool_what_the_file_does_not_show_yet(
    tmp_path: Path, site: Site, file: SwmrFile, writer: SpoolWriter
) -> None:
    source = Hdf5Source(uri=f"file://localhost{tmp_path}/a.h5", dataset="data")
    job = job_of(source, [(0, 4)], purpose="final")
    file.write(0, 2)
    spooled(writer, range(4), COUNTS + 1)
    with open_frames(job, site, None, None) as frames:
        np.testing.assert_array_equal(frames.read(np.arange(4)), [*COUNTS[:2], *COUNTS[2:4] + 1])
        assert "frames from 2 on came from the spool" in frames.notes[0]
    file.write(2, 4)
    with open_frames(job, site, None, None) as frames:
        np.testing.assert_array_equal(frames.read(np.arange(4)), COUNTS[:4])
        assert not frames.notes


def test_no_way_leads_around_the_data_roots(tmp_path: Path, writer: SpoolWriter, site: Site) -> None:
    spooled(writer, range(4))
    narrow = site.model_copy(update={"data_roots": [tmp_path / "data"]})
    with pytest.raises(OutsideDataRoots):
        open_frames(job_of(Hdf5Source(uri=f"file://{tmp_path}/a.h5", dataset="data"), [(0, 2)]), narrow, None, None)


def test_a_live_job_of_frames_in_the_catalog_waits_for_them(site: Site) -> None:
    there = [3]
    job = job_of(TiledSource(run_uid="u-1", stream="primary", key="detector"), [(0, 8)])
    with open_frames(job, site, None, lambda _: MemoryFrames(COUNTS[: there[0]])) as frames:
        assert frames.has(np.arange(8)).tolist() == [True] * 3 + [False] * 5
        there[0] = 8
        np.testing.assert_array_equal(frames.read(np.arange(8)), COUNTS[:8])
