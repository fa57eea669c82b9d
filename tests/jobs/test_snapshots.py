"""Snapshots: whole or none, whatever lies in their place."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptyplugin.jobs import read_snapshot, write_snapshot
from ptyplugin.model import Snapshot


def snapshot_of(side: int, value: complex = 1j) -> Snapshot:
    return Snapshot(
        job="0123456789abcdef",
        stage="DM",
        iteration=3,
        iterations=30,
        errors={"constraint_residual": 0.25, "error": float("nan")},
        frames=64,
        taken_s=1.5e9,
        object=np.full((side, side + 1), value, np.complex64),
        probe=np.full((2, 8, 8), value, np.complex64),
        pixel_m=(1e-8, 2e-8),
        origin_m=(-1e-6, 1e-6),
    )


def test_a_snapshot_comes_back_as_it_was(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path) is None
    for side in (5, 9):
        there = snapshot_of(side, side * 1j)
        write_snapshot(tmp_path, there)
        back = read_snapshot(tmp_path)
        assert back is not None
        assert np.array_equal(back.object, there.object)
        assert np.array_equal(back.probe, there.probe)
        assert (back.job, back.stage, back.iteration, back.iterations, back.frames) == ("0123456789abcdef", "DM", 3, 30, 64)
        assert (back.pixel_m, back.origin_m, back.taken_s) == ((1e-8, 2e-8), (-1e-6, 1e-6), 1.5e9)
        assert back.errors["constraint_residual"] == 0.25
        assert np.isnan(back.errors["error"])
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot.npz"]


def test_whoever_reads_while_it_is_replaced_finds_a_whole_one(tmp_path: Path) -> None:
    write_snapshot(tmp_path, snapshot_of(64, 0))
    ended = threading.Event()

    def replace_often() -> None:
        for number in range(100):
            write_snapshot(tmp_path, snapshot_of(64, number))
        ended.set()

    thread = threading.Thread(target=replace_often)
    thread.start()
    seen = []
    while not ended.is_set() or not seen:
        there = read_snapshot(tmp_path)
        assert there is not None
        seen.append(there.object)
    thread.join()
    assert all((image == image[0, 0]).all() for image in seen)


@pytest.mark.parametrize("length", [0, 1, 30, 200, 1000])
def test_a_torn_file_is_none(tmp_path: Path, length: int, caplog: pytest.LogCaptureFixture) -> None:
    write_snapshot(tmp_path, snapshot_of(16))
    path = tmp_path / "snapshot.npz"
    path.write_bytes(path.read_bytes()[:length])
    with caplog.at_level(logging.WARNING):
        assert read_snapshot(tmp_path) is None
    assert "is no snapshot" in caplog.text


@pytest.mark.parametrize(("field", "value"), [("encrypted", 1), ("compression", 8), ("compression", 12), ("compression", 14)])
def test_bits_that_flip_in_the_file_are_none(tmp_path: Path, field: str, value: int) -> None:
    """Each way of packing that ZIP knows fails in its own way."""
    write_snapshot(tmp_path, snapshot_of(16))
    path = tmp_path / "snapshot.npz"
    data = bytearray(path.read_bytes())
    for signature, offsets in ((b"PK\1\2", {"encrypted": 8, "compression": 10}), (b"PK\3\4", {"encrypted": 6, "compression": 8})):
        data[data.index(signature) + offsets[field]] = value
    path.write_bytes(data)
    assert read_snapshot(tmp_path) is None


def test_a_foreign_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.npz"
    np.savez(path, something=np.zeros(3))
    assert read_snapshot(tmp_path) is None
    np.savez(
        path, said=np.frombuffer(b'{"job": 1}', np.uint8), object=np.zeros((2, 2), np.complex64), probe=np.zeros((1, 2, 2), np.complex64)
    )
    assert read_snapshot(tmp_path) is None
    np.savez(path, said=np.array([{}], object), object=np.zeros(2), probe=np.zeros(2))
    assert read_snapshot(tmp_path) is None
    good = snapshot_of(4)
    write_snapshot(tmp_path, replace(good, object=good.object.astype(np.complex128)))
    assert read_snapshot(tmp_path) is None
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "x.npy").rename(path)
    assert read_snapshot(tmp_path) is None
    path.unlink()
    path.mkdir()
    assert read_snapshot(tmp_path) is None
