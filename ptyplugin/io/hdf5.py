"""Opening HDF5 files of others: one sentence for each way in which they can be wrong."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filters that detectors compress with)

from ptyplugin.model import FramesError

#: Chunks of many frames are decompressed once per read and not once per frame (bytes).
CHUNK_CACHE = 64 * 2**20

#: Attribute ``format`` of a result file.
RESULT = "ptyplugin result"

_PAUSE_S = 0.05


def open_hdf5(path: Path, deadline_s: float = 0.0) -> Any:
    """An ``h5py.File`` for reading, also while a detector writes it (SWMR).

    A file that its writer has not yet given free is tried again for ``deadline_s`` seconds.

    Raises:
        FramesError: missing, no HDF5, truncated, or held by its writer.
    """
    if not path.exists():
        raise FramesError(f"{path} does not exist: check the path, and that its file system is mounted.")
    if not path.is_file():
        raise FramesError(f"{path} is not a file: give an HDF5 file.")
    until = time.monotonic() + deadline_s
    while True:
        try:
            return h5py.File(path, "r", libver="latest", swmr=True, rdcc_nbytes=CHUNK_CACHE, rdcc_nslots=10_007)
        except BlockingIOError as error:
            if time.monotonic() >= until:
                raise FramesError(
                    f"{path} is still open for writing by another program (not in SWMR mode): wait until the detector has closed it."
                ) from error
            time.sleep(_PAUSE_S)
        except OSError as error:
            raise FramesError(
                f"{path} is not a complete HDF5 file ({cause(error)}): it is damaged, truncated or of another kind."
            ) from error


def cause(error: BaseException) -> str:
    """The part of an HDF5 error that says what was wrong."""
    text = str(error.args[0]) if error.args else type(error).__name__
    inner = re.search(r"\((.*)\)", text)
    return (inner.group(1) if inner else text).rstrip(".")


def check_foreign_files(dataset: Any, opened: Path, allowed: Callable[[Path], object] | None) -> None:
    """Hold other files that a dataset of ``opened`` points to (external links and storage, virtual datasets) to the rules of ``opened``.

    HDF5 gives zeros for a virtual dataset whose file is missing; that is an error here.

    Raises:
        FramesError: one of them is missing.
        OutsideDataRoots: raised by ``allowed`` for one of them.
    """
    for path in _foreign_files(dataset, opened.resolve()):
        if allowed is not None:
            allowed(path)
        if not path.exists() and "%" not in path.name:
            raise FramesError(f"{dataset.file.filename}: {dataset.name} points to {path}, which does not exist: copy it beside the file.")


def _foreign_files(dataset: Any, opened: Path) -> Iterator[Path]:
    own = Path(dataset.file.filename).resolve()
    names = [entry[0] for entry in dataset.external or ()]
    if dataset.is_virtual:
        names += [source.file_name for source in dataset.virtual_sources() if source.file_name != "."]
    if own != opened:
        yield own
    yield from (own.parent / name for name in names)
