"""The real solver, slow enough that a test can interrupt it. Imported by name, by real ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ptyplugin.model import Job, Progress, Reconstruction, Site
from ptyplugin.service import Wish, resuming
from ptyplugin.solvers import Ranks


def solve(
    job: Job, folder: Path, site: Site, ranks: Ranks, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]
) -> Reconstruction | None:
    """Take 40 ms more for each iteration, and never find the time for a checkpoint."""

    def hear(progress: Progress) -> None:
        on_progress(progress)
        time.sleep(0.04)

    return resuming.solve_job(job, folder, site, ranks, hear, wish, 3600.0)
