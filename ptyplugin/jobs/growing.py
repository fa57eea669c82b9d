"""What a live job got since it was handed over: one folder for each Growth under the job's, ``growth/<first frame>/``."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ptyplugin.jobs.contents import GROWTH_FILE, arrays_beside
from ptyplugin.jobs.durable import copy_handed_over, make_folder, move, remove_tree, sync_folder, write_bytes
from ptyplugin.model import Growth, JobError

_log = logging.getLogger(__name__)

#: Its presence says that nothing comes after what is there.
_ENDED = "ended"


class GrowthFolder:
    """Growth of the job in this folder, which the daemon fills and the job's ranks read."""

    def __init__(self, job_folder: Path) -> None:
        self._folder = job_folder / "growth"

    def put(self, item: Path, growth: Growth, limit_bytes: int) -> None:
        """Copy it from its item, durably; what is there already stays as it is.

        Raises:
            JobError: an array is not the one that it names, or has more than ``limit_bytes``.
            OSError: the disk is in trouble.
        """
        if growth.frame_count and not self.place_of(growth.first).exists():
            self._copy(item, growth, limit_bytes)
        if growth.ended:
            self.end()

    def end(self) -> None:
        """Nothing comes after what is there.

        Raises:
            OSError: the disk is in trouble.
        """
        make_folder(self._folder)
        if not self.has_ended:
            (self._folder / _ENDED).touch()
            sync_folder(self._folder)

    @property
    def has_ended(self) -> bool:
        """Whether nothing comes after what is there."""
        return (self._folder / _ENDED).exists()

    def place_of(self, first: int) -> Path:
        """Where the growth that begins with this frame lies, with its arrays, if it is there."""
        return self._folder / f"{first:09d}"

    def after(self, frames: int) -> Iterator[Growth]:
        """What has come after so many frames, without a gap; what lies behind a gap waits until that is filled.

        Raises:
            JobError: it cannot be read.
        """
        self._ask_again()
        while (place := self.place_of(frames)).is_dir():
            try:
                growth = Growth.from_bytes((place / GROWTH_FILE).read_bytes())
            except OSError as error:
                raise JobError(f"{place / GROWTH_FILE} cannot be read ({error.strerror}): the final job has these frames.") from error
            yield growth
            frames += growth.frame_count

    def remove(self) -> None:
        """Remove all of it: the job is solved.

        Raises:
            OSError: it cannot be removed.
        """
        remove_tree(self._folder)

    def newest_s(self) -> float:
        """When something came last, Unix seconds; 0 if nothing has."""
        return self._folder.stat().st_mtime if self._folder.exists() else 0.0

    def _ask_again(self) -> None:
        """Have the machine on which this runs ask for news, if it shares the folder.

        A client of NFS that has looked for a name in vain believes that for half a minute and more; to open the folder makes it ask.
        """
        with suppress(OSError):
            for folder in (self._folder.parent, self._folder):
                os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))

    def _copy(self, item: Path, growth: Growth, limit_bytes: int) -> None:
        make_folder(self._folder)
        staged = self._folder / f".{growth.first:09d}.{secrets.token_hex(4)}"
        staged.mkdir()
        try:
            for name, sha256 in arrays_beside(growth).items():
                if copy_handed_over(item / name, staged / name, limit_bytes) != sha256:
                    raise JobError(f"{item / name} is not the array that the growth names (its sha256 differs).")
            write_bytes(staged / GROWTH_FILE, growth.to_bytes())
            _check(growth, staged)
            sync_folder(staged)
            move(staged, self.place_of(growth.first))
        except BaseException:
            remove_tree(staged)
            raise


def _check(growth: Growth, folder: Path) -> None:
    """That there are as many frames as positions; JobError or ScanError if not."""
    listed = sum(len(block.indices()) for block in growth.frames)
    if not listed == growth.frame_count == len(growth.scan(folder)):
        raise JobError(f"the growth of job {growth.job} lists {listed} frames for {growth.frame_count} frame ids or their positions.")
