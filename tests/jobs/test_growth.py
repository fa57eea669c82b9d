"""Growth of a live job on its way: into the inbox, out of it into the job's folder and the ledger, once and in order."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from ptyplugin.jobs import GrowthFolder, Inbox, Intake, Ledger, grow, inbox, submit, waiting_keys
from ptyplugin.jobs.packing import pack, unpack_growth
from ptyplugin.model import BesideSource, FrameBlock, Growth, Job, JobError, Site, put_beside


def beside_growth(job: Job, first: int = 3) -> tuple[Growth, dict[str, np.ndarray]]:
    """Two frames that came inside events."""
    arrays: dict[str, np.ndarray] = {}
    array = put_beside("frames.npy", np.full((2, 128, 128), first, np.uint16), arrays)
    block = FrameBlock(source=BesideSource(name=array.name, sha256=array.sha256), ranges=[(0, 2)])
    positions = [[(0.0, first * 1e-6)], [(0.0, first * 1e-6 + 1e-6)]]
    return Growth(job=job.key, first=first, frames=[block], frame_ids=[(first, first + 2)], positions_m=positions), arrays


def test_an_item_holds_growth_and_its_arrays(site: Site, job: Job) -> None:
    growth, arrays = beside_growth(job)
    grow(site, growth, arrays)
    (item,) = Inbox(site.inbox).waiting()
    assert Growth.from_bytes((item / "growth.json").read_bytes()) == growth
    assert np.array_equal(np.load(item / "frames.npy"), arrays["frames.npy"])
    assert waiting_keys(site) == []


def test_the_arrays_must_be_those_that_it_names(site: Site, job: Job) -> None:
    growth, arrays = beside_growth(job)
    with pytest.raises(JobError, match=r"growth names frames\.npy but it was not given"):
        grow(site, growth)
    with pytest.raises(JobError, match=r"other\.npy was given but the growth"):
        grow(site, growth, {**arrays, "other.npy": np.zeros(2)})
    assert Inbox(site.inbox).waiting() == []


def test_growth_as_the_body_of_a_request(job: Job) -> None:
    growth, arrays = beside_growth(job)
    body, kind = pack(growth, arrays)
    back, files = unpack_growth(body)
    assert (kind, back, list(files)) == ("application/zip", growth, ["frames.npy"])
    end = Growth(job=job.key, first=5, ended=True)
    assert unpack_growth(pack(end, {})[0]) == (end, {})
    with pytest.raises(JobError, match=r"has no growth\.json in it|only growth\.json and arrays"):
        unpack_growth(pack(job, {"a.npy": np.zeros(2)})[0])
    with pytest.raises(JobError, match=r"growth names the arrays frames\.npy, and none came"):
        unpack_growth(growth.to_bytes())


@dataclass
class Taken:
    """A live job that was taken in, and what takes its growth in."""

    site: Site
    job: Job
    ledger: Ledger

    @property
    def folder(self) -> GrowthFolder:
        return GrowthFolder(self.site.jobs / self.job.key)

    def take_all(self) -> list[str | None]:
        there = Inbox(self.site.inbox)
        return [Intake(there, self.ledger, self.site.jobs).take_in(item) for item in there.waiting()]

    def grow(self, *firsts: int) -> None:
        for first in firsts:
            grow(self.site, *beside_growth(self.job, first))

    def bad(self) -> list[str]:
        return [path.read_text() for path in (self.site.inbox / "bad").glob("*.txt")]


@pytest.fixture
def taken(site: Site, job: Job) -> Iterator[Taken]:
    live = job.model_copy(update={"purpose": "live"})
    submit(site, live)
    with Ledger(site.ledger) as ledger:
        there = Taken(site, live, ledger)
        there.take_all()
        yield there


def test_growth_comes_into_the_folder_and_the_ledger(taken: Taken) -> None:
    taken.grow(3, 5)
    assert taken.take_all() == [taken.job.key] * 2
    assert [growth.first for growth in taken.folder.after(3)] == [3, 5]
    assert np.array_equal(np.load(taken.folder.place_of(5) / "frames.npy"), np.full((2, 128, 128), 5))
    assert taken.ledger.show(taken.job.key).frames == 7
    assert not taken.folder.has_ended
    assert taken.folder.newest_s() > 0


def test_the_same_growth_counts_once_whatever_killed_the_daemon_in_between(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    taken.grow(3, 3)
    with monkeypatch.context() as broken:
        broken.setattr(Inbox, "remove", lambda *_: None)
        taken.take_all()
    taken.take_all()
    assert [growth.first for growth in taken.folder.after(3)] == [3]
    assert taken.ledger.show(taken.job.key).frames == 5
    assert Inbox(taken.site.inbox).waiting() == []


def test_what_comes_too_early_waits_for_what_is_before_it(taken: Taken) -> None:
    taken.grow(5)
    taken.take_all()
    assert list(taken.folder.after(3)) == []
    taken.grow(3)
    taken.take_all()
    assert [growth.first for growth in taken.folder.after(3)] == [3, 5]


@pytest.mark.parametrize("kind", ["cut off", "another array", "no folder", "too few positions", "another job"])
def test_growth_that_cannot_be_is_set_aside_and_the_job_goes_on(taken: Taken, kind: str) -> None:
    taken.grow(3)
    (item,) = Inbox(taken.site.inbox).waiting()
    if kind == "cut off":
        (item / "growth.json").write_bytes((item / "growth.json").read_bytes()[:50])
    elif kind == "another array":
        np.save(item / "frames.npy", np.zeros((2, 128, 128), np.uint16))
    elif kind == "no folder":
        (item / "growth.json").unlink()
        (item / "growth.json").mkdir()
    else:
        growth = Growth.from_bytes((item / "growth.json").read_bytes())
        change = {"positions_m": growth.positions_m[:1]} if kind == "too few positions" else {"job": "0" * 16}
        (item / "growth.json").write_bytes(growth.model_copy(update=change).to_bytes())
    assert taken.take_all() == [None]
    assert len(taken.bad()) == 1
    assert list(taken.folder.after(3)) == []
    assert (taken.ledger.show(taken.job.key).state, taken.ledger.show(taken.job.key).frames) == ("queued", 3)
    taken.grow(3)
    taken.take_all()
    assert [growth.first for growth in taken.folder.after(3)] == [3]


def test_growth_waits_for_its_job(site: Site, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    live = job.model_copy(update={"purpose": "live"})
    with Ledger(site.ledger) as ledger:
        there = Taken(site, live, ledger)
        there.grow(3)
        assert there.take_all() == [None]
        submit(site, live)
        there.take_all()
        assert there.take_all() == [live.key]
        assert [growth.first for growth in there.folder.after(3)] == [3]
        grow(site, Growth(job="0" * 16, first=9))
        assert there.take_all() == [None]
        assert there.bad() == []
        monkeypatch.setattr(inbox.time, "time", lambda: 4e9)
        there.take_all()
        assert "a job that is not known" in there.bad()[0]


def test_growth_of_a_job_that_has_ended_or_is_final(taken: Taken, job: Job, caplog: pytest.LogCaptureFixture) -> None:
    taken.ledger.cancelled(taken.ledger.show(taken.job.key), "nobody wants it")
    taken.grow(3)
    with caplog.at_level(logging.INFO):
        taken.take_all()
    assert "is cancelled: 2 frames that came later are left to the final job" in caplog.text
    assert (taken.bad(), list(taken.folder.after(3))) == ([], [])
    submit(taken.site, job)
    grow(taken.site, *beside_growth(job))
    taken.take_all()
    assert "is no live" in taken.bad()[0]


def test_the_end_is_noted_and_the_final_job_is_one(taken: Taken, job: Job) -> None:
    grow(taken.site, Growth(job=taken.job.key, first=3, ended=True))
    taken.take_all()
    assert taken.folder.has_ended
    assert taken.ledger.show(taken.job.key).frames == 3
    other = job.model_copy(update={"purpose": "live", "source": job.source.model_copy(update={"run_uid": "run-2"})})
    submit(taken.site, other)
    taken.take_all()
    submit(taken.site, job)
    taken.take_all()
    assert not GrowthFolder(taken.site.jobs / other.key).has_ended
    submit(taken.site, other.model_copy(update={"purpose": "final"}))
    taken.take_all()
    assert GrowthFolder(taken.site.jobs / other.key).has_ended
