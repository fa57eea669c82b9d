"""Documents over 0MQ, by the protocol of bluesky's Publisher and RemoteDispatcher. A doorbell: it loses documents without a word."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ptyplugin.model import Profile, SiteError, ZmqDocuments
from ptyplugin.service.sources.decoding import Undecodable, check_size, decode_published
from ptyplugin.service.sources.desk import Desk
from ptyplugin.service.sources.source import DocumentSource, SourceAway

_log = logging.getLogger(__name__)

#: Messages that wait in memory for this process; 0MQ throws away what comes beyond.
_MOST_WAITING = 20_000
#: Largest message, bytes, that 0MQ itself takes; for a larger one it ends the connection.
_LARGEST_BYTES = 1 << 30
#: How long to wait for a message before looking whether to stop, milliseconds.
_POLL_MS = 200


class ZmqSource(DocumentSource):
    """Subscribes to a proxy. ``on_connected`` hears of each connection: what was sent before it is lost here.

    Raises:
        SiteError: 0MQ is not installed.
    """

    def __init__(self, table: ZmqDocuments, profiles: Sequence[Profile], desk: Desk, on_connected: Callable[[], None]) -> None:
        super().__init__(f"0MQ {table.address}", profiles, desk)
        self._table, self._on_connected = table, on_connected
        try:
            import zmq  # noqa: F401
        except ImportError as error:
            raise SiteError("documents over 0MQ need pyzmq: pip install 'ptyplugin[zmq]'.") from error
        if table.unpickle:
            _log.warning(
                "%s: pickled documents are taken (unpickle = true). Only plain values and arrays are made of them, but msgpack is safer: "
                "let the publisher use serializer=msgpack.dumps.",
                self.state.name,
            )

    def work(self, stop: threading.Event) -> None:
        """Take messages until ``stop``; 0MQ connects again by itself."""
        import zmq

        context = zmq.Context()
        try:
            socket = context.socket(zmq.SUB)
            socket.setsockopt(zmq.RCVHWM, _MOST_WAITING)
            socket.setsockopt(zmq.MAXMSGSIZE, _LARGEST_BYTES)
            monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
            socket.subscribe(f"{self._table.prefix} ".encode() if self._table.prefix else b"")
            socket.connect(self._table.address)
            poller = zmq.Poller()
            poller.register(socket, zmq.POLLIN)
            poller.register(monitor, zmq.POLLIN)
            while not stop.is_set():
                # Messages first: those that came before the connection ended.
                for ready, _ in sorted(poller.poll(_POLL_MS), key=lambda each: each[0] is monitor):
                    if ready is monitor:
                        self._note_connection(monitor, socket)
                    else:
                        self._take_message(socket.recv(zmq.NOBLOCK))
            socket.disable_monitor()
        except zmq.ZMQError as error:
            raise SourceAway(f"0MQ at {self._table.address} cannot be used ({error}): check the address.") from error
        finally:
            context.destroy(linger=0)

    def _note_connection(self, monitor: Any, socket: Any) -> None:
        import zmq
        from zmq.utils.monitor import recv_monitor_message

        if recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.state.connected = True
            _log.info("%s: connected", self.state.name)
            self._on_connected()
            return
        with suppress(zmq.Again):
            while True:
                self._take_message(socket.recv(zmq.NOBLOCK))
        # After a message that is too large, 0MQ itself would not connect again.
        raise SourceAway(
            f"the proxy ended the connection, or sent a message of more than {_LARGEST_BYTES / 1e9:.1f} GB: it is tried again, and the "
            "catalog has what is missed."
        )

    def _take_message(self, message: bytes) -> None:
        try:
            check_size(len(message), self._table.largest_mb)
            name, document = decode_published(message, self._table.unpickle)
        except Undecodable as error:
            self.refuse(str(error))
        else:
            self.take(name, document)
