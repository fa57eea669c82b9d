"""What an inbox item says: a job, a refusal or growth of a live job, and which arrays lie beside it."""

from __future__ import annotations

from pydantic import BaseModel

from ptyplugin.model import BesideArray, BesideSource, Growth, Job, JobError, Refusal, read_border

#: Name of the job in its folder, in the inbox and under the site's jobs.
JOB_FILE = "job.json"
#: Name of growth of a live job in its item, and in its own folder under the job's.
GROWTH_FILE = "growth.json"
#: Name of the log in the job's folder: what its ranks say, and the traceback of the unexpected.
LOG_FILE = "log.txt"


class _Kind(BaseModel):
    refused: bool = False


def parse(data: bytes) -> Job | Refusal:
    """The job or refusal in the text of a ``job.json``.

    Raises:
        JobError: it is neither; the message says which field is wrong.
    """
    return read_border(Refusal, data, "refusal") if read_border(_Kind, data, "job").refused else Job.from_bytes(data)


def arrays_beside(job: Job | Refusal | Growth) -> dict[str, str]:
    """sha256 by file name of the arrays that the job, or its growth, needs beside it.

    Raises:
        JobError: one name stands for two different arrays.
    """
    if isinstance(job, Refusal):
        return {}
    named: list[BesideSource | BesideArray] = [block.source for block in job.frames if isinstance(block.source, BesideSource)]
    others = (job.positions_m,) if isinstance(job, Growth) else (job.positions_m, job.monitor, job.start_probe)
    named += [array for array in others if isinstance(array, BesideArray)]
    found: dict[str, str] = {}
    for array in named:
        if found.setdefault(array.name, array.sha256) != array.sha256:
            raise JobError(f"the job names two different arrays {array.name}: give each array its own name.")
    return found
