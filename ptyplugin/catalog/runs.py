"""Finding a raw run in the catalog."""

from __future__ import annotations

import re
from typing import Any

from tiled.client.container import Container
from tiled.queries import Eq, Like

from ptyplugin.catalog.connection import catalog_errors, plain
from ptyplugin.model import CatalogError, Site

#: Fewer characters of a uid name too many runs by chance.
SHORTEST_UID = 5
_UID_LENGTH = 36


def find_run(client: Any, site: Site, beamline: str, uid_or_scan_id: str | int) -> Container:
    """The run with this uid, the beginning of a uid (5 characters or more) or this scan id (the latest one of several).

    It comes as a plain Tiled container: what ``client[...][uid]`` gives depends on the packages that are installed.

    Raises:
        CatalogError: there is none, there are several, or the catalog is away.
    """
    path = site.raw_path.format(beamline=beamline)
    text = str(uid_or_scan_id).strip()
    with catalog_errors(f"look for run {text} in {path}"):
        try:
            runs = plain(client)[path]
        except KeyError as error:
            raise CatalogError(f"the catalog has no folder {path}: check the beamline's name, and raw_path in the site file.") from error
        found = _by_scan_id(runs, text) or _by_uid(runs, text)
    if not found:
        few = f" Give at least {SHORTEST_UID} characters of a uid." if len(text) < SHORTEST_UID and not text.isdigit() else ""
        raise CatalogError(f"there is no run {text} in {path} of the catalog.{few}")
    if len(found) > 1:
        raise CatalogError(
            f"{text} is the beginning of several runs in {path}, among them {found[0].metadata['start']['uid']}: give more of it."
        )
    return found[0]


def _by_scan_id(runs: Container, text: str) -> list[Container]:
    if not text.isdigit():
        return []
    return list(runs.search(Eq("start.scan_id", int(text))).sort(("start.time", -1)).values()[:1])


def _by_uid(runs: Container, text: str) -> list[Container]:
    if len(text) < SHORTEST_UID:
        return []
    return list(runs.search(by_uid("start.uid", text)).values()[:2])


def by_uid(key: str, text: str) -> Eq | Like:
    """A query for metadata ``key``: a uid, or its beginning."""
    # In anything but letters, digits and dashes, % and _ would be wild.
    part = len(text) < _UID_LENGTH and re.fullmatch("[0-9A-Za-z-]+", text)
    return Like(key, f"{text}%") if part else Eq(key, text)
