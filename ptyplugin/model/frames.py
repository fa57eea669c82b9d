"""Frames: a lazy source of detector counts, and the references to them that a job carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from ptyplugin.model.errors import FramesError


class Frames(Protocol):
    """Detector frames that are read when they are needed. Backed by HDF5, Tiled, memory.

    shape: (y, x) of one frame as the detector delivers it
    mask: (y, x) uint8, 0 = good, as in CXI; or None
    """

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def mask(self) -> NDArray[np.uint8] | None: ...
    def __len__(self) -> int: ...
    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        """Counts (frame, y, x) of these frames, numbered from 0 in the order of the scan.

        Raises:
            FramesError: they cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class MemoryFrames:
    """Frames that are an array: counts (frame, y, x), mask (y, x) uint8 with 0 = good."""

    counts: NDArray[Any]
    mask: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if self.counts.ndim != 3:
            raise FramesError(f"counts have shape {self.counts.shape}, not (frame, y, x).")

    @property
    def shape(self) -> tuple[int, int]:
        return self.counts.shape[1], self.counts.shape[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.counts.dtype

    def __len__(self) -> int:
        return len(self.counts)

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        return self.counts[frames]


#: More frames than this are a mistake, or somebody who wants to fill the memory; and no frame has a larger number.
MOST_FRAMES, _LARGEST_NUMBER = 10_000_000, 2**62


def _within_bounds(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    count, last = sum(stop - start for start, stop in ranges), max((stop for _, stop in ranges), default=0)
    if any(stop < start for start, stop in ranges) or count > MOST_FRAMES or last > _LARGEST_NUMBER:
        raise ValueError(
            f"the ranges of frames list {count} frames up to number {last}: at most {MOST_FRAMES} are taken, each range upwards"
        )
    return ranges


#: Half-open ranges of numbers of frames.
FrameRanges = Annotated[list[tuple[NonNegativeInt, NonNegativeInt]], AfterValidator(_within_bounds)]


class _Reference(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hdf5Source(_Reference):
    """A dataset (..., y, x) in an HDF5 file; frames are numbered over all leading axes together."""

    kind: Literal["hdf5"] = "hdf5"
    uri: str = Field(description="file:// address; its host is ignored, its path is mapped by the site's path_map")
    dataset: str = Field(description="path of the dataset in the file, e.g. /entry/data/data")


class TiledSource(_Reference):
    """An array (..., y, x) of a run in the catalog; frames are numbered over all leading axes together."""

    kind: Literal["tiled"] = "tiled"
    run_uid: str
    stream: str
    key: str


class BesideSource(_Reference):
    """An array (frame, y, x) that lies as ``name`` beside the job (frames that came inside events)."""

    kind: Literal["beside"] = "beside"
    name: str = Field(pattern=r"^[A-Za-z0-9_]+\.npy$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


FrameSource = Annotated[Hdf5Source | TiledSource | BesideSource, Field(discriminator="kind")]


class FrameBlock(_Reference):
    """Some frames of one source, in the order of the scan: half-open ranges of frame numbers in that source."""

    source: FrameSource
    ranges: FrameRanges

    @model_validator(mode="after")
    def _ranges_are_not_empty(self) -> FrameBlock:
        if not self.ranges:
            raise ValueError("a block of frames has no range")
        for start, stop in self.ranges:
            if stop <= start:
                raise ValueError(f"frame range {start}..{stop} is empty")
        return self

    def indices(self) -> NDArray[np.int64]:
        """The frame numbers in the source, (frame,) int64."""
        return np.concatenate([np.arange(start, stop, dtype=np.int64) for start, stop in self.ranges])


def ranges_of(indices: list[int]) -> list[tuple[int, int]]:
    """Half-open ranges that list ``indices`` in their order: [4, 5, 6, 2] gives [(4, 7), (2, 3)]."""
    ranges: list[tuple[int, int]] = []
    for index in indices:
        if ranges and ranges[-1][1] == index:
            ranges[-1] = (ranges[-1][0], index + 1)
        else:
            ranges.append((index, index + 1))
    return ranges
