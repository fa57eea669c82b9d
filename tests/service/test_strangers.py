"""Who calls a group and is none of its ranks changes nothing for those who are: a group over TCP, whose ranks are this test's own."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ptyplugin.model import RanksAway
from ptyplugin.service import accepting
from ptyplugin.service.engines import Engine
from ptyplugin.service.group import Group, Patience
from ptyplugin.service.handshake import Challenge, answer
from ptyplugin.service.wire import Message, Wire


class Asked(Engine):
    """Ranks that come when the test has them call."""

    mismatch = "the test is wrong."

    def start(self) -> socket.socket:
        return socket.create_server(("127.0.0.1", 0))

    def met(self, pid: int) -> None:
        pass

    @property
    def is_over(self) -> bool:
        return False

    def why_over(self, were_there: bool, log: str) -> str:
        return "the ranks did not come."

    def let_leave(self, within_s: float) -> None:
        pass

    def end(self) -> None:
        pass


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    group = Group(Asked(2, tmp_path), Patience(start_s=0.6))
    group.start()
    yield group
    group.end()


@pytest.fixture
def call(group: Group) -> Iterator[Callable[[], socket.socket]]:
    """Somebody connects to the group."""
    made: list[socket.socket] = []

    def call() -> socket.socket:
        assert group._listener is not None
        made.append(socket.create_connection(group._listener.getsockname(), 5.0))
        return made[-1]

    yield call
    for connection in made:
        connection.close()


def test_without_file_descriptors_a_rank_waits_and_nothing_ends(
    group: Group, call: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    class Exhausted:
        def accept(self) -> None:
            asked.append(1)
            raise OSError(errno.EMFILE, "Too many open files")

    waiting = call()
    monkeypatch.setattr(accepting, "PAUSE_S", 0.01)
    with monkeypatch.context() as patched:
        patched.setattr(group, "_listener", Exhausted())
        for _ in range(3):
            group.look()
    assert len(asked) == 3
    assert caplog.text.count("a connection cannot be accepted (Too many open files): it waits") == 1
    assert _challenged(group, waiting)["kind"] == "challenge"


def _challenged(group: Group, connection: socket.socket) -> Message:
    group.look()
    return json.loads(connection.recv(1000))


def _hello(group: Group, connection: socket.socket, rank: int) -> None:
    proof = answer(group._engine.token, "rank", _challenged(group, connection))
    Wire(connection).send("hello", **proof, **Challenge().fields, rank=rank, size=2, pid=1)
    group.look()


def _is_sent_away(connection: socket.socket) -> bool:
    connection.settimeout(5.0)
    try:
        while connection.recv(1000):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "said",
    [
        b'{"kind": "hello", "proof": "\\ud800"}\n',
        b'{"kind": "hello", "proof": {"a": 1}, "nonce": "\\ud800"}\n',
        b'{"kind": "hello", "proof": ' + 300 * b"[" + 300 * b"]" + b"}\n",
        b'["hello"]\n',
        b'{"kind": "done", "number": 1}\n',
        b'{"kind": "hello", "proof": "' + 5000 * b"x" + b'"}\n',
        5000 * b"x",
    ],
)
def test_whatever_a_stranger_says_he_is_sent_away(group: Group, call, said: bytes) -> None:
    stranger = call()
    _challenged(group, stranger)
    stranger.sendall(said)
    group.look()
    assert _is_sent_away(stranger)
    for rank in range(2):
        _hello(group, call(), rank)
    assert group.is_there


def test_a_stranger_who_goes_on_talking_does_not_make_anybody_wait_for_ranks(group: Group, call, until) -> None:
    stranger = call()
    with pytest.raises(RanksAway, match=r"the ranks did not come\."):
        until(lambda: stranger.sendall(b"x") or group.look())


def test_strangers_are_sent_away_when_all_ranks_are_there(group: Group, call) -> None:
    stranger = call()
    _challenged(group, stranger)
    for rank in range(2):
        _hello(group, call(), rank)
    assert _is_sent_away(stranger)
    group.look()
    assert group.is_there


def test_many_strangers_fill_no_log(group: Group, call, caplog) -> None:
    for _ in range(20):
        stranger = call()
        _challenged(group, stranger)
        stranger.sendall(b'{"kind": "hello"}\n')
        group.look()
    assert len([line for line in caplog.messages if "no rank of this group" in line]) == 1
