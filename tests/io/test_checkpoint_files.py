"""Checkpoint files: whole or absent, on all ranks or none."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from ptyplugin.io import Checkpoints, checkpoint, remove_checkpoints
from ptyplugin.solvers import Checkpoint, OneRank

SCRIPT = Path(__file__).with_name("interrupted_run.py")


def checkpoint_of(iteration: int, rank: int = 0) -> Checkpoint:
    arrays = {"state.object": np.full((1, 4, 4), iteration + 1j * rank, np.complex64), "way.said": np.zeros((0, 1, 2))}
    return Checkpoint(iteration, {"job": "abc", "rank": rank}, arrays, {"progress": [0.1, {"error": 1e-3}], "stages": "DM(9)"})


def accepts(found: Checkpoint) -> str:
    return ""


class Thread(OneRank):
    """One of two ranks that are threads of this process."""

    size = 2
    _meeting = threading.Barrier(2, timeout=20)
    _said: ClassVar[list[int]] = [0, 0]

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def largest(self, value: int) -> int:
        self._said[self.rank] = value
        self._meeting.wait()
        largest = max(self._said)
        self._meeting.wait()
        return largest


def on_two_ranks(work: Callable[[Thread], Any]) -> list[Any]:
    found: list[Any] = [None, None]
    threads = [threading.Thread(target=lambda rank=rank: found.__setitem__(rank, work(Thread(rank)))) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def test_what_is_written_is_read(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path, OneRank())
    assert files.newest(accepts) is None
    files.write(checkpoint_of(57))
    found = files.newest(accepts)
    assert found is not None
    expected = checkpoint_of(57)
    assert (found.iteration, found.task, found.numbers) == (57, expected.task, expected.numbers)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype
    found.arrays["state.object"][...] = 0  # it becomes the solver's own


def test_the_one_before_goes_when_the_next_is_there(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path, OneRank())
    for iteration in (3, 9, 12):
        files.write(checkpoint_of(iteration))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.12.0.npz"]
    remove_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "alien"])
def test_a_damaged_file_is_passed_over_for_the_one_before(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    files = Checkpoints(tmp_path, OneRank())
    files.write(checkpoint_of(5))
    before = (tmp_path / "checkpoint.5.0.npz").read_bytes()
    files.write(checkpoint_of(9))
    (tmp_path / "checkpoint.5.0.npz").write_bytes(before)
    path = tmp_path / "checkpoint.9.0.npz"
    content = bytearray(path.read_bytes())
    middle = content.index(b"NUMPY") + 180
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    alien = content.replace(b'"format": 1', b'"format": 0')
    path.write_bytes({"cut": content[: len(content) // 2], "flipped": flipped, "empty": b"", "alien": alien}[damage])
    with caplog.at_level(logging.WARNING):
        found = files.newest(accepts)
    assert found is not None
    assert found.iteration == 5
    assert "checkpoint.9.0.npz is damaged" in caplog.text
    (tmp_path / "checkpoint.5.0.npz").unlink()
    assert files.newest(accepts) is None


def test_one_of_something_else_is_told_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = Checkpoints(tmp_path, OneRank())
    files.write(checkpoint_of(5))
    assert files.newest(lambda found: "it is of another reconstruction.") is None
    assert "the checkpoint after iteration 5 is of no use: it is of another reconstruction." in caplog.text


def test_nothing_is_lost_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    files = Checkpoints(tmp_path, OneRank())
    files.write(checkpoint_of(5))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_array", full)
    files.write(checkpoint_of(9))
    assert "no checkpoint after iteration 9: No space left on device" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.5.0.npz"]


def test_what_only_some_ranks_could_write_does_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = checkpoint._write

    def full_for_one(path: Path, kept: Checkpoint) -> None:
        if kept.task["rank"] == 1 and kept.iteration > 5:
            raise OSError(28, "No space left on device")
        write(path, kept)

    def write_three(ranks: Thread) -> None:
        files = Checkpoints(tmp_path, ranks)
        for iteration in (5, 9, 12):
            files.write(checkpoint_of(iteration, ranks.rank))

    monkeypatch.setattr(checkpoint, "_write", full_for_one)
    on_two_ranks(write_three)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.5.0.npz", "checkpoint.5.1.npz"}


def test_files_of_two_starts_never_make_a_set(tmp_path: Path) -> None:
    """The first start was killed when only rank 0 had written its ninth, the second when only rank 1 had."""
    on_two_ranks(lambda ranks: Checkpoints(tmp_path, ranks).write(checkpoint_of(5, ranks.rank)))
    checkpoint._write(tmp_path / "checkpoint.9.0.npz", checkpoint_of(9, 0))
    on_two_ranks(lambda ranks: Checkpoints(tmp_path, ranks).newest(accepts))
    checkpoint._write(tmp_path / "checkpoint.9.1.npz", checkpoint_of(9, 1))
    found = on_two_ranks(lambda ranks: Checkpoints(tmp_path, ranks).newest(accepts))
    assert [each.iteration for each in found] == [5, 5]


def test_one_that_cannot_be_removed_is_told_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = Checkpoints(tmp_path, OneRank())
    files.write(checkpoint_of(5))

    def refused(*_: object, **__: object) -> None:
        raise OSError(13, "Permission denied")

    with monkeypatch.context() as locked:
        locked.setattr(checkpoint, "_write", lambda *_: None)
        locked.setattr(Path, "unlink", refused)
        files.write(checkpoint_of(9))
    assert "the checkpoint after iteration 5 cannot be removed: Permission denied" in caplog.text


def test_only_what_all_ranks_have_counts(tmp_path: Path) -> None:
    def write(ranks: Thread) -> None:
        files = Checkpoints(tmp_path, ranks)
        files.write(checkpoint_of(5, ranks.rank))

    on_two_ranks(write)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(first) == {"checkpoint.5.0.npz", "checkpoint.5.1.npz"}
    # Rank 1 was killed before its second was whole.
    checkpoint._write(tmp_path / "checkpoint.9.0.npz", checkpoint_of(9, 0))
    (tmp_path / ".checkpoint.9.1.npz.part").write_bytes(b"PK")
    found = on_two_ranks(lambda ranks: Checkpoints(tmp_path, ranks).newest(accepts))
    assert [each.iteration for each in found] == [5, 5]
    assert [each.arrays["state.object"][0, 0, 0] for each in found] == [5, 5 + 1j]
    (tmp_path / "checkpoint.5.1.npz").unlink()
    assert on_two_ranks(lambda ranks: Checkpoints(tmp_path, ranks).newest(accepts)) == [None, None]
    remove_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


def test_they_come_every_so_often_and_take_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    files = Checkpoints(tmp_path, OneRank(), every_s=20)
    now[0] += 19
    assert not files.are_due()
    now[0] += 1
    assert files.are_due()
    monkeypatch.setattr(checkpoint, "_write", lambda *_: now.__setitem__(0, now[0] + 4))
    files.write(checkpoint_of(3))
    now[0] += 75
    assert not files.are_due()
    now[0] += 1
    assert files.are_due()


@pytest.mark.system
def test_two_ranks_go_on_to_the_same_bits(tmp_path: Path) -> None:
    """In processes of their own: runs undisturbed, runs that end after their fourth iteration (the last is killed), runs that go on."""
    recipes = ["DM(6)", "ePIE(6, parts=2)", "LSQML(6, batch=8)"]
    for what in ("whole,killed", "resumed"):
        mpiexec = [str(Path(sys.executable).with_name("mpiexec")), "-n", "2"]
        done = subprocess.run(
            [*mpiexec, sys.executable, str(SCRIPT), str(tmp_path), what, *recipes],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert (done.returncode == 0) == ("killed" not in what), done.stdout + done.stderr
    for number in range(3):
        with np.load(tmp_path / str(number) / "whole.npz") as whole, np.load(tmp_path / str(number) / "resumed.npz") as resumed:
            assert (whole["began_after"], resumed["began_after"]) == (0, 2)
            np.testing.assert_array_equal(resumed["object"], whole["object"])
            np.testing.assert_array_equal(resumed["probe"], whole["probe"])
