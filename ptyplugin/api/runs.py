"""From a run in the catalog to the job that AutoReconstruct would have made of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ptyplugin.api.connections import client_of
from ptyplugin.model import JobParts, Profile, Refusal, ScanError, Site


def job_of_run(uid_or_scan_id: str, profile: Profile, site: Site, client: Any = None) -> JobParts:
    """The same job, with the same key, as if the run had been watched.

    Raises:
        CatalogError: the catalog is away, or has no such run.
        ScanError: the run cannot be reconstructed; the sentence says why.
    """
    from ptyplugin.catalog import find_run, run_documents

    run = find_run(client_of(site) if client is None else client, site, profile.beamline, uid_or_scan_id)
    return job_of_documents(run_documents(run), profile, site)


def job_of_documents(documents: Iterable[tuple[str, dict[str, Any]]], profile: Profile, site: Site) -> JobParts:
    """The job of one run's documents; positions that lie in files are read where the site allows it.

    Raises:
        ScanError: there can be none; the sentence says why.
    """
    from ptyplugin.callbacks import Collector, FileReader, RunEnded, assemble

    collector = Collector(profile)
    ended = [output.run for document in documents for output in collector(*document) if isinstance(output, RunEnded)]
    if not ended:
        raise ScanError("the run has no stop document in the catalog: it is still running, or was not written to its end.")
    made = assemble(ended[0], profile, FileReader(site))
    if isinstance(made, Refusal):
        raise ScanError(made.reason)
    return made
