"""Real ranks: what goes wrong on one of them ends the job cleanly, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ptyplugin.io import read_result
from ptyplugin.model import Cancelled, CatalogError, DeviceError, Progress, RanksAway, RanksCrashed, Site, SolverError, TimeIsUp
from ptyplugin.service import Mpiexec, Patience, Wish
from ptyplugin.service.engines import LocalEngine
from ptyplugin.service.processes import Process
from ptyplugin.solvers.verbs.cuda.device import DeviceLost

STUB = "stub_solving:solve"

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def _kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mpiexec]:
    with Mpiexec(tmp_path_factory.mktemp("slot"), 2, solve=STUB, patience=Patience(grace_s=1.0, wish_s=4.0)) as group:
        yield group


@pytest.fixture
def group(_kept: Mpiexec, monkeypatch: pytest.MonkeyPatch) -> Mpiexec:
    """Two ranks that many tests use; who kills them costs the next one a start."""
    monkeypatch.setattr(_kept, "_limit_s", None)
    return _kept


@pytest.fixture
def ranks_of(site: Site) -> Iterator[Callable[..., Mpiexec]]:
    made: list[Mpiexec] = []

    def ranks_of(ranks: int = 2, **asked: Any) -> Mpiexec:
        made.append(Mpiexec(site.home / "slots" / str(len(made)), ranks, **{"solve": STUB, **asked}))
        return made[-1]

    yield ranks_of
    for each in made:
        each.close()


def go_on() -> Wish:
    return Wish.GO_ON


@pytest.fixture(autouse=True)
def _nothing_is_left_running(site: Site, request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    assert _processes_of(site) == []
    assert not list(site.home.glob("**/processes.json"))


def _processes_of(site: Site) -> list[str]:
    """Command lines of the workers of this test: their log is in the site's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "fd" / "1").startswith(str(site.home)):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_two_ranks_solve_together(task_of, group, make_job) -> None:
    task, heard = task_of(make_job(slow=0.15)), list[Progress]()
    assert group.run(task, heard.append, go_on) == task.result
    assert read_result(task.result).quality["ranks"] == 2
    assert [progress.iteration for progress in heard] == [1, 2, 3, 4, 5, 6]
    assert heard[1].errors == {"error": 0.5}


def test_quick_iterations_are_told_together_and_nothing_of_them_is_lost(task_of, group, make_job) -> None:
    heard = list[Progress]()
    group.run(task_of(make_job()), heard.append, go_on)
    assert heard[-1].iteration == 6
    assert heard[-1].errors == {"error": 1 / 6}
    assert len(heard) < 6


def test_one_group_does_one_job_after_the_other(task_of, ranks_of, make_job, site) -> None:
    group = ranks_of(jobs_per_group=3)
    groups = []
    for seed in range(5):
        group.run(task_of(make_job(seed)), lambda _: None, go_on)
        groups.append((site.home / "slots" / "0" / "processes.json").read_text())
    assert groups[0] == groups[1] == groups[2] != groups[3] == groups[4]


def test_ranks_that_have_done_a_job_are_started_again_at_once(task_of, group, make_job) -> None:
    """However often starts before failed."""
    group._next_s, group._wait_s = time.monotonic() + 100, 60.0
    group.run(task_of(make_job()), lambda _: None, go_on)
    group.close()
    group.look()
    assert group._group is not None


def test_what_ranks_say_goes_into_the_log_of_the_job_that_they_do(task_of, group, make_job) -> None:
    tasks = [task_of(make_job(seed, say=seed)) for seed in (1, 2)]
    for task in tasks:
        group.run(task, lambda _: None, go_on)
    assert [task.log.read_text() for task in tasks] == ["1\n1\n", "2\n2\n"]


def test_a_group_that_has_no_job_warms_up_and_lives(task_of, ranks_of, make_job, site, until) -> None:
    group = ranks_of()

    until(group.look, 60)
    assert not group.is_warm
    group.warm_up()
    assert not group.look(), "a job would have to wait: it better does so in the queue"
    until(group.look, 150)
    assert group.is_warm
    before = (site.home / "slots" / "0" / "processes.json").read_text()
    group.run(task_of(make_job()), lambda _: None, go_on)
    assert (site.home / "slots" / "0" / "processes.json").read_text() == before


def test_ranks_that_do_not_get_warm_are_given_jobs_all_the_same(task_of, ranks_of, make_job, site, until, caplog) -> None:
    group = ranks_of(1, patience=Patience(warm_s=0.0, silence_s=3.0))
    until(group.look, 60)
    rank, _ = json.loads((site.home / "slots" / "0" / "processes.json").read_text())[0]
    os.kill(rank, signal.SIGSTOP)
    group.warm_up()
    assert group.look()
    assert not group.is_warm
    group.run(task_of(make_job()), lambda _: None, go_on)
    assert "did not get warm, and did not come to begin with the job. Fresh ranks are started." in caplog.text


@pytest.mark.parametrize("who", [1, 2])
def test_a_group_of_which_somebody_was_killed_while_it_had_no_job_costs_no_job_its_start(
    task_of, ranks_of, make_job, site, until, who, caplog
) -> None:
    """A rank, and mpiexec."""
    group = ranks_of()
    group.run(task_of(make_job(1)), lambda _: None, go_on)
    victim = Process(*json.loads((site.home / "slots" / "0" / "processes.json").read_text())[who])
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: not victim.alive)
    time.sleep(0.3)
    group.run(task_of(make_job(2)), lambda _: None, go_on)
    assert "Fresh ranks are started." in caplog.text


def test_a_job_that_runs_has_no_temporary_files(task_of, ranks_of, make_job, tmp_path_factory, monkeypatch) -> None:
    folder, left = tmp_path_factory.mktemp("t"), list[list[Path]]()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    ranks_of().run(task_of(make_job(slow=0.15)), lambda _: left.append(list(folder.glob("ptyplugin-*"))), go_on)
    assert left == [[]] * 6


@pytest.mark.parametrize(
    ("asked", "says", "rank"),
    [("raise", "cut off", 0), ("raise", "cut off", 1), ("bug", "ZeroDivisionError", 1), ("rude", "cut off", 1)],
)
def test_an_exception_on_one_rank_fails_the_job_with_its_sentence_and_the_next_one_runs(
    task_of, group, make_job, asked, says, rank
) -> None:
    task = task_of(make_job(**{asked: rank}))
    began = time.monotonic()
    with pytest.raises(SolverError, match=says) as caught:
        group.run(task, lambda _: None, go_on)
    assert type(caught.value) is SolverError
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 60
    assert not task.result.exists()
    assert ("Traceback" in task.log.read_text()) == (asked == "bug")
    assert (group._group is None) == (asked == "rude"), "who fell silent in the middle is not asked again"
    group.run(task_of(make_job(5)), lambda _: None, go_on)


def test_a_device_that_is_lost_costs_the_group(task_of, group, make_job) -> None:
    with pytest.raises(DeviceLost, match="GPU 0 has failed"):
        group.run(task_of(make_job(lost=1)), lambda _: None, go_on)
    assert group._group is None


@pytest.mark.parametrize("rank", [0, 1])
def test_a_catalog_that_is_away_is_told_from_other_failures(task_of, group, make_job, rank) -> None:
    with pytest.raises(CatalogError, match="does not answer"):
        group.run(task_of(make_job(away=rank)), lambda _: None, go_on)


def test_a_killed_rank_is_a_crash_and_fresh_ones_do_the_next_job(task_of, group, make_job) -> None:
    with pytest.raises(RanksCrashed, match="rank 1 of 2 was killed or crashed"):
        group.run(task_of(make_job(killed_always=1)), lambda _: None, go_on)
    group.run(task_of(make_job(2)), lambda _: None, go_on)


def test_a_killed_mpiexec_is_a_crash(task_of, ranks_of, make_job, site) -> None:
    def kill(_: Progress) -> None:
        os.kill(json.loads((site.home / "slots" / "0" / "processes.json").read_text())[2][0], signal.SIGKILL)

    with pytest.raises(RanksCrashed, match="mpiexec, which keeps the 2 ranks of the solver, was killed or crashed"):
        ranks_of().run(task_of(make_job(slow=0.2)), kill, go_on)


@pytest.mark.parametrize("wanted", [Wish.STOP, Wish.CANCEL])
def test_a_wish_is_heard(task_of, group, make_job, wanted) -> None:
    wish = [Wish.GO_ON]
    with pytest.raises(Cancelled):
        group.run(task_of(make_job(slow=0.1)), lambda _: wish.__setitem__(0, wanted), lambda: wish[0])
    assert group._group is not None


def test_a_rank_that_writes_when_the_job_is_cancelled_may_end_that(task_of, group, make_job) -> None:
    task = task_of(make_job(writes=2))
    with pytest.raises(Cancelled):
        group.run(task, lambda _: None, lambda: Wish.CANCEL if (task.folder / "writes").exists() else Wish.GO_ON)
    assert (task.folder / "written").exists()
    assert group._group is not None


def test_a_wish_is_enforced(task_of, group, make_job) -> None:
    task = task_of(make_job(hang=1))
    with pytest.raises(Cancelled):
        group.run(task, lambda _: None, lambda: Wish.STOP if (task.folder / "hangs").exists() else Wish.GO_ON)
    assert group._group is None


def test_a_job_that_hangs_is_ended(task_of, ranks_of, make_job) -> None:
    with pytest.raises(TimeIsUp, match="said nothing for 2 s"):
        ranks_of(patience=Patience(silence_s=2.0)).run(task_of(make_job(hang=1)), lambda _: None, go_on)


def test_a_job_that_takes_too_long_is_ended(task_of, group, make_job, monkeypatch) -> None:
    group.run(task_of(make_job(1)), lambda _: None, go_on)
    monkeypatch.setattr(group, "_limit_s", 0.5)
    with pytest.raises(TimeIsUp, match=r"took longer than the 0.5 s that its slot allows"):
        group.run(task_of(make_job(2, slow=0.2)), lambda _: None, go_on)
    assert group._group is not None


def test_ranks_that_do_not_find_each_other_are_told(task_of, ranks_of, make_job, monkeypatch) -> None:
    """As with an mpiexec that does not fit the MPI library: each of the ranks believes that it is alone."""
    command = LocalEngine._command

    def alone(self: LocalEngine, mpiexec: Path, address: Path) -> list[str]:
        words = command(self, mpiexec, address)
        return ["/bin/sh", "-c", '"$@" & exec "$@"', "sh", *words[words.index(sys.executable, 5) :]]

    monkeypatch.setattr(LocalEngine, "_command", alone)
    with pytest.raises(RanksAway, match="MPI made a group of 1 where 2 ranks were started: mpiexec and the MPI library do not fit"):
        ranks_of().run(task_of(make_job()), lambda _: None, go_on)


def test_who_does_not_know_the_token_is_not_heard(task_of, ranks_of, make_job, tmp_path_factory, monkeypatch, caplog) -> None:
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    group = ranks_of()
    group.look()
    hello = b'{"kind": "hello", "proof": "x", "nonce": "y", "rank": 0, "size": 2, "pid": 1}\n'
    strangers = []
    # Somebody who says nothing, too much, or nonsense; more of them than may wait.
    for said in (hello, b"[1]\n", b"\xff\n", b"{}\n", b"[" * 60_000 + b"\n", b"x" * 60_000, *[b""] * 12):
        strangers.append(socket.socket(socket.AF_UNIX))
        strangers[-1].connect(str(next(folder.glob("ptyplugin-*")) / "s"))
        strangers[-1].sendall(said)
        group.look()
    task = task_of(make_job())
    assert group.run(task, lambda _: None, go_on) == task.result
    assert "is not heard" in caplog.text
    for stranger in strangers:
        stranger.close()


def test_ranks_that_cannot_start_are_no_fault_of_the_job(task_of, ranks_of, make_job, monkeypatch) -> None:
    monkeypatch.setenv("MPI4PY_LIBMPI", "/nowhere/libmpi.so")
    with pytest.raises(RanksAway, match="did not start or ended at once"):
        ranks_of().run(task_of(make_job()), lambda _: None, go_on)


def test_what_the_ranks_see_of_the_gpus_is_what_their_slot_has(task_of, ranks_of, make_job, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    task = task_of(make_job(tell="CUDA_VISIBLE_DEVICES"))
    ranks_of(1, gpus=()).run(task, lambda _: None, go_on)
    assert task.log.read_text() == "\n"
    # A slot whose GPUs are not there says so, and does not compute elsewhere.
    with pytest.raises(DeviceError, match="the slot's GPUs cannot be used"):
        ranks_of(1, gpus=["GPU-of-nobody"]).run(task_of(make_job(2)), lambda _: None, go_on)
