"""The real solver with checkpoints every moment, or when it is stopped, slowed down so that a test can interrupt it.

Imported by name, also by real ranks.
"""

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
    """Write down each iteration that is done, and take 30 ms more for it."""
    return _solve(job, folder, site, ranks, on_progress, wish, 0.02)


def solve_without(
    job: Job, folder: Path, site: Site, ranks: Ranks, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]
) -> Reconstruction | None:
    """The same, but there is no time for a checkpoint."""
    return _solve(job, folder, site, ranks, on_progress, wish, 3600.0)


def _solve(
    job: Job,
    folder: Path,
    site: Site,
    ranks: Ranks,
    on_progress: Callable[[Progress], None],
    wish: Callable[[], Wish],
    every_s: float,
) -> Reconstruction | None:
    def hear(progress: Progress) -> None:
        on_progress(progress)
        if not progress.snapshot:
            with (folder / "iterations").open("a") as file:
                file.write(f"{progress.iteration}\n")
            time.sleep(0.03)

    return resuming.solve_job(job, folder, site, ranks, hear, wish, every_s)
