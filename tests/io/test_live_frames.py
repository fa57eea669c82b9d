"""Frames of a scan that goes on: from its file, else from the spool, else through the catalog; each change is said once."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from frame_ways import COUNTS, SwmrFile, file_way, live, spool_way, spooled, wait_until

from ptyplugin.io.spool_writer import SpoolWriter
from ptyplugin.io.ways import CatalogWay
from ptyplugin.model import (
    CatalogAway,
    Frames,
    FramesError,
    MemoryFrames,
    OutsideDataRoots,
    Site,
)


def test_the_file_is_followed_by_all_frames_without_a_word(tmp_path: Path, file: SwmrFile, caplog: pytest.LogCaptureFixture) -> None:
    frames = live(file_way(tmp_path), patience_s=30.0)
    assert (frames.shape, frames.dtype, len(frames)) == ((8, 9), np.uint16, 0)

    def measure() -> None:
        for first in range(0, 40, 4):
            file.write(first, first + 4)
            time.sleep(0.01)

    thread = threading.Thread(target=measure)
    thread.start()
    for first in range(0, 40, 8):
        np.testing.assert_array_equal(frames.read(np.arange(first, first + 8)), COUNTS[first : first + 8])
    thread.join()
    assert (frames.notes, caplog.text) == ([], "")
    assert frames.has(np.array([0, 39, 40])).tolist() == [True, True, False]
    frames.close()


def test_nothing_is_kept_of_frames_that_came_and_another_rank_reads(tmp_path: Path, site: Site, file: SwmrFile) -> None:
    frames = live(file_way(tmp_path), spool_way(site))
    assert not frames.has(np.arange(40)).any()
    assert len(frames._lacking_since) == 40
    file.write(0, 40)
    wait_until(lambda: frames.has(np.arange(40)).all())
    assert not frames._lacking_since
    frames.close()


def test_a_file_that_comes_late_is_opened_when_it_comes(tmp_path: Path) -> None:
    """First it is not there, then its writer has it for himself, then it is written in SWMR mode."""
    program = """if True:
        import sys, time, h5py, numpy as np
        time.sleep(0.3)
        with h5py.File(sys.argv[1], "w", libver="latest") as file:
            data = file.create_dataset("data", (0, 8, 9), "u2", maxshape=(None, 8, 9), chunks=(1, 8, 9))
            file.flush()
            time.sleep(0.5)
            file.swmr_mode = True
            for number in range(10):
                data.resize(number + 1, axis=0)
                data[number] = number + 1
                data.flush()
                time.sleep(0.003)
            sys.stdin.read()
        """
    with subprocess.Popen([sys.executable, "-c", program, tmp_path / "a.h5"], stdin=subprocess.PIPE) as process:
        try:
            frames = live(file_way(tmp_path))
            np.testing.assert_array_equal(frames.read(np.arange(10))[:, 0, 0], np.arange(1, 11))
            frames.close()
        finally:
            process.communicate(timeout=30)


def test_a_file_system_that_goes_away_is_waited_for(tmp_path: Path, file: SwmrFile, monkeypatch: pytest.MonkeyPatch) -> None:
    way = file_way(tmp_path)
    file.write(0, 4)
    frames = live(way)

    def gone(_: Any) -> None:
        raise OSError("Unable to refresh (stale file handle)")

    with monkeypatch.context() as patched:
        patched.setattr("ptyplugin.io.hdf5_frames.h5py.Dataset.refresh", gone)
        assert not frames.has(np.arange(4)).any()
        assert "is its file system away?" in str(way.trouble)
    np.testing.assert_array_equal(frames.read(np.arange(4)), COUNTS[:4])
    assert way.trouble is None


def test_room_that_is_not_written_yet_is_no_dark_frame(tmp_path: Path) -> None:
    file = SwmrFile(tmp_path / "a.h5", presized=40)
    file.write(0, 5)
    frames = live(file_way(tmp_path), deadline_s=0.2)
    np.testing.assert_array_equal(frames.read(np.arange(5)), COUNTS[:5])
    with pytest.raises(FramesError, match=r"(3 frames from 4|2 frames from 5) on did not come"):
        frames.read(np.arange(4, 7))
    file.write(5, 7)
    np.testing.assert_array_equal(live(file_way(tmp_path)).read(np.arange(4, 7)), COUNTS[4:7])
    file.data[7] = 0
    file.data.flush()
    assert not live(file_way(tmp_path)).read(np.array([7])).any()
    file.file.close()


def test_a_damaged_chunk_costs_no_other_frame(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        data = file.create_dataset("data", (20, 8, 9), "u2", chunks=(1, 8, 9), compression="gzip")
        data[:] = COUNTS[:20]
        for damaged in (3, 11):
            data.id.write_direct_chunk((damaged, 0, 0), b"no gzip")
    frames = live(file_way(tmp_path))
    every = np.arange(20)
    assert frames.has(every).all()
    sound = frames.readable(every)
    assert every[~sound].tolist() == [3, 11]
    with pytest.raises(FramesError, match=r"2 frames from 3 on cannot be read: .*damaged"):
        frames.read(every)
    np.testing.assert_array_equal(frames.read(every[sound]), COUNTS[:20][sound])
    frames.close()


def test_spool_where_the_file_shows_nothing_and_the_file_again(
    tmp_path: Path, site: Site, file: SwmrFile, writer: SpoolWriter, caplog: pytest.LogCaptureFixture
) -> None:
    frames = live(file_way(tmp_path), spool_way(site))
    spooled(writer, range(10))
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(frames.read(np.arange(4)), COUNTS[:4])
        np.testing.assert_array_equal(frames.read(np.arange(4, 10)), COUNTS[4:10])
        file.write(0, 20)
        np.testing.assert_array_equal(frames.read(np.arange(10, 15)), COUNTS[10:15])
        np.testing.assert_array_equal(frames.read(np.arange(15, 20)), COUNTS[15:20])
    assert frames.notes == [
        f"frames from 0 on came from the spool of SIM:Pva1:Image: the file {tmp_path}/a.h5 did not show them within 0.02 s.",
        f"frames from 10 on came from the file {tmp_path}/a.h5 again.",
    ]
    assert caplog.text.count("frames from") == 2


def test_a_file_that_shows_its_frames_in_bursts_is_no_reason_to_change_again_and_again(
    tmp_path: Path, site: Site, file: SwmrFile, writer: SpoolWriter
) -> None:
    frames = live(file_way(tmp_path), spool_way(site), stay_s=60.0)
    for first in range(0, 40, 4):
        spooled(writer, range(first, first + 4))
        np.testing.assert_array_equal(frames.read(np.arange(first, first + 4)), COUNTS[first : first + 4])
        file.write(0, first + 4)
        np.testing.assert_array_equal(frames.read(np.arange(first, first + 4)), COUNTS[first : first + 4])
    assert len(frames.notes) == 1


def test_frames_lost_on_the_network_are_healed_from_the_file(tmp_path: Path, site: Site, file: SwmrFile, writer: SpoolWriter) -> None:
    frames = live(file_way(tmp_path), spool_way(site))
    lost = {3, 4, 11}
    spooled(writer, [number for number in range(20) if number not in lost])
    wait_until(lambda: frames.has(np.arange(20)).tolist() == [number not in lost for number in range(20)])
    np.testing.assert_array_equal(frames.read(np.array([0, 1, 2])), COUNTS[:3])
    heal = threading.Timer(0.15, lambda: file.write(0, 12))
    heal.start()
    np.testing.assert_array_equal(frames.read(np.arange(20)), COUNTS[:20])
    heal.join()
    assert frames.notes[-1] == f"3 frames that were lost over the network came from the file {tmp_path}/a.h5."


def test_a_spool_that_the_file_contradicts_is_left(tmp_path: Path, site: Site, file: SwmrFile, writer: SpoolWriter) -> None:
    """A frame before the first of the file was in the spool: all stand one too far on."""
    frames = live(file_way(tmp_path), spool_way(site), deadline_s=0.3)
    spooled(writer, range(1, 11))
    np.testing.assert_array_equal(frames.read(np.arange(3)), COUNTS[1:4])
    file.write(0, 5)
    np.testing.assert_array_equal(frames.read(np.arange(3)), COUNTS[:3])
    assert ["stand at wrong positions" in note for note in frames.notes] == [False, True, False]
    assert frames.has(np.array([4, 5])).tolist() == [True, False]
    with pytest.raises(FramesError, match=r"5 frames from 5 on did not come in time.*is another one"):
        frames.read(np.arange(10))


def test_frames_of_another_shape_in_the_spool_are_not_used(tmp_path: Path, site: Site, file: SwmrFile, writer: SpoolWriter) -> None:
    file.write(0, 3)
    frames = live(file_way(tmp_path), spool_way(site), deadline_s=0.2)
    spooled(writer, range(8), COUNTS[:, :4].astype(np.uint32))
    np.testing.assert_array_equal(frames.read(np.arange(3)), COUNTS[:3])
    with pytest.raises(FramesError, match="from 3 on did not come"):
        frames.read(np.arange(5))
    assert "is not used any more: its frames are 4 x 9 px of uint32, those that came before 8 x 9 px of uint16" in frames.notes[0]


def test_the_catalog_comes_last(tmp_path: Path, site: Site) -> None:
    there = [4]

    def from_catalog() -> Frames:
        if there[0] == 0:
            raise CatalogAway("the catalog is away.")
        return MemoryFrames(COUNTS[: there[0]])

    frames = live(file_way(tmp_path), spool_way(site), CatalogWay(from_catalog))
    np.testing.assert_array_equal(frames.read(np.arange(4)), COUNTS[:4])
    said = f"{tmp_path}/a.h5 does not exist: check the path, and that its file system is mounted."
    assert frames.notes == [f"frames from 0 on came from the catalog: {said}"]
    there[0] = 12
    np.testing.assert_array_equal(frames.read(np.arange(4, 12)), COUNTS[4:12])


def test_a_catalog_that_is_not_needed_is_not_asked(tmp_path: Path, file: SwmrFile) -> None:
    asked = []
    file.write(0, 5)
    frames = live(file_way(tmp_path), CatalogWay(lambda: asked.append(1) or MemoryFrames(COUNTS)))
    assert frames.readable(np.arange(5)).all()
    np.testing.assert_array_equal(frames.read(np.arange(5)), COUNTS[:5])
    assert not asked
    wait_until(lambda: frames.readable(np.arange(6)).all())
    assert asked


@contextmanager
def silent_catalog() -> Iterator[tuple[CatalogWay, threading.Event, list[int]]]:
    """A way to a catalog that takes 10 s to answer; whether it was asked, and what it has answered."""
    asked, enough, answered = threading.Event(), threading.Event(), list[int]()

    def answer() -> Frames:
        asked.set()
        enough.wait(10.0)
        answered.append(1)
        return MemoryFrames(COUNTS)

    yield CatalogWay(answer), asked, answered
    enough.set()


def test_a_catalog_that_does_not_answer_holds_up_no_frame(tmp_path: Path, site: Site, file: SwmrFile, writer: SpoolWriter) -> None:
    every, there = np.arange(20), np.delete(np.arange(20), 7)
    with silent_catalog() as (catalog, asked, answered):
        frames = live(file_way(tmp_path), spool_way(site), catalog)
        spooled(writer, there.tolist())
        while not asked.is_set():
            assert not frames.has(every)[7]
        assert frames.has(every).tolist() == (every != 7).tolist()
        assert frames.readable(every).tolist() == (every != 7).tolist()
        np.testing.assert_array_equal(frames.read(there), COUNTS[there])
        file.write(0, 8)
        np.testing.assert_array_equal(frames.read(every), COUNTS[:20])
        frames.close()
        assert not answered


def test_a_frame_that_was_lost_on_the_network_comes_through_the_catalog_when_no_others_come(
    tmp_path: Path, site: Site, writer: SpoolWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptyplugin.io.live_frames._HEALED", 2)
    asked, lost = list[int](), [3, 4, 11, 19]

    class Asked(MemoryFrames):
        def read(self, frames: np.ndarray) -> np.ndarray:
            asked.extend(frames.tolist())
            return super().read(frames)

    frames = live(file_way(tmp_path), spool_way(site), CatalogWay(lambda: Asked(COUNTS)))
    spooled(writer, [number for number in range(21) if number not in lost])
    there = np.setdiff1d(np.arange(21), lost)
    np.testing.assert_array_equal(frames.read(there), COUNTS[there])
    left = np.array(lost)
    # The patience has passed, but not the pause of those that come.
    time.sleep(0.1)
    assert not frames.has(left).any()
    monkeypatch.setattr("ptyplugin.io.live_frames._QUIET_S", 0.0)
    while left.size:
        there = left[frames.has(left)]
        assert len(there) <= 2
        np.testing.assert_array_equal(frames.read(there), COUNTS[there])
        left = np.setdiff1d(left, there)
    # One more is compared with the spool's, as soon as the catalog is open.
    assert asked == [0, *lost]
    assert ["the spool" in note for note in frames.notes] == [True, False]
    assert frames.notes[1] == "4 frames that were lost over the network came from the catalog."


def test_a_catalog_that_refuses_what_was_lost_is_not_asked_for_each_frame(
    tmp_path: Path, site: Site, writer: SpoolWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value_s in {"_QUIET_S": 0.0, "_DAMAGED_S": 0.0, "_PROVE_AGAIN_S": 60.0}.items():
        monkeypatch.setattr(f"ptyplugin.io.live_frames.{name}", value_s)
    asked, lost = list[int](), np.arange(2, 18)

    class Refusing(MemoryFrames):
        def read(self, frames: np.ndarray) -> np.ndarray:
            asked.append(len(frames))
            raise FramesError("422: Can not reshape.")

    frames = live(file_way(tmp_path), spool_way(site), CatalogWay(lambda: Refusing(COUNTS)))
    spooled(writer, [0, 1, 18, 19])
    np.testing.assert_array_equal(frames.read(np.array([0, 1, 18, 19])), COUNTS[[0, 1, 18, 19]])
    wait_until(lambda: frames.has(lost).all())
    with pytest.raises(FramesError, match=r"16 frames from 2 on cannot be read: 422"):
        frames.read(lost)
    assert not frames.readable(lost).any()
    assert asked.count(16) >= 2
    assert asked.count(1) <= 1, "one is compared with the spool's"
    assert set(asked) <= {1, 16}


def test_frames_of_the_spool_are_there_at_once_where_it_was_found_first(tmp_path: Path, site: Site, writer: SpoolWriter) -> None:
    asked = list[int]()
    spool, catalog = spool_way(site), CatalogWay(lambda: asked.append(1) or MemoryFrames(COUNTS))
    spooled(writer, range(10))
    frames = live(file_way(tmp_path), spool, catalog, patience_s=0.4)
    assert frames.has(np.arange(10)).all()
    for _ in range(2):
        np.testing.assert_array_equal(frames.read(np.arange(10)), COUNTS[:10])
    assert not asked, "not even to see whether they are the right ones, at first"


def test_an_answer_of_the_catalog_that_nobody_expects_ends_nothing(
    tmp_path: Path, file: SwmrFile, caplog: pytest.LogCaptureFixture
) -> None:
    def answer() -> Frames:
        raise KeyError("data")

    file.write(0, 5)
    catalog = CatalogWay(answer)
    frames = live(file_way(tmp_path), catalog, deadline_s=0.1)
    wait_until(lambda: not frames.has(np.arange(6))[5] and "KeyError" in str(catalog.trouble))
    np.testing.assert_array_equal(frames.read(np.arange(5)), COUNTS[:5])
    with pytest.raises(FramesError, match="the catalog: it cannot be opened"):
        frames.read(np.array([5]))
    assert caplog.text.count("it cannot be opened") == 1
    frames.close()


def test_a_catalog_that_is_slow_is_waited_for_if_no_other_way_has_frames() -> None:
    def slow() -> Frames:
        time.sleep(0.3)
        return MemoryFrames(COUNTS)

    assert len(live(CatalogWay(slow), deadline_s=0.05)) == 40


def test_what_the_site_does_not_allow_is_an_error_on_the_way_through_the_catalog_too(tmp_path: Path) -> None:
    def outside() -> Frames:
        raise OutsideDataRoots("this file is not below the data roots.")

    with pytest.raises(OutsideDataRoots):
        live(file_way(tmp_path), CatalogWay(outside))


def test_a_catalog_that_goes_away_is_waited_for_and_asked_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptyplugin.io.live_frames._DAMAGED_S", 0.0)
    fails = [2]

    class Restarted(MemoryFrames):
        def read(self, frames: Any) -> Any:
            fails[0] -= 1
            if fails[0] >= 0:
                raise CatalogAway("the catalog at http://t does not answer.")
            return super().read(frames)

    def ways() -> CatalogWay:
        return CatalogWay(lambda: Restarted(COUNTS[:4]))

    np.testing.assert_array_equal(live(ways()).read(np.arange(4)), COUNTS[:4])
    fails[0] = 10**9
    monkeypatch.setattr("ptyplugin.io.ways._CATALOG_AGAIN_S", 60.0)
    with pytest.raises(FramesError, match=r"did not come in time. the catalog: the catalog at http://t does not answer"):
        live(ways(), deadline_s=0.1).read(np.arange(4))
    assert fails[0] == 10**9 - 1, "it is left in peace after that"


def test_what_is_wrong_with_each_way_is_said_at_the_end(tmp_path: Path, site: Site) -> None:
    def away() -> Frames:
        raise CatalogAway("the catalog at http://t does not answer.")

    with pytest.raises(FramesError) as caught:
        live(file_way(tmp_path), spool_way(site, None), CatalogWay(away), deadline_s=0.1)
    for sentence in ("nowhere to be had", "a.h5 does not exist", "does not say when the run began", "http://t does not answer"):
        assert sentence in str(caught.value)
