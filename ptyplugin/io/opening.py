"""From the references of a job to its frames.

A job that is solved while its scan goes on (purpose ``live``) is opened by the same function as any other. Its frames may not be in
their file yet: each of its sources is then a ``LiveFrames``, which asks the file (SWMR), the spool of this host's recorders and the
catalog, in this order. When the job grows, so do its frames::

    frames = open_frames(job, site, folder, from_catalog)     # those that the job names, as long as the scan goes on
    frames.grow(growth, growth_folder)                        # then those of each Growth, in their order
    frames.has(numbers)                                       # (frame,) which of them can be read without waiting
    frames.readable(numbers)                                  # the same, for sure: they are read to see that
    frames.read(numbers)                                      # waits for those that were announced and have not come
    frames.notes                                              # which way they came, where it was not the file

A final job reads files as they are, and takes from the spool what they do not show yet. Where its file is not there, it asks the
catalog, and at last the spool.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ptyplugin.io.hdf5_frames import Hdf5Frames
from ptyplugin.io.live_frames import LiveFrames, Way
from ptyplugin.io.spool import Detector, channel_of
from ptyplugin.io.ways import CatalogWay, FileWay, SpoolWay
from ptyplugin.model import (
    BesideArray,
    BesideSource,
    CatalogAway,
    CatalogError,
    FrameBlock,
    Frames,
    FramesError,
    FrameSource,
    Growth,
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

#: A file whose frames of this run begin later than this began before the run: so many of a run's first frames may be left out.
_MOST_LEFT_OUT = 16


class JobFrames:
    """The frames of a job: those of its sources, one after another in the order of the scan. May grow, at its end only.

    mask: (y, x) uint8, 0 = good, or None

    Raises:
        FramesError: the sources do not fit together.
    """

    def __init__(self, sources: _Sources, blocks: list[FrameBlock], folder: Path | None) -> None:
        self._sources = sources
        self._parts = self._opened(blocks, folder)
        self._starts = self._counted()
        self.mask = sources.mask()

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (y, x) of one frame."""
        return self._parts[0][0].shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the counts."""
        return self._parts[0][0].dtype

    @property
    def notes(self) -> list[str]:
        """Sentences for people: which way the frames came, where it was not the file."""
        return self._sources.notes()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files behind the frames."""
        self._sources.close()

    def grow(self, growth: Growth, folder: Path | None) -> None:
        """Further frames of a live job, behind those that there are. ``folder`` is where the growth's arrays lie.

        Raises:
            FramesError: they do not follow those that there are, or cannot be opened; the frames stay as they were.
        """
        if growth.first != len(self):
            raise FramesError(f"the job has {len(self)} frames, and growth begins at {growth.first}: some of it is missing.")
        if growth.frames:
            before = self._parts
            self._parts = [*before, *self._opened(growth.frames, folder)]
            try:
                self._starts = self._counted()
            except FramesError:
                self._parts = before
                raise

    def has(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(frame,) which of these frames of the job can be read without waiting for them."""
        return self._asked(frames, LiveFrames.has)

    def readable(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(frame,) which of these frames of the job can be read now: they are read to see that, and nothing is waited for."""
        return self._asked(frames, LiveFrames.readable)

    def _asked(self, frames: NDArray[np.int64], ask: Callable[[LiveFrames, NDArray[np.int64]], NDArray[np.bool_]]) -> NDArray[np.bool_]:
        there = np.ones(len(frames), dtype=bool)
        for source, indices, here in self._by_source(np.asarray(frames, dtype=np.int64)):
            if isinstance(source, LiveFrames):
                there[here] = ask(source, indices)
        return there

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        """Counts (frame, y, x) of these frames of the job.

        Raises:
            FramesError: they cannot be read.
        """
        frames = np.asarray(frames, dtype=np.int64)
        if frames.size and not (frames.min() >= 0 and frames.max() < len(self)):
            raise FramesError(f"the job has {len(self)} frames; frames {frames.min()}..{frames.max()} were asked for.")
        counts = np.empty((frames.size, *self.shape), self.dtype)
        for source, indices, here in self._by_source(frames):
            counts[here] = source.read(indices)
        return counts

    def _by_source(self, frames: NDArray[np.int64]) -> list[tuple[Frames, NDArray[np.int64], NDArray[np.intp]]]:
        """Each source with the numbers (frame,) in it, and their places in ``frames``; a source's frames together."""
        part_of = np.searchsorted(self._starts, frames, side="right") - 1
        by_source: dict[int, tuple[Frames, list[NDArray[np.int64]], list[NDArray[np.intp]]]] = {}
        for number in np.unique(part_of):
            source, indices = self._parts[number]
            here = np.flatnonzero(part_of == number)
            _, numbers, places = by_source.setdefault(id(source), (source, [], []))
            numbers.append(indices[frames[here] - self._starts[number]])
            places.append(here)
        return [(source, np.concatenate(numbers), np.concatenate(places)) for source, numbers, places in by_source.values()]

    def _opened(self, blocks: list[FrameBlock], folder: Path | None) -> list[tuple[Frames, NDArray[np.int64]]]:
        return [(self._sources.open(block.source, folder), block.indices()) for block in blocks]

    def _counted(self) -> NDArray[np.int64]:
        kinds = {(source.shape, source.dtype) for source, _ in self._parts}
        if len(kinds) != 1:
            said = ", ".join(f"{shape[0]} x {shape[1]} {dtype}" for shape, dtype in sorted(kinds, key=str)) or "none at all"
            raise FramesError(f"the frames of one scan must all be of one shape and type, these are {said}: reconstruct them separately.")
        return np.cumsum([0, *(len(indices) for _, indices in self._parts)])


def open_frames(job: Job, site: Site, folder: Path | None, from_catalog: FromCatalog | None) -> JobFrames:
    """Open what a job's frames refer to.

    ``folder`` is where the arrays of the job lie. Where an HDF5 file is not mounted on this host, ``from_catalog`` gives
    the same frames through the catalog, if they all come from one file.

    Raises:
        FramesError: a source is missing, damaged or of another shape than the job says.
        OutsideDataRoots: a file that the site does not allow to be read; the catalog is not asked instead.
    """
    sources = _Sources(job, site, from_catalog)
    try:
        frames = JobFrames(sources, job.frames, folder)
        _check_against(job, frames)
    except BaseException:
        sources.close()
        raise
    return frames


class _Sources:
    """The sources of one job, each opened once."""

    def __init__(self, job: Job, site: Site, from_catalog: FromCatalog | None) -> None:
        self._job, self._site, self._from_catalog = job, site, from_catalog
        self._is_alone = len({block.source for block in job.frames}) == 1
        self._open: dict[FrameSource, Frames] = {}
        self._notes: list[str] = []

    def open(self, source: FrameSource, folder: Path | None) -> Frames:
        """The frames of a source.

        Raises:
            FramesError: they cannot be opened.
        """
        if source not in self._open:
            self._open[source] = self._opened(source, folder)
        return self._open[source]

    def close(self) -> None:
        for source in self._open.values():
            if isinstance(source, Hdf5Frames | LiveFrames):
                source.close()

    def notes(self) -> list[str]:
        live = [source for source in self._open.values() if isinstance(source, LiveFrames)]
        return [*self._notes, *(note for source in live for note in source.notes)]

    def mask(self) -> NDArray[np.uint8] | None:
        masks = [source.mask for source in self._open.values() if source.mask is not None]
        if self._job.preparation.mask_dataset is not None and not masks:
            self._do_without_mask(self._job.preparation.mask_dataset)
        # A pixel that is bad in one file of the scan is bad.
        return np.maximum.reduce(masks) if masks else None

    def _do_without_mask(self, dataset: str) -> None:
        if self._job.purpose != "live":
            raise FramesError(
                f"the mask {dataset} lies in the detector's file, which is not there: mount it, or take the mask out of the profile."
            )
        note = f"the mask {dataset} lies in the detector's file, which is not there yet: bad pixels are told by their counts only."
        logger.warning("%s", note)
        self._notes.append(note)

    def _opened(self, source: FrameSource, folder: Path | None) -> Frames:
        if isinstance(source, BesideSource):
            return MemoryFrames(read_beside(folder, BesideArray(name=source.name, sha256=source.sha256)))
        if isinstance(source, TiledSource):
            if self._from_catalog is None:
                raise FramesError(
                    f"the frames of run {source.run_uid} are in the catalog, and this site names none: set tiled_uri in the site file."
                )
            live = self._job.purpose == "live"
            return LiveFrames(_called(self._job), self._catalog_ways(source)) if live else self._from_catalog(source)
        path, replacement = self._site.local_path(source.uri), self._in_catalog(source)
        if self._job.purpose == "live":
            spool = self._spool_ways(source)
            return LiveFrames(_called(self._job), [self._file_way(path, source), *spool, *self._catalog_ways(replacement)])
        if not path.exists():
            return self._elsewhere(path, source, replacement)
        return self._whole(path, source)

    def _elsewhere(self, path: Path, source: Hdf5Source, replacement: TiledSource | None) -> Frames:
        """The frames of a file that is not there: through the catalog, or from the spool if that does not have them."""
        spool = self._spool_ways(source)
        if self._from_catalog is not None and replacement is not None:
            logger.warning("%s is not there; the frames of run %s are read through the catalog", path, replacement.run_uid)
            try:
                frames = self._from_catalog(replacement)
            except CatalogAway:
                raise
            except CatalogError as error:
                if not spool:
                    raise
                logger.warning("%s The spool is asked", error)
            else:
                if not spool or self._gives_its_frames(frames):
                    return frames
        if spool:
            return LiveFrames(_called(self._job), [self._file_way(path, source), *spool])
        return self._file(path, source)

    def _gives_its_frames(self, frames: Frames) -> bool:
        """Whether they can be read. Of a file that is gone the catalog may go on to say how many frames it has."""
        try:
            frames.read(self._first_and_last())
        except FramesError as error:
            logger.warning("%s The spool is asked", error)
            return False
        return True

    def _whole(self, path: Path, source: Hdf5Source) -> Frames:
        """The frames of a file. Those that a network file system does not show yet the spool may have."""
        frames, spool = self._file(path, source), self._spool_ways(source)
        if spool and frames.visible() <= self._first_and_last()[1]:
            frames.close()
            return LiveFrames(_called(self._job), [self._file_way(path, source), *spool])
        return frames

    def _first_and_last(self) -> NDArray[np.int64]:
        """The lowest and the highest number of a frame of the job, in a single file."""
        numbers = [block.indices() for block in self._job.frames]
        return np.array([min(each.min() for each in numbers), max(each.max() for each in numbers)])

    def _file(self, path: Path, source: Hdf5Source) -> Hdf5Frames:
        return Hdf5Frames(path, source.dataset, mask_dataset=self._job.preparation.mask_dataset, allowed=self._allowed)

    def _file_way(self, path: Path, source: Hdf5Source) -> Way:
        return FileWay(path, source.dataset, self._job.preparation.mask_dataset, self._allowed)

    def _spool_ways(self, source: Hdf5Source) -> list[Way]:
        """The spool numbers the frames of a run through: only of a single file they are numbered alike there."""
        run, first = self._job.source, min((start for block in self._job.frames for start, _ in block.ranges), default=0)
        if not isinstance(run, RunSource) or not self._is_only(source) or first > _MOST_LEFT_OUT:
            return []
        detector = Detector(beamline=self._job.beamline, stream=run.stream, key=run.key)
        wanted = self._job.purpose == "live" or channel_of(self._site, detector) is not None
        return [SpoolWay(self._site, detector, run.begun_s)] if wanted else []

    def _catalog_ways(self, source: TiledSource | None) -> list[Way]:
        return [] if source is None or self._from_catalog is None else [CatalogWay(partial(self._from_catalog, source))]

    def _in_catalog(self, source: Hdf5Source) -> TiledSource | None:
        """The same frames in the catalog: only of a single file are they numbered alike there."""
        run = self._job.source
        if not isinstance(run, RunSource) or not self._is_only(source):
            return None
        return TiledSource(run_uid=run.run_uid, stream=run.stream, key=run.key)

    def _is_only(self, source: Hdf5Source) -> bool:
        return self._is_alone and source == self._job.frames[0].source

    def _allowed(self, file: Path) -> object:
        # HDF5 opens what a file points to literally, so it is checked without the path map.
        return self._site.model_copy(update={"path_map": {}}).local_path(file.as_uri())


def _called(job: Job) -> str:
    return f"run {job.source.run_uid}" if isinstance(job.source, RunSource) else job.source.name


def _check_against(job: Job, frames: JobFrames) -> None:
    if len(frames) != job.frame_count:
        raise FramesError(f"the job lists {len(frames)} frames for {job.frame_count} positions: submit the scan again.")
    wanted = job.geometry.shape[::-1] if job.preparation.orientation.transposes else job.geometry.shape
    if job.preparation.crop_px is None and frames.shape != tuple(wanted):
        raise FramesError(
            f"the frames are {frames.shape[0]} x {frames.shape[1]} px, the job says {wanted[0]} x {wanted[1]}: "
            "are the dataset and the detector's shape right?"
        )
