"""Further frames of a scan that goes on: read and prepared, before anything is changed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from ptyplugin.model import FramesError, Preparation
from ptyplugin.solvers.admitting import Admission, HostCounts
from ptyplugin.solvers.detector_model import with_monitor
from ptyplugin.solvers.measured import Measured
from ptyplugin.solvers.prepare import Further, Known, stored_counts
from ptyplugin.solvers.ranks import Ranks, agreed


class Read(NamedTuple):
    """What is to be admitted, None if nothing can be used; what is measured then, and what frames have shown."""

    admission: Admission | None
    measured: Measured
    known: Known


def read_further(
    before: Measured,
    measured: Measured,
    known: Known,
    preparation: Preparation,
    counts: HostCounts,
    first: int,
    streams: bool,
    ranks: Ranks,
) -> Read:
    """Read what ``measured`` has more than ``before``. All ranks call it together, and all raise the same.

    known, counts: of the frames before; first: how many frames there were at first; streams: whether counts stay where they are stored

    Raises:
        FramesError: frames that cannot be read on some rank, or most are broken.
    """
    here, geometry = len(before.used), measured.manner.geometry
    if len(measured.used) == here:
        return Read(None, measured, known)
    numbers = measured.numbers_of(ranks.rank, here)
    read = agreed(ranks, lambda: Further(measured.frames, numbers, geometry, preparation, known, streams), FramesError)
    new, then, broken = read.judged(measured.placement, ranks)
    measured = measured.dropping(broken)
    if len(measured.used) == here:
        return Read(None, replace(before, given=measured.given, broken=measured.broken), known)
    new = with_monitor(replace(new, numbers=measured.numbers_of(ranks.rank, here)), measured.scan.monitor, first)
    shift = np.rint(before.origin_px - measured.origin_px).astype(np.int64)
    dtype = np.result_type(new.counts.dtype, *(each.dtype for each in counts))
    stored = partial(stored_counts, measured.frames, geometry, preparation, then, dtype) if streams else None
    return Read(Admission(new, measured.said_px(new.numbers), measured.placement, shift, stored), measured, then)
