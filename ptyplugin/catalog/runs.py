"""Finding a raw run in the catalog."""

from __future__ import annotations

import re
from typing import Any

from tiled.client.container import Container
from tiled.queries import Eq, Like

from ptyplugin.catalog.access import inherited
from ptyplugin.catalog.connection import catalog_errors, plain
from ptyplugin.model import CatalogAway, CatalogError, Site

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
        runs = runs_of(client, site, beamline)
        found = _by_scan_id(runs, text) or _by_uid(runs, text)
    if not found:
        few = f" Give at least {SHORTEST_UID} characters of a uid." if len(text) < SHORTEST_UID and not text.isdigit() else ""
        raise CatalogError(f"there is no run {text} in {path} of the catalog.{few}")
    if len(found) > 1:
        raise CatalogError(
            f"{text} is the beginning of several runs in {path}, among them {found[0].metadata['start']['uid']}: give more of it."
        )
    return found[0]


def run_with_uid(client: Any, site: Site, beamline: str, uid: str) -> Container | None:
    """The beamline's run with exactly this uid, if there is one.

    Raises:
        CatalogError: the catalog is away, refuses, or has no such beamline.
    """
    with catalog_errors(f"look for run {uid}"):
        found = list(runs_of(client, site, beamline).search(Eq("start.uid", uid)).values()[:1])
    return found[0] if found else None


def runs_of(client: Any, site: Site, beamline: str) -> Container:
    """The container of the beamline's runs.

    Raises:
        CatalogError: there is none.
    """
    path = site.raw_path.format(beamline=beamline)
    try:
        return plain(client)[path]
    except KeyError as error:
        raise CatalogError(f"the catalog has no folder {path}: check the beamline's name, and raw_path in the site file.") from error


def tags_for_result(client: Any, site: Site, beamline: str, folder: Container, run_uid: str | None) -> list[str] | None:
    """The access tags for a result in ``folder``: those of its run, so that who may see the run sees the result.

    None: the catalog has none, or gives the node to the user of the key alone, as where the run is one user's alone or is not there.

    Raises:
        CatalogError: the catalog is away or refuses.
    """
    if run_uid is None or not folder.item["attributes"].get("access_tags"):
        return inherited(folder)
    try:
        run = run_with_uid(client, site, beamline, run_uid)
    except CatalogAway:
        raise
    except CatalogError:
        run = None  # there is no folder of runs
    return None if run is None else inherited(run)


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
