"""Jobs of the fault suite: imported by name, by the ranks of a warm group."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.service_jobs import empty, job_of
from ptyplugin.model import Job, Progress, Reconstruction, RunSource, Site
from ptyplugin.service import Wish

#: So long a job takes at least, so that kills meet it.
JOB_S = 0.2


def numbered(number: int) -> Job:
    """A small job of a scan of its own."""
    source = RunSource(run_uid=f"fault-{number}", key="detector", scan_id=number)
    return job_of(number).model_copy(update={"source": source, "beamline": "sim"})


def short(
    job: Job, folder: Path, site: Site, ranks: Any, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]
) -> Reconstruction | None:
    """A small result after a moment."""
    time.sleep(JOB_S)
    return empty(job, folder, site, ranks, on_progress, wish)
