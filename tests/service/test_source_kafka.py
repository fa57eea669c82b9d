"""Kafka, with a consumer that is not one: what is committed is in the inbox, and what breaks is begun anew. No broker was there."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import msgpack_numpy
import pytest

from benchmarks.scan_burst import scan_documents
from ptyplugin.jobs import Inbox, Ledger
from ptyplugin.model import KafkaDocuments, Site, SiteError
from ptyplugin.profiles import load_profile
from ptyplugin.service.sources import kafka_documents, source
from ptyplugin.service.sources.desk import Desk
from ptyplugin.service.sources.finished import Finished
from ptyplugin.service.sources.kafka_documents import KafkaSource

TABLE = KafkaDocuments(kind="kafka", servers=["127.0.0.1:9092"], topics=["sim.documents"], profiles=["sim"])


class FakeError:
    def __init__(self, code: int, fatal: bool = False) -> None:
        self._code, self._fatal = code, fatal

    def code(self) -> int:
        return self._code

    def fatal(self) -> bool:
        return self._fatal

    def str(self) -> str:
        return f"error {self._code}"


class FakeMessage:
    def __init__(self, value: bytes | None, error: FakeError | None = None) -> None:
        self._value, self._error = value, error

    def value(self) -> bytes | None:
        return self._value

    def error(self) -> FakeError | None:
        return self._error


class FakeBroker:
    """Gives messages once, to whatever consumer asks, and notes what was in the inbox at each commit."""

    def __init__(self, inbox: Inbox) -> None:
        self.messages: deque[FakeMessage] = deque()
        self.commits: list[int] = []
        self.settings: list[dict[str, Any]] = []
        self.given = 0
        self._inbox = inbox

    def __call__(self, settings: dict[str, Any]) -> FakeBroker:
        self.settings.append(settings)
        return self

    def subscribe(self, topics: list[str]) -> None:
        assert topics == ["sim.documents"]

    def poll(self, timeout_s: float) -> FakeMessage | None:
        if not self.messages:
            threading.Event().wait(0.01)
            return None
        self.given += 1
        return self.messages.popleft()

    def commit(self, asynchronous: bool) -> None:
        assert not asynchronous
        self.commits.append(len(self._inbox.waiting()))

    def close(self) -> None:
        pass


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kafka_documents, "_COMMIT_S", 0.0)
    monkeypatch.setattr(source, "FIRST_PAUSE_S", 0.02)
    site, stop = Site(home=tmp_path / "home"), threading.Event()
    broker = FakeBroker(Inbox(site.inbox))
    desk = Desk(site, Finished(site))
    kafka = KafkaSource(TABLE, [load_profile("sim")], desk, lambda: None, broker, {})
    with Ledger(site.ledger):
        threads = [threading.Thread(target=each.run, args=(stop,)) for each in (desk, kafka)]
        for thread in threads:
            thread.start()
        yield broker, kafka
        stop.set()
        desk.wake()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def messages(uid: str) -> list[FakeMessage]:
    documents = scan_documents(uid, 3, Path("/data/frames.h5"), 5.0)
    return [FakeMessage(msgpack.packb(document, default=msgpack_numpy.encode)) for document in documents]


def test_offsets_are_committed_when_jobs_are_in_the_inbox(running: tuple[FakeBroker, KafkaSource], until: Callable[..., None]) -> None:
    broker, kafka = running
    run = messages("run-1")
    broker.messages.extend(run[:-1])
    until(lambda: broker.given == len(run) - 1)
    assert broker.commits == []
    broker.messages.extend(run[-1:])
    until(lambda: broker.commits)
    assert set(broker.commits) == {1}
    assert kafka.state.connected
    assert kafka.state.to_dict()["counts"] == {"documents": len(run), "jobs": 1, "runs": 1}


def test_a_run_that_never_ends_does_not_hold_the_offsets_for_ever(
    running: tuple[FakeBroker, KafkaSource], until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, _ = running
    broker.messages.extend([*messages("killed")[:5], *messages("run-4")])
    until(lambda: not broker.messages and broker._inbox.waiting())
    assert broker.commits == []
    monkeypatch.setattr(source, "SILENT_S", 0.05)
    until(lambda: broker.commits)


def test_what_is_no_document_is_refused_and_the_next_is_used(running: tuple[FakeBroker, KafkaSource], until: Callable[..., None]) -> None:
    broker, kafka = running
    wrong = [b"", b"\xc1", b"{}", b'["start", 5]', b'[1, {"uid": "a"}]', b"\x80\x04N.", b"\x00" * 65_000_000]
    broker.messages.extend([*map(FakeMessage, wrong), FakeMessage(None), *messages("run-2")])
    until(lambda: kafka.state.counts["jobs"])
    assert kafka.state.counts["refused"] == len(wrong) + 1


def test_errors_are_said_and_fatal_ones_begin_anew(running: tuple[FakeBroker, KafkaSource], until: Callable[..., None]) -> None:
    broker, kafka = running
    broker.messages.extend([FakeMessage(b"", FakeError(-187)), FakeMessage(b"", FakeError(-150, fatal=True)), *messages("run-3")])
    until(lambda: kafka.state.counts["jobs"])
    assert len(broker.settings) == 2
    assert "error -150" in str(kafka.state.last_error)


def test_settings_and_secrets() -> None:
    settings = kafka_documents._settings(TABLE, {})
    assert settings["bootstrap.servers"] == "127.0.0.1:9092"
    assert settings["enable.auto.commit"] is False
    assert "sasl.password" not in settings
    with_user = TABLE.model_copy(update={"user": "bl"})
    assert kafka_documents._settings(with_user, {"PTYPLUGIN_KAFKA_PASSWORD": "secret"})["sasl.password"] == "secret"
    with pytest.raises(SiteError, match="set PTYPLUGIN_KAFKA_PASSWORD"):
        kafka_documents._settings(with_user, {})
