"""The Bluesky side: documents -> one growing picture of the run -> Job."""

from __future__ import annotations

if __name__ != "ptyplugin.callbacks":
    raise ImportError(f"import this folder as ptyplugin.callbacks, not as {__name__}")

from ptyplugin.callbacks.assemble import PAUSE_S, Assembling, assemble, refusal
from ptyplugin.callbacks.assets import TILED_MIMETYPE
from ptyplugin.callbacks.auto import AutoReconstruct
from ptyplugin.callbacks.bars import ProgressBars
from ptyplugin.callbacks.collector import Collector, Growth, Output, RunEnded, RunStarted
from ptyplugin.callbacks.continuity import Continuity, Ending
from ptyplugin.callbacks.files import FileReader
from ptyplugin.callbacks.live import LiveRuns
from ptyplugin.callbacks.locating import PositionReader
from ptyplugin.callbacks.overwritten import FilesOfRuns
from ptyplugin.callbacks.pairing import FrameAt, Record
from ptyplugin.callbacks.run import CollectedRun

__all__ = [
    "PAUSE_S",
    "TILED_MIMETYPE",
    "Assembling",
    "AutoReconstruct",
    "CollectedRun",
    "Collector",
    "Continuity",
    "Ending",
    "FileReader",
    "FilesOfRuns",
    "FrameAt",
    "Growth",
    "LiveRuns",
    "Output",
    "PositionReader",
    "ProgressBars",
    "Record",
    "RunEnded",
    "RunStarted",
    "assemble",
    "refusal",
]
