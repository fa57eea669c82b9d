"""results: the reconstructions of a run, from the catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptyplugin.api.connections import client_of
from ptyplugin.model import Site, load_site


def results(run_or_uid_or_catalog: Any = None, *, site: Site | Path | None = None, **query: Any) -> list[Any]:
    """Reconstructions in the catalog, the newest first: the final results of each run, or the live images of one that has none (yet).

    Each has ``.plot()``, ``.reconstruction()`` and ``["object_phase"]``.

    run_or_uid_or_catalog: a run of a Tiled client, the uid or scan id of a run, a container to search in, or None for everything
    site: where the catalog is, when a uid, a scan id or nothing is given; by default what PTYPLUGIN_SITE names
    query: scan_uid, scan_id, since, state, verdict, limit, and live=True for images too that a final result has replaced
        (see ptyplugin.catalog.search)

    Raises:
        CatalogError: the catalog is away or refuses.
    """
    from ptyplugin.catalog import root, search

    where = run_or_uid_or_catalog
    if where is None or isinstance(where, str | int):
        client = client_of(site if isinstance(site, Site) else load_site(site))
        if where is None:
            return search(client, **query)
        of_run = {"scan_id": int(where)} if str(where).isdigit() else {"scan_uid": where}
    elif where.metadata.get("start") is None:
        return search(where, **query)
    else:
        client, of_run = root(where), {"scan_uid": where.metadata["start"]["uid"]}
    return search(client, **{**query, **of_run})
