"""The three ways to the frames of a small scan: its file as a detector writes it, the spool, the catalog."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from ptyplugin.io.codecs import CODECS
from ptyplugin.io.live_frames import LiveFrames
from ptyplugin.io.spool import Channel, Detector
from ptyplugin.io.spool_writer import SpoolWriter
from ptyplugin.io.ways import FileWay, SpoolWay
from ptyplugin.model import Site
from ptyplugin.sim.eiger_stream import bslz4

COUNTS = np.random.default_rng(5).integers(1, 9, (40, 8, 9), dtype=np.uint16)
DETECTOR = Detector(beamline="sim", stream="primary", key="detector")
CHANNEL = Channel(name="SIM:Pva1:Image", kind="pva", detectors=(DETECTOR,))


class SwmrFile:
    """A detector's file: (N, 1, y, x), bitshuffle/LZ4, a frame a chunk."""

    def __init__(self, path: Path, presized: int = 0) -> None:
        self.file = h5py.File(path, "w", libver="latest")
        shape = (presized, 1, *COUNTS.shape[1:])
        self.data = self.file.create_dataset(
            "data", shape, COUNTS.dtype, maxshape=(None, *shape[1:]), chunks=(1, *shape[1:]), **hdf5plugin.Bitshuffle()
        )
        self.file["mask"] = (np.arange(72).reshape(8, 9) == 3).astype(np.uint8)
        self.file.swmr_mode = True

    def write(self, first: int, stop: int) -> None:
        if self.data.shape[0] < stop:
            self.data.resize(stop, axis=0)
        self.data[first:stop, 0] = COUNTS[first:stop]
        self.data.flush()


def wait_until(condition: Any, limit_s: float = 20.0) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.01)


def spooled(writer: SpoolWriter, numbers: range | list[int], counts: np.ndarray = COUNTS) -> None:
    for number in numbers:
        frame = counts[number]
        writer.frame(100 + number, bslz4(frame), CODECS.index("bslz4"), frame.shape, frame.dtype.str[1:], 0.0)


def file_way(tmp_path: Path) -> FileWay:
    return FileWay(tmp_path / "a.h5", "data", None, None)


def spool_way(site: Site, begun_s: float | None = 0.0) -> SpoolWay:
    # The writer was connected after 0.
    return SpoolWay(site, DETECTOR, time.time() if begun_s == 0.0 else begun_s)


def live(*ways: Any, deadline_s: float = 20.0, patience_s: float = 0.02, stay_s: float = 0.0) -> LiveFrames:
    return LiveFrames("run u-1", list(ways), patience_s, deadline_s, stay_s)
