"""The ledger: one writer, every job in one state, nothing started twice at once."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ptyplugin.jobs import MAX_TRIES, Fitting, Ledger, Overtaken, open_read_only
from ptyplugin.jobs.schema import SCHEMA_VERSION, VERSION
from ptyplugin.model import FileSource, Job, JobError, LedgerError, Resources, Site


@pytest.fixture
def ledger(site: Site) -> Iterator[Ledger]:
    with Ledger(site.ledger) as ledger:
        yield ledger


def _with(job: Job, seed: int, priority: int = 0) -> Job:
    return job.model_copy(update={"seed": seed, "resources": Resources(priority=priority)})


def test_jobs_are_claimed_by_priority_then_by_arrival(ledger: Ledger, job: Job) -> None:
    jobs = [_with(job, 0), _with(job, 1, 5), _with(job, 2), _with(job, 3, 5)]
    assert all(ledger.put(each) for each in jobs)
    claimed = [ledger.claim(60.0) for _ in jobs]
    assert [entry.key for entry in claimed if entry] == [jobs[number].key for number in (1, 3, 0, 2)]
    assert ledger.claim(60.0) is None


def test_the_way_of_a_good_job(ledger: Ledger, job: Job) -> None:
    ledger.put(job)
    entry = ledger.claim(60.0)
    assert entry is not None
    ledger.beat(entry, 60.0, 0.5)
    assert ledger.show(job.key).fraction_done == 0.5
    ledger.solved(entry, Path("/results/a.h5"))
    ledger.not_published_yet(entry, "the catalog is away.")
    assert ledger.show(job.key).sentence == "the catalog is away."
    ledger.published(entry)
    done = ledger.show(job.key)
    assert (done.state, done.result, done.tries, done.sentence) == ("published", Path("/results/a.h5"), 1, None)
    assert [each.state for each in ledger.history(job.key)] == ["queued", "running", "solved", "published"]


def test_a_job_is_tried_three_times_and_not_before_its_time(ledger: Ledger, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("ptyplugin.jobs.ledger.now_s", lambda: clock[0])
    ledger.put(job)
    for _ in range(MAX_TRIES):
        entry = ledger.claim(60.0)
        assert entry is not None
        ledger.requeue(entry, "rank 1 was killed.", wait_s=10.0)
        assert ledger.claim(60.0) is None
        clock[0] += 11.0
    last = ledger.show(job.key)
    assert (last.state, last.tries) == ("failed", MAX_TRIES)
    assert last.sentence == "rank 1 was killed. It was started 3 times and is given up."


def test_a_clock_that_is_put_back_holds_nothing_up(ledger: Ledger, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    waits, lost = job, job.model_copy(update={"seed": 1})
    for one in (waits, lost):
        ledger.put(one)
    first = ledger.claim(60.0)
    assert first is not None
    ledger.requeue(first, "a rank was killed.", wait_s=60.0)
    assert ledger.claim(60.0) is not None
    assert ledger.claim(60.0) is None
    monkeypatch.setattr("ptyplugin.jobs.ledger.now_s", lambda: now - 7200.0)
    claimed = [entry.key for entry in (ledger.claim(60.0), ledger.claim(60.0)) if entry is not None]
    assert sorted(claimed) == sorted([waits.key, lost.key])
    assert ledger.claim(60.0) is None


def test_a_stop_of_the_daemon_is_no_try(ledger: Ledger, job: Job) -> None:
    ledger.put(job)
    for _ in range(2 * MAX_TRIES):
        entry = ledger.claim(60.0)
        assert entry is not None
        ledger.requeue(entry, "the daemon was stopped.", count_try=False)
    assert ledger.show(job.key).tries == 0


def test_a_lost_start_is_started_again_and_cannot_decide_any_more(ledger: Ledger, job: Job) -> None:
    ledger.put(job)
    lost = ledger.claim(-1.0)
    again = ledger.claim(60.0)
    assert lost is not None
    assert again is not None
    assert again.key == lost.key
    with pytest.raises(Overtaken, match=r"cannot become solved: it is running \(start 2, not 1\)"):
        ledger.solved(lost, Path("/results/a.h5"))
    ledger.beat(lost, 1000.0, 0.9)
    assert ledger.show(job.key).fraction_done == 0.0
    ledger.solved(again, Path("/results/a.h5"))


def test_wrong_ways_are_refused(ledger: Ledger, job: Job) -> None:
    ledger.put(job)
    entry = ledger.show(job.key)
    with pytest.raises(LedgerError, match="cannot become published: it is queued"):
        ledger.published(entry)
    ledger.cancelled(entry, "asked for at the beamline.")
    assert ledger.claim(60.0) is None
    with pytest.raises(LedgerError, match="cannot become failed: it is cancelled"):
        ledger.failed(entry, "no.")
    assert [each.state for each in ledger.history(job.key)] == ["queued", "cancelled"]


def test_has_this_scan_been_done(ledger: Ledger, job: Job) -> None:
    ledger.put(_with(job, 0))
    ledger.put(_with(job, 1))
    ledger.put(job.model_copy(update={"source": FileSource(content_id="c", name="a.cxi")}))
    assert len(ledger.list(run_uid="run-1", purpose="final")) == 2
    assert len(ledger.list(scan_id=7, state="queued")) == 2
    assert not ledger.list(run_uid="run-1", purpose="live")
    assert not ledger.list(run_uid="run-2", purpose="final")
    assert [entry.source for entry in ledger.list()] == ["detector", "detector", "a.cxi"]
    assert [entry.source for entry in ledger.list(limit=1)] == ["a.cxi"]
    assert not ledger.list(since_s=ledger.list()[-1].arrived_s + 1)
    with pytest.raises(JobError, match="no job nothing in the ledger"):
        ledger.show("nothing")


def test_growth_is_known_by_its_first_frame(ledger: Ledger, job: Job) -> None:
    ledger.put(job)
    frames = ledger.show(job.key).frames
    assert ledger.grow(job.key, 10, 4)
    assert ledger.grow(job.key, 0, 3)
    assert not ledger.grow(job.key, 10, 5)
    assert ledger.show(job.key).frames == frames + 7
    entry = ledger.claim(60.0)
    assert entry is not None
    ledger.solved(entry, Path("result.h5"))
    assert ledger.grow(job.key, 10, 5), "what it grew by is not kept"
    with pytest.raises(LedgerError, match="FOREIGN KEY"):
        ledger.grow("nothing", 0, 3)


def test_a_second_writer_is_told_who_has_it(ledger: Ledger, site: Site) -> None:
    with pytest.raises(LedgerError, match=f"in use by another daemon .process {os.getpid()} on"):
        Ledger(site.ledger)


def test_anybody_may_look_while_a_daemon_writes_and_when_none_runs(site: Site, job: Job) -> None:
    with pytest.raises(LedgerError, match="no daemon has run"):
        open_read_only(site.ledger)
    with Ledger(site.ledger) as ledger:
        ledger.put(job)
        with open_read_only(site.ledger) as view:
            assert view.show(job.key).state == "queued"
            entry = ledger.claim(60.0)
            assert view.show(job.key).state == "running"
    with open_read_only(site.ledger) as view:
        assert view.show(job.key) == entry
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            view._connection.execute("DELETE FROM job")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not write")
def test_somebody_who_may_not_write_can_look(site: Site, job: Job, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    with Ledger(site.ledger) as ledger:
        ledger.put(job)
        assert _look_as_nobody(site.ledger) == "queued"
    assert _look_as_nobody(site.ledger) == "queued"


def _look_as_nobody(ledger: Path) -> str:
    child, parent = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(65534)
            with open_read_only(ledger) as view:
                os.write(parent, view.list()[0].state.encode())
        except BaseException as error:
            os.write(parent, repr(error).encode())
        finally:
            os._exit(0)
    os.close(parent)
    os.waitpid(pid, 0)
    with os.fdopen(child) as answer:
        return answer.read()


def test_a_killed_writer_leaves_a_whole_ledger(site: Site, job: Job) -> None:
    code = (
        "import os, sys; from pathlib import Path; from ptyplugin.jobs import Ledger; from ptyplugin.model import Job\n"
        "ledger = Ledger(Path(sys.argv[1])); ledger.put(Job.from_bytes(sys.stdin.buffer.read())); ledger.claim(60.0); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(site.ledger)], input=job.to_bytes(), timeout=60, check=False)
    with open_read_only(site.ledger) as view:
        assert view.show(job.key).state == "running"
    with Ledger(site.ledger) as ledger:
        assert ledger.show(job.key).state == "running"


def test_a_newer_ledger_is_left_alone(site: Site) -> None:
    Ledger(site.ledger).close()
    connection = sqlite3.connect(site.ledger)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    for opening in (Ledger, open_read_only):
        with pytest.raises(LedgerError, match=f"has format 99, this ptyplugin knows formats up to {SCHEMA_VERSION}"):
            opening(site.ledger)


@pytest.mark.parametrize("kind", ["text", "other database"])
def test_what_is_no_ledger_is_left_alone(site: Site, kind: str) -> None:
    site.home.mkdir()
    if kind == "text":
        site.ledger.write_text("no database at all, but longer than the header of one, so that it is looked at. " * 20)
    else:
        connection = sqlite3.connect(site.ledger)
        connection.execute("CREATE TABLE a (b)")
        connection.close()
    before = site.ledger.read_bytes()
    for opening in (Ledger, open_read_only):
        with pytest.raises(LedgerError, match=r"not a database|no ledger of ptyplugin"):
            opening(site.ledger)
    assert site.ledger.read_bytes() == before


_AFTER_FORMAT_1 = ("device", "needed_bytes", "starts", "checkpoint", "version")


def test_a_ledger_of_format_1_is_read_as_it_is_and_brought_up_to_date(site: Site, job: Job) -> None:
    with Ledger(site.ledger) as ledger:
        ledger.put(job)
        ledger.claim(60.0)
        for column in _AFTER_FORMAT_1:
            ledger._connection.execute(f"ALTER TABLE job DROP COLUMN {column}")
        ledger._connection.execute("ALTER TABLE transition DROP COLUMN version")
        ledger.grow(job.key, 10, 4)
        ledger._connection.execute("ALTER TABLE growth ADD COLUMN positions_m BLOB NOT NULL DEFAULT ''")
        ledger._connection.execute("PRAGMA user_version = 1")
    with open_read_only(site.ledger) as view:
        assert (view.show(job.key).state, view.show(job.key).tries, view.show(job.key).version) == ("running", 1, None)
        assert [step.version for step in view.history(job.key)] == [None, None]
    for _ in range(2):
        with Ledger(site.ledger) as ledger:
            assert (ledger.show(job.key).starts, ledger.show(job.key).device) == (1, "auto")
    with Ledger(site.ledger) as ledger:
        ledger.requeue(ledger.show(job.key), "the daemon ended.")
        again = ledger.claim(60.0)
        assert again is not None
        assert (again.starts, again.tries) == (2, 2)
        assert not ledger.grow(job.key, 10, 4)
        assert ledger.grow(job.key, 14, 2)
        assert [step.version for step in ledger.history(job.key)] == [None, None, VERSION, VERSION]


def test_every_record_has_the_version_that_wrote_it(ledger: Ledger, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptyplugin.jobs.ledger.VERSION", "7.1")
    ledger.put(job)
    assert ledger.show(job.key).version == "7.1"
    monkeypatch.setattr("ptyplugin.jobs.ledger.VERSION", "7.2")
    ledger.claim(60.0)
    assert ledger.show(job.key).version == "7.2"
    assert [step.version for step in ledger.history(job.key)] == ["7.1", "7.2"]


def test_a_start_that_came_to_another_checkpoint_is_no_try(ledger: Ledger, job: Job) -> None:
    ledger.put(job)
    for checkpoint in (10, 20, 30, 40, 40, 40):
        entry = ledger.claim(60.0)
        assert entry is not None
        assert entry.tries == 1 + (checkpoint == entry.checkpoint) * (entry.starts - 5)
        ledger.requeue(entry, "rank 1 was killed.", checkpoint=checkpoint)
    last = ledger.claim(60.0)
    assert last is not None
    ledger.requeue(last, "rank 1 was killed.", checkpoint=0)
    assert (ledger.show(job.key).state, ledger.show(job.key).starts) == ("failed", 7)
    assert "It was started 3 times" in str(ledger.show(job.key).sentence)


def test_jobs_go_where_they_fit(ledger: Ledger, job: Job) -> None:
    small, large, urgent, on_card = (_with(job, 0), _with(job, 1), _with(job, 2, 9), _with(job, 3))
    on_card = on_card.model_copy(update={"resources": Resources(device="gpu")})
    for each, needed in ((on_card, 1), (small, 1), (large, 100), (urgent, 10)):
        ledger.put(each, needed)

    def next_of(**wanted: object) -> str | None:
        entry = ledger.claim(60.0, Fitting(**wanted))  # type: ignore[arg-type]
        if entry is not None:
            ledger.requeue(entry, "only a look.", count_try=False)
        return entry and entry.key

    cpu = ("auto", "cpu")
    assert next_of(up_to_bytes=50, devices=cpu) == urgent.key
    assert next_of(up_to_bytes=5, devices=cpu) == small.key
    assert next_of(above_bytes=50, devices=cpu) == large.key
    assert next_of(devices=cpu, rather_above_bytes=50, others=[urgent.key]) == large.key
    assert next_of(devices=cpu, others=[urgent.key]) == small.key
    assert next_of(devices=["gpu"]) == on_card.key
    assert next_of(above_bytes=100) is None


def test_a_job_that_runs_here_is_not_started_again_whatever_its_lease_says(ledger: Ledger, job: Job) -> None:
    ledger.put(job)
    assert ledger.claim(-1.0) is not None
    assert ledger.claim(60.0, Fitting(others=[job.key])) is None
    assert ledger.claim(60.0) is not None
