"""Live jobs of runs whose documents come over a network: beside the final jobs, and never in their way."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from at_work import at_work

from benchmarks.scan_burst import scan_documents
from ptyplugin.callbacks import live as live_runs
from ptyplugin.jobs import Inbox, Ledger
from ptyplugin.jobs.contents import parse
from ptyplugin.model import Growth, Profile, Site
from ptyplugin.profiles import load_profile
from ptyplugin.service.sources import SourceState, live
from ptyplugin.service.sources.desk import Desk
from ptyplugin.service.sources.finished import Finished
from ptyplugin.service.sources.source import DocumentSource

PLAIN = load_profile("sim").model_copy(update={"live": None})
PROFILE = Profile.model_validate({**PLAIN.model_dump(), "live": {"first_frames": 9}})
Documents = list[tuple[str, dict[str, Any]]]


class Bringing(DocumentSource):
    """A source to which a test brings its documents."""

    def work(self, stop: threading.Event) -> None:
        stop.wait()


class Work:
    """A desk at work, two sources for it, and the inbox."""

    def __init__(self, site: Site) -> None:
        self.site, self.desk = site, Desk(site, Finished(site))
        self.sources = [Bringing(name, [PROFILE, PLAIN], self.desk) for name in ("one", "other")]

    def send(self, documents: Documents, source: int = 0) -> None:
        for name, document in documents:
            self.sources[source].take(name, document)

    def items(self) -> list[Any]:
        """The jobs and growth in the inbox, in their order."""
        found = []
        for item in Inbox(self.site.inbox).waiting():
            grown = item / "growth.json"
            found.append(Growth.from_bytes(grown.read_bytes()) if grown.exists() else parse((item / "job.json").read_bytes()))
        return found

    def live(self, run_uid: str) -> list[Any]:
        """The live job of a run and its growth."""
        jobs = [each for each in self.items() if not isinstance(each, Growth) and each.purpose == "live" and each.source.run_uid == run_uid]
        return [*jobs, *(each for each in self.items() if isinstance(each, Growth) and jobs and each.job == jobs[0].key)]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    monkeypatch.setattr(live_runs, "EVERY_S", 0.02)
    working = Work(Site(home=tmp_path / "home"))
    with Ledger(working.site.ledger), at_work(working.desk.run, working.desk.wake):
        yield working


def run(uid: str, begun_s: float | None = None) -> Documents:
    return scan_documents(uid, 7, Path("/data/frames.h5"), time.time() if begun_s is None else begun_s, 30)


def test_a_run_grows_while_it_goes_on(work: Work, until: Callable[..., None]) -> None:
    documents = run("run-1")
    work.send(documents[:40])
    until(lambda: len(work.live("run-1")) >= 1)
    work.send(documents[40:-1])
    until(lambda: sum(each.frame_count for each in work.live("run-1")) == 30)
    assert not any(isinstance(each, Growth) and each.ended for each in work.items())
    work.send(documents[-1:])
    until(lambda: work.live("run-1")[-1].ended)
    # One of the two profiles asks for it.
    until(lambda: [each.purpose for each in work.items() if not isinstance(each, Growth)].count("final") == 2)


def test_the_same_documents_from_two_sources_are_one_live_job(work: Work, until: Callable[..., None]) -> None:
    documents = run("run-1")
    for part in (documents[:40], documents[40:-1]):
        for source in (0, 1):
            work.send(part, source)
        until(lambda: work.live("run-1"))
    until(lambda: sum(each.frame_count for each in work.live("run-1")) == 30)
    frames = 0
    for each in work.live("run-1"):
        assert getattr(each, "first", 0) == frames
        frames += each.frame_count
    assert [each.purpose for each in work.items() if not isinstance(each, Growth)] == ["live"]


def test_replays_and_garbage_have_no_live_job(work: Work, until: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    work.send(run("old", time.time() - 7200)[:-1])
    for document in ({}, {"uid": 3}, {"uid": "x", "time": "never"}):
        with caplog.at_level(logging.CRITICAL):
            work.send([("start", document), ("event", document), (3, document)])  # type: ignore[list-item]
    work.send(run("new")[:-1])
    until(lambda: sum(each.frame_count for each in work.live("new")) == 30)
    assert work.live("old") == []


def test_documents_that_nobody_can_take_in_time_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "_MOST_WAITING", 5)
    source = Bringing("one", [PROFILE], Desk(site := Site(home=tmp_path / "home"), Finished(site)))
    for document in run("run-1"):
        source.take(*document)
    assert caplog.text.count("5 documents wait for live jobs") == 1
    assert isinstance(source.state, SourceState)
    assert source.state.counts["refused"] == 0


def test_images_that_nobody_can_take_in_time_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_MOST_BYTES", 10**6)
    taking = live.LiveDesk(Site(home=tmp_path / "home"))
    for image in (np.zeros((256, 256), np.uint16), np.zeros((256, 256), np.uint16).tolist()):
        for _ in range(50):
            taking.bring("event", {"data": {"image": image}}, [PROFILE])
            taking.bring("event_page", {"data": {"image": [image]}}, [PROFILE])
    assert 5 <= taking._waiting.qsize() <= 8


def test_documents_of_runs_that_are_over_are_not_kept(tmp_path: Path) -> None:
    taking = live.LiveDesk(Site(home=tmp_path / "home"))
    for document in [*run("whole"), *run("whole")[1:], *run("old", time.time() - 7200), *run("next")[:-1]]:
        taking._take(*document, [PROFILE])
        for watched in taking._watched.values():
            watched.runs.hurry()
            watched.runs.work(watched.collector.so_far)
    (watched,) = taking._watched.values()
    assert len(watched.collector._waiting) == 0
    assert watched.runs.are_open()
