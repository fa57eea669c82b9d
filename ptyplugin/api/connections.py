"""One connection per catalog and process: results that were found stay readable, and nothing is left open at the end."""

from __future__ import annotations

import atexit
import os
import threading
from typing import Any

from ptyplugin.model import Site

_clients: dict[tuple[str | None, str | None], Any] = {}
_lock = threading.Lock()


def client_of(site: Site) -> Any:
    """A Tiled client for the root of the site's catalog, with the key in TILED_API_KEY; the same one each time.

    Raises:
        CatalogError: no catalog is named, it is away, or it refuses the key.
    """
    from ptyplugin.catalog import connect

    address = (site.tiled_uri, os.environ.get("TILED_API_KEY"))
    with _lock:
        if address not in _clients:
            _clients[address] = connect(site)
        return _clients[address]


@atexit.register
def _close_all() -> None:
    for client in _clients.values():
        client.context.close()
    _clients.clear()
