"""Finding results in the catalog."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tiled.client import from_context
from tiled.client.container import Container
from tiled.queries import Comparison, Eq, SpecsQuery

from ptyplugin.catalog.connection import catalog_errors
from ptyplugin.catalog.publishing import SPEC
from ptyplugin.catalog.runs import by_uid
from ptyplugin.model import CatalogError, Word


def search(
    node: Any,
    *,
    scan_uid: str | None = None,
    scan_id: int | None = None,
    since: datetime | str | float | None = None,
    state: str | None = None,
    verdict: Word | None = None,
    limit: int | None = None,
) -> list[Any]:
    """Results in ``node``, or anywhere below it if it has none itself; the newest first, at most ``limit``.

    node: any container of a Tiled client, e.g. ``client["sim/processed/ptyplugin"]`` or the root
    scan_uid: of the raw run, or its first characters
    since: when they were published: a datetime, ISO text (local time unless it says otherwise), or seconds since 1970
    state: "published" or "publishing"; verdict: "good", "doubtful" or "failed"

    Raises:
        CatalogError: the catalog is away or refuses, or ``since`` is no time.
    """
    queries: list[Any] = [SpecsQuery(include=[SPEC.name])]
    wanted = (("scan_id", scan_id), ("state", state), ("verdict", verdict))
    queries += [Eq(name, value) for name, value in wanted if value is not None]
    if scan_uid is not None:
        queries.append(by_uid("scan_uid", scan_uid))
    if since is not None:
        queries.append(Comparison("ge", "time", _seconds(since)))
    # The client of a catalog of Bluesky runs would look for each key in the start document.
    container = Container(node.context, item=node.item, structure_clients=node.structure_clients)
    with catalog_errors("search the catalog for results"):
        found = container
        for query in queries:
            found = found.search(query)
        values = found.sort(("time", -1)).values()
        direct = list(values if limit is None else values[:limit])
        if direct:
            return direct
        try:
            below = container.search_deep(*queries).values()
        except NotImplementedError as error:
            raise CatalogError("this catalog cannot search below a folder: give the folder of the results itself.") from error
        return sorted(below, key=lambda result: -result.metadata.get("time", 0.0))[:limit]


def root(node: Any) -> Any:
    """The root of the catalog that ``node`` (a run, say) belongs to, over the same connection.

    Raises:
        CatalogError: the catalog is away or refuses.
    """
    with catalog_errors("open the root of the catalog"):
        return from_context(node.context)


def _seconds(since: datetime | str | float) -> float:
    if isinstance(since, str):
        try:
            since = datetime.fromisoformat(since)
        except ValueError as error:
            raise CatalogError(f"{since!r} is no time: write for example 2026-01-31 or 2026-01-31T18:00.") from error
    return since.timestamp() if isinstance(since, datetime) else float(since)
