"""Compressed frames as detectors send them over the network: checked before a library written in C sees them.

=========  =====================================================================================  ======================
codec      bytes                                                                                  sent by
=========  =====================================================================================  ======================
``none``   the pixels                                                                             both
``lz4``    one LZ4 block without header                                                           areaDetector, Eiger
``bslz4``  bitshuffle blocks: 4 bytes big-endian size, LZ4 block; before them 12 bytes (Eiger)    areaDetector, Eiger
``blosc``  a buffer of c-blosc 1, whatever compressor is in it                                    areaDetector
=========  =====================================================================================  ======================

areaDetector's ``jpeg`` is not read, since it changes counts.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import h5py
import hdf5plugin
import lz4.block
import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import FramesError

#: In the order of their numbers in a spool.
CODECS = ("none", "lz4", "bslz4", "blosc")
#: What pixels may be.
PIXELS = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")

#: Bytes of a bitshuffle block where nothing says otherwise, and the elements that are shuffled together.
_BLOCK_BYTES, _SHUFFLED = 8192, 8
_BSLZ4_HEAD = struct.Struct(">QI")
_SIZE = struct.Struct(">I")
#: Version of the format, of the compressor's, flags, bytes of an element; bytes of the frame, of a block, and of all this.
_BLOSC_HEAD = struct.Struct("<4B3I")
_BLOSC_VERSION = 2


def decoded(codec: str, data: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """One frame (y, x) of ``dtype`` out of what was sent, little-endian.

    Raises:
        FramesError: it is no such frame.
    """
    size = math.prod(shape) * dtype.itemsize
    try:
        if codec == "none":
            return np.frombuffer(data, dtype).reshape(shape)
        if codec == "lz4":
            return np.frombuffer(lz4.block.decompress(data, uncompressed_size=size), dtype).reshape(shape)
        if codec == "bslz4":
            return _unshuffled(data, shape, dtype, size)
        if codec == "blosc":
            _check_blosc(data, size, dtype.itemsize)
            return _BLOSC.read(data, shape, dtype)
    except (ValueError, RuntimeError, OSError, struct.error, lz4.block.LZ4BlockError) as error:
        raise FramesError(
            f"a frame compressed with {codec} is not {shape[0]} x {shape[1]} px of {dtype}: {error}; it is damaged, "
            "or the sender calls its compression by a wrong name."
        ) from error
    raise FramesError(f"frames compressed with {codec!r} are not read: let the detector send {', '.join(CODECS)}.")


def _unshuffled(data: bytes, shape: tuple[int, int], dtype: np.dtype[Any], size: int) -> NDArray[Any]:
    block_bytes = _BLOCK_BYTES
    body = data
    if len(data) >= _BSLZ4_HEAD.size and _BSLZ4_HEAD.unpack_from(data)[0] == size:
        block_bytes, body = _BSLZ4_HEAD.unpack_from(data)[1] or _BLOCK_BYTES, data[_BSLZ4_HEAD.size :]
    _check_blocks(body, size, block_bytes, dtype.itemsize)
    return _BITSHUFFLE.read(_BSLZ4_HEAD.pack(size, block_bytes) + body, shape, dtype)


def _check_blocks(body: bytes, size: int, block_bytes: int, itemsize: int) -> None:
    """Raise unless each LZ4 block is whole and gives as much as it must: the filter of HDF5 believes what it reads.

    Raises:
        ValueError, LZ4BlockError: one is not.
    """
    together = _SHUFFLED * itemsize
    if block_bytes % together or not 0 < block_bytes <= 1 << 20:
        raise ValueError(f"its blocks have {block_bytes} bytes")
    at, left = 0, size
    while left >= together:
        wanted = min(block_bytes, left // together * together)
        (length,) = _SIZE.unpack_from(body, at)
        at += _SIZE.size
        if len(lz4.block.decompress(memoryview(body)[at : at + length], uncompressed_size=wanted)) != wanted:
            raise ValueError("a block is too short")
        at, left = at + length, left - wanted
    if len(body) != at + left:
        raise ValueError(f"it has {len(body)} bytes, not {at + left}")


def _check_blosc(data: bytes, size: int, itemsize: int) -> None:
    """Raise unless the header says what the frame is: the filter of HDF5 believes that, and c-blosc checks the rest itself.

    Raises:
        ValueError, struct.error: it does not.
    """
    version, _, _, element, frame_bytes, block_bytes, all_bytes = _BLOSC_HEAD.unpack_from(data)
    if (version, element, frame_bytes, all_bytes) != (_BLOSC_VERSION, itemsize, size, len(data)) or not 0 < block_bytes <= size:
        raise ValueError(f"its header says {frame_bytes} bytes in blocks of {block_bytes}, and {element} bytes a pixel")


class _Filter:
    """Decompresses by a filter of HDF5: a chunk is put as it is into a file in memory, and read."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._datasets: dict[tuple[tuple[int, int], np.dtype[Any]], Any] = {}

    def read(self, chunk: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
        with self._lock:
            dataset = self._datasets.get((shape, dtype))
            if dataset is None:
                # HDF5 knows files in memory by their names, and closes one when it likes.
                file = h5py.File(f"chunks-{uuid4().hex}", "w", driver="core", backing_store=False)
                dataset = file.create_dataset("chunk", shape, dtype, chunks=shape, **self._options)
                self._datasets = {(shape, dtype): dataset}
            dataset.id.write_direct_chunk((0, 0), chunk)
            frame: NDArray[Any] = dataset[()]
            return frame


_BITSHUFFLE, _BLOSC = _Filter(hdf5plugin.Bitshuffle()), _Filter(hdf5plugin.Blosc())
