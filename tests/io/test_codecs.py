"""Compressed frames: what is sent rightly is read, and whatever else is sent ends in a sentence, never in a crash."""

from __future__ import annotations

import struct

import h5py
import hdf5plugin
import lz4.block
import numpy as np
import pytest

from ptyplugin.io.codecs import decoded
from ptyplugin.model import FramesError
from ptyplugin.sim.eiger_stream import bslz4


def frame_of(shape: tuple[int, int], dtype: str) -> np.ndarray:
    return np.random.default_rng(4).poisson(3, shape).astype(dtype)


def sent(frame: np.ndarray) -> list[tuple[str, bytes]]:
    """A frame in all codecs; bslz4 with the header of HDF5 and Eiger, and without, as areaDetector has it."""
    chunk = bslz4(frame)
    return [
        ("none", frame.tobytes()),
        ("lz4", lz4.block.compress(frame.tobytes(), store_size=False)),
        ("bslz4", chunk),
        ("bslz4", chunk[12:]),
        *(("blosc", blosc(frame, compressor)) for compressor in ("blosclz", "lz4", "zstd")),
    ]


def blosc(frame: np.ndarray, compressor: str) -> bytes:
    """What the filter of HDF5 makes of it is a buffer of c-blosc; what cannot be compressed that copies behind its header."""
    with h5py.File("frame", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("a", data=frame, chunks=frame.shape, **hdf5plugin.Blosc(compressor, 5, hdf5plugin.Blosc.SHUFFLE))
        is_left_out, chunk = data.id.read_direct_chunk((0, 0))
    copied = struct.pack("<4B3I", 2, 1, 2, frame.itemsize, frame.nbytes, frame.nbytes, 16 + frame.nbytes) + frame.tobytes()
    return copied if is_left_out else bytes(chunk)


@pytest.mark.parametrize(("shape", "dtype"), [((64, 65), "u2"), ((33, 37), "u4"), ((5, 3), "u1"), ((2, 2), "f4"), ((130, 70), "i8")])
def test_what_is_sent_is_read(shape: tuple[int, int], dtype: str) -> None:
    frame = frame_of(shape, dtype)
    for codec, data in sent(frame):
        got = decoded(codec, data, shape, np.dtype(dtype))
        assert got.dtype == frame.dtype
        np.testing.assert_array_equal(got, frame)


@pytest.mark.parametrize(("shape", "dtype"), [((64, 65), "u2"), ((33, 37), "u4"), ((5, 3), "u1")])
def test_damaged_frames_are_refused_and_crash_nothing(shape: tuple[int, int], dtype: str) -> None:
    """HDF5's bitshuffle filter reads and writes out of bounds where a block is not what it says."""
    frame, random, refused = frame_of(shape, dtype), np.random.default_rng(6), 0
    for codec, data in sent(frame)[1:]:
        for trial in range(150):
            bad = bytearray(data if trial % 3 else data[: random.integers(0, len(data))])
            for _ in range(trial % 5 if bad else 0):
                bad[random.integers(0, len(bad))] ^= int(random.integers(1, 256))
            try:
                got = decoded(codec, bytes(bad), shape, np.dtype(dtype))
            except FramesError as error:
                refused += "it is damaged, or the sender calls its compression by a wrong name" in str(error)
            else:
                assert got.shape == shape
    assert refused > 200


@pytest.mark.parametrize("codec", ["zip", "jpeg", ""])
def test_other_codecs_are_not_read(codec: str) -> None:
    with pytest.raises(FramesError, match="let the detector send none, lz4, bslz4, blosc"):
        decoded(codec, b"123", (1, 3), np.dtype("u1"))
