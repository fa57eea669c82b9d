"""Tiled streaming: the catalog tells over a websocket that a run has got its stop document, and the run is read from it.

A run that a profile wants a live image of is followed while it is written, by connections of its own (see following.py).
One connection per beamline, with a websocket of our own: Tiled's Subscription (0.2.20) connects again without telling, so nobody would
know that something was missed, waits for ever in ``start_in_thread`` when it cannot connect, holds its callbacks by weak references only,
and gives up at a message above its ``max_size``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgpack

from ptyplugin.callbacks.documents import BASELINE, Wanted
from ptyplugin.model import Profile, Site, SiteError
from ptyplugin.service.sources.desk import Desk
from ptyplugin.service.sources.following import CONNECT_S, LARGEST_BYTES, Follower
from ptyplugin.service.sources.live import is_fresh
from ptyplugin.service.sources.source import Source, SourceAway

if TYPE_CHECKING:
    from ptyplugin.catalog.run_stream import Node

_log = logging.getLogger(__name__)

#: How long to wait for a message before looking whether to stop (seconds).
_POLL_S = 0.2
#: Runs of one beamline that are followed together; and seconds that they get to end with the source.
_MOST_FOLLOWED, _END_S = 8, 1.0
_CREATED = "container-child-created"
_TELLING = ("container-child-metadata-updated", _CREATED)


class TiledSource(Source):
    """Hears of runs of one beamline. ``on_connected`` hears of each connection: what ended before it was not told.

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
        self._followers: dict[str, Follower] = {}
        #: Of the connection that there is, or was last.
        self._context: Any = None

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
            if stop.is_set():
                self._cut()
            client.context.close()

    def _listen(self, context: Any, stop: threading.Event) -> None:
        from websockets.exceptions import ConnectionClosed, InvalidHandshake
        from websockets.sync.client import connect

        self._context = context
        address, headers = _address_of(context, self._path), _headers_of(context)
        try:
            with connect(address, additional_headers=headers, max_size=LARGEST_BYTES, open_timeout=CONNECT_S, proxy=None) as socket:
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
            uid, begun_uid, name = stop["run_start"] if stop else None, start.get("uid"), told["key"]
        # It is foreign: whatever goes wrong while it is read is wrong with it.
        except Exception as error:
            self.refuse(f"a message of the catalog cannot be read ({type(error).__name__}).")
            return
        self.state.took_document()
        if isinstance(uid, str) and begun_uid in (uid, None):
            if uid in self._followers:
                self._followers[uid].end(stop)
            self._desk.ring(uid, self._profiles, self.state)
        elif told["type"] == _CREATED and not stop and isinstance(begun_uid, str) and is_fresh(start):
            self._follow(str(name), start)

    def _follow(self, name: str, start: Mapping[str, Any]) -> None:
        """Follow a run that has begun, if a profile wants a live image of it."""
        from ptyplugin.catalog.run_stream import RunStream

        profiles = [each for each in self._profiles if each.live is not None and _is_of(each, start)]
        self._followers = {uid: follower for uid, follower in self._followers.items() if not follower.is_over()}
        if not profiles:
            return
        if len(self._followers) >= _MOST_FOLLOWED:
            self.say(f"{_MOST_FOLLOWED} runs of {self._path} are open: run {start['uid']} has no live image.")
            return

        def address(node: Node) -> str:
            return _address_of(self._context, "/".join((self._path, name, *node)))

        def give(kind: str, document: dict[str, Any]) -> None:
            self._desk.see(kind, document, profiles)

        follower = Follower(start["uid"], address, lambda: _headers_of(self._context), RunStream(start, _needed(profiles)), give)
        self._followers[start["uid"]] = follower
        self.state.count("followed")
        follower.start()

    def _cut(self) -> None:
        end_s = time.monotonic() + _END_S
        for follower in self._followers.values():
            follower.cut()
        for follower in self._followers.values():
            follower.join(max(0.0, end_s - time.monotonic()))


def _is_of(profile: Profile, start: Mapping[str, Any]) -> bool:
    return not profile.plan_names or start.get("plan_name") in profile.plan_names


def _needed(profiles: Sequence[Profile]) -> dict[str, set[str]]:
    """By stream, the arrays that these profiles need."""
    needed: dict[str, set[str]] = {BASELINE: set()}
    for wanted in map(Wanted.by, profiles):
        for stream in (wanted.stream, wanted.track):
            needed.setdefault(stream, set()).update({wanted.detector, *wanted.columns})
    return needed


def _address_of(context: Any, path: str) -> str:
    """Of a node's stream."""
    address = context.api_uri.copy_with(scheme="wss" if context.api_uri.scheme == "https" else "ws")
    return str(address.join(f"stream/single/{quote(path)}").copy_with(params={"envelope_format": "msgpack"}))


def _headers_of(context: Any) -> dict[str, str]:
    """With which to connect: the key of all requests. Tiled's own client makes one for each connection, which takes a key that may."""
    return {"Authorization": f"Apikey {context.api_key}"} if context.api_key else {}
