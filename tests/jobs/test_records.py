"""Jobs as JSON, what is heard of transitions, and that no secret stands anywhere."""

from __future__ import annotations

import json
import logging
import sqlite3

import pytest

from ptyplugin.jobs import Entry, Ledger, LedgerView
from ptyplugin.jobs.records import entry_of, record_of, steps_of, transitions_of
from ptyplugin.model import LedgerError

SECRET = "8a7f-very-secret"


def test_a_record_is_json_and_tells_the_whole_job(site, job) -> None:
    with Ledger(site.ledger) as ledger:
        ledger.put(job)
        entry = ledger.claim(60.0)
        assert entry is not None
        ledger.solved(entry, site.results / "a.h5")
        solved, history = ledger.show(job.key), ledger.history(job.key)
    record = json.loads(json.dumps(record_of(solved)))
    assert entry_of(record) == solved
    assert (record["scan_id"], record["result"]) == (7, str(site.results / "a.h5"))
    assert transitions_of(json.loads(json.dumps(steps_of(history)))) == history
    assert [step["state"] for step in steps_of(history)] == ["queued", "running", "solved"]


def test_each_transition_is_heard_and_logged_once_it_is_on_the_disk(site, job, caplog) -> None:
    heard: list[Entry] = []
    with Ledger(site.ledger) as ledger, caplog.at_level(logging.INFO):
        ledger.listen(heard.append)
        ledger.put(job)
        ledger.put(job)
        entry = ledger.claim(60.0)
        assert entry is not None
        ledger.failed(entry, "the frames are gone.")
        with pytest.raises(LedgerError):
            ledger.published(entry)
    assert [one.state for one in heard] == ["queued", "running", "failed"]
    lines = [record for record in caplog.records if record.name == "ptyplugin.jobs.ledger"]
    assert [line.fields["state"] for line in lines] == ["queued", "running", "failed"]
    assert lines[-1].getMessage() == f"job {job.key} (scan 7, run run-1) is failed: the frames are gone."
    assert (lines[-1].levelname, lines[-1].fields["job"], lines[-1].fields["run_uid"]) == ("WARNING", job.key, "run-1")


def test_nobody_hears_of_what_was_not_written(site, job, monkeypatch) -> None:
    heard: list[Entry] = []

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with Ledger(site.ledger) as ledger:
        ledger.listen(heard.append)
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "_remember", full)
            with pytest.raises(LedgerError, match="full"):
                ledger.put(job)
        ledger.put(job)
    assert len(heard) == 1


def test_a_ledger_that_can_be_written_says_so(site) -> None:
    with Ledger(site.ledger) as ledger:
        ledger.check()
        ledger._connection.execute("PRAGMA query_only = on")
        with pytest.raises(LedgerError, match="cannot be written"):
            ledger.check()


def test_no_secret_comes_into_the_ledger(site, job, monkeypatch, caplog) -> None:
    monkeypatch.setenv("TILED_API_KEY", SECRET)
    with Ledger(site.ledger) as ledger, caplog.at_level(logging.INFO):
        ledger.put(job)
        entry = ledger.claim(60.0)
        assert entry is not None
        ledger.requeue(entry, f"http://127.0.0.1:8000/?key={SECRET} does not answer.")
        shown: LedgerView = ledger
        assert shown.show(job.key).sentence == "http://127.0.0.1:8000/?key=*** does not answer."
    assert SECRET not in caplog.text
    assert all(SECRET.encode() not in path.read_bytes() for path in site.home.glob("ledger*") if path.is_file())
