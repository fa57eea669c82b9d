"""Images of jobs that run: each listener hears of the newest, and what goes wrong with one is no matter of the job."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from at_work import at_work

from ptyplugin.jobs import Entry, Ledger, submit, write_snapshot
from ptyplugin.model import Progress, Snapshot
from ptyplugin.service import Daemon, Inline
from ptyplugin.service.showing import Showing
from ptyplugin.service.wire import progress_fields, progress_of
from ptyplugin.service.worker import Teller

STUB = "stub_solving:solve"


def snapshot_of(key: str, frames: int = 3) -> Snapshot:
    image, probe = np.ones((4, 5), np.complex64), np.ones((1, 3, 3), np.complex64)
    return Snapshot(key, "DM", 1, 20, {"error": 0.5}, frames, 1e9, image, probe, (1e-8, 1e-8), (0.0, 0.0))


@pytest.fixture
def showing(site, make_job):
    with Ledger(site.ledger) as ledger:
        ledger.put(make_job())
        (site.jobs / make_job().key).mkdir(parents=True)
        yield Showing(site.jobs, ledger)


def test_the_newest_is_shown_once_to_all(site, make_job, showing) -> None:
    key, heard, others = make_job().key, [], []
    showing.add(lambda snapshot, entry: heard.append((snapshot.frames, entry.key)))
    showing.add(lambda snapshot, entry: others.append(snapshot.frames))
    for frames in (3, 4, 5):
        write_snapshot(site.jobs / key, snapshot_of(key, frames))
        showing.hear(key)
    showing.show()
    showing.show()
    assert heard == [(5, key)]
    assert others == [5]


def test_one_that_is_gone_or_torn_or_of_nobody_is_passed_over(site, make_job, showing) -> None:
    heard: list[str] = []
    showing.add(lambda snapshot, entry: heard.append(entry.key))
    showing.hear(make_job().key)
    showing.hear("0" * 16)
    (site.jobs / make_job().key / "snapshot.npz").write_bytes(b"PK")
    (site.jobs / ("1" * 16)).mkdir()
    write_snapshot(site.jobs / ("1" * 16), snapshot_of("1" * 16))
    showing.hear("1" * 16)
    showing.show()
    assert heard == []


def test_a_listener_that_fails_is_said_and_the_others_hear(site, make_job, showing, caplog) -> None:
    key, heard = make_job().key, []

    def fail(snapshot: Snapshot, entry: Entry) -> None:
        raise ZeroDivisionError("no screen")

    showing.add(fail)
    showing.add(lambda snapshot, entry: heard.append(entry.key))
    write_snapshot(site.jobs / key, snapshot_of(key))
    for _ in range(2):
        showing.hear(key)
        showing.show()
    assert heard == [key, key]
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert "ZeroDivisionError: no screen" in caplog.text


def test_a_daemon_tells_of_images_while_a_job_runs(site, make_job, until) -> None:
    job, heard, shown = make_job(slow=0.05), [], threading.Event()

    def write(progress: Progress) -> None:
        """What a solver does: the first time that it is heard of."""
        folder = site.jobs / job.key
        if progress.iteration == 1 and not progress.snapshot:
            write_snapshot(folder, snapshot_of(job.key))
            daemon._hear(replace(progress, snapshot=True))

    def listen(snapshot: Snapshot, entry: Entry) -> None:
        heard.append((snapshot.job, entry.state))
        shown.set()

    submit(site, job)
    with Daemon(site, Inline(STUB), on_progress=write) as daemon:
        daemon.add_snapshot_listener(listen)
        with at_work(daemon.run):
            until(shown.is_set)
            until(lambda: daemon.ledger.show(job.key).state == "solved")
    assert heard == [(job.key, "running")]
    assert not (site.jobs / job.key / "snapshot.npz").exists()


def test_a_rank_tells_of_a_snapshot_at_once() -> None:
    class Parent:
        def __init__(self) -> None:
            self.said: list[Progress] = []

        def send(self, kind: str, *, number: int, **fields: object) -> None:
            self.said.append(progress_of({"kind": kind, "number": number, **fields}))

    parent = Parent()
    tell = Teller(parent, 1)
    events = [Progress("k", "DM", number, 9, 0.1, {"error": 1 / number}, frames=64 + number) for number in (1, 2, 3)]
    for event in events:
        tell(event)
    tell(replace(events[-1], snapshot=True))
    assert parent.said == [events[0], replace(events[2], snapshot=True)]
    assert progress_of({"kind": "progress", "number": 3, **progress_fields(events[1])}) == events[1]
