"""resolution: how finely a scan's image resolves, from two reconstructions of half of its frames each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.api.making import make_job
from ptyplugin.api.opening import OpenScan, folder_of, open_scan
from ptyplugin.api.ring_correlation import ring_correlation
from ptyplugin.api.solving import OnProgress, solved
from ptyplugin.io import StartProbe
from ptyplugin.model import (
    FrameBlock,
    Job,
    JobParts,
    Recipe,
    RingCorrelation,
    Scan,
    Stage,
    Subpixel,
    monitor_field,
    positions_field,
    ranges_of,
)
from ptyplugin.solvers.batches import hilbert_order


def resolution(
    scan: OpenScan | str | Path,
    recipe: str | Recipe | Stage | None = None,
    *,
    probe_modes: int | None = None,
    object_modes: int | None = None,
    subpixel: Subpixel | None = None,
    probe: Path | str | NDArray[Any] | StartProbe | None = None,
    crop_px: int | None = None,
    seed: int | None = None,
    on_progress: OnProgress | None = None,
) -> RingCorrelation:
    """Reconstruct two halves of the frames and compare their images::

        image = reconstruct(scan).with_resolution(resolution(scan))

    The arguments are those of ``reconstruct``; it takes about as long. Every second frame along the scan's Hilbert curve is in one half,
    the others in the other: both halves cover the scan, and share no noise.

    Raises:
        PtypluginError: one of its kinds; its message says what was wrong and what to do.
    """
    scan = scan if isinstance(scan, OpenScan) else open_scan(scan)
    parts = make_job(
        scan, recipe, probe_modes=probe_modes, object_modes=object_modes, subpixel=subpixel, probe=probe, crop_px=crop_px, seed=seed
    )
    first, second = (solved(half, scan.site, on_progress) for half in half_sets(parts))
    return ring_correlation(first, second)


def half_sets(parts: JobParts) -> tuple[JobParts, JobParts]:
    """The same job on one half of its frames, and on the other."""
    with folder_of(parts) as folder:
        scan = parts.job.scan(folder)
    along = hilbert_order(scan.positions_m.mean(axis=1))
    return _of(parts, np.sort(along[::2]), scan), _of(parts, np.sort(along[1::2]), scan)


def _of(parts: JobParts, numbers: NDArray[np.int64], scan: Scan) -> JobParts:
    """The job on the frames ``numbers`` (ascending) of its own."""
    job, arrays = parts.job, dict(parts.arrays)
    ids = np.concatenate([np.arange(first, last) for first, last in job.frame_ids])
    blocks, start = [], 0
    for block in job.frames:
        indices = block.indices()
        here = numbers[(start <= numbers) & (numbers < start + len(indices))] - start
        if len(here):
            blocks.append(FrameBlock(source=block.source, ranges=ranges_of(indices[here].tolist())))
        start += len(indices)
    changes = {
        "frames": blocks,
        "frame_ids": ranges_of(ids[numbers].tolist()),
        "positions_m": positions_field(scan.positions_m[numbers], arrays),
        "monitor": monitor_field(None if scan.monitor is None else scan.monitor[numbers], arrays),
    }
    return JobParts(Job.model_validate({**dict(job), **changes}), arrays)
