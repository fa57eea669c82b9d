"""Growth: frames that a live job gets while its scan goes on. JSON round trip, as a Job's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from ptyplugin.model.frames import MOST_FRAMES, FrameBlock, FrameRanges
from ptyplugin.model.job import BesideArray, HandedOver, read_border, scan_of
from ptyplugin.model.scan import Scan


class Growth(HandedOver):
    """Further frames of a live job, in the order of the scan; what the job and its growth have so far ends where these begin."""

    format: Literal[1] = 1
    job: str = Field(pattern=r"^[0-9a-f]{16}$", description="key of the live job")
    first: int = Field(ge=0, le=MOST_FRAMES, description="number of frames before these: those of the job and of all its growth so far")
    frames: list[FrameBlock] = Field(default=[])
    frame_ids: FrameRanges = Field([], description="half-open ranges, in the order of the frames")
    positions_m: list[list[tuple[float, float]]] | BesideArray = Field([], description="(frame, substep, yx) in metres")
    ended: bool = Field(False, description="the run is over: nothing comes after these, and there may be none")

    @property
    def frame_count(self) -> int:
        """Number of frames."""
        return sum(stop - start for start, stop in self.frame_ids)

    @classmethod
    def from_bytes(cls, data: bytes) -> Growth:
        """Read it from its JSON.

        Raises:
            JobError: it is none; the message says which field is wrong.
        """
        return read_border(cls, data, "growth of a job")

    def scan(self, folder: Path | None) -> Scan:
        """The Scan of these frames alone; ``folder`` is where its array lies. Ask only if there are frames.

        Raises:
            ScanError: the positions cannot be.
            JobError: the array beside it is missing or not the one that was sent.
        """
        return scan_of(self.frame_ids, self.positions_m, None, folder)
