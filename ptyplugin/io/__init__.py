"""Files in and out: detector frames, CXI, start probes, result files. Files are read only where the site allows it.

Pictures (``ptyplugin.io.picture.save_png``) are imported where they are made: matplotlib is slow to start.
"""

from __future__ import annotations

from ptyplugin.io.checkpoint import Checkpoints, newest_iteration, remove_checkpoints
from ptyplugin.io.content import content_id
from ptyplugin.io.cxi import CxiScan, open_cxi
from ptyplugin.io.hdf5_frames import Hdf5Frames
from ptyplugin.io.opening import FromCatalog, JobFrames, open_frames
from ptyplugin.io.probe_files import read_probe
from ptyplugin.io.result import read_result, write_result
from ptyplugin.io.start_probe import StartProbe

__all__ = [
    "Checkpoints",
    "CxiScan",
    "FromCatalog",
    "Hdf5Frames",
    "JobFrames",
    "StartProbe",
    "content_id",
    "newest_iteration",
    "open_cxi",
    "open_frames",
    "read_probe",
    "read_result",
    "remove_checkpoints",
    "write_result",
]
