"""The daemon in this process: every accepted job ends in a state that says what became of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from at_work import at_work

from ptyplugin.jobs import Ledger, Order, give, open_read_only, submit
from ptyplugin.model import CatalogError, LedgerError, Progress, PtypluginError, RanksCrashed, Refusal, RunSource, Site
from ptyplugin.service import Daemon, Inline, Launcher, Wish, daemon, publisher, slot
from ptyplugin.service.solving import Task
from ptyplugin.solvers.verbs.cuda.device import DeviceLost

STUB = "stub_solving:solve"


@contextmanager
def running(site: Site, launcher: Launcher, publish: Callable[[Path, str], object] | None = None) -> Iterator[Daemon]:
    """A daemon at work in a thread."""
    with Daemon(site, launcher, publish) as running, at_work(running.run):
        yield running


class Crashing(Launcher):
    """A launcher that gives ``error`` ``times`` times, then solves."""

    def __init__(self, times: int, error: PtypluginError) -> None:
        self._left, self._error = times, error

    def run(self, task: Task, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]) -> Path:
        if self._left:
            self._left -= 1
            raise self._error
        return Inline(STUB).run(task, on_progress, wish)


def test_from_the_inbox_to_the_catalog(site, make_job) -> None:
    job, published, heard = make_job(), [], []
    submit(site, job)
    with Daemon(site, Inline(STUB), lambda result, key: published.append((result, key)), heard.append) as inline:
        inline.run_once()
    assert published == [(site.results / f"{job.key}.h5", job.key)]
    assert published[0][0].exists()
    assert len(heard) == 6
    with open_read_only(site.ledger) as view:
        assert [step.state for step in view.history(job.key)] == ["queued", "running", "solved", "published"]


def test_a_job_submitted_twice_is_solved_once(site, make_job) -> None:
    job = make_job()
    with Daemon(site, Inline(STUB)) as inline:
        for _ in range(2):
            submit(site, job)
            submit(site, job)
            inline.run_once()
    assert (site.jobs / job.key / "starts").read_text().split() == ["start"]


@pytest.mark.parametrize(("asked", "says"), [("raise", "cut off"), ("bug", "ended with ZeroDivisionError: division by zero")])
def test_a_job_that_fails_says_why_and_the_next_one_runs(site, make_job, asked, says, caplog) -> None:
    bad, good = make_job(1, **{asked: 0}), make_job(2)
    submit(site, bad)
    submit(site, good)
    with Daemon(site, Inline(STUB)) as inline:
        inline.run_once()
    with open_read_only(site.ledger) as view:
        assert [view.show(job.key).state for job in (bad, good)] == ["failed", "solved"]
        sentence = view.show(bad.key).sentence
    assert sentence is not None
    assert says in sentence
    assert "\n" not in sentence
    assert ("Traceback" in (site.jobs / bad.key / "log.txt").read_text()) == (asked == "bug")
    assert "Traceback" not in caplog.text


def test_a_refusal_is_kept_as_failed(site) -> None:
    submit(site, Refusal(beamline="sim", source=RunSource(run_uid="u", key="d"), reason="no frames arrived."))
    with Daemon(site, Inline(STUB)) as inline:
        inline.run_once()
    with open_read_only(site.ledger) as view:
        (entry,) = view.list(run_uid="u", purpose="final")
    assert (entry.state, entry.sentence) == ("failed", "no frames arrived.")


def test_a_job_folder_that_somebody_removed_is_a_failure(site, make_job) -> None:
    job = make_job()
    with Ledger(site.ledger) as ledger:
        ledger.put(job)
    with Daemon(site, Inline(STUB)) as inline:
        inline.run_once()
    with open_read_only(site.ledger) as view:
        assert "job.json cannot be read (No such file or directory)" in str(view.show(job.key).sentence)


@pytest.mark.parametrize(
    "error", [RanksCrashed("rank 1 of 2 was killed."), CatalogError("the catalog has no such run."), DeviceLost("GPU 0 failed.")]
)
@pytest.mark.parametrize(("crashes", "state", "tries"), [(2, "solved", 3), (3, "failed", 3)])
def test_crashes_and_an_absent_raw_run_are_tried_again_up_to_three_times(
    site, make_job, until, monkeypatch, crashes, state, tries, error
) -> None:
    monkeypatch.setattr(slot, "RETRY_S", 0.01)
    monkeypatch.setattr(slot, "CATALOG_RETRY_S", 0.01)
    job = make_job()
    submit(site, job)
    with running(site, Crashing(crashes, error)), open_read_only(site.ledger) as view:
        until(lambda: view.list(state=state))
        assert view.show(job.key).tries == tries
        steps = view.history(job.key)
    assert len([step for step in steps if step.state == "running"]) == tries
    assert all(str(error) in str(step.sentence) for step in steps if step.state == "queued" and step.sentence)
    flagged = "Fresh processes take over." in str(steps[2].sentence)
    assert flagged == (not isinstance(error, CatalogError)), "it stands in the history that other processes did it"


def test_jobs_that_arrive_are_seen_by_themselves(site, make_job, until) -> None:
    with running(site, Inline(STUB)), open_read_only(site.ledger) as view:
        for seed in range(3):
            key = submit(site, make_job(seed))
            until(lambda key=key: [entry.key for entry in view.list(state="solved")][-1:] == [key])


def test_a_job_can_be_cancelled_while_it_waits_and_while_it_runs(site, make_job, until) -> None:
    runs, waits = make_job(1, slow=0.05), make_job(2)
    submit(site, runs)
    submit(site, waits)
    started = threading.Event()
    with (
        Daemon(site, Inline(STUB), on_progress=lambda _: started.wait(10)) as inline,
        at_work(inline.run),
        open_read_only(site.ledger) as view,
    ):
        until(lambda: len(view.list()) == 2 and view.list(state="running"))
        for job in (waits, runs):
            give(site, Order(order="cancel", job=job.key))
        until(lambda: view.list(state="cancelled"))
        assert not view.list(state="queued")
        started.set()
        until(lambda: len(view.list(state="cancelled")) == 2)


def test_a_stop_puts_the_job_back_and_counts_no_try(site, make_job, until) -> None:
    job = make_job(slow=0.1)
    submit(site, job)
    with running(site, Inline(STUB)), open_read_only(site.ledger) as view:
        until(lambda: view.list(state="running"))
    with open_read_only(site.ledger) as view:
        assert (view.show(job.key).state, view.show(job.key).tries) == ("queued", 0)


def test_the_catalog_is_away_and_comes_back(site, make_job, until, monkeypatch) -> None:
    monkeypatch.setattr(publisher, "FIRST_WAIT_S", 0.05)
    back, published = threading.Event(), []

    def publish(result: Path, key: str) -> None:
        if not back.is_set():
            raise CatalogError("the catalog does not answer.")
        published.append(key)

    jobs = [make_job(seed) for seed in range(3)]
    with running(site, Inline(STUB), publish), open_read_only(site.ledger) as view:
        for job in jobs:
            submit(site, job)
        until(lambda: len(view.list(state="solved")) == 3)
        until(lambda: all(entry.sentence == "the catalog does not answer." for entry in view.list()))
        back.set()
        until(lambda: len(view.list(state="published")) == 3)
    assert sorted(published) == sorted(job.key for job in jobs)


def test_a_catalog_that_hangs_delays_no_job(site, make_job, until) -> None:
    """Neither where results are published nor where images of jobs that run are shown."""
    hangs, asked = threading.Event(), []

    def publish(result: Path, key: str) -> None:
        asked.append(key)
        assert hangs.wait(60)

    try:
        with Daemon(site, Inline(STUB), publish) as inline, open_read_only(site.ledger) as view:
            inline.add_snapshot_listener(lambda *_: hangs.wait(60) and None)
            thread = threading.Thread(target=inline.run)
            thread.start()
            submit(site, make_job(0))
            until(lambda: asked)
            for seed in range(1, 5):
                submit(site, make_job(seed))
            until(lambda: view.counts() == {"solved": 5})
            assert len(asked) == 1
            hangs.set()
            until(lambda: view.counts() == {"published": 5})
            inline.stop()
            thread.join(20)
    finally:
        hangs.set()


def test_a_catalog_that_is_not_there_is_named_in_the_ledger(site, make_job) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    job, site = make_job(), site.model_copy(update={"tiled_uri": uri})
    submit(site, job)
    with Daemon(site, Inline(STUB)) as inline:
        inline.run_once()
    with open_read_only(site.ledger) as view:
        entry = view.show(job.key)
    assert entry.state == "solved"
    assert f"the catalog at {uri} does not answer" in str(entry.sentence)


def test_one_result_that_cannot_be_published_does_not_hold_up_the_others(site, make_job) -> None:
    odd, good = make_job(1), make_job(2)

    def publish(result: Path, key: str) -> None:
        if key == odd.key:
            raise KeyError("something nobody thought of")

    for job in (odd, good):
        submit(site, job)
    with Daemon(site, Inline(STUB), publish) as inline:
        inline.run_once()
    with open_read_only(site.ledger) as view:
        assert "ended with KeyError" in str(view.show(odd.key).sentence)
        assert [view.show(job.key).state for job in (odd, good)] == ["solved", "published"]


def test_a_result_that_somebody_removed_is_not_said_to_wait(site, make_job, caplog) -> None:
    job = make_job()

    def publish(result: Path, key: str) -> None:
        result.unlink()
        raise CatalogError("the result file cannot be opened.")

    submit(site, job)
    with Daemon(site, Inline(STUB), publish) as inline:
        inline.run_once()
    with open_read_only(site.ledger) as view:
        assert f"{job.key}.h5 is gone: put it back, or submit the job again" in str(view.show(job.key).sentence)
    assert "waits" not in caplog.text


def test_without_a_catalog_results_stay_files(site, make_job, until, caplog) -> None:
    submit(site, make_job())
    with running(site, Inline(STUB)), open_read_only(site.ledger) as view:
        until(lambda: view.list(state="solved"))
    assert caplog.text.count("no catalog is named") == 1


def test_a_second_daemon_is_told(site) -> None:
    with Daemon(site, Inline(STUB)), pytest.raises(LedgerError, match="in use by another daemon"):
        Daemon(site, Inline(STUB))


def test_a_result_that_was_written_before_a_kill_is_not_made_again(site, make_job) -> None:
    job = make_job()
    with Ledger(site.ledger) as ledger:
        ledger.put(job)
        ledger.claim(60.0)
    site.results.mkdir(parents=True)
    (site.results / f"{job.key}.h5").write_bytes(b"whole, for it has its name")
    with Daemon(site, Inline(STUB)), open_read_only(site.ledger) as view:
        assert view.show(job.key).state == "solved"


def test_trouble_with_the_disk_is_said_and_the_item_stays(site, make_job, until, monkeypatch, caplog) -> None:
    monkeypatch.setattr(daemon, "TROUBLE_S", 0.05)
    full = threading.Event()
    full.set()
    write = daemon.Intake._copy

    def copy(*arguments: object) -> None:
        if full.is_set():
            raise OSError(28, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(daemon.Intake, "_copy", copy)
    submit(site, make_job())
    with running(site, Inline(STUB)), open_read_only(site.ledger) as view:
        until(lambda: "No space left on device" in caplog.text)
        assert not view.list()
        full.clear()
        until(lambda: view.list(state="solved"))
    assert caplog.text.count("No space left on device") == 1


def test_a_bug_in_a_thread_ends_the_daemon_instead_of_half_of_it(site, monkeypatch) -> None:
    def broken(self: object) -> bool:
        raise RuntimeError("a bug")

    monkeypatch.setattr(slot.Slot, "solve_next", broken)
    with Daemon(site, Inline(STUB)) as inline, pytest.raises(RuntimeError, match="a bug"):
        inline.run()
