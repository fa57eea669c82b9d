"""The inbox: whole items or none, in the order of their arrival."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ptyplugin.jobs import Inbox, submit
from ptyplugin.jobs.contents import arrays_beside, parse
from ptyplugin.jobs.inbox import key_of
from ptyplugin.model import BesideSource, FrameBlock, Job, JobError, Refusal, RunSource, Site, SiteError


def test_an_item_holds_the_job_and_its_arrays(site: Site, beside_job: tuple[Job, dict[str, np.ndarray]]) -> None:
    job, arrays = beside_job
    key = submit(site, job, arrays)
    (item,) = Inbox(site.inbox).waiting()
    assert key == job.key == key_of(item)
    assert parse((item / "job.json").read_bytes()) == job
    assert np.array_equal(np.load(item / "frames.npy"), arrays["frames.npy"])
    assert not list((site.inbox / "tmp").iterdir())


def test_a_refusal_is_handed_over_like_a_job(site: Site) -> None:
    refusal = Refusal(beamline="sim", source=RunSource(run_uid="u", key="detector"), reason="no frames arrived.")
    submit(site, refusal)
    (item,) = Inbox(site.inbox).waiting()
    assert parse((item / "job.json").read_bytes()) == refusal


def test_items_wait_in_the_order_of_their_arrival(site: Site, job: Job) -> None:
    keys = [submit(site, job.model_copy(update={"seed": seed})) for seed in range(20)]
    assert [key_of(item) for item in Inbox(site.inbox).waiting()] == keys


def test_an_empty_inbox_needs_no_folder(site: Site) -> None:
    assert Inbox(site.inbox).waiting() == []


def test_the_arrays_must_be_those_that_the_job_names(site: Site, beside_job: tuple[Job, dict[str, np.ndarray]]) -> None:
    job, arrays = beside_job
    with pytest.raises(JobError, match=r"names frames\.npy but"):
        submit(site, job, {})
    with pytest.raises(JobError, match=r"other\.npy was given"):
        submit(site, job, {**arrays, "other.npy": np.zeros(2)})
    assert Inbox(site.inbox).waiting() == []


def test_one_name_for_two_arrays_is_refused(job: Job) -> None:
    blocks = [FrameBlock(source=BesideSource(name="a.npy", sha256=digit * 64), ranges=[(0, 1)]) for digit in "01"]
    with pytest.raises(JobError, match=r"two different arrays a\.npy"):
        arrays_beside(job.model_copy(update={"frames": blocks}))


def test_an_inbox_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path, job: Job) -> None:
    (tmp_path / "inbox").write_text("a file where the folder should be")
    with pytest.raises(SiteError, match=r"inbox .* cannot be used"):
        submit(Site(home=tmp_path), job)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk does to a large file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_and_not_filled_further(site: Site, beside_job: tuple[Job, dict[str, np.ndarray]]) -> None:
    with files_of_at_most(20_000), pytest.raises(SiteError, match=r"requested and \d+ written.*has room"):
        submit(site, *beside_job)
    assert list((site.inbox / "tmp").iterdir()) == list((site.inbox / "new").iterdir()) == []
    submit(site, *beside_job)
    assert len(Inbox(site.inbox).waiting()) == 1


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o2770])
def test_items_are_shared_with_those_who_share_the_inbox(site: Site, beside_job: tuple[Job, dict[str, np.ndarray]], mode: int) -> None:
    site.inbox.mkdir(parents=True)
    site.inbox.chmod(mode)
    umask = os.umask(0o077)
    try:
        submit(site, *beside_job)
    finally:
        os.umask(umask)
    (item,) = Inbox(site.inbox).waiting()
    assert {path.stat().st_mode & 0o7777 for path in (item, item.parent, site.inbox / "tmp", site.inbox / "bad")} == {mode}
    assert {path.stat().st_mode & 0o7777 for path in item.iterdir()} == {mode & 0o666}


def test_only_abandoned_leftovers_are_swept(site: Site, job: Job) -> None:
    submit(site, job)
    inbox = Inbox(site.inbox)
    for name, age_s in (("old", 40 * 3600), ("young", 60)):
        (site.inbox / "tmp" / name).mkdir()
        os.utime(site.inbox / "tmp" / name, (time.time() - age_s,) * 2)
    inbox.sweep()
    assert [path.name for path in (site.inbox / "tmp").iterdir()] == ["young"]
    assert len(inbox.waiting()) == 1


def test_a_producer_that_finishes_during_the_sweep_is_no_trouble(site: Site, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(site, job)
    finished = site.inbox / "tmp" / "finished"
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter([finished] if folder == finished.parent else []))
    Inbox(site.inbox).sweep()
    assert len(Inbox(site.inbox).waiting()) == 1
