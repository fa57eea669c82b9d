"""Notifications: what is told, that it is tried again, and that no job waits for it."""

from __future__ import annotations

import http.server
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from at_work import at_work
from typer.testing import CliRunner

from ptyplugin.cli.app import app
from ptyplugin.io import write_result
from ptyplugin.jobs import Entry, Ledger
from ptyplugin.model import Progress, Reconstruction, Refusal, RunSource, SiteError, Verdict
from ptyplugin.service import notifying
from ptyplugin.service.notifying import Event, Notice, Notifier, addresses_of, event_of, events_of, sender

#: What the package itself does on Python 3.11.
of_apprise = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
EVENTS: tuple[Event, ...] = ("finished", "doubtful", "failed")
WORD = "hush-hush-word"


class Post:
    """Takes what is sent, or does not while it is ``away``."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Notice, bool]] = []
        self.away = 0

    def __call__(self, address: str, notice: Notice) -> bool:
        if self.away:
            self.away -= 1
            if self.away % 2:
                raise ConnectionError("nobody is there")
            return False
        self.got.append((address, notice, notice.picture is not None and notice.picture.read_bytes()[:4] == b"\x89PNG"))
        return True


@contextmanager
def posting(ledger: Ledger, post: Post, *addresses: str, events: tuple[Event, ...] = EVENTS) -> Iterator[Notifier]:
    notifier = Notifier(ledger, addresses or ("a://",), events, post)
    ledger.listen(notifier.hear)
    with at_work(notifier.run):
        yield notifier


def write(path: Path, job, word: str) -> None:
    reconstruction = Reconstruction(
        object=np.ones((1, 16, 16), np.complex64),
        probe=np.ones((1, 8, 8), np.complex64),
        geometry=job.geometry.build(),
        positions_m=np.zeros((3, 2)),
        positions_px=np.zeros((3, 2)),
        mask=np.zeros((8, 8), np.uint8),
        progress=[Progress(job.key, "DM", 1, 1, 0.1, {"error": 0.5})],
        quality={"error": 0.5},
        provenance={"job": job.model_dump(mode="json"), "beamline": job.beamline},
        verdict=Verdict(word, "converged", ("frames are half a beam apart.",)),
    )
    write_result(path, reconstruction)


@pytest.mark.parametrize(
    ("state", "word", "event"),
    [
        *(("solved", "good", "finished"), ("solved", "doubtful", "doubtful"), ("solved", "failed", "failed")),
        *(("solved", None, "finished"), ("failed", None, "failed")),
    ],
)
def test_what_the_end_of_a_job_is_to_people(state, word, event) -> None:
    assert event_of(SimpleNamespace(state=state), {"verdict": word}) == event


def test_a_result_is_told_with_its_picture(site, make_job, until) -> None:
    post, job = Post(), make_job()
    with Ledger(site.ledger) as ledger, posting(ledger, post, "a://", "b://") as notifier:
        ledger.put(job)
        entry = ledger.claim(60.0)
        assert entry is not None
        write(site.results / "a.h5", job, "doubtful")
        ledger.solved(entry, site.results / "a.h5")
        ledger.published(entry)
        until(lambda: len(post.got) == 2 and not ledger.untold(0, 9))
    assert [(address, has_picture) for address, _, has_picture in post.got] == [("a://", True), ("b://", True)]
    notice = post.got[0][1]
    assert (notice.event, notice.title) == ("doubtful", "ptyplugin: scan 7 doubtful")
    assert f"job: {job.key}" in notice.body
    assert "error 0.5" in notice.body
    assert "half a beam apart" in notice.body
    assert notifier.outcomes["sent"] == 2
    assert notice.picture is not None
    assert not notice.picture.exists(), "pictures are taken away"


def test_a_refusal_is_told_and_what_nobody_wants_is_not(site, make_job, until) -> None:
    post = Post()
    with Ledger(site.ledger) as ledger, posting(ledger, post, events=("failed",)):
        ledger.put(make_job())
        entry = ledger.claim(60.0)
        assert entry is not None
        ledger.solved(entry, site.results / "not there.h5")
        ledger.put(Refusal(beamline="sim", source=RunSource(run_uid="u", key="d", scan_id=8), reason="no frames arrived."))
        until(lambda: post.got and not ledger.untold(0, 9))
    assert [(notice.title, notice.body.splitlines()[0]) for _, notice, _ in post.got] == [
        ("ptyplugin: scan 8 failed", "no frames arrived.")
    ]


def test_a_post_that_is_away_is_tried_again_and_no_job_waits(site, make_job, until, monkeypatch) -> None:
    monkeypatch.setattr(notifying._Letter, "__init__", _impatient(notifying._Letter.__init__))
    post = Post()
    post.away = 3
    with Ledger(site.ledger) as ledger, posting(ledger, post) as notifier:
        _failed(ledger, make_job)
        until(lambda: post.got)
    assert (notifier.outcomes["tried again"], notifier.outcomes["sent"]) == (3, 1)


def test_what_nobody_took_for_a_day_is_given_up(site, make_job, until, monkeypatch) -> None:
    monkeypatch.setattr(notifying, "GIVE_UP_S", -1.0)
    post = Post()
    post.away = 100
    with Ledger(site.ledger) as ledger, posting(ledger, post) as notifier:
        _failed(ledger, make_job)
        until(lambda: notifier.outcomes["given up"] == 1 and not ledger.untold(0, 9))
    assert not post.got


def test_memory_is_bounded_and_nothing_is_dropped(site, make_job, until, monkeypatch) -> None:
    monkeypatch.setattr(notifying, "_MOST", 3)
    post = Post()
    with Ledger(site.ledger) as ledger:
        ledger.keep_untold(True)
        for seed in range(10):
            _failed(ledger, make_job, seed)
        with posting(ledger, post):
            until(lambda: len(post.got) == 10 and not ledger.untold(0, 9))


def test_what_was_not_sent_when_the_daemon_was_killed_is_sent_by_the_next(site, make_job, until) -> None:
    """It is in the ledger from the same moment as the end of the job, for each address that has not taken it."""
    gone, post = Post(), Post()
    with Ledger(site.ledger) as ledger:
        ledger.keep_untold(True)
        _failed(ledger, make_job)
        (untold,) = ledger.untold(0, 9)
        assert (untold.entry.state, untold.entry.sentence, untold.remaining) == ("failed", "the frames are gone.", None)
    # This daemon comes to send to the first address only.
    with Ledger(site.ledger) as ledger:
        notifier, stop = (
            Notifier(ledger, ["a://", f"b://{WORD}"], EVENTS, lambda *letter: gone(*letter) and not stop.set()),
            threading.Event(),
        )
        notifier._work(stop)
        notifier._folder.cleanup()
        assert [address for address, *_ in gone.got] == ["a://"]
        assert [each.remaining for each in ledger.untold(0, 9)] == [("2 b://...",)]
        ledger._retried(ledger.list()[0], None)
    assert all(WORD.encode() not in file.read_bytes() for file in site.home.glob("ledger*")), "addresses are secrets"
    with Ledger(site.ledger) as ledger, posting(ledger, post, "a://", f"b://{WORD}"):
        until(lambda: post.got and not ledger.untold(0, 9))
    assert [(address, notice.title) for address, notice, _ in post.got] == [(f"b://{WORD}", "ptyplugin: scan 7 failed")]


def test_when_nobody_is_to_be_told_nothing_is_kept(site, make_job) -> None:
    with Ledger(site.ledger) as ledger:
        ledger.keep_untold(True)
        _failed(ledger, make_job)
        ledger.keep_untold(False)
        _failed(ledger, make_job, 1)
        ledger.keep_untold(True)
        assert not ledger.untold(0, 9)


def _impatient(make):
    def made(self, *letter: object) -> None:
        make(self, *letter, wait_s=0.01)

    return made


def _failed(ledger: Ledger, make_job, seed: int = 0) -> Entry:
    job = make_job(seed)
    ledger.put(job)
    entry = ledger.claim(60.0)
    assert entry is not None
    ledger.failed(entry, "the frames are gone.")
    return ledger.show(job.key)


def test_a_live_preview_is_not_told(site, make_job, until) -> None:
    post = Post()
    live = make_job(1).model_copy(update={"purpose": "live"})
    with Ledger(site.ledger) as ledger, posting(ledger, post):
        ledger.put(live)
        entry = ledger.claim(60.0)
        assert entry is not None
        ledger.failed(entry, "the frames are gone.")
        until(lambda: not ledger.untold(0, 9))
    assert not post.got


def test_what_the_environment_asks_for() -> None:
    assert addresses_of({"PTYPLUGIN_NOTIFY": "a://x, b://y\nc://z"}) == ["a://x", "b://y", "c://z"]
    assert events_of({}) == EVENTS
    assert events_of({"PTYPLUGIN_NOTIFY_ON": "failed,doubtful"}) == ("doubtful", "failed")
    with pytest.raises(SiteError, match="names 'lost'"):
        events_of({"PTYPLUGIN_NOTIFY_ON": "lost"})


@of_apprise
def test_an_address_that_is_none_is_a_sentence_without_it() -> None:
    pytest.importorskip("apprise")
    with pytest.raises(SiteError, match=r"address 2 of 2 in PTYPLUGIN_NOTIFY \(nosuch://\.\.\.\)") as caught:
        sender(["json://127.0.0.1", f"nosuch://{WORD}"])
    assert WORD not in str(caught.value)


class _Hook(http.server.BaseHTTPRequestHandler):
    got: list[dict[str, object]]

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hook() -> Iterator[tuple[int, list[dict[str, object]]]]:
    got: list[dict[str, object]] = []
    with http.server.HTTPServer(("127.0.0.1", 0), type("Hook", (_Hook,), {"got": got})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, got
        server.shutdown()
        thread.join()


@of_apprise
def test_notify_test_sends_through_apprise(hook, monkeypatch, caplog) -> None:
    pytest.importorskip("apprise")
    port, got = hook
    monkeypatch.setenv("PTYPLUGIN_NOTIFY", f"json://me:{WORD}@127.0.0.1:{port}/, json://me:{WORD}@127.0.0.1:1/")
    with caplog.at_level(logging.DEBUG):
        result = CliRunner().invoke(app, ["notify", "test", "--json"])
    assert json.loads(result.stdout) == [{"address": "json://...", "sent": True}, {"address": "json://...", "sent": False}]
    assert result.exit_code == 1
    (sent,) = got
    assert (sent["title"], sent["type"]) == ("ptyplugin: a test", "success")
    assert len(sent["attachments"]) == 1
    assert WORD not in result.output + caplog.text


def test_notify_test_without_addresses_is_a_sentence() -> None:
    result = CliRunner().invoke(app, ["notify", "test"])
    assert result.exit_code == 1
    assert "nobody is to be told: put addresses into PTYPLUGIN_NOTIFY" in " ".join(result.output.split())
