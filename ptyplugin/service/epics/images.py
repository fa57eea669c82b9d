"""Images for the screens: of the snapshot of a job that runs, or of a result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.io.display import limits
from ptyplugin.io.live_view import LiveView
from ptyplugin.jobs import Entry
from ptyplugin.service.epics.records import IMAGES


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """pixels: (y, x) float32; time_s: Unix time of the image; attributes: by name, a value and what it is."""

    pixels: NDArray[np.float32]
    time_s: float
    attributes: Mapping[str, tuple[Any, str]]


def pictures(view: LiveView, job: Entry, iteration: int, frames: int, time_s: float) -> dict[str, Picture]:
    """The images by the names of their records."""
    waves = {"Image:Phase": _for_screens(np.angle(view.wave), view), "Image:Amplitude": _for_screens(np.abs(view.wave), view)}
    if view.probe is not None:
        waves["Image:Probe"] = np.abs(view.probe)
    return {
        name: Picture(np.asarray(pixels, dtype=np.float32), time_s, _attributes(name, view, job, iteration, frames))
        for name, pixels in waves.items()
    }


def _for_screens(values: NDArray[np.float32], view: LiveView) -> NDArray[np.float32]:
    """For colours that run from the lowest value to the highest: a few odd pixels are not these, and what was not lit is dark."""
    well = view.seen >= 1
    low, high = limits(values[well] if well.any() else values)
    shown: NDArray[np.float32] = low + (np.clip(values, low, high) - low) * view.seen
    return shown


def no_pictures() -> dict[str, Picture]:
    """What there is before the first images: one dark pixel each."""
    pixel, now_s = np.zeros((1, 1), np.float32), time.time()
    return {name: Picture(pixel, now_s, _titles(name)) for name in IMAGES}


def _titles(name: str) -> dict[str, tuple[Any, str]]:
    about, unit = IMAGES[name]
    return {"Title": (about, "What it shows"), "Units": (unit, "Unit of the values")}


def _attributes(name: str, view: LiveView, job: Entry, iteration: int, frames: int) -> dict[str, tuple[Any, str]]:
    said = _titles(name) | {
        "PixelSizeX": (view.pixel_m[1], "m"),
        "PixelSizeY": (view.pixel_m[0], "m"),
        "Job": (job.key, "Key of the job"),
        "ScanID": (job.scan_id or 0, "Scan id of the run"),
        "RunUID": (job.run_uid or "", "Uid of the run"),
        "Iteration": (iteration, "Iterations that are done"),
        "Frames": (frames, "Frames that the job has"),
    }
    if name != "Image:Probe":
        said |= {"OriginX": (view.middle_m[1], "m, position of the first pixel"), "OriginY": (view.middle_m[0], "m, as OriginX")}
    return said
