"""The daemon and its ranks make sure of each other, over any connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from ptyplugin.service import worker
from ptyplugin.service.handshake import Challenge, answer
from ptyplugin.service.wire import Wire

TOKEN = "0123456789abcdef"


def test_who_knows_the_token_meets_a_challenge_and_nobody_else() -> None:
    challenge = Challenge()
    assert challenge.is_met_by(TOKEN, "rank", answer(TOKEN, "rank", challenge.fields))
    assert not challenge.is_met_by(TOKEN, "rank", answer(TOKEN[1:], "rank", challenge.fields))
    assert not challenge.is_met_by(TOKEN, "rank", answer(TOKEN, "rank", Challenge().fields)), "an answer is good once"
    assert not challenge.is_met_by(TOKEN, "rank", answer(TOKEN, "daemon", challenge.fields)), "nobody is answered with his own words"
    for nonsense in ({}, {"proof": None}, {"proof": ["x"]}, {"proof": "ü"}):
        assert not challenge.is_met_by(TOKEN, "rank", nonsense)


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """A rank calls somebody over TCP who has this token; what the rank was told to do."""

    def end(_: int) -> None:
        raise Ended

    connected, wires = worker._connected, list[Wire]()

    def connect(address: str) -> Wire:
        wires.append(connected(address))
        return wires[-1]

    def call(token: str) -> list[str]:
        monkeypatch.setattr(worker.os, "_exit", end)
        monkeypatch.setattr(worker, "_connected", connect)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=_somebody, args=(listener, token))
            thread.start()
            try:
                parent = worker.Parent(f"127.0.0.1:{listener.getsockname()[1]}", TOKEN, {"rank": 0, "size": 1, "pid": 1})
                return [parent.order()["kind"], parent.order()["kind"]]
            finally:
                wires[0].close()
                thread.join()

    return call


def _somebody(listener: socket.socket, token: str) -> None:
    wire, challenge, heard = Wire(listener.accept()[0]), Challenge(), []
    wire.send("challenge", **challenge.fields)
    while not heard:
        heard = wire.receive() or [{}]
    assert challenge.is_met_by(TOKEN, "rank", heard[0])
    # All in one go, as a network may deliver it.
    wire.send("welcome", **answer(token, "daemon", heard[0]))
    wire.send("warm", cards=False)
    wire.send("leave")
    wire.close()


def test_a_rank_does_what_its_daemon_says_over_a_network(call: Callable[[str], list[str]]) -> None:
    assert call(TOKEN) == ["warm", "leave"]


def test_a_rank_does_nothing_that_somebody_else_says(call: Callable[[str], list[str]], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Ended):
        call("of somebody else")
    assert "is not the daemon that started this rank" in caplog.text
