"""What goes wrong on request: each fault is a PV that anybody may put, 0 for none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ptyplugin.model.errors import DeviceError

if TYPE_CHECKING:
    from ptyplugin.sim.ioc.database import Database

#: Name of each fault on the command line -> its PV, and what its number means.
FAULTS = {
    "detector_off": ("fault:DetectorOff", "the detector falls silent after that many frames of an acquisition"),
    "motor_stalled": ("fault:MotorStalled", "x stands still after that many frames of a fly scan, or that many moves from now on"),
    "drop_frames": ("fault:DropFrames", "each n-th frame is not sent over PVAccess; it is in the file"),
    "duplicate_ids": ("fault:DuplicateIds", "each n-th frame is sent twice over PVAccess"),
    "capture_off": ("fault:CaptureOff", "the position capture falls silent after that many frames of a fly scan"),
    "late_positions": (
        "fault:LatePositions",
        "captured positions come into their file that many frames at a time, the last of them at the end",
    ),
    "wrong_unit": ("fault:WrongUnit", "1: the motor records of y and x say mm and mean um"),
}


class Faults:
    """The PVs of the faults; numbers: of those that are on from the start."""

    def __init__(self, database: Database, numbers: Mapping[str, int]) -> None:
        self._pv = database
        for name, (pv, _) in FAULTS.items():
            database.add(pv, numbers.get(name, 0))

    def __getitem__(self, name: str) -> int:
        return int(self._pv[FAULTS[name][0]])


def parse(texts: Iterable[str]) -> dict[str, int]:
    """Numbers by name from texts like ``drop_frames=10``, the command line's.

    Raises:
        DeviceError: an unknown fault, or a number that is none.
    """
    return dict(_parsed(text) for text in texts)


def _parsed(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in FAULTS:
        raise DeviceError(f"{name!r} is no fault of the simulated instrument: choose from {', '.join(FAULTS)}, as NAME or NAME=NUMBER.")
    if number and not number.isdigit():
        raise DeviceError(f"the fault {text!r} needs a whole number: {name}=NUMBER.")
    return name, int(number or 1)
