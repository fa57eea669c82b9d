"""Frames of an HDF5 dataset, also while the detector still writes it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from ptyplugin.io.hdf5 import cause, check_foreign_files, open_hdf5
from ptyplugin.model import FramesError, ranges_of

_PAUSE_S = 0.02


class Hdf5Frames:
    """A model.Frames over a dataset (..., y, x) of an HDF5 file; frames are numbered over all leading axes together.

    ``deadline_s`` is how long frames that a detector has announced, but that are not yet visible in the file, are waited for.
    ``allowed`` is called with each file that the dataset points to and raises if that file must not be read.
    Close it, or use it in a ``with`` statement.

    Raises:
        FramesError: no such file, not HDF5, truncated, no such dataset, or not a dataset of frames.
    """

    def __init__(
        self,
        path: Path,
        dataset: str,
        *,
        mask_dataset: str | None = None,
        deadline_s: float = 10.0,
        allowed: Callable[[Path], object] | None = None,
    ) -> None:
        self.path = path
        self._deadline_s = deadline_s
        self._file = open_hdf5(path, deadline_s)
        try:
            self._data = self._find(dataset, allowed)
            self._check_frames()
            self._data = _not_cached(self._data) if self._data.chunks and math.prod(self._data.chunks[:-2]) == 1 else self._data
            self.mask = None if mask_dataset is None else self._read_mask(self._find(mask_dataset, allowed))
        except BaseException:
            self.close()
            raise

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (y, x) of one frame."""
        return self._data.shape[-2], self._data.shape[-1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the counts."""
        kind: np.dtype[Any] = self._data.dtype
        return kind

    def __len__(self) -> int:
        return math.prod(self._data.shape[:-2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        """Counts (frame, y, x) of these frames of the dataset, in the order asked for.

        Raises:
            FramesError: a frame is not in the file, or is damaged.
        """
        wanted, back = np.unique(np.asarray(frames, dtype=np.int64), return_inverse=True)
        counts = np.empty((wanted.size, *self.shape), self.dtype)
        if wanted.size == 0:
            return counts
        self._wait_for(int(wanted[0]), int(wanted[-1]))
        done = 0
        for start, stop in ranges_of(wanted.tolist()):
            self._read_range(start, stop, counts[done : done + stop - start])
            done += stop - start
        return counts if np.array_equal(back, np.arange(wanted.size)) else counts[back]

    def visible(self) -> int:
        """How many frames the file shows now, which may be more than a moment ago.

        Raises:
            FramesError: it cannot be looked at any more.
        """
        try:
            self._data.refresh()
            return len(self)
        except (OSError, RuntimeError, ValueError) as error:
            raise FramesError(f"{self.path} cannot be read any more ({cause(error)}): is its file system away?") from error

    def is_written(self, frame: int) -> bool:
        """Whether something was written for this frame: a file may show frames, as zeros, before they are measured."""
        if self._data.chunks is None or math.prod(self._data.chunks[:-2]) != 1 or self._data.chunks[-2:] != self.shape:
            return True
        leading = np.unravel_index(frame, self._data.shape[:-2]) if self._data.ndim > 2 else ()
        try:
            self._data.id.read_direct_chunk((*(int(index) for index in leading), 0, 0))
        except (OSError, RuntimeError, ValueError):
            return False
        return True

    def _find(self, name: str, allowed: Callable[[Path], object] | None) -> Any:
        try:
            found = self._file[name]
        except (KeyError, OSError, ValueError, RuntimeError) as error:
            raise FramesError(
                f"{self.path} has no dataset {name!r} ({cause(error)}): is the name right in the document or profile?"
            ) from error
        if not isinstance(found, h5py.Dataset):
            raise FramesError(f"{self.path}: {name!r} is a group, not a dataset: name the dataset in it.")
        check_foreign_files(found, self.path, allowed)
        return found

    def _check_frames(self) -> None:
        shape = self._data.shape
        if len(shape) < 2 or 0 in shape[-2:] or self.dtype.kind not in "uif":
            raise FramesError(
                f"{self.path}: {self._data.name} has shape {shape} of {self.dtype}; frames are numbers of shape (..., y, x): "
                "name another dataset."
            )

    def _read_mask(self, dataset: Any) -> NDArray[np.uint8]:
        if dataset.shape != self.shape:
            raise FramesError(
                f"{self.path}: the mask {dataset.name} has shape {dataset.shape}, its frames {self.shape}: they must be the same."
            )
        try:
            return np.asarray(dataset[()] != 0, dtype=np.uint8)
        except (OSError, RuntimeError) as error:
            raise FramesError(f"{self.path}: the mask {dataset.name} cannot be read ({cause(error)}): the file is damaged.") from error

    def _wait_for(self, first: int, last: int) -> None:
        until = time.monotonic() + self._deadline_s
        while first >= 0 and not self._visible(last) and time.monotonic() < until:
            time.sleep(_PAUSE_S)
        if first < 0 or last >= len(self):
            raise FramesError(
                f"{self.path}: {self._data.name} has {len(self)} frames; frame {min(first, 0) or last} was asked for: "
                "the detector wrote fewer than it announced."
            )

    def _visible(self, last: int) -> bool:
        if last >= len(self):
            self._data.refresh()
        return last < len(self)

    def _read_range(self, start: int, stop: int, counts: NDArray[Any]) -> None:
        row = self._data.shape[-3] if self._data.ndim > 2 else 1
        try:
            while start < stop:
                count = min(stop, (start // row + 1) * row) - start
                counts[:count] = self._data[self._slab(start, count, row)]
                start, counts = start + count, counts[count:]
        except (OSError, RuntimeError) as error:
            raise FramesError(
                f"{self.path}: frames {start}..{stop - 1} of {self._data.name} cannot be read ({cause(error)}): "
                "the file is truncated or damaged."
            ) from error

    def _slab(self, start: int, count: int, row: int) -> tuple[Any, ...]:
        if self._data.ndim == 2:
            return (...,)
        leading = np.unravel_index(start // row, self._data.shape[:-3]) if self._data.ndim > 3 else ()
        return (*(int(index) for index in leading), slice(start % row, start % row + count))


def _not_cached(dataset: Any) -> Any:
    """The dataset anew: chunks of one frame are read once each, and a cache would only take memory for them."""
    file, path, access = h5py.h5i.get_file_id(dataset.id), h5py.h5i.get_name(dataset.id), dataset.id.get_access_plist()
    access.set_chunk_cache(1, 0, 1.0)
    # Opened once more beside the first it would share that one's cache.
    dataset.id.close()
    return h5py.Dataset(h5py.h5d.open(file, path, access))
