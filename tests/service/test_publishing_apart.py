"""The process that publishes: what becomes of it is a sentence, and another one takes over; the daemon goes on."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import at_work

from ptyplugin.catalog.apart import Kept, answer_all
from ptyplugin.jobs import submit
from ptyplugin.model import CatalogAway, CatalogError, Site
from ptyplugin.service import Daemon, Inline, daemon, publisher
from ptyplugin.service.publisher import PublishApart

AWAY = r"the catalog at http://127\.0\.0\.1:\d+ does not answer"


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[PublishApart]:
    # Nobody listens here.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        put = PublishApart(Site(home=tmp_path, tiled_uri=f"http://127.0.0.1:{bound.getsockname()[1]}"))
        yield put
        put.close()


def test_whoever_is_killed_or_hangs_is_followed_by_another(apart: PublishApart, tmp_path: Path, monkeypatch) -> None:
    def publish(says: str) -> int:
        with pytest.raises(CatalogError, match=says):
            apart(tmp_path / "result.h5", "0123")
        return apart.pid or 0

    killed = publish(AWAY)
    os.kill(killed, signal.SIGKILL)
    # With all its threads.
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    stopped = publish(AWAY)
    assert stopped not in (0, killed)
    os.kill(stopped, signal.SIGSTOP)
    monkeypatch.setattr(publisher, "ANSWER_S", 0.2)
    assert publish(r"has ended \(no answer within 0.2 s\): it is started again") == 0
    assert not [pid for pid in (killed, stopped) if Path(f"/proc/{pid}").exists()]


def test_the_end_of_the_service_waits_for_no_catalog(apart: PublishApart, tmp_path: Path, until) -> None:
    errors: list[CatalogError] = []

    def publish() -> None:
        with pytest.raises(CatalogError) as caught:
            apart(tmp_path / "result.h5", "0123")
        errors.append(caught.value)

    # It takes seconds to start, and so does not answer at once.
    publishing = threading.Thread(target=publish)
    publishing.start()
    until(lambda: apart.pid)
    apart.close()
    publishing.join(20)
    assert "exit code -9" in str(errors[0])
    with pytest.raises(CatalogError, match="the service stops"):
        apart(tmp_path / "result.h5", "0123")
    assert apart.pid is None


def test_a_process_that_hangs_does_not_hold_the_end_of_the_daemon(site: Site, make_job, until, monkeypatch) -> None:
    monkeypatch.setattr(daemon, "PUBLISH_END_S", 0.1)
    monkeypatch.setattr(daemon, "END_S", 300.0)
    with Daemon(site.model_copy(update={"tiled_uri": "http://127.0.0.1:9"}), Inline("stub_solving:solve")) as running:
        apart = running._catalog
        assert apart is not None
        with at_work(running.run):
            until(lambda: apart.pid)
            os.kill(apart.pid or 0, signal.SIGSTOP)
            submit(site, make_job())
            until(lambda: running.ledger.list(state="solved") and apart._lock.locked())
    assert apart.pid is None


def test_each_order_has_one_answer(tmp_path: Path) -> None:
    said, answers = Kept(), []
    log = logging.getLogger("test.publishing")
    log.addHandler(said)

    def put(result: Path, key: str) -> None:
        if key == "good":
            log.warning("%s was sent", result.name)
        elif key == "away":
            raise CatalogAway("it is away.")
        else:
            raise ZeroDivisionError("nobody\nknows.")

    orders = [json.dumps({"result": str(tmp_path / "a.h5"), "key": key}) for key in ("good", "away", "strange")]
    answer_all(orders, put, answers.append, said)
    log.removeHandler(said)
    said.handle(logging.makeLogRecord({"msg": "%d arrays", "args": ("no",)}))
    assert not said.lines
    assert [json.loads(answer) for answer in answers] == [
        {"error": None, "log": [[logging.WARNING, "test.publishing", "a.h5 was sent"]]},
        {"error": "it is away.", "log": []},
        {"error": "publishing ended with ZeroDivisionError: nobody knows.", "log": []},
    ]
