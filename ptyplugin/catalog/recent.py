"""Runs that are in the catalog since lately, and which of them have results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tiled.queries import Comparison, In, SpecsQuery

from ptyplugin.catalog.connection import catalog_errors, plain
from ptyplugin.catalog.publishing import SPEC, is_final
from ptyplugin.catalog.runs import runs_of
from ptyplugin.model import Site

#: How many runs are asked for at once whether they have results.
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class RecentRun:
    """A run in the catalog: its uid, when it began (Unix seconds), and whether it has a stop document."""

    uid: str
    begun_s: float
    ended: bool


def recent_runs(client: Any, site: Site, beamline: str, since_s: float) -> list[RecentRun]:
    """The beamline's runs that began after ``since_s`` (Unix seconds), oldest first. What is no run is passed over.

    Raises:
        CatalogError: the catalog is away, refuses, or has no such beamline.
    """
    with catalog_errors(f"look for recent runs of {beamline}"):
        runs = runs_of(client, site, beamline)
        found = [node.metadata for node in runs.search(Comparison("ge", "start.time", since_s)).sort(("start.time", 1)).values()]
    return [
        RecentRun(start["uid"], float(start["time"]), bool(metadata.get("stop")))
        for metadata in found
        if isinstance(start := metadata.get("start"), dict | type(metadata)) and isinstance(start.get("uid"), str)
    ]


def runs_with_results(client: Any, site: Site, beamline: str, uids: Iterable[str]) -> set[str]:
    """Those of these runs that have a final result in the catalog; the image of a job that still runs, or of a preview, is none.

    Raises:
        CatalogError: the catalog is away or refuses.
    """
    path, asked, found = site.processed_path.format(beamline=beamline), list(uids), set[str]()
    with catalog_errors(f"look for results in {path}"):
        try:
            results = plain(client)[path].search(SpecsQuery(include=[SPEC.name]))
        except KeyError:
            return found  # nothing was published yet
        for begin in range(0, len(asked), _AT_ONCE):
            nodes = results.search(In("scan_uid", asked[begin : begin + _AT_ONCE])).values()
            found |= {str(node.metadata.get("scan_uid")) for node in nodes if is_final(node.metadata)}
    return found
