"""Folders of jobs that ended long ago go, if the site says so; nothing else ever does."""

from __future__ import annotations

import pytest

from ptyplugin.jobs import Ledger
from ptyplugin.service import Daemon, Inline, retention
from ptyplugin.service.retention import Retention

DAY_S = 86400.0


@pytest.fixture
def old_jobs(site, make_job):
    """Jobs in all states, with their folders; all of them came into it 40 days ago."""
    with Ledger(site.ledger) as ledger:
        jobs = {}
        for number, state in enumerate(("queued", "running", "solved", "published", "failed", "cancelled")):
            key = jobs[state] = make_job(number).key
            ledger.put(make_job(number))
            (site.jobs / key).mkdir(parents=True)
            (site.jobs / key / "frames.npy").write_bytes(b"x" * 100)
            result = site.results / f"{key}.h5"
            ledger._connection.execute("UPDATE job SET state = ?, result = ? WHERE key = ?", (state, str(result), key))
        ledger._connection.execute("UPDATE job SET changed_s = changed_s - 40 * ?, lease_until_s = 1e12", (DAY_S,))
        (site.jobs / "notes-of-somebody").mkdir()
        site.results.mkdir()
        for key in jobs.values():
            (site.results / f"{key}.h5").write_bytes(b"an image")
        yield jobs, ledger


def folders(site) -> set[str]:
    return {folder.name for folder in site.jobs.iterdir()}


def test_only_folders_of_ended_jobs_go(site, old_jobs) -> None:
    jobs, ledger = old_jobs
    Retention(site.model_copy(update={"keep_job_folders_days": 39.0}), ledger).sweep_if_due()
    assert folders(site) == {jobs["queued"], jobs["running"], "notes-of-somebody"}
    assert {path.stem for path in site.results.iterdir()} == set(jobs.values())
    assert len(ledger.list()) == 6, "what became of a job is known for ever"


@pytest.mark.parametrize("days", [None, 41.0])
def test_younger_ones_stay_and_by_default_all(site, old_jobs, days) -> None:
    jobs, ledger = old_jobs
    Retention(site.model_copy(update={"keep_job_folders_days": days}), ledger).sweep_if_due()
    assert folders(site) == {*jobs.values(), "notes-of-somebody"}


def test_results_that_lie_in_a_job_folder_keep_it(site, old_jobs) -> None:
    jobs, ledger = old_jobs
    place = site.jobs / jobs["failed"] / "results"
    site = site.model_copy(update={"keep_job_folders_days": 1.0, "results_dir": place})
    ledger._connection.execute("UPDATE job SET result = ? WHERE key = ?", (str(site.jobs / jobs["solved"] / "a.h5"), jobs["solved"]))
    Retention(site, ledger).sweep_if_due()
    assert {jobs["failed"], jobs["solved"]} < folders(site)
    assert jobs["published"] not in folders(site)


def test_once_an_hour(site, old_jobs, monkeypatch) -> None:
    jobs, ledger = old_jobs
    sweeper = Retention(site.model_copy(update={"keep_job_folders_days": 39.0}), ledger)
    sweeper.sweep_if_due()
    (site.jobs / jobs["failed"]).mkdir()
    sweeper.sweep_if_due()
    assert jobs["failed"] in folders(site)
    monkeypatch.setattr(sweeper, "_next_s", 0.0)
    sweeper.sweep_if_due()
    assert jobs["failed"] not in folders(site)


def test_the_daemon_does_it_and_a_folder_that_cannot_go_does_not_end_it(site, make_job, monkeypatch, caplog) -> None:
    job = make_job()
    with Ledger(site.ledger) as ledger:
        ledger.put(job)
        ledger._connection.execute("UPDATE job SET state = 'failed', changed_s = 0")
    (site.jobs / job.key).mkdir(parents=True)
    with Daemon(site.model_copy(update={"keep_job_folders_days": 1.0}), Inline("stub_solving:solve")) as inline:

        def locked(folder: object) -> None:
            raise PermissionError(13, "Permission denied", str(folder))

        with monkeypatch.context() as stuck:
            stuck.setattr(retention, "remove_tree", locked)
            inline.run_once()
        assert "Permission denied" in caplog.text
        inline.run_once()
    with Daemon(site, Inline("stub_solving:solve")):
        assert folders(site) == set(), "what is left of it goes when the next daemon starts"
