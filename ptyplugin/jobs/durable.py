"""Files that are there after a power cut: written, flushed to the disk, then named."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import JobError

#: Bytes of a file that are copied at a time.
_CHUNK = 1 << 20
#: What the system answers when the file is not what a producer may hand over (missing, a link, a folder, locked away, a name too long).
_NOT_A_FILE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENAMETOOLONG)


def sync_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems know no flush of a folder; their rename is as durable as it gets.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make ``folder`` and what is missing above it, durably."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        sync_folder(place.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a new file and flush it."""
    with path.open("xb") as file:
        file.write(data)
        _flush(file)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a new .npy file and flush it."""
    with path.open("xb") as file:
        np.save(file, array, allow_pickle=False)
        _flush(file)


def move(source: Path, target: Path) -> None:
    """Rename within one file system and flush both folders: afterwards ``source`` is ``target``, whatever happens."""
    source.rename(target)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def remove_tree(folder: Path) -> None:
    """Remove a folder, a file or a link; one that is not there is fine."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def read_handed_over(path: Path, limit_bytes: int) -> bytes:
    """The bytes of a file that somebody else wrote: a plain file of at most ``limit_bytes``, no link.

    Raises:
        JobError: it is not such a file.
    """
    with _open_plain(path, limit_bytes) as file:
        return file.read(limit_bytes)


def copy_handed_over(source: Path, target: Path, limit_bytes: int) -> str:
    """Copy a file that somebody else wrote into a new flushed one, and give the sha256 of what was copied.

    Raises:
        JobError: it is not a plain file of at most ``limit_bytes``.
    """
    digest = hashlib.sha256()
    with _open_plain(source, limit_bytes) as there, target.open("xb") as here:
        while chunk := there.read(_CHUNK):
            digest.update(chunk)
            here.write(chunk)
        _flush(here)
    return digest.hexdigest()


def _open_plain(path: Path, limit_bytes: int) -> BinaryIO:
    # O_NONBLOCK: opening a pipe that somebody put there must not wait for its other end.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in _NOT_A_FILE:
            raise
        raise JobError(f"{path} cannot be read as a plain file ({error.strerror}): submit the job again.") from error
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_size <= limit_bytes:
        return os.fdopen(handle, "rb")
    os.close(handle)
    if not stat.S_ISREG(status.st_mode):
        raise JobError(f"{path} is no plain file: submit the job again.")
    raise JobError(f"{path} has {status.st_size} bytes, more than the {limit_bytes} that are taken: hand its frames over as a file.")


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
