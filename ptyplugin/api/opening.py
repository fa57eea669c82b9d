"""open_scan: a CXI file or a run of the catalog, ready to be reconstructed."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.api.connections import client_of
from ptyplugin.api.runs import job_of_run
from ptyplugin.io import JobFrames, StartProbe, content_id, open_cxi, open_frames
from ptyplugin.jobs import JOB_FILE
from ptyplugin.model import (
    FileFormatError,
    FileSource,
    FrameBlock,
    Frames,
    Geometry,
    Job,
    JobParts,
    Preparation,
    Profile,
    ProfileError,
    Scan,
    Site,
    TiledSource,
    geometry_numbers,
    load_site,
    positions_field,
)
from ptyplugin.profiles import load_profile, profile_names
from ptyplugin.solvers import DEFAULT

logger = logging.getLogger(__name__)

#: The "beamline" of scans that come as files.
FILES = "files"


@dataclass(frozen=True, slots=True)
class OpenScan:
    """A scan that is known but not yet reconstructed. Its frames stay where they are.

    parts: the job that would be run if nothing else is asked for
    site: where files may be read, with the folder of the file that was opened by name
    start_probe: the probe that came with the scan, or None
    """

    parts: JobParts
    site: Site
    start_probe: StartProbe | None = None

    @property
    def job(self) -> Job:
        """The job that would be run if nothing else is asked for."""
        return self.parts.job

    @property
    def geometry(self) -> Geometry:
        """Energy, distances and pixels, after the crop."""
        return self.job.geometry.build()

    @property
    def preparation(self) -> Preparation:
        """What is done to each frame."""
        return self.job.preparation

    @property
    def scan(self) -> Scan:
        """Positions and frame ids."""
        with folder_of(self.parts) as folder:
            return self.job.scan(folder)

    def frames(self) -> JobFrames:
        """The frames; close them, or use them in a ``with`` statement.

        Raises:
            FramesError: they cannot be read here.
        """
        with folder_of(self.parts) as folder:
            return open_job_frames(self.job, folder, self.site)

    def __repr__(self) -> str:
        job, (pixel_y, _) = self.job, self.geometry.object_pixel_m
        where = job.source.name if isinstance(job.source, FileSource) else f"{job.beamline} run {job.source.run_uid[:8]}"
        return f"<OpenScan {where}: {job.frame_count} frames of {job.geometry.shape}, object pixel {pixel_y * 1e9:.4g} nm, {job.recipe}>"


def open_scan(
    path_or_uid: str | Path, *, profile: str | Path | Profile | None = None, site: Site | Path | None = None, client: Any = None
) -> OpenScan:
    """Open a CXI file, or a run of the catalog by its uid (or the beginning of it) or scan id.

    profile: how the beamline calls its things, for a run; a name, a TOML file or a Profile
    site: a Site or its TOML file; by default what PTYPLUGIN_SITE names
    client: a Tiled client to use for a run, in place of the site's catalog

    Raises:
        FileFormatError, ScanError, GeometryError: the file is not what it should be.
        ProfileError: no profile for a run, or the run does not have what the profile names.
        CatalogError: the catalog is away or has no such run.
    """
    site = site if isinstance(site, Site) else load_site(site)
    if isinstance(path_or_uid, Path) or _names_a_file(path_or_uid):
        if profile is not None:
            logger.warning("%s says everything itself: the profile is not used", path_or_uid)
        return _open_file(Path(path_or_uid).expanduser(), site)
    if profile is None and Path(path_or_uid).is_dir():
        raise FileFormatError(f"{path_or_uid} is a folder: give a CXI file in it.")
    if profile is None:
        known = ", ".join(profile_names())
        raise ProfileError(f"{path_or_uid!r} is no file; to read it as a run, name the beamline's profile ({known}, or a TOML file).")
    profile = profile if isinstance(profile, Profile) else load_profile(profile)
    return OpenScan(job_of_run(path_or_uid, profile, site, client), site)


def _names_a_file(text: str) -> bool:
    return "/" in text or bool(re.search(r"\.(cxi|h5|hdf5|hdf|nxs)$", text)) or Path(text).is_file()


def _open_file(path: Path, site: Site) -> OpenScan:
    cxi = open_cxi(path)
    arrays: dict[str, NDArray[Any]] = {}
    job = Job(
        beamline=FILES,
        source=FileSource(content_id=content_id(path), name=path.name),
        geometry=geometry_numbers(cxi.geometry),
        preparation=cxi.preparation,
        recipe=str(DEFAULT),
        frames=[FrameBlock(source=cxi.source, ranges=[(0, len(cxi.scan))])],
        frame_ids=[(0, len(cxi.scan))],
        positions_m=positions_field(cxi.scan.positions_m, arrays),
        notes=cxi.notes,
    )
    # Who names a file asks for it to be read.
    allowed = site.model_copy(update={"data_roots": [*site.data_roots, path.resolve().parent]})
    return OpenScan(JobParts(job, arrays), allowed, cxi.start_probe)


def write_parts(parts: JobParts, folder: Path) -> None:
    """Write a job and its arrays into ``folder``, as an accepted job has them."""
    (folder / JOB_FILE).write_bytes(parts.job.to_bytes())
    for name, array in parts.arrays.items():
        np.save(folder / name, array, allow_pickle=False)


@contextmanager
def folder_of(parts: JobParts) -> Iterator[Path]:
    """A temporary folder with a job and its arrays."""
    with tempfile.TemporaryDirectory(prefix="ptyplugin-") as folder:
        write_parts(parts, Path(folder))
        yield Path(folder)


def open_job_frames(job: Job, folder: Path | None, site: Site) -> JobFrames:
    """The frames of a job: from its files, else through the site's catalog, if it names one."""
    return open_frames(job, site, folder, None if site.tiled_uri is None else lambda source: _from_catalog(job, site, source))


def _from_catalog(job: Job, site: Site, source: TiledSource) -> Frames:
    from ptyplugin.catalog import CatalogFrames

    return CatalogFrames(client_of(site), site, job.beamline, source)
