"""The stream of an Eiger: what our own sender pushes by the published format is in the spool; what is not of it is refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from at_work import at_work, until

from ptyplugin.io.spool import FRAME, Detector, Spool, channel_of
from ptyplugin.io.spool_run import RunInSpool
from ptyplugin.io.ways import SpoolWay
from ptyplugin.model import EigerStream, Site
from ptyplugin.profiles import load_profile
from ptyplugin.service.sources import eiger_frames
from ptyplugin.service.sources.eiger_frames import EigerFrames, Series, image_of
from ptyplugin.service.sources.recording import Unrecordable
from ptyplugin.service.sources.writing import WrittenBehind
from ptyplugin.sim.eiger_stream import Compression, Detail, EigerStreamer, encoded

PROFILE = load_profile("sim")
DETECTOR = Detector(beamline=PROFILE.beamline, stream=PROFILE.detector.stream, key=PROFILE.detector.key)
COUNTS = np.random.default_rng(8).poisson(4, (12, 20, 33))


@contextmanager
def recording(streamer: EigerStreamer, site: Site) -> Iterator[EigerFrames]:
    source = EigerFrames(EigerStream(kind="eiger", address=streamer.address, profiles=["sim"]), [PROFILE], site)
    with at_work(source.run):
        yield source


def way_of(site: Site, begun_s: float) -> SpoolWay:
    way = SpoolWay(site, DETECTOR, begun_s)
    assert way.kind() is not None
    return way


@pytest.mark.parametrize(
    ("compression", "detail", "dtype"),
    [
        ("none", "none", "uint16"),
        ("lz4", "basic", "uint32"),
        ("bslz4", "basic", "uint16"),
        ("bslz4", "all", "uint32"),
        ("bslz4", "basic", "uint8"),
    ],
)
def test_series_are_recorded(tmp_path: Path, compression: Compression, detail: Detail, dtype: str) -> None:
    site, counts, mask = Site(home=tmp_path), COUNTS.astype(dtype), (COUNTS[0] > 7).astype(np.uint8)
    with EigerStreamer(compression, detail) as streamer, recording(streamer, site) as source:
        streamer.send_series(6, counts[::-1])
        until(lambda: source.state.counts["frames"] == 12)
        begun_s = time.time()
        streamer.send_series(7, counts[:5], mask)
        if detail != "none":
            streamer.send_series(8, counts[5:])
        last = 12 if detail != "none" else 5
        until(lambda: source.state.counts["frames"] == 12 + last)
        way = way_of(site, begun_s)
        assert way.kind() == (counts.shape[1:], counts.dtype)
        np.testing.assert_array_equal(way.read(np.arange(last)), counts[:last])
        assert way.has(np.array([last])).tolist() == [False]
        found = way.mask()
        np.testing.assert_array_equal(found if detail == "all" else mask, mask)
        assert (found is None) == (detail != "all")
        assert (source.state.last_error, source.state.connected) == (None, True)


def test_a_stream_heard_from_its_middle_on_is_recorded_from_the_next_series_on(tmp_path: Path) -> None:
    site = Site(home=tmp_path)
    with EigerStreamer() as streamer, recording(streamer, site) as source:
        streamer.send_image(3, 5, COUNTS[0].astype(np.uint16))
        streamer.end(3)
        begun_s = time.time()
        streamer.send_series(4, COUNTS[:2].astype(np.uint16))
        until(lambda: source.state.counts["frames"] == 2)
        assert source.state.counts["refused"] == 1
        assert "series 3 come whose header did not" in str(source.state.last_error)
        np.testing.assert_array_equal(way_of(site, begun_s).read(np.arange(2)), COUNTS[:2])


def test_lost_and_repeated_frames_and_other_shapes(tmp_path: Path) -> None:
    site, counts = Site(home=tmp_path), COUNTS.astype(np.uint16)
    with EigerStreamer() as streamer, recording(streamer, site) as source:
        begun_s = time.time()
        streamer.begin(1, 6, counts.shape[1:])
        for number in (1, 2, 2, 5):
            streamer.send_image(1, number, counts[number])
        streamer.send_image(1, 3, counts[3, :7])
        streamer.end(1)
        streamer.send_series(2, counts[6:8])
        until(lambda: source.state.counts["frames"] == 5)
        assert source.state.counts == {"frames": 5, "lost": 3, "refused": 2}
        channel = channel_of(site, DETECTOR)
        assert channel is not None
        rows = RunInSpool(Spool(channel[1]), channel[0], begun_s).look()
        assert sorted(rows) == [1, 2, 5, 6, 7]


GARBAGE: list[list[Any]] = [
    [b""],
    [b"\x80\x04\x95 pickled"],
    [b"[" * 5000],
    [b"[1, 2]"],
    [b"{}"],
    [{"htype": "dheader-2.0"}],
    [{"htype": "dheader-1.0"}],
    [{"htype": "dheader-1.0", "series": -4}],
    [{"htype": "dheader-1.0", "series": 9, "header_detail": "basic"}, b"\xff\xfe"],
    [{"htype": "dimage-1.0", "series": 1}],
    [{"htype": "dimage-1.0", "series": 1, "frame": True}],
    [{"htype": "dimage-1.0", "series": 1, "frame": 0}, {"htype": "dimage_d-1.0"}],
    [
        {"htype": "dimage-1.0", "series": 1, "frame": 0},
        {"htype": "dimage_d-1.0", "shape": [10**9, 10**9], "type": "uint32", "encoding": "<"},
        b"",
    ],
    [
        {"htype": "dimage-1.0", "series": 1, "frame": 0},
        {"htype": "dimage_d-1.0", "shape": [2, 2], "type": "uint16", "encoding": "bs32-lz4<"},
        b"",
    ],
    [
        {"htype": "dimage-1.0", "series": 1, "frame": 0},
        {"htype": "dimage_d-1.0", "shape": [2, 2], "type": "uint16", "encoding": "lz4>"},
        b"",
    ],
    [
        {"htype": "dimage-1.0", "series": 1, "frame": 0},
        {"htype": "dimage_d-1.0", "shape": [2, 2], "type": "object", "encoding": "<"},
        b"1234",
    ],
    [
        {"htype": "dimage-1.0", "series": 1, "frame": 0},
        {"htype": "dimage_d-1.0", "shape": [2, 2], "type": "uint16", "encoding": "<"},
        b"123",
    ],
    [b"{}"] * 40,
]


def test_garbage_is_refused_and_the_next_series_recorded(tmp_path: Path) -> None:
    site, counts = Site(home=tmp_path), COUNTS.astype(np.uint16)
    with EigerStreamer() as streamer, recording(streamer, site) as source:
        streamer.begin(1, 3, (2, 2))
        for parts in GARBAGE:
            streamer.send([part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts])
        until(lambda: source.state.counts["refused"] == len(GARBAGE))
        begun_s = time.time()
        streamer.send_series(2, counts)
        until(lambda: source.state.counts["frames"] == 12)
        assert source.state.counts == {"frames": 12, "refused": len(GARBAGE)}
        np.testing.assert_array_equal(way_of(site, begun_s).read(np.arange(12)), counts)


def test_a_message_that_is_too_large_is_not_taken(tmp_path: Path) -> None:
    site, counts = Site(home=tmp_path), COUNTS.astype(np.uint16)
    table = EigerStream(kind="eiger", address="tcp://127.0.0.1:1", profiles=["sim"], largest_mb=0.05)
    with EigerStreamer("none") as streamer:
        source = EigerFrames(table.model_copy(update={"address": streamer.address}), [PROFILE], site)
        with at_work(source.run):
            streamer.send([bytes(100_000)])
            until(lambda: source.state.counts["disconnected"] == 1)
            streamer.send_series(5, counts)
            until(lambda: source.state.counts["frames"] == 12)
            assert "larger than largest_mb" in str(source.state.last_error)


def test_what_came_before_the_connection_ended_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on, take = threading.Event(), Series.take
    monkeypatch.setattr(Series, "take", lambda *message: (may_go_on.wait(10), take(*message)))
    with EigerStreamer() as streamer, recording(streamer, Site(home=tmp_path)) as source:
        until(lambda: source.state.connected)
        streamer.send_series(5, COUNTS.astype(np.uint16))
        streamer._context.destroy(linger=5000)
        time.sleep(0.3)
        may_go_on.set()
        until(lambda: source.state.counts["disconnected"] == 1)
        until(lambda: source.state.counts["frames"] == 12)


def test_what_waits_for_a_slow_disk_has_a_bound_in_bytes_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on, take, put, most = threading.Event(), Series.take, WrittenBehind.put, 0

    def put_counted(self: WrittenBehind, size: int, work: Callable[[], None]) -> None:
        nonlocal most
        put(self, size, work)
        most = max(most, self._bytes)

    monkeypatch.setattr(eiger_frames, "_MOST_BYTES", 10_000)
    monkeypatch.setattr(Series, "take", lambda *message: (may_go_on.wait(20), take(*message)))
    monkeypatch.setattr(WrittenBehind, "put", put_counted)
    counts = np.random.default_rng(8).poisson(4, (60, 20, 33)).astype(np.uint16)
    with EigerStreamer("none") as streamer, recording(streamer, Site(home=tmp_path)) as source:
        until(lambda: source.state.connected)
        streamer.send_series(5, counts)
        until(lambda: "slower than the detector" in str(source.state.last_error))
        may_go_on.set()
        until(lambda: source.state.counts["frames"] == 60)
    assert 10_000 <= most < 10_000 + 4 * counts[0].nbytes
    assert source.state.counts == {"frames": 60}


def test_what_goes_wrong_while_it_is_written_is_heard() -> None:
    def fail() -> None:
        raise OSError(5, "no disk")

    with WrittenBehind(100) as behind:
        behind.put(200, fail)
        with pytest.raises(OSError, match="no disk"):
            behind.wait_for_room(20)
        with pytest.raises(OSError, match="no disk"):
            behind.put(1, lambda: None)


def test_a_series_without_end_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        kept = 0

        def count_begins(self, *_: int, **__: int) -> None: ...

        def take(self, _: object) -> None:
            self.kept += 1

    monkeypatch.setattr("ptyplugin.service.sources.eiger_frames._MOST_RECENT", 50)
    counting = Counting()
    series = Series(counting)  # type: ignore[arg-type]
    series.take([json.dumps({"htype": "dheader-1.0", "series": 1, "header_detail": "none"}).encode()])
    about = json.dumps({"htype": "dimage_d-1.0", "shape": [2, 2], "type": "uint8", "encoding": "<"}).encode()

    def image(number: int) -> list[bytes]:
        return [json.dumps({"htype": "dimage-1.0", "series": 1, "frame": number}).encode(), about, bytes(4)]

    for number in range(500):
        series.take(image(number))
        for again in (number, max(0, number - 40), 0):
            with pytest.raises(Unrecordable, match="came twice"):
                series.take(image(again))
    assert counting.kept == 500
    assert all(len(held) <= 50 for held in vars(series).values() if isinstance(held, dict | set | list))


def test_the_shape_of_a_frame_has_its_fast_axis_first() -> None:
    frame = np.arange(6, dtype=np.uint16).reshape(2, 3)
    data, encoding = encoded(frame, "lz4")
    about = {"htype": "dimage_d-1.0", "shape": [3, 2], "type": "uint16", "encoding": encoding, "size": len(data)}
    assert (image_of(4, about, data).shape, image_of(4, about, data).codec) == ((2, 3), "lz4")
    with pytest.raises(Unrecordable, match="set the stream's compression"):
        image_of(4, {**about, "encoding": "zstd"}, data)


def test_nothing_but_rows_of_frames_counts(tmp_path: Path) -> None:
    """A series that only begins and ends leaves no frame."""
    site = Site(home=tmp_path)
    with EigerStreamer() as streamer, recording(streamer, site) as source:
        begun_s = time.time()
        streamer.begin(1, 3, (2, 2))
        streamer.end(1)
        streamer.send_series(2, COUNTS[:1].astype(np.uint16))
        until(lambda: source.state.counts["frames"] == 1)
        channel = channel_of(site, DETECTOR)
        assert channel is not None
        spool = Spool(channel[1])
        assert sum(row["kind"] == FRAME for row in spool.rows_since(0.0)) == 1
        assert sorted(RunInSpool(spool, channel[0], begun_s).look()) == [3]
