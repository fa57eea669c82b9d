"""Numbers of an HDF5 dataset that a capture box or a detector writes beside the frames: encoders, clocks, monitors."""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptyplugin.io.hdf5 import cause, check_foreign_files, open_hdf5
from ptyplugin.model import FramesError, Hdf5Source, Site


def read_samples(source: Hdf5Source, start: int, stop: int, per_point: int, site: Site) -> NDArray[np.float64]:
    """Samples ``start`` to ``stop`` of a dataset (row, ...), numbered over all its axes together; fewer while it shows no more.

    per_point: how many samples the documents announce for one point, which must be whole rows

    Raises:
        FramesError: no such file or dataset, damaged, or not numbers.
        OutsideDataRoots: a file that the site does not allow to be read.
    """
    path = site.local_path(source.uri)
    # HDF5 opens what a file points to literally, so it is checked without the path map.
    literal = site.model_copy(update={"path_map": {}})
    with open_hdf5(path) as file:
        try:
            dataset = file[source.dataset]
        except (KeyError, OSError, ValueError, RuntimeError) as error:
            raise FramesError(
                f"{path} has no dataset {source.dataset!r} ({cause(error)}): is the name right in the document or profile?"
            ) from error
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim == 0 or dataset.dtype.kind not in "uif":
            raise FramesError(f"{path}: {source.dataset!r} holds no numbers of shape (row, ...): name another dataset.")
        row = math.prod(dataset.shape[1:])
        if row == 0 or per_point % row:
            raise FramesError(
                f"{path}: {source.dataset!r} has rows of {row} samples, and the documents announce {per_point} a point: is the dataset "
                "the right one, and the shape of its data key?"
            )
        check_foreign_files(dataset, path, lambda found: literal.local_path(found.as_uri()))
        try:
            return flat(dataset, start, stop)
        except (OSError, RuntimeError) as error:
            raise FramesError(
                f"{path}: samples {start}..{stop - 1} of {source.dataset} cannot be read ({cause(error)}): "
                "the file is truncated or damaged."
            ) from error


def flat(dataset: Any, start: int, stop: int) -> NDArray[np.float64]:
    """Samples ``start`` to ``stop`` of an array (point, ...) read as it is sliced, numbered over all axes together; fewer at its end."""
    each = math.prod(dataset.shape[1:])
    stop = min(stop, dataset.shape[0] * each)
    if stop <= start:
        return np.empty(0)
    first = start // each
    rows = np.asarray(dataset[first : -(-stop // each)], dtype=np.float64).ravel()
    return rows[start - first * each : stop - first * each]
