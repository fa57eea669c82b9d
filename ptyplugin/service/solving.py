"""One job, on one rank: solve it and write the result file. The same for every launcher."""

from __future__ import annotations

import errno
import importlib
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, TextIO

from ptyplugin.io import remove_checkpoints, write_result
from ptyplugin.jobs import JOB_FILE, LOG_FILE, GrowthFolder, remove_snapshot
from ptyplugin.model import DiskError, FileFormatError, Job, JobError, Progress, PtypluginError, Reconstruction, Site, SolverError
from ptyplugin.model.redaction import redacted

_log = logging.getLogger(__name__)


class Wish(IntEnum):
    """What is wanted of a job that runs."""

    GO_ON = 0
    #: Others wait: a live job that waits for frames makes way.
    GIVE_WAY = 1
    #: The final job of its run waits: what a live job has once all frames are in is enough.
    FINISH = 2
    #: It is to end, for now: what there is is kept, to go on from there.
    STOP = 3
    #: It is to end for good.
    CANCEL = 4

    @property
    def ends(self) -> bool:
        """Whether the job is to end."""
        return self >= Wish.STOP


#: (job, folder, site, ranks, on_progress, wish) -> the result on rank 0, None on the others.
SolveFunction = Callable[[Job, Path, Site, Any, Callable[[Progress], None], Callable[[], Wish]], Reconstruction | None]

#: module:function that solves a job.
SOLVE_JOB = "ptyplugin.service.resuming:solve_job"
#: What the system answers when a disk is full, read-only or away.
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN})


@dataclass(frozen=True, slots=True)
class Task:
    """A job in its folder (with its arrays and its log) at a site."""

    folder: Path
    site: Site

    def job(self) -> Job:
        """The job.

        Raises:
            JobError: it cannot be read.
        """
        path = self.folder / JOB_FILE
        try:
            return Job.from_bytes(path.read_bytes())
        except OSError as error:
            raise JobError(f"{path} cannot be read ({error.strerror}): submit the job again with a higher attempt number.") from error

    @property
    def log(self) -> Path:
        """The job's own log."""
        return self.folder / LOG_FILE

    @property
    def result(self) -> Path:
        """Where its result file goes."""
        return self.site.results / f"{self.folder.name}.h5"

    def forget_growth(self) -> None:
        """Remove frames that came inside events while it was solved live: its result is there."""
        try:
            GrowthFolder(self.folder).remove()
        except OSError as error:
            _log.warning("the growth of job %s cannot be removed (%s)", self.folder.name, error.strerror)

    def forget_checkpoints(self) -> None:
        """Remove what a next start would go on from, and what was shown meanwhile: there will be none."""
        try:
            remove_checkpoints(self.folder)
            remove_snapshot(self.folder)
        except OSError as error:
            _log.warning("checkpoints in %s cannot be removed (%s)", self.folder, error.strerror)


def solve_function(name: str) -> SolveFunction:
    """The function ``module:function``."""
    module, _, function = name.partition(":")
    found: SolveFunction = getattr(importlib.import_module(module), function)
    return found


def solve_to_file(
    task: Task, solve: SolveFunction, ranks: Any, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]
) -> Path | None:
    """Solve the job; rank 0 writes the result file and gives its path, the others give None.

    Raises:
        DiskError: the result cannot be written now.
        PtypluginError: why it cannot be solved.
    """
    job = task.job()
    reconstruction = solve(job, task.folder, task.site, ranks, on_progress, wish)
    if ranks.rank != 0:
        return None
    if reconstruction is None:
        raise SolverError(f"job {job.key} ended without a result: its log {task.log} may say more.")
    try:
        write_result(task.result, reconstruction)
    except FileFormatError as error:
        raise DiskError(str(error)) from error
    task.forget_checkpoints()
    return task.result


@contextmanager
def in_one_sentence(task: Task, log: TextIO) -> Iterator[None]:
    """Whatever goes wrong inside becomes an error of ours with one sentence; the traceback of the unexpected goes to the job's log.

    Raises:
        DiskError: a disk is full, read-only or away.
        SolverError: something that nobody expected.
        PtypluginError: as it was.
    """
    try:
        yield
    except PtypluginError:
        raise
    except Exception as error:
        if disk_is_in_trouble(error):
            raise DiskError(f"the reconstruction cannot go on: {error}. Make room or repair the disk.") from error
        log.write(redacted("".join(traceback.format_exception(error))))
        log.flush()
        reason = " ".join(str(error).split()) or "no reason given"
        raise SolverError(f"the reconstruction ended with {type(error).__name__}: {reason} (details in {task.log}).") from error


def disk_is_in_trouble(error: BaseException) -> bool:
    """Whether this is the system's answer for a disk that is full, read-only or away."""
    return isinstance(error, OSError) and error.errno in _DISK
