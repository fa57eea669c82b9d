"""A run is followed over connections that break, until its writer ends it, and no longer than that."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from ptyplugin.catalog.run_stream import Node
from ptyplugin.model import CatalogError, LiveTable, Site
from ptyplugin.profiles import load_profile
from ptyplugin.service.sources import following
from ptyplugin.service.sources.following import Follower
from ptyplugin.service.sources.tiled_runs import TiledSource

Serve = Callable[[ServerConnection, str, int], None]


class Run:
    """In place of a RunStream: each message is a document, and the first of the run names a node."""

    def __init__(self) -> None:
        self.is_live = True

    def take(self, node: Node, told: dict[str, Any]) -> tuple[list[Any], list[Node]]:
        if told.get("lost"):
            raise CatalogError("events were lost")
        return [("event", (node, told["sequence"]))], [("primary",)] if not node and told["sequence"] == 1 else []


@contextmanager
def server(answer: Serve) -> Iterator[str]:
    def handle(socket: ServerConnection) -> None:
        url = urlparse(socket.request.path)
        answer(socket, url.path, int(parse_qs(url.query)["start"][0]))

    with serve(handle, "127.0.0.1", 0) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{serving.socket.getsockname()[1]}"
        finally:
            serving.shutdown()
            thread.join()


def followed(uri: str, run: Any, given: list[Any]) -> Follower:
    return Follower("run-1", lambda node: f"{uri}/{'/'.join(node)}?a=b", dict, run, lambda *document: given.append(document))


def send(socket: ServerConnection, sequence: int, **more: Any) -> None:
    socket.send(msgpack.packb({"sequence": sequence, **more}))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_LATE_S", 0.3)
    monkeypatch.setattr(following, "_PAUSES_S", (0.01, 0.01))


def test_a_connection_that_breaks_goes_on_where_it_was(until: Callable[..., None]) -> None:
    asked: list[tuple[str, int]] = []

    def answer(socket: ServerConnection, path: str, start: int) -> None:
        asked.append((path, start))
        socket.send(msgpack.packb({"type": "container-schema", "version": 1}))
        send(socket, start)
        if path == "/primary" and start == 1:
            socket.close(1012)

    given: list[Any] = []
    with server(answer) as uri:
        follower = followed(uri, Run(), given)
        follower.start()
        follower.end({"uid": "s", "run_start": "run-1"})
        follower.join(20)
    assert follower.is_over()
    assert sorted(asked) == [("/", 1), ("/primary", 1), ("/primary", 2)]
    assert given[-1] == ("stop", {"uid": "s", "run_start": "run-1"})
    assert sorted(document for name, document in given if name == "event") == [((), 1), (("primary",), 1), (("primary",), 2)]


@pytest.mark.parametrize("wrong", ["lost", "garbage", "refused", "going away", "killed", "ended"])
def test_what_cannot_be_followed_ends_its_live_job_only(
    wrong: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough for all connections to fail between two looks.
    monkeypatch.setattr(following, "_LOOK_S", 0.5)

    def answer(socket: ServerConnection, path: str, start: int) -> None:
        if wrong in ("refused", "going away"):
            socket.close(1011 if wrong == "refused" else 1001)
        elif wrong == "killed":
            if start == 1:
                send(socket, start)
            socket.close(1011)
        elif wrong == "garbage":
            socket.send(b"\xc1")
        else:
            send(socket, start, **({"lost": True} if wrong == "lost" else {}))

    given: list[Any] = []
    with server(answer) as uri:
        follower = followed(uri, Run(), given)
        follower.start()
        follower.join(20)
    assert follower.is_over()
    name, stop = given[-1]
    assert (name, stop["run_start"]) == ("stop", "run-1")
    assert ("its live image gets no more frames" in caplog.text) == (wrong != "ended")
    assert "mistake" not in caplog.text
    # Of several connections that fail together, one is said.
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_run_that_never_ends_is_left_when_it_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_SILENT_S", 0.5)

    def answer(socket: ServerConnection, path: str, start: int) -> None:
        send(socket, start)
        with suppress(ConnectionClosed):
            socket.recv(20)

    given: list[Any] = []
    with server(answer) as uri:
        follower = followed(uri, Run(), given)
        follower.start()
        follower.join(20)
        assert follower.is_over()
    assert (given[-1][0], given[-1][1]["exit_status"]) == ("stop", "unknown")


class Silent:
    """In place of a Desk."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def ring(self, uid: str, *_: Any) -> None:
        self.rung.append(uid)


def told(start: Any, stop: Any = None, kind: str = "container-child-created") -> bytes:
    return bytes(msgpack.packb({"type": kind, "sequence": 1, "key": "run", "metadata": {"start": start, "stop": stop}}))


def test_what_is_no_run_is_refused_and_the_next_is_heard(tmp_path: Path) -> None:
    desk = Silent()
    source = TiledSource("sim", [], Site(home=tmp_path, tiled_uri="http://127.0.0.1:9"), desk, lambda: None)  # type: ignore[arg-type]
    for start in ("2025-01-01", [1], 5):
        source._take(told(start))
    source._take(told({"uid": "run-1"}, {"run_start": "run-1"}))
    assert (source.state.counts["refused"], desk.rung) == (3, ["run-1"])


def test_runs_that_end_at_once_are_not_followed_all_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    site, profile = Site(home=tmp_path, tiled_uri="http://127.0.0.1:9"), load_profile("sim").model_copy(update={"live": LiveTable()})
    monkeypatch.setattr(Follower, "start", lambda self: begun.append(self._uid))
    monkeypatch.setattr(Follower, "is_over", lambda self: False)
    source = TiledSource("sim", [profile], site, Silent(), lambda: None)  # type: ignore[arg-type]
    for number in range(20):
        start = {"uid": f"run-{number}", "time": time.time()}
        source._take(told(start))
        source._take(told(start, {"run_start": start["uid"]}, "container-child-metadata-updated"))
    assert len(begun) == 8


def test_one_that_is_left_says_nothing_more() -> None:
    given: list[Any] = []
    with server(lambda socket, path, start: socket.recv(20)) as uri:  # type: ignore[arg-type,return-value]
        follower = followed(uri, Run(), given)
        follower.start()
        follower.cut()
        follower.join(20)
        assert follower.is_over()
    assert given == []
