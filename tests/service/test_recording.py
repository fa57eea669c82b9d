"""What a recorder makes of the frames that it gets: numbers are checked, foreign ones refused, and all of it counted and said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ptyplugin.io.spool import FRAME, Channel, Spool, spool_folder
from ptyplugin.model import Site
from ptyplugin.service.sources.recording import Recording, SentFrame
from ptyplugin.service.sources.state import SourceState

CHANNEL = Channel(name="SIM:Pva1:Image", kind="pva", detectors=())


class Bench:
    def __init__(self, folder: Path) -> None:
        self.site = Site(home=folder, spool_gb=0.001)
        self.state, self.said = SourceState("test"), list[str]()
        self.recording = Recording(self.site, CHANNEL, self.state, self.said.append)

    def take(self, *numbers: int, **change: object) -> None:
        for number in numbers:
            frame = SentFrame(number, bytes([number % 256] * 4), "none", (2, 2), "u1", 1e9 + number)
            self.recording.take(replace(frame, **change))  # type: ignore[arg-type]

    def kept(self) -> list[tuple[int, int]]:
        """(series, number) of each frame in the spool, series from 0 on."""
        rows = Spool(spool_folder(self.site, CHANNEL.name)).rows_since(0.0)
        frames = [(int(row["series"]), int(row["number"])) for row in rows if row["kind"] == FRAME]
        first = min((series for series, _ in frames), default=0)
        return [(series - first, number) for series, number in frames]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.recording.close()


def test_frames_in_order_are_kept_without_a_word(bench: Bench) -> None:
    bench.take(*range(50))
    assert bench.kept() == [(0, number) for number in range(50)]
    assert (bench.said, dict(bench.state.counts)) == ([], {"frames": 50})


def test_gaps_are_counted_and_frames_that_come_late_close_them(bench: Bench) -> None:
    bench.take(1, 2, 6, 7, 4)
    assert bench.kept() == [(0, number) for number in (1, 2, 6, 7, 4)]
    assert bench.state.counts == {"frames": 5, "lost": 3, "late": 1}
    assert bench.recording.missing() == 2
    assert bench.said == ["SIM:Pva1:Image: 3 frames were lost on the way, the last before number 6: the file has them."]


def test_gaps_at_full_rate_are_not_said_one_by_one(bench: Bench) -> None:
    bench.take(*range(0, 2000, 2))
    assert bench.state.counts["lost"] == 999
    assert len(bench.said) == 1


def test_the_same_frame_twice_is_kept_once(bench: Bench) -> None:
    bench.take(1, 2, 2, 3, 1, 4)
    assert bench.kept() == [(0, number) for number in (1, 2, 3, 4)]
    assert bench.state.counts == {"frames": 4, "duplicates": 2}
    assert "frame 2 came twice" in bench.said[0]


def test_a_count_begun_anew_is_another_series(bench: Bench) -> None:
    bench.take(7, 8, 9)
    bench.take(1, 2, taken_s=3.0)
    bench.take(2, taken_s=4.0)
    assert bench.kept() == [(0, 7), (0, 8), (0, 9), (1, 1), (1, 2), (2, 2)]
    assert bench.state.counts["restarts"] == 2
    assert "counts frames anew, after 9 comes 1" in bench.said[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"codec": "zip"}, "compressed with 'zip', which is not read: let the detector send none, lz4, bslz4, blosc"),
        ({"codec": "jpeg"}, "compressed with jpeg, which changes counts: set the codec plugin's Compressor to LZ4"),
        ({"dtype": "c8"}, "has pixels of 'c8'"),
        ({"shape": (0, 4)}, "frames are integers or floats, with two sides"),
        ({"shape": (-2, -2)}, "frames are integers or floats, with two sides"),
        ({"shape": (3, 2)}, "came as 4 bytes of none: its header is wrong"),
        ({"codec": "lz4", "data": bytes(5000)}, "came as 5000 bytes of lz4: its header is wrong"),
        ({"shape": (1000, 1000)}, "has 1 MB, more than the 0.1 MB that are taken"),
    ],
)
def test_foreign_frames_are_refused_with_a_sentence(bench: Bench, change: dict[str, object], said: str) -> None:
    bench.take(1)
    bench.take(2, **change)
    bench.take(2, 3)
    assert bench.kept() == [(0, 1), (0, 2), (0, 3)]
    assert bench.state.counts == {"frames": 3, "refused": 1}
    assert said in bench.said[0]


def test_a_full_disk_loses_frames_of_the_spool_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.take(1)

    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("ptyplugin.io.spool_writer.os.write", full)
        bench.take(2)
    bench.take(3)
    assert bench.kept() == [(0, 1), (0, 3)]
    assert "frames cannot be kept (No space left on device)" in bench.said[0]
