"""From a run in the catalog to the job that AutoReconstruct would have made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.api.connections import client_of
from ptyplugin.model import CatalogError, FramesError, JobParts, Profile, Refusal, ScanError, Site, TiledSource


def job_of_run(uid_or_scan_id: str, profile: Profile, site: Site, client: Any) -> JobParts:
    """The same job, with the same key, as if the run had been watched.

    Raises:
        CatalogError: the catalog is away, or has no such run.
        ScanError: the run cannot be reconstructed; the sentence says why.
    """
    from ptyplugin.catalog import find_run, run_documents

    client = client_of(site) if client is None else client
    run = find_run(client, site, profile.beamline, uid_or_scan_id)
    return job_of_documents(run_documents(run), profile, site, client)


def job_of_documents(documents: Iterable[tuple[str, dict[str, Any]]], profile: Profile, site: Site, client: Any = None) -> JobParts:
    """The job of one run's documents; positions that lie in files are read where the site allows it, with ``client`` in the catalog, too.

    Raises:
        ScanError: there can be none; the sentence says why.
    """
    from ptyplugin.callbacks import Collector, FileReader, RunEnded, assemble

    collector = Collector(profile)
    ended = [output.run for document in documents for output in collector(*document) if isinstance(output, RunEnded)]
    if not ended:
        raise ScanError("the run has no stop document in the catalog: it is still running, or was not written to its end.")
    made = assemble(ended[0], profile, FileReader(site, None if client is None else _samples(client, profile, site)))
    if isinstance(made, Refusal):
        raise ScanError(made.reason)
    return made


def _samples(client: Any, profile: Profile, site: Site) -> Callable[[TiledSource, int, int], NDArray[np.float64]]:
    def samples(source: TiledSource, start: int, stop: int) -> NDArray[np.float64]:
        from ptyplugin.catalog import array_samples

        try:
            return array_samples(client, site, profile.beamline, source, start, stop)
        except CatalogError as error:
            raise FramesError(str(error)) from error

    return samples
