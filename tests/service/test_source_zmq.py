"""Documents over 0MQ: a message that is larger than 0MQ itself takes ends the connection, and not the source."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ptyplugin.model import ZmqDocuments
from ptyplugin.service.sources import zmq_documents
from ptyplugin.service.sources.zmq_documents import ZmqSource


def test_after_a_message_that_is_too_large_it_connects_again(until, monkeypatch: pytest.MonkeyPatch) -> None:
    zmq = pytest.importorskip("zmq")
    monkeypatch.setattr(zmq_documents, "_LARGEST_BYTES", 10_000)
    context, connected, stop = zmq.Context(), [], threading.Event()
    sender = context.socket(zmq.PUB)
    port = sender.bind_to_random_port("tcp://127.0.0.1")
    desk: Any = None
    source = ZmqSource(ZmqDocuments(kind="zmq", address=f"127.0.0.1:{port}", profiles=["sim"]), [], desk, lambda: connected.append(1))
    thread = threading.Thread(target=source.run, args=(stop,))
    thread.start()

    def heard(message: bytes) -> bool:
        # What is sent before the subscription has arrived is lost.
        sender.send(message)
        return source.state.counts["refused"] > 0

    try:
        until(lambda: heard(b"no document"))
        until(lambda: sender.send(bytes(20_000)) or "more than" in str(source.state.last_error))
        source.state.counts["refused"] = 0
        until(lambda: heard(b"no document"))
        assert len(connected) >= 2
    finally:
        stop.set()
        thread.join(20)
        context.destroy(linger=0)
    assert not thread.is_alive()
