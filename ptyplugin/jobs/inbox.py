"""The inbox: where jobs are handed over, with or without a daemon, on any local or shared file system.

An item is a folder ``<key>.<stamp><random>/`` with ``job.json`` and the job's arrays, with growth of a live job (``growth.json``) and
its arrays, or with an order (see orders.py). It is
written under ``tmp/``, flushed to the disk, and renamed into ``new/`` (the way of a maildir): what lies in ``new/`` is whole and
will not be lost. Items that cannot be taken in are set aside in ``bad/`` with the reason beside them. The three have the
permissions of the folder itself: for an inbox that several accounts share, make it writable for their group.
"""

from __future__ import annotations

import logging
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ptyplugin.jobs.contents import GROWTH_FILE, JOB_FILE, arrays_beside
from ptyplugin.jobs.durable import make_folder, move, remove_tree, sync_folder, write_array, write_bytes
from ptyplugin.model import Growth, Job, JobError, Refusal, Site, SiteError

_log = logging.getLogger(__name__)

#: Name of an item: the job's key, the time of its making in ns (16 hex digits), 8 random hex digits.
_NAME = re.compile(r"^([0-9a-f]{16})\.([0-9a-f]{16})[0-9a-f]{8}$")
#: Age after which an unfinished item of a producer that died is swept away, as in a maildir.
_ABANDONED_S = 36 * 3600.0


def submit(site: Site, job: Job | Refusal, arrays: Mapping[str, NDArray[Any]] | None = None) -> str:
    """Hand a job over. When this returns, the job is on the disk and nothing loses it, whether a daemon runs or not.

    Args:
        site: tells the inbox.
        job: what to solve, or why a run cannot be solved (kept as a failed job).
        arrays: the arrays that the job names, by file name.

    Returns:
        The job's key. A job with the same key that was submitted before is done only once.

    Raises:
        JobError: the arrays are not those that the job names.
        SiteError: the inbox cannot be written.
    """
    return Inbox(site.inbox).submit(job, arrays or {})


def grow(site: Site, growth: Growth, arrays: Mapping[str, NDArray[Any]] | None = None) -> None:
    """Hand further frames of a live job over. When this returns, they are on the disk, whether a daemon runs or not.

    Args:
        site: tells the inbox.
        growth: the frames; known by their job and ``first``: the same handed over twice counts once.
        arrays: the arrays that it names, by file name.

    Raises:
        JobError: the arrays are not those that it names.
        SiteError: the inbox cannot be written.
    """
    Inbox(site.inbox).grow(growth, arrays or {})


def waiting_keys(site: Site) -> list[str]:
    """The keys of the jobs that were handed over and not taken in yet.

    Raises:
        SiteError: the inbox cannot be read.
    """
    return [key for item in Inbox(site.inbox).waiting() if (item / JOB_FILE).exists() and (key := key_of(item))]


def key_of(item: Path) -> str | None:
    """The key in the name of an item, or None if it has another name."""
    match = _NAME.match(item.name)
    return match[1] if match else None


def age_s(item: Path) -> float:
    """Seconds since an item with a proper name was made."""
    match = _NAME.match(item.name)
    return time.time() - int(match[2], 16) / 1e9 if match else math.inf


class Inbox:
    """The folder in which jobs are handed over: ``tmp/``, ``new/``, ``bad/``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tmp, self._new, self._bad = folder / "tmp", folder / "new", folder / "bad"

    def submit(self, job: Job | Refusal, arrays: Mapping[str, NDArray[Any]]) -> str:
        """See :func:`submit`."""
        _check_names(job, arrays)
        self.hand_over(job.key, {**arrays, JOB_FILE: job.to_bytes()})
        return job.key

    def grow(self, growth: Growth, arrays: Mapping[str, NDArray[Any]]) -> None:
        """See :func:`grow`."""
        _check_names(growth, arrays)
        self.hand_over(growth.job, {**arrays, GROWTH_FILE: growth.to_bytes()})

    def hand_over(self, key: str, files: Mapping[str, bytes | NDArray[Any]]) -> Path:
        """Put an item with these files under ``new/``, whole and on the disk when this returns; gives its place.

        Raises:
            SiteError: the inbox cannot be written.
        """
        name = f"{key}.{time.time_ns():016x}{secrets.token_hex(4)}"
        with self._telling():
            self._make()
            item = self._tmp / name
            item.mkdir()
            try:
                self._write(item, files)
                move(item, self._new / name)
            except BaseException:
                # On a full disk each further try would leave what it could still write.
                with suppress(OSError):
                    remove_tree(item)
                raise
        return self._new / name

    def waiting(self) -> list[Path]:
        """The items that wait, in the order of their arrival.

        Raises:
            SiteError: the inbox cannot be read.
        """
        with self._telling():
            try:
                with os.scandir(self._new) as listing:
                    entries = [entry for entry in listing if not entry.name.startswith(".")]
            except FileNotFoundError:
                return []
            return [self._new / name for _, name in sorted((_arrival_ns(entry), entry.name) for entry in entries)]

    def remove(self, item: Path) -> None:
        """Remove an item that was taken in: at once out of ``new/``, then from the disk."""
        gone = self._tmp / _new_name(item)
        move(item, gone)
        remove_tree(gone)

    def set_aside(self, item: Path, sentence: str) -> Path:
        """Move an item that cannot be taken in to ``bad/``, with the reason in a text file beside it."""
        place = self._bad / _new_name(item)
        self._make()
        # The item first: one that cannot be moved is tried again and again, and must not leave a text each time.
        move(item, place)
        write_bytes(place.with_name(place.name + ".txt"), f"{sentence}\n".encode(errors="backslashreplace"))
        return place

    def sweep(self) -> None:
        """Remove what producers left unfinished under ``tmp/`` more than 36 h ago; such items were never accepted."""
        with self._telling():
            self._make()
            for leftover in self._tmp.iterdir():
                # One that is gone was finished at this moment.
                with suppress(FileNotFoundError):
                    if time.time() - leftover.lstat().st_mtime > _ABANDONED_S:
                        _log.warning("%s was never finished by its producer and is removed", leftover)
                        remove_tree(leftover)

    def _make(self) -> None:
        make_folder(self.folder)
        mode = stat.S_IMODE(self.folder.stat().st_mode)
        for folder in (self._tmp, self._new, self._bad):
            if not folder.exists():
                make_folder(folder)
                folder.chmod(mode)

    def _write(self, item: Path, files: Mapping[str, bytes | NDArray[Any]]) -> None:
        for file, content in files.items():
            if isinstance(content, bytes):
                write_bytes(item / file, content)
            else:
                write_array(item / file, content)
        self._share(item)
        sync_folder(item)

    def _share(self, item: Path) -> None:
        # Whoever may write in the inbox may read an item and take it away, whatever the umask of its producer.
        mode = stat.S_IMODE(self._new.stat().st_mode)
        for file in item.iterdir():
            file.chmod(mode & 0o666)
        item.chmod(mode)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SiteError(
                f"the inbox {self.folder} cannot be used ({error.strerror or error}): check that it exists, has room and may be written, "
                "or set another inbox_dir or home in the site file."
            ) from error


def _new_name(item: Path) -> str:
    # Whatever somebody put there may have a name of the full length.
    return f"{os.fsdecode(os.fsencode(item.name)[:200])}.{secrets.token_hex(4)}"


def _check_names(job: Job | Refusal | Growth, arrays: Mapping[str, NDArray[Any]]) -> None:
    needed, what = arrays_beside(job), "growth" if isinstance(job, Growth) else "job"
    if missing := needed.keys() - arrays.keys():
        raise JobError(f"the {what} names {', '.join(sorted(missing))} but it was not given: submit the {what} with its arrays.")
    if foreign := arrays.keys() - needed.keys():
        raise JobError(f"{', '.join(sorted(foreign))} was given but the {what} does not name it: put it into the {what} first.")


def _arrival_ns(entry: os.DirEntry[str]) -> int:
    match = _NAME.match(entry.name)
    return int(match[2], 16) if match else entry.stat(follow_symlinks=False).st_mtime_ns
