"""A detector that streams as DECTRIS ones do (SIMPLON API 1.x): header, images, end of series, pushed over 0MQ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Literal, Self

import h5py
import hdf5plugin
import lz4.block
import numpy as np
from numpy.typing import NDArray

Detail = Literal["none", "basic", "all"]
Compression = Literal["none", "lz4", "bslz4"]


class EigerStreamer:
    """Pushes series of frames (y, x) to whoever pulls. A context manager; bound to a free port of the loopback.

    Nothing is sent while nobody pulls: ``send_series`` waits for the first puller.
    """

    def __init__(self, compression: Compression = "bslz4", detail: Detail = "basic") -> None:
        import zmq

        self._compression, self._detail = compression, detail
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self.port: int = self._socket.bind_to_random_port("tcp://127.0.0.1")

    @property
    def address(self) -> str:
        """Where to pull."""
        return f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._context.destroy(linger=0)

    def send_series(self, series: int, frames: NDArray[Any], mask: NDArray[np.uint8] | None = None) -> None:
        """One series of frames (frame, y, x); ``mask`` (y, x) goes with a header of all details."""
        self.begin(series, len(frames), frames.shape[1:], mask)
        for number, frame in enumerate(frames):
            self.send_image(series, number, frame)
        self.end(series)

    def begin(self, series: int, count: int, shape: tuple[int, ...], mask: NDArray[np.uint8] | None = None) -> None:
        """The header of a series of ``count`` frames."""
        parts: list[bytes] = [_json(htype="dheader-1.0", series=series, header_detail=self._detail)]
        if self._detail != "none":
            sides = {"y_pixels_in_detector": shape[0], "x_pixels_in_detector": shape[1]}
            parts.append(_json(nimages=count, ntrigger=1, bit_depth_image=16, compression=self._compression, **sides))
        if self._detail == "all":
            ones, bad = np.ones(shape, "<f4"), np.zeros(shape, "<u4") if mask is None else mask.astype("<u4")
            table = np.zeros((2, 1000), "<f4")
            for htype, array in (("dflatfield-1.0", ones), ("dpixelmask-1.0", bad), ("dcountrate_table-1.0", table)):
                parts += [_json(htype=htype, shape=list(array.shape[::-1]), type=array.dtype.name), array.tobytes()]
        self.send(parts)

    def send_image(self, series: int, number: int, frame: NDArray[Any]) -> None:
        """One frame (y, x)."""
        data, encoding = encoded(frame, self._compression)
        about = {"htype": "dimage_d-1.0", "shape": list(frame.shape[::-1]), "type": frame.dtype.name}
        self.send(
            [
                _json(htype="dimage-1.0", series=series, frame=number, hash=hashlib.md5(data, usedforsecurity=False).hexdigest()),
                _json(encoding=encoding, size=len(data), **about),
                data,
                _json(htype="dconfig-1.0", start_time=number * 3_000_000, stop_time=(number + 1) * 3_000_000, real_time=3_000_000),
            ]
        )

    def end(self, series: int) -> None:
        """The end of a series."""
        self.send([_json(htype="dseries_end-1.0", series=series)])

    def send(self, parts: Iterable[bytes]) -> None:
        """Any message."""
        self._socket.send_multipart(list(parts))


def encoded(frame: NDArray[Any], compression: Compression) -> tuple[bytes, str]:
    """A frame (y, x) as the stream has it, and what the stream calls that."""
    if compression == "none":
        return frame.tobytes(), "<"
    if compression == "lz4":
        return lz4.block.compress(frame.tobytes(), store_size=False), "lz4<"
    return bslz4(frame), f"bs{8 * frame.dtype.itemsize}-lz4<"


def bslz4(frame: NDArray[Any]) -> bytes:
    """Bitshuffle and LZ4 as the chunk of an HDF5 file has them: 12 bytes of header, then blocks."""
    with h5py.File(f"bslz4-{id(frame)}", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("frame", data=frame, chunks=frame.shape, **hdf5plugin.Bitshuffle())
        chunk: bytes = dataset.id.read_direct_chunk((0, 0))[1]
    return bytes(chunk)


def _json(**table: Any) -> bytes:
    return json.dumps(table).encode()
