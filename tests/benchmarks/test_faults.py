"""The short form of the fault suite: nothing is lost, and the table would say it."""

from __future__ import annotations

import pytest

from benchmarks.faults.__main__ import keep, keep_scans
from benchmarks.faults.fuzz import bytes_to_the_decoder, documents_to_the_collector, fuzz, run_examples
from benchmarks.faults.small import small
from benchmarks.faults.table import Row, Scanned, table


def test_small_faults_lose_nothing() -> None:
    rows = small(4)
    assert [row.lost for row in rows] == [0, 0, 0]
    assert "in use by another daemon" in rows[0].note


def test_fuzz_finds_nothing() -> None:
    rows = fuzz(30)
    assert [(row.lost, row.note) for row in rows] == [(0, "")] * 3
    assert all(row.over >= 30 for row in rows)


@pytest.mark.parametrize("check", [bytes_to_the_decoder, documents_to_the_collector])
def test_fuzz_would_find_something(check, monkeypatch) -> None:
    from benchmarks.faults import fuzz as module

    def breaks(*_: object) -> None:
        raise KeyError("start")

    monkeypatch.setattr(module, "decode_published", breaks)
    monkeypatch.setattr(module.Collecting, "take", breaks)
    row = run_examples(check, 10)
    assert row.lost == 1
    assert "KeyError" in row.note


def test_what_came_of_each_part_is_kept(tmp_path) -> None:
    keep("small", [Row("torn", 4, 20, 1, 3.0)], [0.5, 1.5], tmp_path)
    keep("fuzz", [Row("bytes", 9, 9, 0, 3.0)], [0.5, 1.5], tmp_path)
    keep("small", [Row("torn", 4, 20, 0, 3.0)], [0.5, 2.5], tmp_path)
    text = (tmp_path / "faults.md").read_text()
    assert "load 0.5 before and 2.5 after" in text
    assert "| torn | 4 | 20 | 0 | 3 |  |" in text
    assert "| bytes | 9 | 9 | 0 | 3 |  |" in text
    assert "lost in all: 1" not in text


def test_what_is_lost_stands_below_the_table() -> None:
    text = table([Row("kill -9", 7, 20, 1, 3.0), Row("a full disk", 1, 5, 0, 3.0, "10 s")])
    assert "| kill -9 | 7 | 20 | 1 | 3 |  |" in text
    assert text.endswith("lost in all: 1")


def test_what_came_of_misfortunes_of_scans_is_kept(tmp_path) -> None:
    well, badly = Scanned("one line", "The scan is one line.", "30 of 30 frames", "30 of 30 frames", 0, 4.0), Scanned("aborted", lost=1)
    badly.want(True, "a live job")
    badly.want(False, "the run is aborted")
    keep_scans([well, badly], [0.5, 1.5], tmp_path)
    text = (tmp_path / "beamline_faults.md").read_text()
    assert "| one line | The scan is one line. | 30 of 30 frames | 30 of 30 frames | 0 | 4 | ok |" in text
    assert "| aborted | - | - | - | 1 | 0 | MISSED: the run is aborted |" in text
    assert "images lost in all: 1" in text
