"""A live job as a preview: its result is published for want of a final one, and gone when that is there; it takes as long as its scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from at_work import at_work

from ptyplugin.jobs import Ledger, submit, write_snapshot
from ptyplugin.model import Job, Progress, RunSource, Site, Snapshot, TimeIsUp
from ptyplugin.service import Daemon, Launcher, Wish, preview, slot
from ptyplugin.service.preview import drop_previews
from ptyplugin.service.publisher import Publisher
from ptyplugin.service.solving import Task


@pytest.fixture
def ledger(site: Site) -> Iterator[Ledger]:
    with Ledger(site.ledger) as ledger:
        yield ledger


@pytest.fixture
def put(site: Site, ledger: Ledger, make_job: Callable[..., Job]) -> Callable[..., str]:
    def put(purpose: str, state: str = "queued") -> str:
        job = make_job().model_copy(update={"purpose": purpose})
        ledger.put(job)
        if state != "queued":
            entry = ledger.claim(60.0)
            result = site.results / f"{job.key}.h5"
            result.parent.mkdir(parents=True, exist_ok=True)
            result.touch()
            getattr(ledger, state)(entry, result if state == "solved" else "for a reason.")
        return job.key

    return put


def published(ledger: Ledger) -> list[str]:
    done: list[str] = []
    Publisher(ledger, lambda result, key: done.append(key)).publish_due()
    return done


def test_it_waits_for_the_final_one_and_makes_way_for_it(ledger: Ledger, put: Callable[..., str]) -> None:
    live = put("live", "solved")
    result = ledger.show(live).result
    final = put("final")
    assert published(ledger) == []
    entry = ledger.claim(60.0)
    assert published(ledger) == []
    ledger.solved(entry, Path("final.h5"))
    drop_previews(ledger, entry)
    assert published(ledger) == [final]
    there = ledger.show(live)
    assert (there.state, there.result, result is not None and result.exists()) == ("cancelled", None, False)
    assert there.sentence == f"the final image of its run has taken its place (job {final})."


def test_a_daemon_that_was_killed_in_between_drops_it_later(ledger: Ledger, put: Callable[..., str]) -> None:
    live, final = put("live", "solved"), put("final", "solved")
    assert published(ledger) == [final]
    assert ledger.show(live).state == "cancelled"


@pytest.mark.parametrize("end", [None, "failed", "cancelled"])
def test_without_a_final_one_it_is_published(
    ledger: Ledger, put: Callable[..., str], end: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "GRACE_S", 0.0)
    live = put("live", "solved")
    if end:
        put("final", end)
    assert published(ledger) == [live]


def test_a_final_one_that_comes_right_behind_it_is_in_time(
    ledger: Ledger, put: Callable[..., str], make_job: Callable[..., Job], until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = list[str]()
    put("live", "solved")
    publisher = Publisher(ledger, lambda result, key: done.append(key))
    publisher.publish_due()
    assert done == []
    final = put("final", "solved")
    for _ in range(3):
        publisher.publish_due()
    assert done == [final]
    assert publisher._pause_s() > 1.0, "it does not look for what is gone"
    # Another one, of which nobody hears: it is looked at by itself.
    monkeypatch.setattr(preview, "GRACE_S", 0.1)
    monkeypatch.setattr("ptyplugin.service.publisher.LOOK_S", 0.05)
    other = make_job(2).model_copy(update={"purpose": "live", "source": RunSource(run_uid="run-2", key="detector")})
    ledger.put(other)
    ledger.solved(ledger.claim(60.0), Path(__file__))
    with at_work(publisher.run, publisher.wake):
        until(lambda: done == [final, other.key])


class OutOfTime(Launcher):
    """Each start admits ``more`` frames, shows them, and takes too long."""

    def __init__(self, more: int) -> None:
        self._frames, self._more = 0, more

    def run(self, task: Task, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]) -> Path:
        self._frames += self._more
        image, probe = np.ones((4, 5), np.complex64), np.ones((1, 3, 3), np.complex64)
        write_snapshot(task.folder, Snapshot("k", "DM", 1, 20, {}, self._frames, 1e9, image, probe, (1e-8, 1e-8), (0.0, 0.0)))
        raise TimeIsUp("the job took longer than the 60 s that its slot allows.")


@pytest.mark.parametrize(("more", "state"), [(10, "queued"), (0, "failed")])
def test_a_live_job_may_take_as_long_as_its_scan(site: Site, make_job: Callable[..., Job], more: int, state: str, monkeypatch) -> None:
    monkeypatch.setattr(slot, "RETRY_S", 0.0)
    job = make_job().model_copy(update={"purpose": "live"})
    submit(site, job)
    with Daemon(site, OutOfTime(more), lambda *_: None) as daemon:
        daemon._take_in()
        for _ in range(5):
            daemon.slots[0].solve_next()
        assert daemon.ledger.show(job.key).state == state
        assert daemon.ledger.show(job.key).checkpoint == 5 * more


def test_a_daemon_that_is_killed_again_and_again_costs_a_live_job_that_comes_further_no_try(
    site: Site, make_job: Callable[..., Job]
) -> None:
    job = make_job().model_copy(update={"purpose": "live"})
    submit(site, job)
    for start in range(1, 6):
        with Daemon(site, OutOfTime(0), lambda *_: None) as daemon:
            daemon._take_in()
            entry = daemon.ledger.claim(60.0)
            assert entry is not None
            assert (entry.starts, entry.tries) == (start, 1)
            image, probe = np.ones((4, 5), np.complex64), np.ones((1, 3, 3), np.complex64)
            shown = Snapshot(job.key, "DM", 1, 20, {}, 10 * start, 1e9, image, probe, (1e-8, 1e-8), (0.0, 0.0))
            write_snapshot(site.jobs / job.key, shown)
