"""Real ranks: what goes wrong on one of them ends the job cleanly, and leaves nothing behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ptyplugin.io import read_result
from ptyplugin.model import Cancelled, CatalogError, Job, Progress, RanksCrashed, Site, SolverError
from ptyplugin.service import Mpiexec, Patience
from ptyplugin.service.solving import Task
from ptyplugin.service.wire import Wire

STUB = "stub_solving:solve"

pytestmark = pytest.mark.system


@pytest.fixture
def task_of(site: Site) -> Callable[[Job], Task]:
    def task_of(job: Job) -> Task:
        folder = site.jobs / job.key
        folder.mkdir(parents=True)
        (folder / "job.json").write_bytes(job.to_bytes())
        return Task(folder, site)

    return task_of


@pytest.fixture(autouse=True)
def _nothing_is_left_running(site: Site) -> Iterator[None]:
    yield
    assert _processes_of(site) == []
    assert not list(site.jobs.glob("*/processes.json"))


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


def test_two_ranks_solve_together(task_of, make_job) -> None:
    task, heard = task_of(make_job()), list[Progress]()
    result = Mpiexec(solve=STUB).run(task, heard.append, lambda: False)
    assert result == task.result
    assert read_result(result).quality["ranks"] == 2
    assert [progress.iteration for progress in heard] == [1, 2, 3, 4, 5, 6]
    assert heard[1].errors == {"error": 0.5}


def test_a_job_that_runs_has_no_temporary_files(task_of, make_job, tmp_path_factory, monkeypatch) -> None:
    folder, left = tmp_path_factory.mktemp("t"), list[list[Path]]()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    Mpiexec(2, solve=STUB).run(task_of(make_job()), lambda _: left.append(list(folder.glob("ptyplugin-*"))), lambda: False)
    assert left == [[]] * 6


@pytest.mark.parametrize(
    ("asked", "says", "rank"),
    [("raise", "cut off", 0), ("raise", "cut off", 1), ("rude", "cut off", 0), ("rude", "cut off", 1), ("bug", "ZeroDivisionError", 1)],
)
def test_an_exception_on_one_rank_fails_the_job_with_its_sentence(task_of, make_job, asked, says, rank) -> None:
    task = task_of(make_job(**{asked: rank}))
    began = time.monotonic()
    with pytest.raises(SolverError, match=says) as caught:
        Mpiexec(2, solve=STUB, patience=Patience(grace_s=1.0)).run(task, lambda _: None, lambda: False)
    assert type(caught.value) is SolverError
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 30
    assert not task.result.exists()
    assert ("Traceback" in task.log.read_text()) == (asked == "bug")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_catalog_that_is_away_is_told_from_other_failures(task_of, make_job, rank) -> None:
    with pytest.raises(CatalogError, match="does not answer"):
        Mpiexec(2, solve=STUB).run(task_of(make_job(away=rank)), lambda _: None, lambda: False)


def test_a_killed_rank_is_a_crash(task_of, make_job) -> None:
    with pytest.raises(RanksCrashed, match="rank 1 of 2 was killed or crashed"):
        Mpiexec(2, solve=STUB).run(task_of(make_job(killed_always=1)), lambda _: None, lambda: False)


@pytest.mark.parametrize("asked", [{"slow": 0.2}, {"hang": 1}])
def test_a_cancel_is_heard_or_enforced(task_of, make_job, asked) -> None:
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        Mpiexec(2, solve=STUB, patience=Patience(grace_s=1.0)).run(task_of(make_job(**asked)), lambda _: cancel.set(), cancel.is_set)


def test_a_job_that_hangs_is_ended(task_of, make_job) -> None:
    with pytest.raises(SolverError, match="said nothing for 2 s"):
        Mpiexec(2, solve=STUB, patience=Patience(silence_s=2.0)).run(task_of(make_job(hang=1)), lambda _: None, lambda: False)


def test_a_group_of_the_wrong_size_is_refused(task_of, make_job, tmp_path_factory) -> None:
    task, address = task_of(make_job()), tmp_path_factory.mktemp("s") / "s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen()
    # Started without mpiexec, a rank is a group of one: just so it is when mpiexec and the MPI library do not fit.
    worker = subprocess.Popen([sys.executable, "-m", "ptyplugin.service.worker", str(address)])
    wire = Wire(listener.accept()[0])
    assert _next(wire)["size"] == 1
    wire.send("job", folder=str(task.folder), site=task.site.model_dump(mode="json"), solve=STUB, ranks=2)
    assert "a group of 1 where 2 ranks were started" in _next(wire)["sentence"]
    wire.send("leave")
    assert worker.wait(30) == 0
    wire.close()
    listener.close()


def _next(wire: Wire) -> dict[str, Any]:
    while not (messages := wire.receive()):
        assert messages is not None
    return messages[0]


def test_ranks_that_cannot_start_are_a_crash(task_of, make_job, monkeypatch) -> None:
    monkeypatch.setenv("MPI4PY_LIBMPI", "/nowhere/libmpi.so")
    with pytest.raises(RanksCrashed, match="did not start or ended at once"):
        Mpiexec(2, solve=STUB).run(task_of(make_job()), lambda _: None, lambda: False)
