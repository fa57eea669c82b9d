"""From ended runs to jobs in the inbox: whatever is away for a while, each run ends as one job."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from at_work import at_work

from benchmarks.scan_burst import scan_documents
from ptyplugin.callbacks import Assembling
from ptyplugin.jobs import Inbox, Intake, Ledger, Order, submit
from ptyplugin.jobs.contents import parse
from ptyplugin.model import CatalogAway, CatalogError, Job, JobParts, ProfileError, Refusal, RunSource, Site, SiteError
from ptyplugin.profiles import load_profile
from ptyplugin.service.sources import Sources, SourceState, desk
from ptyplugin.service.sources.catalog import Catalog
from ptyplugin.service.sources.collecting import Collecting
from ptyplugin.service.sources.desk import Desk
from ptyplugin.service.sources.finished import NO_END, Finished

PROFILE = load_profile("sim")
UID = "run-1"


class FakeCatalog:
    """Runs by uid, and how often it was asked; ``trouble`` is raised instead of an answer."""

    def __init__(self) -> None:
        self.runs: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self.results: set[str] = set()
        self.trouble: Exception | None = None
        self.asked = 0

    def documents(self, _: Catalog, uid: str, profiles: Any) -> list[tuple[str, dict[str, Any]]]:
        self.asked += 1
        if self.trouble:
            raise self.trouble
        if uid not in self.runs:
            raise CatalogError(f"the catalog has no run {uid}.")
        return self.runs[uid]

    def with_results(self, _: Catalog, profiles: Any, uids: Any) -> set[str]:
        if self.trouble:
            raise self.trouble
        return set(uids) & self.results


class Work:
    """A desk at work, documents for it, and the inbox."""

    def __init__(self, site: Site, ledger: Ledger) -> None:
        self.site, self.ledger, self.state = site, ledger, SourceState("test")
        self.finished = Finished(site)
        self.desk = Desk(site, self.finished)
        self.collecting = Collecting([PROFILE], self.state)

    def send(self, documents: list[tuple[str, dict[str, Any]]]) -> None:
        for document in documents:
            for ended in self.collecting.take(*document):
                self.desk.bring(ended, [PROFILE], self.state)

    def jobs(self) -> list[Job | Refusal]:
        return [parse((item / "job.json").read_bytes()) for item in Inbox(self.site.inbox).waiting()]


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch) -> FakeCatalog:
    fake = FakeCatalog()
    monkeypatch.setattr(Catalog, "documents", lambda self, uid, profiles, unended=False: fake.documents(self, uid, profiles))
    monkeypatch.setattr(Catalog, "with_results", lambda self, profiles, uids: fake.with_results(self, profiles, uids))
    return fake


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Work]:
    monkeypatch.setattr(desk, "FIRST_PAUSE_S", 0.02)
    uri = "http://127.0.0.1:9" if "catalog" in request.fixturenames else None
    site = Site(home=tmp_path / "home", tiled_uri=uri)
    with Ledger(site.ledger) as ledger:
        working = Work(site, ledger)
        with at_work(working.desk.run, working.desk.wake):
            yield working


@pytest.fixture
def documents(tmp_path: Path) -> list[tuple[str, dict[str, Any]]]:
    return scan_documents(UID, 7, tmp_path / "frames.h5", time.time())


def without(documents: list[tuple[str, dict[str, Any]]], *lost: str) -> list[tuple[str, dict[str, Any]]]:
    """The documents, but the third of these kinds, or the only one."""
    kept = list(documents)
    for kind in lost:
        places = [place for place, (name, _) in enumerate(kept) if name == kind]
        del kept[places[min(2, len(places) - 1)]]
    return kept


def test_a_whole_run_needs_no_catalog(work: Work, catalog: FakeCatalog, documents, until) -> None:
    work.send(documents)
    until(lambda: work.jobs())
    assert [(job.source.run_uid, job.frame_count) for job in work.jobs()] == [(UID, 16)]
    assert catalog.asked == 0


@pytest.mark.parametrize("lost", ["start", "descriptor", "stream_resource", "stream_datum", "event"])
def test_what_was_lost_comes_from_the_catalog(work: Work, catalog: FakeCatalog, documents, until, lost: str) -> None:
    catalog.runs[UID] = documents
    work.send(without(documents, lost))
    until(lambda: work.jobs())
    assert [(job.source.run_uid, job.frame_count) for job in work.jobs()] == [(UID, 16)]
    until(lambda: work.state.counts["healed"] == 1)


def test_documents_in_the_wrong_order_come_from_the_catalog(work: Work, catalog: FakeCatalog, documents, until) -> None:
    catalog.runs[UID] = documents
    work.send(documents[::-1])
    until(lambda: work.jobs())
    assert [job.frame_count for job in work.jobs()] == [16]


def test_a_catalog_that_is_away_or_behind_is_waited_for(work: Work, catalog: FakeCatalog, documents, until) -> None:
    catalog.trouble = CatalogAway("the catalog does not answer.")
    work.send(without(documents, "event"))
    until(lambda: catalog.asked > 1)
    assert work.state.last_error == "the catalog does not answer."
    catalog.trouble = None
    until(lambda: catalog.asked > 4)
    assert work.jobs() == []
    catalog.runs[UID] = documents
    until(lambda: work.jobs())
    assert [job.frame_count for job in work.jobs()] == [16]


def test_when_the_catalog_never_has_it_what_came_is_used(work: Work, catalog: FakeCatalog, documents, until, monkeypatch) -> None:
    monkeypatch.setattr(desk, "PATIENCE_S", 0.1)
    forgiving = PROFILE.model_copy(update={"positions": PROFILE.positions.model_copy(update={"largest_mismatch": 0.5})})
    work.collecting = Collecting([forgiving], work.state)
    work.send(without(documents, "event"))
    until(lambda: work.jobs())
    (job,) = work.jobs()
    assert isinstance(job, Job)
    assert (job.frame_count, job.notes[0]) == (15, "Left out, points that the run counted, but whose documents did not come: 1 of 16.")
    assert "no catalog has more" in str(work.state.last_error)


def test_without_a_catalog_what_came_is_used_or_refused(work: Work, documents, until) -> None:
    work.send(without(documents, "descriptor"))
    until(lambda: work.state.counts["runs"] == 1 and not work.desk.waiting())
    assert work.jobs() == []
    assert "no catalog has more of it" in str(work.state.last_error)
    other = scan_documents("run-2", 8, Path("/data/frames.h5"), time.time())
    work.send([document for document in other if document[0] != "stream_datum"])
    until(lambda: work.jobs())
    assert [(type(each), each.source.run_uid) for each in work.jobs()] == [(Refusal, "run-2")]


def test_a_run_that_the_catalog_refuses_to_give_is_kept_with_the_reason(work: Work, catalog: FakeCatalog, documents, until) -> None:
    catalog.runs[UID] = [document for document in documents if document[0] != "stream_datum"]
    work.send(without(documents, "event"))
    until(lambda: work.jobs())
    (refusal,) = work.jobs()
    assert isinstance(refusal, Refusal)
    until(lambda: work.state.counts["refusals"] == 1)


def test_a_run_that_is_incomplete_in_the_catalog_too_is_used_soon(work: Work, catalog: FakeCatalog, until, monkeypatch) -> None:
    documents = scan_documents("run-3", 9, Path("/data/frames.h5"), time.time())
    stop = {**documents[-1][1], "num_events": {"primary": 16, "interruptions": 2}}
    catalog.runs["run-3"] = [*documents[:-1], ("stop", stop)]
    work.send(catalog.runs["run-3"])
    until(lambda: catalog.asked > 2)
    assert work.jobs() == []
    monkeypatch.setattr(desk, "SETTLING_S", 0.05)
    until(lambda: work.jobs())
    assert [job.frame_count for job in work.jobs()] == [16]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_run_that_goes_on_after_it_was_given_up_gets_the_job_of_the_whole(
    work: Work, catalog: FakeCatalog, documents, until, restarted: bool
) -> None:
    stop = {"uid": "s", "run_start": UID, "time": 1.0, "exit_status": "abort", "reason": NO_END, "num_events": {}}
    begun = [document for document in documents[:-1] if document[0] != "event" or document[1]["seq_num"] <= 9]
    catalog.runs[UID] = [each for each in begun if each[0] != "stream_datum" or each[1]["seq_nums"]["stop"] <= 10] + [("stop", stop)]
    work.desk.ring(UID, [PROFILE], work.state, unended=True)
    until(lambda: work.jobs())
    until(lambda: not work.desk.waiting())
    assert [(job.attempt, job.frame_count) for job in work.jobs()] == [(desk.UNENDED_ATTEMPT, 9)]
    work.desk.ring(UID, [PROFILE], work.state, unended=True)
    assert work.desk.waiting() == 0
    catalog.results.add(UID)
    again = work
    if restarted:
        Intake(Inbox(work.site.inbox), work.ledger, work.site.jobs).take_in(Inbox(work.site.inbox).waiting()[0])
        again = Work(work.site, work.ledger)  # it remembers nothing
    assert (again.finished.has(UID), again.finished.has(UID, unended=True), again.finished.was_given_up(UID)) == (False, True, True)
    catalog.runs[UID] = documents
    again.desk.ring(UID, [PROFILE], work.state)
    if restarted:
        case = again.desk._next()
        assert case is not None
        again.desk._try(case)
    until(lambda: (0, 16) in [(job.attempt, job.frame_count) for job in work.jobs()])
    until(lambda: again.finished.has(UID))


def test_a_run_that_is_known_is_not_done_again(work: Work, catalog: FakeCatalog, documents, until) -> None:
    other = scan_documents("run-2", 8, Path("/data/frames.h5"), time.time() - 1e6)
    catalog.results.add("run-2")
    work.send(documents)
    until(lambda: work.jobs())
    Intake(Inbox(work.site.inbox), work.ledger, work.site.jobs).take_in(Inbox(work.site.inbox).waiting()[0])
    again = Work(work.site, work.ledger)  # it remembers nothing
    work.desk.ring(UID, [PROFILE], work.state)
    again.send(documents)
    again.send(other)
    for _ in range(2):
        case = again.desk._next()
        assert case is not None
        again.desk._try(case)
    until(lambda: not work.desk.waiting())
    assert (again.state.counts["known"], work.state.counts["runs"], work.jobs()) == (2, 1, [])


def test_while_the_inbox_cannot_be_written_jobs_are_kept(work: Work, catalog: FakeCatalog, documents, until) -> None:
    work.site.inbox.write_text("a file in its place")
    work.send(documents)
    until(lambda: work.state.last_error)
    assert "cannot be used" in str(work.state.last_error)
    work.site.inbox.unlink()
    until(lambda: work.state.counts["jobs"] == 1)
    assert len(work.jobs()) == 1


def test_a_mistake_of_ours_is_said_and_the_next_run_is_done(
    work: Work, catalog: FakeCatalog, documents, until, monkeypatch, caplog
) -> None:
    look = Assembling.look

    def broken_look(self: Assembling) -> JobParts | Refusal | None:
        if self.run.uid == "broken":
            raise ZeroDivisionError
        return look(self)

    monkeypatch.setattr(Assembling, "look", broken_look)
    broken = scan_documents("broken", 6, Path("/data/frames.h5"), time.time())
    catalog.runs["broken"] = broken
    with caplog.at_level(logging.CRITICAL):
        work.send(broken)
        work.send(documents)
        until(lambda: len(work.jobs()) == 2)
    refusal, job = sorted(work.jobs(), key=lambda each: each.source.run_uid)
    assert isinstance(refusal, Refusal)
    assert isinstance(job, Job)
    assert "a mistake of ptyplugin" in refusal.reason


@pytest.mark.parametrize("from_catalog", [False, True])
def test_positions_that_come_late_hold_up_no_other_run(
    work: Work, catalog: FakeCatalog, documents, until, monkeypatch, from_catalog: bool
) -> None:
    look, is_there = Assembling.look, threading.Event()
    monkeypatch.setattr(Assembling, "look", lambda self: None if self.run.uid == "late" and not is_there.is_set() else look(self))
    late = scan_documents("late", 6, Path("/data/frames.h5"), time.time())
    catalog.runs["late"] = late
    work.send(without(late, "event") if from_catalog else late)
    work.send(documents)
    until(lambda: [job.source.run_uid for job in work.jobs()] == [UID])
    is_there.set()
    until(lambda: len(work.jobs()) == 2)
    assert all(isinstance(job, Job) for job in work.jobs())
    assert work.state.counts["healed"] == int(from_catalog)


def test_a_catalog_that_is_away_when_positions_are_read_there_is_waited_for(
    work: Work, catalog: FakeCatalog, documents, until, monkeypatch
) -> None:
    fails, look = iter(range(3)), Assembling.look

    def away(self: Assembling) -> Any:
        if next(fails, None) is not None:
            raise CatalogAway("the catalog does not answer.")
        return look(self)

    monkeypatch.setattr(Assembling, "look", away)
    work.send(documents)
    until(lambda: work.jobs())
    assert [type(job) for job in work.jobs()] == [Job]


def test_memory_is_bounded(work: Work, catalog: FakeCatalog, until, monkeypatch) -> None:
    monkeypatch.setattr(desk, "MOST_KEPT", 3)
    monkeypatch.setattr(desk, "MOST_WAITING", 10)
    catalog.trouble = CatalogAway("the catalog does not answer.")
    for number in range(20):
        work.send(without(scan_documents(f"run-{number}", number, Path("/data/frames.h5"), time.time()), "event"))
    assert work.desk.waiting() == 10
    assert sum(bool(case.found) for case in work.desk._cases.values()) <= 3


def test_wrong_sources_are_said_at_the_start(tmp_path: Path) -> None:
    def site(**table: Any) -> Site:
        return Site.model_validate({"home": tmp_path, "source": [table]})

    with pytest.raises(ProfileError, match="no profile 'nowhere'"):
        Sources(site(kind="zmq", address="127.0.0.1:5578", profiles=["nowhere"]))
    for kind in ("sweep", "tiled"):
        with pytest.raises(SiteError, match="needs a catalog: set tiled_uri"):
            Sources(site(kind=kind, profiles=["sim"]))
    for wrong in ({"address": "nowhere"}, {"address": "pgm://a:1"}, {"prefix": "a b"}, {"unknown": 1}, {"profiles": []}):
        with pytest.raises(ValueError, match="source"):
            site(**{"kind": "zmq", "address": "127.0.0.1:5578", "profiles": ["sim"], **wrong})
    with pytest.raises(ValueError, match="source"):
        site(kind="carrier pigeon")


def test_where_documents_may_be_lost_the_catalog_is_swept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = {"kind": "zmq", "address": "ipc:///tmp/proxy", "profiles": ["sim"]}
    names = [state.name for state in Sources(Site.model_validate({"home": tmp_path, "tiled_uri": "http://c", "source": [table]})).states()]
    assert names == ["0MQ ipc:///tmp/proxy", "catalog sweep"]
    Sources(Site.model_validate({"home": tmp_path, "source": [table]}))
    assert "documents that are lost on their way cannot be had again" in caplog.text
    assert Sources(Site(home=tmp_path)).states() == []


def test_a_run_that_was_refused_is_read_again_when_somebody_asks(tmp_path: Path, catalog: FakeCatalog, documents, until, caplog) -> None:
    table = {"kind": "sweep", "profiles": ["sim"], "every_s": 1000}
    site = Site.model_validate({"home": tmp_path / "home", "tiled_uri": "http://127.0.0.1:9", "source": [table]})
    refusal = Refusal(beamline="sim", source=RunSource(run_uid=UID, key="detector"), reason="it lies outside the site's data_roots.")
    with Ledger(site.ledger) as ledger, Sources(site) as sources:
        ledger.listen(sources.hear)
        intake = Intake(Inbox(site.inbox), ledger, site.jobs)

        def take_in() -> list[tuple[str, str]]:
            for item in Inbox(site.inbox).waiting():
                intake.take_in(item)
            return [(entry.kind, entry.state) for entry in ledger.list(run_uid=UID)]

        submit(site, refusal)
        assert take_in() == [("refusal", "failed")]
        # It is refused once more.
        catalog.runs[UID] = [document for document in documents if document[0] != "stream_datum"]
        ledger.obey(Order(order="retry", job=refusal.key), "first")
        until(lambda: Inbox(site.inbox).waiting())
        assert ledger.show(refusal.key).state == "cancelled"
        assert take_in() == [("refusal", "failed")]
        # Now it can be read.
        catalog.runs[UID] = documents
        ledger.obey(Order(order="retry", job=refusal.key), "second")
        until(lambda: Inbox(site.inbox).waiting())
        assert take_in() == [("refusal", "cancelled"), ("job", "queued")]
    with Sources(Site(home=tmp_path)) as none:
        none.hear(_refused(refusal))
    assert f"ptyplugin reconstruct {UID} --profile FILE --publish" in caplog.text


def _refused(refusal: Refusal) -> Any:
    return SimpleNamespace(kind="refusal", state="cancelled", run_uid=refusal.source.run_uid, beamline=refusal.beamline)
