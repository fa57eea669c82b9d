"""The ways to the frames of a scan: its file, the spool, the catalog. See ``live_frames.Way``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.io.hdf5_frames import Hdf5Frames
from ptyplugin.io.live_frames import Kind
from ptyplugin.io.spool import Detector, Spool, channel_of
from ptyplugin.io.spool_run import RunInSpool
from ptyplugin.model import CatalogError, Frames, FramesError, OutsideDataRoots, Site

_log = logging.getLogger(__name__)

#: Seconds between two tries for what is not there yet.
_FILE_AGAIN_S, _CHANNEL_AGAIN_S, _CATALOG_AGAIN_S = 0.05, 1.0, 0.5


class _Again:
    """Now and then."""

    def __init__(self, every_s: float) -> None:
        self._every_s, self._next_s = every_s, 0.0

    def is_due(self) -> bool:
        now_s = time.monotonic()
        if now_s < self._next_s:
            return False
        self._next_s = now_s + self._every_s
        return True


class FileWay:
    """The detector's file, while it is written (SWMR). Opened as soon as it can be.

    ``allowed`` is as in Hdf5Frames; what it raises goes through.
    """

    is_exact = True
    is_opening = False

    def __init__(self, path: Path, dataset: str, mask_dataset: str | None, allowed: Callable[[Path], object] | None) -> None:
        self.name = f"the file {path}"
        self.trouble: str | None = None
        self._path, self._dataset, self._mask_dataset, self._allowed = path, dataset, mask_dataset, allowed
        self._file: Hdf5Frames | None = None
        self._again = _Again(_FILE_AGAIN_S)
        self._unwritten: NDArray[np.int64] = np.empty(0, np.int64)
        self._looked = _Again(_FILE_AGAIN_S)

    def kind(self) -> Kind | None:
        if self._file is None and self._again.is_due():
            self._open()
        return None if self._file is None else (self._file.shape, self._file.dtype)

    def count(self) -> int:
        if self._file is None:
            return 0
        try:
            return self._file.visible()
        except FramesError as error:
            # Opened anew when it can be.
            self.give_up(str(error))
            return 0

    def has(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        if len(self._unwritten) and self._looked.is_due():
            self._unwritten = self._unwritten[:0]
        return np.asarray((frames < self.count()) & ~np.isin(frames, self._unwritten))

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        if self._file is None:
            raise FramesError(f"{self.name} is not open.")
        counts = self._file.read(frames)
        unwritten = [dark for dark in frames[~counts.any(axis=(1, 2))] if not self._file.is_written(int(dark))]
        if unwritten:
            self._unwritten = np.union1d(self._unwritten, unwritten)
            self._looked.is_due()
            raise FramesError(f"{self._path} has room for frame {unwritten[0]}, which is not written yet.")
        return counts

    def mask(self) -> NDArray[np.uint8] | None:
        return None if self._file is None else self._file.mask

    def give_up(self, sentence: str) -> None:
        self.trouble = sentence
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        try:
            self._file = Hdf5Frames(self._path, self._dataset, mask_dataset=self._mask_dataset, deadline_s=0.0, allowed=self._allowed)
            self.trouble = None
        except OutsideDataRoots:
            raise
        except FramesError as error:
            self.trouble = str(error)


class SpoolWay:
    """What a recorder of this host's service keeps of the detector's frames.

    begun_s: when the run began, Unix seconds; None: nobody knows, and so not which of the frames are its
    """

    is_exact = False
    is_opening = False

    def __init__(self, site: Site, detector: Detector, begun_s: float | None) -> None:
        self.name = f"the spool of {detector.key}"
        self.trouble: str | None = None
        self._site, self._detector, self._begun_s = site, detector, begun_s
        self._run: RunInSpool | None = None
        self._spool: Spool | None = None
        self._again = _Again(_CHANNEL_AGAIN_S)
        self._rows: dict[int, Any] = {}

    def kind(self) -> Kind | None:
        self._look()
        row = next(iter(self._rows.values()), None)
        return None if row is None else ((int(row["y"]), int(row["x"])), np.dtype(bytes(row["dtype"]).decode()))

    def count(self) -> int:
        return max(self._rows, default=-1) + 1

    def has(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        self._look()
        return np.array([int(frame) in self._rows for frame in frames], dtype=bool)

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        assert self._spool is not None, "it has these frames"
        kind = self.kind()
        read = [self._spool.read(self._rows[int(frame)]) for frame in frames]
        for frame, counts in zip(frames, read, strict=True):
            if (counts.shape, counts.dtype) != kind:
                raise FramesError(
                    f"{self.name}: frame {frame} is {counts.shape[0]} x {counts.shape[1]} px of {counts.dtype}: another shape."
                )
        return np.stack(read)

    def mask(self) -> NDArray[np.uint8] | None:
        row = None if self._run is None else self._run.mask_row
        return None if row is None or self._spool is None else np.asarray(self._spool.read(row))

    def give_up(self, sentence: str) -> None:
        if self._run is not None:
            self._run.forget(sentence)

    def close(self) -> None:
        self._rows = {}

    def _look(self) -> None:
        if self._run is None and self._again.is_due():
            self._find()
        if self._run is not None:
            self._rows, self.trouble = self._run.look(), self._run.trouble

    def _find(self) -> None:
        found = channel_of(self._site, self._detector)
        if self._begun_s is None:
            self.trouble = "the job does not say when the run began"
        elif found is None:
            self.trouble = (
                f"no channel with the frames of {self._detector.key} is recorded here (a profile's [live] pva, or a source eiger)"
            )
        else:
            channel, folder = found
            self.name, self.trouble = f"the spool of {channel.name}", None
            self._spool = Spool(folder)
            self._run = RunInSpool(self._spool, channel, self._begun_s)


class CatalogWay:
    """The run's array in the catalog, opened anew when it may have grown.

    That may take seconds at a busy server, so a thread does it: what is said here is what is known by now. Only ``read`` asks the catalog
    itself.
    """

    is_exact = True
    name = "the catalog"

    def __init__(self, open_frames: Callable[[], Frames]) -> None:
        self.trouble: str | None = None
        self._open_frames = open_frames
        self._frames: Frames | None = None
        self._opening: Future[Frames] | None = None
        self._again, self._read_again = _Again(_CATALOG_AGAIN_S), _Again(_CATALOG_AGAIN_S)
        self._refusal: CatalogError | None = None

    @property
    def is_opening(self) -> bool:
        """Whether a thread opens it."""
        return self._opening is not None and not self._opening.done()

    def kind(self) -> Kind | None:
        self._hear()
        if self._frames is None:
            self._open()
        return None if self._frames is None else (self._frames.shape, self._frames.dtype)

    def count(self) -> int:
        return 0 if self._frames is None else len(self._frames)

    def has(self, frames: NDArray[np.int64]) -> NDArray[np.bool_]:
        self._hear()
        if frames.size and frames.max() >= self.count():
            self._open()
        return np.asarray(frames < self.count())

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        if self._frames is None:
            raise FramesError("the catalog has not been asked yet.")
        if self._refusal is not None and not self._read_again.is_due():
            # Who waits for frames asks all the time.
            raise self._refusal.with_traceback(None)
        try:
            counts, self.trouble, self._refusal = self._frames.read(frames), None, None
        except CatalogError as error:
            self.trouble, self._refusal = str(error), error
            self._read_again.is_due()
            raise
        return counts

    def mask(self) -> NDArray[np.uint8] | None:
        return None if self._frames is None else self._frames.mask

    def give_up(self, sentence: str) -> None:
        self.trouble, self._frames, self._opening, self._again = sentence, None, None, _Again(float("inf"))
        self._again.is_due()

    def close(self) -> None:
        """Nobody waits for what a thread still opens. The connection is not its own."""
        self._opening = None

    def _open(self) -> None:
        if self._opening is not None or not self._again.is_due():
            return
        if self._frames is None and self.trouble is None:
            self.trouble = "it has not answered yet"
        self._opening = Future()
        # A daemon: a server that does not answer holds up no process that ends.
        threading.Thread(target=_fulfil, args=(self._opening, self._open_frames), name="open-catalog", daemon=True).start()

    def _hear(self) -> None:
        """Take over what the thread has opened."""
        if self._opening is None or not self._opening.done():
            return
        opened, self._opening = self._opening, None
        try:
            self._frames, self.trouble = opened.result(), None
        except OutsideDataRoots:
            raise
        except (CatalogError, FramesError) as error:
            self.trouble = str(error)
        except Exception as error:
            # Tiled raises anything over an answer that it does not expect: no matter of frames that other ways have.
            before, self.trouble = self.trouble, f"it cannot be opened ({type(error).__name__}: {error}): is it a Tiled server?"
            if self.trouble != before:
                _log.warning("%s: %s", self.name, self.trouble, exc_info=True)


def _fulfil(promise: Future[Frames], open_frames: Callable[[], Frames]) -> None:
    try:
        promise.set_result(open_frames())
    except BaseException as error:
        promise.set_exception(error)
