"""The real solver with checkpoints every moment, slowed down so that a test can interrupt it. Imported by name, also by real ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ptyplugin.model import Job, Progress, Reconstruction, Site
from ptyplugin.service import resuming
from ptyplugin.solvers import Ranks


def solve(
    job: Job, folder: Path, site: Site, ranks: Ranks, on_progress: Callable[[Progress], None], cancelled: Callable[[], bool]
) -> Reconstruction | None:
    """Write down each iteration that is done, and take 30 ms more for it."""

    def hear(progress: Progress) -> None:
        with (folder / "iterations").open("a") as file:
            file.write(f"{progress.iteration}\n")
        on_progress(progress)
        time.sleep(0.03)

    return resuming.solve_job(job, folder, site, ranks, hear, cancelled, every_s=0.02)
