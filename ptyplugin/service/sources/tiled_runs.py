"""Tiled streaming: the catalog tells over a websocket that a run has got its stop document, and the run is read from it.

One connection per beamline, with a websocket of our own: Tiled's Subscription (0.2.20) connects again without telling, so nobody would
know that something was missed, waits for ever in ``start_in_thread`` when it cannot connect, holds its callbacks by weak references only,
and gives up at a message above its ``max_size``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from ptyplugin.model import CatalogError, Profile, Site, SiteError
from ptyplugin.service.sources.desk import Desk
from ptyplugin.service.sources.source import Source, SourceAway

_log = logging.getLogger(__name__)

#: Largest message that is taken, bytes: metadata of a run, not its frames.
_LARGEST_BYTES = 64 << 20
#: How long to wait for a message before looking whether to stop; for a connection; how long a key for it is good (seconds).
_POLL_S, _CONNECT_S, _KEY_S = 0.2, 10.0, 60
_TELLING = ("container-child-metadata-updated", "container-child-created")


class TiledSource(Source):
    """Hears of ended runs of one beamline. ``on_connected`` hears of each connection: what ended before it was not told.

    Raises:
        SiteError: the site has no catalog.
    """

    def __init__(self, beamline: str, profiles: Sequence[Profile], site: Site, desk: Desk, on_connected: Callable[[], None]) -> None:
        path = site.raw_path.format(beamline=beamline)
        super().__init__(f"Tiled {path}")
        if site.tiled_uri is None:
            raise SiteError("a source of kind 'tiled' needs a catalog: set tiled_uri in the site file.")
        self._site, self._path = site, path
        self._profiles, self._desk, self._on_connected = profiles, desk, on_connected

    def work(self, stop: threading.Event) -> None:
        """Listen until ``stop``.

        Raises:
            CatalogError: the catalog is away or refuses.
            SourceAway: it ended the connection, or does not stream.
        """
        from ptyplugin.catalog import connect

        client = connect(self._site)
        try:
            self._listen(client.context, stop)
        finally:
            client.context.close()

    def _listen(self, context: Any, stop: threading.Event) -> None:
        from websockets.exceptions import ConnectionClosed, InvalidHandshake
        from websockets.sync.client import connect

        address = context.api_uri.copy_with(scheme="wss" if context.api_uri.scheme == "https" else "ws")
        address = address.join(f"stream/single/{self._path}").copy_with(params={"envelope_format": "msgpack"})
        headers = {"Authorization": f"Apikey {key}"} if (key := _key_of(context)) else {}
        try:
            with connect(str(address), additional_headers=headers, max_size=_LARGEST_BYTES, open_timeout=_CONNECT_S, proxy=None) as socket:
                self.state.connected = True
                _log.info("%s: connected", self.state.name)
                self._on_connected()
                while not stop.is_set():
                    try:
                        self._take(socket.recv(timeout=_POLL_S))
                    except TimeoutError:
                        continue
        except InvalidHandshake as error:
            raise SourceAway(
                f"the catalog does not stream {self._path} ({error}): check raw_path, TILED_API_KEY, "
                "and that the server has a streaming_cache."
            ) from error
        except (ConnectionClosed, OSError) as error:
            raise SourceAway(f"the catalog ended the connection ({str(error) or type(error).__name__}): it is tried again.") from error

    def _take(self, message: bytes | str) -> None:
        try:
            told = msgpack.unpackb(message if isinstance(message, bytes) else message.encode())
            if told["type"] not in _TELLING:
                return
            metadata = told["metadata"]
            start, stop = metadata.get("start") or {}, metadata.get("stop")
            uid = stop["run_start"] if stop else None
        # It is foreign: whatever goes wrong while it is read is wrong with it.
        except Exception as error:
            self.refuse(f"a message of the catalog cannot be read ({type(error).__name__}).")
            return
        self.state.took_document()
        if isinstance(uid, str) and uid == start.get("uid", uid):
            self._desk.ring(uid, self._profiles, self.state)


def _key_of(context: Any) -> str | None:
    """What the websocket takes: a key of its own for a moment where people log in, else the one that all requests have."""
    if not context.server_info.authentication.providers:
        return context.api_key if isinstance(context.api_key, str) else None
    try:
        return str(context.create_api_key(expires_in=_KEY_S, note="ptyplugin streaming")["secret"])
    except Exception as error:
        raise CatalogError(f"the catalog gives no key for its stream ({type(error).__name__}): check what TILED_API_KEY allows.") from error
