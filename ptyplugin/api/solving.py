"""From a job to its Reconstruction."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ptyplugin.api.card_lock import CardLock
from ptyplugin.api.making import make_job
from ptyplugin.api.opening import OpenScan, folder_of, open_job_frames, open_scan
from ptyplugin.io import JobFrames, StartProbe
from ptyplugin.model import (
    DeviceError,
    DeviceName,
    Job,
    JobParts,
    Progress,
    Recipe,
    Reconstruction,
    RunSource,
    Site,
    Snapshot,
    Stage,
    Subpixel,
    read_beside,
)
from ptyplugin.solvers import OneRank, Ranks, Solver, failing_together
from ptyplugin.solvers.believing import chosen
from ptyplugin.solvers.devices import look, refusal
from ptyplugin.solvers.driver import Card
from ptyplugin.solvers.solver import Begun

OnProgress = Callable[[Progress], None]


def reconstruct(
    scan: OpenScan | str | Path,
    recipe: str | Recipe | Stage | None = None,
    *,
    probe_modes: int | None = None,
    object_modes: int | None = None,
    subpixel: Subpixel | None = None,
    probe: Path | str | NDArray[Any] | StartProbe | None = None,
    crop_px: int | None = None,
    seed: int | None = None,
    device: DeviceName = "auto",
    on_progress: OnProgress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Reconstruction:
    """Reconstruct a scan here and now, in this process.

    scan: from ``open_scan``, or the path of a CXI file
    on_progress: called after each iteration
    cancelled: asked after each iteration; True stops
    The other arguments are those of ``make_job``.

    Raises:
        PtypluginError: one of its kinds; its message says what was wrong and what to do.
    """
    scan = scan if isinstance(scan, OpenScan) else open_scan(scan)
    parts = make_job(
        scan,
        recipe,
        probe_modes=probe_modes,
        object_modes=object_modes,
        subpixel=subpixel,
        probe=probe,
        crop_px=crop_px,
        seed=seed,
        device=device,
    )
    return solved(parts, scan.site, on_progress, cancelled)


def solved(
    parts: JobParts, site: Site, on_progress: OnProgress | None = None, cancelled: Callable[[], bool] | None = None
) -> Reconstruction:
    """The result of a job, made here and now, in this process.

    Raises:
        PtypluginError: one of its kinds.
    """
    with folder_of(parts) as folder:
        result = solve_job(parts.job, folder, site, on_progress=on_progress, cancelled=cancelled)
    assert result is not None, "one rank has the result"
    return result


def solver(
    scan: OpenScan | str | Path,
    recipe: str | Recipe | Stage | None = None,
    *,
    probe_modes: int | None = None,
    object_modes: int | None = None,
    subpixel: Subpixel | None = None,
    probe: Path | str | NDArray[Any] | StartProbe | None = None,
    crop_px: int | None = None,
    seed: int | None = None,
    device: DeviceName = "auto",
) -> JobSolver:
    """Reconstruct a scan here, one iteration each time it is asked for the next::

        going = solver("scan.cxi", "DM(200) + ePIE(100)")
        print(going.plan())
        for progress in going:
            print(progress.iteration, progress.errors, going.object.shape)
        image = going.result()

    To pause is to leave the loop; another ``for`` goes on. ``going.recipe = "DM(200) + ePIE(30)"`` changes stages that have not begun.
    The arguments are those of ``make_job``; ``reconstruct`` is this loop.

    Raises:
        PtypluginError: one of its kinds; its message says what was wrong and what to do.
    """
    scan = scan if isinstance(scan, OpenScan) else open_scan(scan)
    parts = make_job(
        scan,
        recipe,
        probe_modes=probe_modes,
        object_modes=object_modes,
        subpixel=subpixel,
        probe=probe,
        crop_px=crop_px,
        seed=seed,
        device=device,
    )
    with folder_of(parts) as folder:
        return JobSolver(parts.job, folder, scan.site)


def solve_job(
    job: Job,
    folder: Path | None,
    site: Site,
    ranks: Ranks | None = None,
    on_progress: OnProgress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Reconstruction | None:
    """Solve a job whose arrays lie in ``folder``. All ranks call it together; rank 0 gets the result, the others None.

    Raises:
        DeviceError: the job asks for a GPU, and there is none to be used.
        PtypluginError: any other kind; on every rank, if it happened on one.
    """
    with JobSolver(job, folder, site, ranks, on_progress, cancelled) as going:
        for _ in going:
            pass
        return going.result()


class JobSolver(Solver):
    """A Solver for a job. Its results say how they came to be. Close it, or use it in a ``with`` statement, for the sake of its frames.

    Where it computes on a GPU, other processes keep off that card until it is closed or gone.

    job, folder: the job, and where its arrays lie while this is made
    start: object and probe of an earlier reconstruction of the same sample, to go on from
    first: says which of the frames to begin with, (frame,), the same on all ranks, which call it together; None: all

    Raises:
        DeviceError: the job asks for a GPU, and there is none to be used.
        PtypluginError: any other kind; on every rank, if it happened on one.
    """

    def __init__(
        self,
        job: Job,
        folder: Path | None,
        site: Site,
        ranks: Ranks | None = None,
        on_progress: OnProgress | None = None,
        cancelled: Callable[[], bool] | None = None,
        start: Snapshot | None = None,
        first: Callable[[JobFrames], NDArray[np.int64]] | None = None,
    ) -> None:
        self._job, self._started, self._cards = job, time.time(), CardLock()
        weakref.finalize(self, self._cards.release)
        ranks = ranks or OneRank()
        with failing_together(ranks):
            scan, recipe = job.scan(folder), Recipe.parse(job.recipe)
            start_probe = None if job.start_probe is None else read_beside(folder, job.start_probe)
            self._open_frames = open_job_frames(job, folder, site)
        try:
            with failing_together(ranks):
                frames, scan = (self._open_frames, scan) if first is None else chosen(first(self._open_frames), self._open_frames, scan)
            super().__init__(
                frames,
                scan,
                job.geometry.build(),
                recipe,
                preparation=job.preparation,
                probe_modes=job.probe_modes,
                object_modes=job.object_modes,
                subpixel=job.subpixel,
                seed=job.seed,
                start_probe=start_probe,
                start=start,
                ranks=ranks,
                on_progress=on_progress,
                cancelled=cancelled,
                job_key=job.key,
                device=site.device if job.resources.device == "auto" else job.resources.device,
                memory_bytes=None if site.memory_gb is None else int(site.memory_gb * 1e9),
            )
        except BaseException:
            self.close()
            raise
        if self._device.card is None:  # taken, but not by all ranks, or for nothing
            self._cards.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def frames(self) -> JobFrames:
        """Its frames; open as long as more may come, if it is live."""
        return self._open_frames

    def close(self) -> None:
        """Close the frames, which of a final job are closed once they have been read, if they are not streamed; let others use the card."""
        self._open_frames.close()
        self._cards.release()

    def _take(self, cards: Sequence[Card]) -> tuple[Card | None, str]:
        return self._cards.take_free(cards)

    def _begin(self) -> Begun:
        try:
            begun = super()._begin()
        except BaseException:
            self.close()
            raise
        if not self._streams and self._job.purpose == "final":
            self._open_frames.close()
        return begun

    def result(self) -> Reconstruction | None:
        """See Solver; with the job, its notes, versions and times as provenance."""
        made = super().result()
        if made is None:
            return None
        known = provenance(self._job, self._started)
        known["notes"] += [*self._open_frames.notes, *made.provenance["notes"]]
        return replace(made, provenance={**made.provenance, **known})


def check_device(device: str) -> None:
    """Raise a DeviceError for a device that this installation cannot use; it names what is missing, and what mends it."""
    if device == "gpu":
        devices = look()
        if not devices.usable:
            raise DeviceError(refusal(devices))


def provenance(job: Job, started_s: float) -> dict[str, Any]:
    """What a result must say about how it came to be: no host, no user, no secret."""
    of_run = job.source if isinstance(job.source, RunSource) else None
    return {
        "job": job.model_dump(mode="json"),
        "key": job.key,
        "beamline": job.beamline,
        "scan_uid": of_run.run_uid if of_run else None,
        "scan_id": of_run.scan_id if of_run else None,
        "name": None if isinstance(job.source, RunSource) else job.source.name,
        "notes": list(job.notes),
        "started": datetime.fromtimestamp(started_s, UTC).isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"ptyplugin": version("ptyplugin"), "numpy": np.__version__, "scipy": version("scipy"), "h5py": version("h5py")},
    }
