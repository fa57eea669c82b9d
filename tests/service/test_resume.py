"""What was killed goes on from its checkpoint, not from its beginning."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from at_work import at_work, state_of

from ptyplugin.api import make_job, open_scan
from ptyplugin.io import read_result
from ptyplugin.jobs import Ledger, open_read_only, submit
from ptyplugin.model import Job, Site
from ptyplugin.service import Daemon, Inline, Mpiexec, Wish

QUICK = "quick_checkpoints:solve"
ITERATIONS = 60


@pytest.fixture
def reading_site(site: Site, small_cxi: Path) -> Site:
    return site.model_copy(update={"data_roots": [small_cxi.parent.resolve()]})


@pytest.fixture
def submitted(reading_site: Site, small_cxi: Path) -> Job:
    parts = make_job(open_scan(small_cxi, site=reading_site), f"DM({ITERATIONS})")
    submit(reading_site, parts.job, parts.arrays)
    return parts.job


@contextmanager
def running(site: Site, ranks: int, solve: str = QUICK) -> Iterator[None]:
    with (
        Daemon(site, lambda place: Mpiexec(site.home / "slots" / place.name, ranks, solve=solve), lambda result, key: None) as daemon,
        at_work(daemon.run),
    ):
        yield


def _iterations(folder: Path) -> list[int]:
    file = folder / "iterations"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def _check_the_end(site: Site, job: Job) -> None:
    """Each iteration is in the result once; the second start did not begin at the first; nothing is left behind."""
    folder, result = site.jobs / job.key, read_result(site.results / f"{job.key}.h5")
    done = _iterations(folder)
    again = next(place for place in range(1, len(done)) if done[place] <= done[place - 1])
    assert done[again] > 1
    assert result.provenance["resumed"] == [f"after iteration {done[again] - 1}"]
    assert [event.iteration for event in result.progress] == list(range(1, ITERATIONS + 1))
    assert result.quality["error"] < 0.02
    assert np.isfinite(result.object).all()
    assert not list(folder.glob("*checkpoint*"))


@pytest.mark.system
def test_a_rank_that_is_killed_is_not_started_from_the_beginning(reading_site: Site, submitted: Job, until: Callable[..., None]) -> None:
    folder = reading_site.jobs / submitted.key
    with running(reading_site, 2):
        until(lambda: len(_iterations(folder)) > 12 and len(list(folder.glob("checkpoint.*.npz"))) >= 2, 60)
        # The ranks are remembered first, what started them last.
        os.kill(json.loads((reading_site.home / "slots" / "1" / "processes.json").read_text())[0][0], signal.SIGKILL)
        until(lambda: state_of(reading_site, submitted.key) == "published", 100)
    _check_the_end(reading_site, submitted)
    assert "goes on from its checkpoint after iteration" in (folder / "log.txt").read_text()
    with open_read_only(reading_site.ledger) as view:
        states = [step.state for step in view.history(submitted.key)]
    assert states == ["queued", "running", "queued", "running", "solved", "published"]


@pytest.mark.system
def test_a_daemon_that_is_stopped_keeps_what_its_ranks_have_done(reading_site: Site, submitted: Job, until: Callable[..., None]) -> None:
    folder = reading_site.jobs / submitted.key
    for start in (1, 2):
        with running(reading_site, 1, "quick_checkpoints:solve_without"):
            until(lambda start=start: len(_iterations(folder)) > (12 if start == 1 else ITERATIONS - 1), 100)
            if start == 2:
                until(lambda: state_of(reading_site, submitted.key) == "published")
        assert bool(list(folder.glob("checkpoint.*.npz"))) == (start == 1)
    assert _iterations(folder) == list(range(1, ITERATIONS + 1)), "no iteration was done twice"
    with open_read_only(reading_site.ledger) as view:
        assert (view.show(submitted.key).tries, view.show(submitted.key).starts) == (1, 2)


def test_a_daemon_that_was_killed_costs_no_try_where_a_checkpoint_was_made(site: Site, make_job: Callable[..., Job]) -> None:
    job = make_job()
    for iteration, tries in ((0, 1), (20, 1), (20, 2), (30, 2)):
        with Ledger(site.ledger) as ledger:
            ledger.put(job)
            assert ledger.claim(60.0) is not None
            (site.jobs / job.key).mkdir(parents=True, exist_ok=True)
            # Of the next one, one rank has written its part when all are killed: that does not count.
            for part in (f"{iteration}.0", f"{iteration}.1", "90.1") if iteration else ():
                (site.jobs / job.key / f"checkpoint.{part}.npz").touch()
        with Daemon(site, Inline(QUICK)):
            pass
        with open_read_only(site.ledger) as view:
            assert (view.show(job.key).state, view.show(job.key).tries) == ("queued", tries)


def test_a_job_that_a_stop_puts_back_goes_on(reading_site: Site, submitted: Job) -> None:
    folder = reading_site.jobs / submitted.key

    class Stopping(Inline):
        def run(self, task, on_progress, wish):  # type: ignore[no-untyped-def]
            stops = not _iterations(folder)
            return super().run(task, on_progress, lambda: Wish.STOP if stops and len(_iterations(folder)) == 20 else wish())

    with Daemon(reading_site, Stopping("quick_checkpoints:solve_without"), lambda result, key: None) as daemon:
        daemon.run_once()
    assert _iterations(folder) == list(range(1, ITERATIONS + 1)), "the stop made a checkpoint: no iteration was done twice"
    assert read_result(reading_site.results / f"{submitted.key}.h5").provenance["resumed"] == ["after iteration 20"]


def test_a_job_that_fails_leaves_no_checkpoint(reading_site: Site, submitted: Job) -> None:
    folder = reading_site.jobs / submitted.key

    class Failing(Inline):
        def run(self, task, on_progress, wish):  # type: ignore[no-untyped-def]
            def break_down() -> Wish:
                if list(folder.glob("checkpoint.*.npz")):
                    raise ZeroDivisionError("a mistake")
                return wish()

            return super().run(task, on_progress, break_down)

    with Daemon(reading_site, Failing(QUICK)) as daemon:
        daemon.run_once()
    assert state_of(reading_site, submitted.key) == "failed"
    assert 1 < len(_iterations(folder)) < ITERATIONS
    assert not list(folder.glob("*checkpoint*"))
