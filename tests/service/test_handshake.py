"""The daemon and its ranks make sure of each other, over any connection."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

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


def _end(_: int) -> None:
    raise Ended


@pytest.fixture
def wires(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Wire]]:
    """The rank's ends; what would end its process raises."""
    connected, wires = worker._connected, list[Wire]()

    def connect(address: str) -> Wire:
        wires.append(connected(address))
        return wires[-1]

    monkeypatch.setattr(worker.os, "_exit", _end)
    monkeypatch.setattr(worker, "_connected", connect)
    yield wires
    for wire in wires:
        wire.close()


@pytest.fixture
def call(wires: list[Wire]) -> Callable[[str], list[str]]:
    """A rank calls somebody over TCP who has this token; what the rank was told to do."""

    def call(token: str) -> list[str]:
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
    connection = listener.accept()[0]
    wire, challenge, heard = Wire(connection), Challenge(), []
    wire.send("challenge", **challenge.fields)
    while not heard:
        heard = wire.receive() or [{}]
    assert challenge.is_met_by(TOKEN, "rank", heard[0])
    # All in one go, as a network may deliver it; with an order that is long, for it may hold the table of a whole site.
    said = ({"kind": "welcome", **answer(token, "daemon", heard[0])}, {"kind": "warm", "site": 300_000 * "x"}, {"kind": "leave"})
    with suppress(ConnectionError):
        connection.sendall(b"".join(json.dumps(each).encode() + b"\n" for each in said))
    wire.close()


def test_a_rank_does_what_its_daemon_says_over_a_network(call: Callable[[str], list[str]]) -> None:
    assert call(TOKEN) == ["warm", "leave"]


def test_a_rank_waits_for_an_answer_no_longer_than_a_daemon_needs(wires: list[Wire], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who listens there now may be something that waits as well: the nodes would be kept for nothing."""
    monkeypatch.setattr(worker, "_ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Ended):
        worker.Parent(f"127.0.0.1:{silent.getsockname()[1]}", TOKEN, {"rank": 0, "size": 1, "pid": 1})


def test_a_machine_that_is_gone_is_noticed_also_while_much_is_told_to_it() -> None:
    """What TCP has sent and nobody confirmed keeps it from asking: that has a limit of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as connection:
        Wire(connection)
        assert 30_000 <= connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 60_000


def test_a_rank_does_nothing_that_somebody_else_says(call: Callable[[str], list[str]], caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Ended):
        call("of somebody else")
    assert "is not the daemon that started this rank" in caplog.text
