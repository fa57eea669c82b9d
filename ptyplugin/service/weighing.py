"""How much memory a job needs, by the memory plan, before anybody has looked at its frames."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np

from ptyplugin.model import Job, Recipe
from ptyplugin.solvers import OneRank
from ptyplugin.solvers.plan import Task, make_plan
from ptyplugin.solvers.verbs.choice import verbs_of

_log = logging.getLogger(__name__)

#: Counts as most detectors store them.
_COUNTS = np.dtype(np.uint16)
#: Pixels of the object around all frames.
_MARGIN_PX = 4


def needed_bytes(job: Job, folder: Path) -> int:
    """With all counts in memory; 0 for a job of which that cannot be said. Its arrays lie in ``folder``."""
    try:
        geometry, scan = job.geometry.build(), job.scan(folder)
        placement = scan.place(geometry, _MARGIN_PX)
        waves = job.probe_modes * job.object_modes * placement.corners.shape[1]
        task = Task(len(scan), _COUNTS, geometry, placement, waves, job.object_modes, threads=1)
        plan = make_plan(Recipe.parse(job.recipe), task, verbs_of("reference", geometry), OneRank(), sys.maxsize, streams=False)
    except Exception as error:
        # Nothing in a document may hold up those who take jobs in; who solves it will say what is wrong.
        _log.info("job %s cannot be weighed, and goes where small ones go: %s", job.key, " ".join(str(error).split()))
        return 0
    return plan.needed_bytes
