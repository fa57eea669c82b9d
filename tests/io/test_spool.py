"""The spool: what is written is read, it stays within its room, and a writer that was killed leaves nothing wrong behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptyplugin.io.codecs import CODECS
from ptyplugin.io.spool import FRAME, LOST, ROW, Channel, Detector, Spool, channel_of, segment_numbers, spool_folder
from ptyplugin.io.spool_writer import SpoolWriter
from ptyplugin.model import FramesError, Site
from ptyplugin.sim.eiger_stream import bslz4

DETECTOR = Detector(beamline="sim", stream="primary", key="detector")
CHANNEL = Channel(name="SIM:Pva1:Image", kind="pva", detectors=(DETECTOR,))
SHAPE = (8, 9)


def counts_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 9, SHAPE, dtype=np.uint16)


def write(writer: SpoolWriter, numbers: range) -> None:
    for number in numbers:
        writer.frame(number, counts_of(number).tobytes(), 0, SHAPE, "u2", 1e9 + number)


def numbers_in(folder: Path) -> list[int]:
    rows = Spool(folder).rows_since(0.0)
    return [int(row["number"]) for row in rows if row["kind"] == FRAME]


def test_what_is_written_is_read_while_it_grows(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert len(spool.rows_since(0.0)) == 0
    with SpoolWriter(tmp_path, CHANNEL, 10**6) as writer:
        writer.connected(True)
        write(writer, range(5))
        first = spool.rows_since(0.0)
        writer.frame(5, bslz4(counts_of(5)), CODECS.index("bslz4"), SHAPE, "u2", 7.0)
        rows = spool.rows_since(0.0)
        assert len(rows) == len(first) + 1
        frames = [row for row in rows if row["kind"] == FRAME]
        assert [int(row["number"]) for row in frames] == list(range(6))
        for row in frames:
            np.testing.assert_array_equal(spool.read(row), counts_of(int(row["number"])))


def test_the_oldest_make_room_for_the_newest(tmp_path: Path) -> None:
    room = 80 * 144
    with SpoolWriter(tmp_path, CHANNEL, room) as writer:
        spool = Spool(tmp_path)
        write(writer, range(1))
        oldest = spool.rows_since(0.0)[-1]
        write(writer, range(1, 400))
        assert sum(path.stat().st_size for path in tmp_path.glob("*.r*")) <= room + 2000
    numbers = numbers_in(tmp_path)
    assert numbers == list(range(numbers[0], 400))
    assert 20 < len(numbers) < 80
    with pytest.raises(FramesError, match=r"no longer in the spool .* give the spool more"):
        spool.read(oldest)


@pytest.mark.parametrize("torn", ["row", "row that is not its sum", "frame", "both"])
def test_what_a_killed_writer_did_not_finish_is_cut(tmp_path: Path, torn: str) -> None:
    with SpoolWriter(tmp_path, CHANNEL, 10**6) as writer:
        write(writer, range(4))
    raw, rows = (tmp_path / f"00000001.{way}" for way in ("raw", "rows"))
    if torn in ("row", "both"):
        os.truncate(rows, rows.stat().st_size - 10)
    if torn == "row that is not its sum":
        rows.write_bytes(rows.read_bytes()[: -ROW.itemsize] + bytes(ROW.itemsize))
    if torn in ("frame", "both"):
        os.truncate(raw, raw.stat().st_size - 10)
    with SpoolWriter(tmp_path, CHANNEL, 10**6) as again:
        assert again.cut_bytes > 0
        assert raw.stat().st_size == 3 * 144
        write(again, range(10, 12))
    spool = Spool(tmp_path)
    frames = [row for row in spool.rows_since(0.0) if row["kind"] == FRAME]
    assert [int(row["number"]) for row in frames] == [0, 1, 2, 10, 11]
    np.testing.assert_array_equal(spool.read(frames[2]), counts_of(2))
    assert len({int(row["series"]) for row in frames}) == 2


def test_a_writer_that_is_killed_again_and_again_loses_nothing_that_it_said(tmp_path: Path) -> None:
    program = """if True:
        import sys
        from pathlib import Path
        from ptyplugin.io.spool import Channel
        from ptyplugin.io.spool_writer import SpoolWriter
        first = int(sys.argv[2])
        with SpoolWriter(Path(sys.argv[1]), Channel(name="c", kind="pva", detectors=()), 10**9) as writer:
            for number in range(first, first + 10**6):
                writer.frame(number, number.to_bytes(4, "little") * 1000, 0, (40, 50), "u2", 0.0)
                print(number, flush=True)
        """
    said = -1
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program, tmp_path, str(said + 2)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(200):
                said = int(process.stdout.readline())
            process.kill()
            said = max([said, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
    SpoolWriter(tmp_path, CHANNEL, 10**9).close()
    spool, known = Spool(tmp_path), set()
    for row in spool.rows_since(0.0):
        if row["kind"] == FRAME:
            assert spool.read(row).tobytes() == int(row["number"]).to_bytes(4, "little") * 1000
            known.add(int(row["number"]))
    assert len(known) >= 600
    assert said in known


@pytest.mark.parametrize("room", [10, 144, 150, 144 + ROW.itemsize - 1])
def test_a_full_disk_costs_only_the_frames_of_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    left, write_some = [10**9], os.write

    def limited(handle: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write_some(handle, bytes(data)[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr("ptyplugin.io.spool_writer.os.write", limited)
    with SpoolWriter(tmp_path, CHANNEL, 10**6) as writer:
        write(writer, range(2))
        left[0] = room
        for number in (2, 3):
            with pytest.raises(OSError, match="No space left"):
                write(writer, range(number, number + 1))
        left[0] = 10**9
        write(writer, range(4, 6))
    spool = Spool(tmp_path)
    frames = [row for row in spool.rows_since(0.0) if row["kind"] == FRAME]
    assert [int(row["number"]) for row in frames] == [0, 1, 4, 5]
    for row in frames:
        np.testing.assert_array_equal(spool.read(row), counts_of(int(row["number"])))


def test_a_segment_that_could_not_be_begun_is_begun_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SpoolWriter(tmp_path, CHANNEL, 8 * 144) as writer:
        write(writer, range(1))
        with monkeypatch.context() as patched:
            patched.setattr("ptyplugin.io.spool_writer.os.open", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
            for number in (1, 2):
                with pytest.raises(OSError, match="No space left"):
                    write(writer, range(number, number + 1))
        write(writer, range(3, 5))
        assert numbers_in(tmp_path)[-2:] == [3, 4]
    with pytest.raises(OSError, match="closed"):
        write(writer, range(5, 6))


def test_a_recorder_that_begins_again_and_again_leaves_no_heap_of_files(tmp_path: Path) -> None:
    with SpoolWriter(tmp_path, CHANNEL, 10**6) as writer:
        write(writer, range(2))
    for _ in range(20):
        with SpoolWriter(tmp_path, CHANNEL, 10**6) as writer:
            writer.connected(True)
    assert len(list(tmp_path.glob("*.r*"))) <= 6
    assert numbers_in(tmp_path) == [0, 1]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with SpoolWriter(tmp_path, CHANNEL, 10**6), pytest.raises(BlockingIOError):
        SpoolWriter(tmp_path, CHANNEL, 10**6)


def test_a_changed_frame_is_not_believed(tmp_path: Path) -> None:
    with SpoolWriter(tmp_path, CHANNEL, 10**6) as writer:
        write(writer, range(1))
    (tmp_path / "00000001.raw").write_bytes(bytes(144))
    with pytest.raises(FramesError, match="frame 0 in the spool is damaged"):
        Spool(tmp_path).read(Spool(tmp_path).rows_since(0.0)[-1])


def test_each_segment_says_whether_the_sender_is_there(tmp_path: Path) -> None:
    with SpoolWriter(tmp_path, CHANNEL, 40 * 144) as writer:
        writer.connected(True)
        write(writer, range(30))
        last = segment_numbers(tmp_path)[-1]
    rows = np.frombuffer((tmp_path / f"{last:08d}.rows").read_bytes(), ROW)
    assert rows[0]["kind"] not in (FRAME, LOST)


def test_channels_are_found_by_their_detectors(tmp_path: Path) -> None:
    site = Site(home=tmp_path)
    assert channel_of(site, DETECTOR) is None
    folder = spool_folder(site, CHANNEL.name)
    assert folder != spool_folder(site, "SIM_Pva1:Image")
    SpoolWriter(folder, CHANNEL, 10**6).close()
    assert channel_of(site, DETECTOR) == (CHANNEL, folder)
    assert channel_of(site, DETECTOR.model_copy(update={"key": "other"})) is None
