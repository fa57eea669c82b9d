"""From the references of a job to its frames."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ptyplugin.io.hdf5_frames import Hdf5Frames
from ptyplugin.model import (
    BesideArray,
    BesideSource,
    Frames,
    FramesError,
    FrameSource,
    Hdf5Source,
    Job,
    MemoryFrames,
    RunSource,
    Site,
    TiledSource,
    read_beside,
)

logger = logging.getLogger(__name__)

FromCatalog = Callable[[TiledSource], Frames]


class JobFrames:
    """The frames of a job: those of its sources, one after another in the order of the scan.

    parts: each source, with the numbers (frame,) of the frames taken from it
    mask: (y, x) uint8, 0 = good, or None

    Raises:
        FramesError: the sources do not fit together.
    """

    def __init__(self, parts: list[tuple[Frames, NDArray[np.int64]]], mask: NDArray[np.uint8] | None) -> None:
        kinds = {(source.shape, source.dtype) for source, _ in parts}
        if len(kinds) != 1:
            said = ", ".join(f"{shape[0]} x {shape[1]} {dtype}" for shape, dtype in sorted(kinds, key=str)) or "none at all"
            raise FramesError(f"the frames of one scan must all be of one shape and type, these are {said}: reconstruct them separately.")
        self._parts = parts
        self._starts = np.cumsum([0, *(len(indices) for _, indices in parts)])
        self.mask = mask

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (y, x) of one frame."""
        return self._parts[0][0].shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the counts."""
        return self._parts[0][0].dtype

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files behind the frames."""
        for source, _ in self._parts:
            _close(source)

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        """Counts (frame, y, x) of these frames of the job.

        Raises:
            FramesError: they cannot be read.
        """
        frames = np.asarray(frames, dtype=np.int64)
        if frames.size and not (frames.min() >= 0 and frames.max() < len(self)):
            raise FramesError(f"the job has {len(self)} frames; frames {frames.min()}..{frames.max()} were asked for.")
        counts = np.empty((frames.size, *self.shape), self.dtype)
        part_of = np.searchsorted(self._starts, frames, side="right") - 1
        for number in np.unique(part_of):
            source, indices = self._parts[number]
            here = part_of == number
            counts[here] = source.read(indices[frames[here] - self._starts[number]])
        return counts


def open_frames(job: Job, site: Site, folder: Path | None, from_catalog: FromCatalog | None) -> JobFrames:
    """Open what a job's frames refer to.

    ``folder`` is where the arrays of the job lie. Where an HDF5 file is not mounted on this host, ``from_catalog`` gives
    the same frames through the catalog, if they all come from one file.

    Raises:
        FramesError: a source is missing, damaged or of another shape than the job says.
        OutsideDataRoots: a file that the site does not allow to be read; the catalog is not asked instead.
    """
    opened: dict[FrameSource, Frames] = {}
    try:
        for source in dict.fromkeys(block.source for block in job.frames):
            opened[source] = _open_source(source, job, site, folder, from_catalog)
        frames = JobFrames([(opened[block.source], block.indices()) for block in job.frames], _mask(job, list(opened.values())))
        _check_against(job, frames)
    except BaseException:
        for part in opened.values():
            _close(part)
        raise
    return frames


def _open_source(source: FrameSource, job: Job, site: Site, folder: Path | None, from_catalog: FromCatalog | None) -> Frames:
    if isinstance(source, BesideSource):
        return MemoryFrames(read_beside(folder, BesideArray(name=source.name, sha256=source.sha256)))
    if isinstance(source, TiledSource):
        if from_catalog is None:
            raise FramesError(
                f"the frames of run {source.run_uid} are in the catalog, and this site names none: set tiled_uri in the site file."
            )
        return from_catalog(source)
    path = site.local_path(source.uri)
    replacement = _in_catalog(source, job)
    if from_catalog is not None and replacement is not None and not path.exists():
        logger.warning("%s is not there; the frames of run %s are read through the catalog", path, replacement.run_uid)
        return from_catalog(replacement)
    # HDF5 opens what a file points to literally, so it is checked without the path map.
    literal = site.model_copy(update={"path_map": {}})
    return Hdf5Frames(
        path, source.dataset, mask_dataset=job.preparation.mask_dataset, allowed=lambda file: literal.local_path(file.as_uri())
    )


def _in_catalog(source: Hdf5Source, job: Job) -> TiledSource | None:
    """The same frames in the catalog: only of a single file are they numbered alike there."""
    if not isinstance(job.source, RunSource) or any(block.source != source for block in job.frames):
        return None
    return TiledSource(run_uid=job.source.run_uid, stream=job.source.stream, key=job.source.key)


def _mask(job: Job, sources: list[Frames]) -> NDArray[np.uint8] | None:
    masks = [source.mask for source in sources if source.mask is not None]
    if job.preparation.mask_dataset is not None and not masks:
        raise FramesError(
            f"the mask {job.preparation.mask_dataset} lies in the detector's file, which is not there: "
            "mount it, or take the mask out of the profile."
        )
    # A pixel that is bad in one file of the scan is bad.
    return np.maximum.reduce(masks) if masks else None


def _check_against(job: Job, frames: JobFrames) -> None:
    if len(frames) != job.frame_count:
        raise FramesError(f"the job lists {len(frames)} frames for {job.frame_count} positions: submit the scan again.")
    wanted = job.geometry.shape[::-1] if job.preparation.orientation.transposes else job.geometry.shape
    if job.preparation.crop_px is None and frames.shape != tuple(wanted):
        raise FramesError(
            f"the frames are {frames.shape[0]} x {frames.shape[1]} px, the job says {wanted[0]} x {wanted[1]}: "
            "are the dataset and the detector's shape right?"
        )


def _close(source: Frames) -> None:
    if isinstance(source, Hdf5Frames):
        source.close()
