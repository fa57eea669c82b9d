"""Finding results in the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from tiled.client import from_context
from tiled.client.container import Container
from tiled.queries import Comparison, Eq, In, SpecsQuery

from ptyplugin.catalog.connection import catalog_errors
from ptyplugin.catalog.publishing import PUBLISHED, PUBLISHING, SPEC, is_final
from ptyplugin.catalog.runs import by_uid
from ptyplugin.model import CatalogError, Word

#: How many results are looked at together: one question tells which of them a final one has replaced.
_AT_ONCE = 100


def search(
    node: Any,
    *,
    scan_uid: str | None = None,
    scan_id: int | None = None,
    since: datetime | str | float | None = None,
    state: str | None = None,
    verdict: Word | None = None,
    limit: int | None = None,
    live: bool = False,
) -> list[Any]:
    """Results in ``node``, or anywhere below it if it has none itself; the newest first, at most ``limit``.

    Of a run (and detector) that has final results, these; of one that has none (yet, or because its job failed), what its jobs have shown:
    of a job that has shown nothing yet there is nothing.

    node: any container of a Tiled client, e.g. ``client["sim/processed/ptyplugin"]`` or the root
    scan_uid: of the raw run, or its first characters
    since: when they were published: a datetime, ISO text (local time unless it says otherwise), or seconds since 1970
    state: "published", "publishing", "live" (its job runs), "failed" or "cancelled": all in this state, also what was replaced
    verdict: "good", "doubtful" or "failed"
    live: also what a final result of the same run has replaced, what a job shows that does a run once more, and jobs without an image yet

    Raises:
        CatalogError: the catalog is away or refuses, or ``since`` is no time.
    """
    queries = _queries(scan_uid, scan_id, since, state, verdict)
    # The client of a catalog of Bluesky runs would look for each key in the start document.
    container = Container(node.context, item=node.item, structure_clients=node.structure_clients)

    def wanted(found: Iterable[Any], ask: Callable[..., Iterable[Any]]) -> list[Any]:
        return list(islice(found if live or state is not None else _not_replaced(iter(found), ask), limit))

    with catalog_errors("search the catalog for results"):
        direct = wanted(_here(container, queries).sort(("time", -1)).values(), lambda *asked: _here(container, asked).values())
        if direct:
            return direct
        try:
            below = container.search_deep(*queries).values()
        except NotImplementedError as error:
            raise CatalogError("this catalog cannot search below a folder: give the folder of the results itself.") from error
        newest_first = sorted(below, key=lambda result: -result.metadata.get("time", 0.0))
        return wanted(newest_first, lambda *asked: container.search_deep(*asked).values())


def _queries(scan_uid: str | None, scan_id: int | None, since: datetime | str | float | None, *words: str | None) -> list[Any]:
    queries: list[Any] = [SpecsQuery(include=[SPEC.name])]
    wanted = zip(("scan_id", "state", "verdict"), (scan_id, *words), strict=True)
    queries += [Eq(name, value) for name, value in wanted if value is not None]
    if scan_uid is not None:
        queries.append(by_uid("scan_uid", scan_uid))
    if since is not None:
        queries.append(Comparison("ge", "time", _seconds(since)))
    return queries


def _here(container: Container, queries: Iterable[Any]) -> Container:
    for query in queries:
        container = container.search(query)
    return container


def _not_replaced(found: Iterator[Any], ask: Callable[..., Iterable[Any]]) -> Iterator[Any]:
    """Leave out what has no image yet, and what is no final result where there is one of the same run and detector.

    ask: gives the results that queries find
    """
    found = (node for node in found if node.metadata.get("live") or node.metadata["state"] in (PUBLISHING, PUBLISHED))
    while page := list(islice(found, _AT_ONCE)):
        runs = {node.metadata["scan_uid"] for node in page if not is_final(node.metadata) and node.metadata.get("scan_uid")}
        finals = ask(SpecsQuery(include=[SPEC.name]), Eq("purpose", "final"), In("scan_uid", sorted(runs))) if runs else ()
        done = {_scan_of(node) for node in finals if is_final(node.metadata)}
        yield from (node for node in page if is_final(node.metadata) or _scan_of(node) not in done)


def _scan_of(node: Any) -> tuple[str | None, str | None]:
    return node.metadata.get("scan_uid"), node.metadata.get("source")


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
