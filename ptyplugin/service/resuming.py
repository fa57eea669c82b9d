"""A job, solved with checkpoints in its folder: what a crash, a kill or a stop interrupts goes on from there at the next start.

Snapshots beside them are for people to look at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ptyplugin.api import JobSolver
from ptyplugin.io import Checkpoints
from ptyplugin.model import Cancelled, Job, Progress, Reconstruction, Site
from ptyplugin.service.live_solving import solve_live
from ptyplugin.service.picturing import EVERY_S as PICTURE_EVERY_S
from ptyplugin.service.picturing import Pictures
from ptyplugin.service.solving import Wish
from ptyplugin.solvers import Ranks

_log = logging.getLogger(__name__)

#: Seconds from one checkpoint to the next, at least.
EVERY_S = 20.0


def solve_job(
    job: Job,
    folder: Path,
    site: Site,
    ranks: Ranks,
    on_progress: Callable[[Progress], None],
    wish: Callable[[], Wish],
    every_s: float = EVERY_S,
) -> Reconstruction | None:
    """As ``ptyplugin.api.solve_job``, from the newest checkpoint that is there; the next ones come at least every ``every_s`` seconds.

    A live job is solved while its scan goes on.

    Raises:
        Cancelled: ``wish`` said so; after another checkpoint, if it was a stop.
        PtypluginError: why it cannot be solved; on every rank, if it happened on one.
    """
    if job.purpose == "live":
        return solve_live(job, folder, site, ranks, on_progress, wish)
    with JobSolver(job, folder, site, ranks, on_progress, lambda: wish() == Wish.CANCEL) as going:
        files = Checkpoints(folder, ranks, every_s)
        found = files.newest(going.refuses)
        if found is not None:
            going.resume(found)
            _log.info("job %s goes on from its checkpoint after iteration %d", job.key, found.iteration)
        pictures = Pictures(folder, ranks, on_progress, PICTURE_EVERY_S)
        for event in going:
            pictures.offer(going, event)
            stops = bool(ranks.largest(int(wish() == Wish.STOP)))
            if stops or files.are_due():
                files.write(going.checkpoint())
            if stops:
                raise Cancelled("the daemon stops: the job goes on from its checkpoint.")
        return going.result()
