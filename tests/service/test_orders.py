"""Orders: carried out once, in their place among the jobs, whether a daemon runs when they are given or not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from at_work import at_work

from ptyplugin.jobs import Inbox, Intake, Ledger, Order, give, open_read_only, read_progress, submit
from ptyplugin.model import (
    CatalogAway,
    DeviceBusy,
    DiskError,
    JobError,
    LedgerError,
    Progress,
    PtypluginError,
    RanksAway,
    Refusal,
    RunSource,
    Site,
)
from ptyplugin.service import Daemon, Inline, Launcher, Wish, slot
from ptyplugin.service.slots import places_of
from ptyplugin.service.solving import Task

STUB = "stub_solving:solve"


def cancel(site: Site, key: str) -> Path:
    return give(site, Order(order="cancel", job=key))


def retry(site: Site, key: str) -> Path:
    return give(site, Order(order="retry", job=key))


def steps(site: Site, key: str) -> list[str]:
    with open_read_only(site.ledger) as view:
        return [step.state for step in view.history(key)]


def once(site: Site, launcher: object | None = None) -> None:
    with Daemon(site, launcher or Inline(STUB)) as inline:
        inline.run_once()


@contextmanager
def running(site: Site, launcher: object, on_progress: Callable[[Progress], None] | None = None) -> Iterator[None]:
    with Daemon(site, launcher, on_progress=on_progress) as daemon, at_work(daemon.run):
        yield


class Failing(Launcher):
    """A launcher that gives these errors, one at each start, then solves."""

    def __init__(self, *errors: PtypluginError) -> None:
        self._errors = list(errors)

    def run(self, task: Task, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]) -> Path:
        if self._errors:
            raise self._errors.pop(0)
        return Inline(STUB).run(task, on_progress, wish)


def test_a_job_cancelled_before_any_daemon_ran_is_never_started(site, make_job) -> None:
    kept, unwanted = make_job(1), make_job(2)
    for job in (kept, unwanted):
        submit(site, job)
    cancel(site, unwanted.key)
    once(site)
    assert steps(site, unwanted.key) == ["queued", "cancelled"]
    assert steps(site, kept.key)[-1] == "solved"
    assert not Inbox(site.inbox).waiting()


def test_a_retry_begins_from_nought_and_stands_in_the_history(site, make_job) -> None:
    job = make_job()
    submit(site, job)
    once(site, Failing(JobError("it cannot be.")))
    retry(site, job.key)
    once(site)
    assert steps(site, job.key) == ["queued", "running", "failed", "queued", "running", "solved"]
    with open_read_only(site.ledger) as view:
        assert view.show(job.key).tries == 1
        assert "somebody asked for it again (it was failed)." in [step.sentence for step in view.history(job.key)]


def test_a_cancelled_job_can_be_had_back(site, make_job) -> None:
    job = make_job()
    submit(site, job)
    cancel(site, job.key)
    retry(site, job.key)
    once(site)
    assert steps(site, job.key) == ["queued", "cancelled", "queued", "running", "solved"]


@pytest.mark.parametrize("order", ["cancel", "retry"])
def test_an_order_that_makes_no_sense_changes_nothing_and_is_said(site, make_job, order, caplog) -> None:
    job = make_job()
    submit(site, job)
    once(site)
    give(site, Order(order=order, job=job.key))
    give(site, Order(order=order, job="0" * 16))
    once(site)
    assert steps(site, job.key) == ["queued", "running", "solved"]
    assert f"job {job.key} is solved: only one that is" in caplog.text
    assert "there is no job 0000000000000000" in caplog.text
    assert not Inbox(site.inbox).waiting()


def test_a_refusal_makes_way_for_another_look_at_its_run_and_nothing_of_it_is_solved(site, caplog) -> None:
    refusal = Refusal(beamline="sim", source=RunSource(run_uid="u", key="d"), reason="no frames arrived.")
    key = submit(site, refusal)
    give(site, Order(order="cancel", job=key))
    once(site)
    assert steps(site, key) == ["failed"]
    assert "is a run that was refused: there is no job to cancel" in caplog.text
    retry(site, key)
    once(site)
    assert steps(site, key) == ["failed", "cancelled"]
    submit(site, refusal)
    once(site)
    assert steps(site, key) == ["failed", "cancelled", "failed"]


def test_an_order_that_comes_again_after_a_kill_is_not_carried_out_again(site, make_job, monkeypatch) -> None:
    """The daemon is killed between the ledger and the removal of the item; the job has failed anew before the item is seen again."""
    job = make_job()
    submit(site, job)
    once(site, Failing(JobError("it cannot be.")))
    retry(site, job.key)
    with monkeypatch.context() as killed:
        killed.setattr(Inbox, "remove", lambda *_: None)
        once(site, Failing(JobError("it still cannot be.")))
    assert Inbox(site.inbox).waiting()
    once(site)
    assert steps(site, job.key) == ["queued", "running", "failed", "queued", "running", "failed"]
    assert not Inbox(site.inbox).waiting()


def test_a_running_job_stops_at_its_next_iteration_and_the_order_waits_for_that(site, make_job, until, monkeypatch) -> None:
    job, began, told = make_job(), threading.Event(), threading.Event()
    heard: list[int] = []
    stop = slot.Slot.stop

    def stop_and_tell(self: slot.Slot, *order: str) -> None:
        stop(self, *order)
        told.set()

    def hear(progress: Progress) -> None:
        heard.append(progress.iteration)
        began.set()
        assert told.wait(20)

    monkeypatch.setattr(slot.Slot, "stop", stop_and_tell)
    submit(site, job)
    with running(site, Inline(STUB), hear):
        assert began.wait(20)
        item = cancel(site, job.key)
        until(lambda: steps(site, job.key)[-1] == "cancelled")
        until(lambda: not item.exists())
    assert heard == [1]


def test_a_cancel_that_a_killed_daemon_did_not_finish_is_done_by_the_next(site, make_job) -> None:
    job = make_job()
    submit(site, job)
    with Ledger(site.ledger) as ledger:
        intake = Intake(Inbox(site.inbox), ledger, site.jobs)
        (item,) = Inbox(site.inbox).waiting()
        intake.take_in(item)
        ledger.claim(60.0)
        item = cancel(site, job.key)
        intake.take_in(item)
        assert item.exists(), "the job runs: who would stop it after a kill?"
    once(site)
    assert steps(site, job.key) == ["queued", "running", "queued", "cancelled"]


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b'{"order": "format", "job": "0123456789abcdef"}', b'{"order": "retry", "job": "../x"}', b"[" * 5000]
)
def test_what_is_no_order_is_set_aside_with_its_reason(site, make_job, content) -> None:
    job = make_job()
    item = Inbox(site.inbox).hand_over(job.key, {"order.json": content})
    once(site)
    (reason,) = (site.inbox / "bad").glob("*.txt")
    assert item.name in reason.name
    assert reason.read_text().strip()
    with open_read_only(site.ledger) as view:
        assert not view.list(), "an order for a job is no job"


def test_a_ledger_from_before_there_were_orders_learns_them(site, make_job) -> None:
    job = make_job()
    with Ledger(site.ledger) as ledger:
        ledger.put(job)
        ledger._connection.execute("DROP TABLE obeyed")
    with Ledger(site.ledger) as ledger:
        assert ledger.obey(Order(order="cancel", job=job.key), "item")
        assert ledger.show(job.key).state == "cancelled"


def test_what_a_person_calls_a_job(site, make_job) -> None:
    one = make_job(1)
    other = make_job(2).model_copy(update={"source": RunSource(run_uid="run-2", key="detector", scan_id=8)})
    with Ledger(site.ledger) as ledger:
        for job in (one, other):
            ledger.put(job)
        for text in (one.key, one.key[:6], "7", "run-1"):
            assert ledger.find(text).key == one.key, text
        for text in ("", "9", "nothing", "%", "9" * 40):
            with pytest.raises(JobError, match="there is no job"):
                ledger.find(text)
        with pytest.raises(JobError, match=rf"may mean 2 jobs, {one.key} \(final, queued\), {other.key} \(final, queued\): give the key"):
            ledger.find("run")
        live = one.model_copy(update={"purpose": "live", "source": one.source.model_copy(update={"run_uid": "run-3", "scan_id": 9})})
        ledger.put(live)
        assert ledger.find("9").key == live.key
        final = live.model_copy(update={"purpose": "final"})
        ledger.put(final)
        for text, meant in (("9", final), ("run-3", final), (live.key, live), (live.key[:8], live)):
            assert ledger.find(text).key == meant.key, text
        again = final.model_copy(update={"recipe": "DM(7)"})
        ledger.put(again)
        for text, meant in (("9", again), ("run-3", again), (final.key, final)):
            assert ledger.find(text).key == meant.key, text
        ledger.put(again.model_copy(update={"source": again.source.model_copy(update={"key": "another detector"})}))
        with pytest.raises(JobError, match="may mean 4 jobs"):
            ledger.find("9")


def test_a_scan_id_that_is_not_there_is_no_beginning_of_a_uid(site, make_job) -> None:
    job = make_job(1).model_copy(update={"source": RunSource(run_uid="77012345-68f6", key="detector", scan_id=8)})
    with Ledger(site.ledger) as ledger:
        ledger.put(job)
        with pytest.raises(JobError, match="there is no job 77 "):
            ledger.find("77")
        for text in ("8", "77012345", "77012345-"):
            assert ledger.find(text).key == job.key, text


@pytest.mark.parametrize(
    "trouble",
    [
        DiskError("the disk of /results is full."),
        CatalogAway("the catalog does not answer."),
        DeviceBusy("GPU 0 is in use by process 7."),
        RanksAway("there is no mpiexec."),
    ],
)
def test_a_trouble_of_the_installation_is_no_try_however_long_it_lasts(site, make_job, until, monkeypatch, trouble) -> None:
    monkeypatch.setattr(slot, "TROUBLE_RETRY_S", 0.001)
    job = make_job()
    submit(site, job)
    with running(site, Failing(*[trouble] * 7)):
        until(lambda: steps(site, job.key)[-1:] == ["solved"])
    with open_read_only(site.ledger) as view:
        assert view.show(job.key).tries == 1
        said = [str(step.sentence) for step in view.history(job.key) if step.sentence]
    assert [f"{trouble} The job waits for this to be mended and is tried again in {0.001 * 2**n:g} s." for n in range(7)] == said


def test_the_waits_grow_up_to_the_longest(site, make_job, monkeypatch) -> None:
    monkeypatch.setattr(slot, "LONGEST_RETRY_S", 12.0)
    job = make_job()
    with Ledger(site.ledger) as ledger:
        ledger.put(job)
        (site.jobs / job.key).mkdir(parents=True)
        (site.jobs / job.key / "job.json").write_bytes(job.to_bytes())
        waiting = slot.Slot(places_of(site)[0], ledger, Failing(*[DiskError("full.")] * 4), lambda: False, None)
        waits = []
        for _ in range(4):
            assert waiting.solve_next()
            entry = ledger.show(job.key)
            waits.append(round(entry.not_before_s - entry.changed_s))
            ledger._connection.execute("UPDATE job SET not_before_s = 0")
    assert waits == [5, 10, 12, 12]


def test_a_trouble_may_last_for_weeks(site, make_job, monkeypatch) -> None:
    job, waits = make_job(), []
    with Ledger(site.ledger) as ledger:
        ledger.put(job)
        entry = ledger.show(job.key)
        monkeypatch.setattr(ledger, "requeue", lambda *_, wait_s, **__: waits.append(wait_s))
        waiting = slot.Slot(places_of(site)[0], ledger, Failing(), lambda: False, None)
        for _ in range(1100):
            waiting._wait(entry, "full.")
    assert waits[:3] == [5, 10, 20]
    assert waits[-1] == slot.LONGEST_RETRY_S


def test_a_full_disk_under_the_results_is_seen_as_such(site, make_job, monkeypatch) -> None:
    monkeypatch.setattr(slot, "TROUBLE_RETRY_S", 3600.0)
    job = make_job()
    submit(site, job)
    site.results.write_text("a file where the folder should be")
    once(site)
    with open_read_only(site.ledger) as view:
        entry = view.show(job.key)
    assert (entry.state, entry.tries) == ("queued", 0)
    assert "the result cannot be written to" in str(entry.sentence)
    assert "is tried again in" in str(entry.sentence)


def test_how_far_a_job_is_can_be_seen_while_it_runs_only(site, make_job, monkeypatch) -> None:
    monkeypatch.setattr("ptyplugin.jobs.progress.PERIOD_S", 0.0)
    job, seen = make_job(slow=0.01), []
    submit(site, job)
    with Daemon(site, Inline(STUB), on_progress=lambda _: seen.append(read_progress(site.jobs / job.key))) as inline:
        inline.run_once()
    assert [(one.stage, one.iteration, one.iterations) for one in seen] == [("STUB", number, 6) for number in range(1, 7)]
    assert [round(one.left_s, 3) for one in seen] == [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    assert seen[2].errors == {"error": 1 / 3}
    assert read_progress(site.jobs / job.key) is None


def test_progress_that_cannot_be_kept_does_not_disturb_the_job(site, make_job) -> None:
    job = make_job()
    submit(site, job)
    with Daemon(site, Inline(STUB)) as inline:
        inline._take_in()
        (site.jobs / job.key / "progress.json").mkdir()
        (site.jobs / job.key / "progress.new").mkdir()
        inline.run_once()
    assert steps(site, job.key)[-1] == "solved"


def test_a_torn_progress_file_is_no_progress(tmp_path) -> None:
    (tmp_path / "progress.json").write_text(json.dumps({"stage": "DM"})[:9])
    assert read_progress(tmp_path) is None


def test_an_overtaken_order_leaves_the_job_alone(site, make_job) -> None:
    """Between looking and cancelling the job was started: the order is tried again, it does not cancel behind the solver's back."""
    job = make_job()
    with Ledger(site.ledger) as ledger:
        ledger.put(job)
        before = ledger.show(job.key)
        ledger.claim(60.0)
        with pytest.raises(LedgerError, match="cannot become cancelled: it is running"):
            ledger.cancelled(before, "too late.")
        assert ledger.show(job.key).state == "running"
