"""A daemon that is killed: nothing outlives it, and the next one goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from at_work import state_of

from ptyplugin.io import read_result
from ptyplugin.jobs import open_read_only, submit
from ptyplugin.model import Site
from ptyplugin.service import Daemon, Inline
from ptyplugin.service.processes import Process, make_sure_they_are_gone, make_temporary

pytestmark = pytest.mark.system

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(site: Site) -> Iterator[Start]:
    daemons: list[subprocess.Popen[bytes]] = []

    def start(ranks: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(Path(__file__).parent / "daemon_process.py"), str(site.home), str(ranks)]
        daemons.append(subprocess.Popen(command, stderr=subprocess.PIPE))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.kill()
        daemon.communicate()


def _ranks(site: Site, folder: Path) -> list[Process]:
    """The processes that the daemon remembers, once the job iterates."""
    file, starts = site.home / "slots" / "1" / "processes.json", folder / "starts"
    # A file that exists may not hold its line yet.
    iterating = file.exists() and starts.exists() and starts.stat().st_size > 0
    return [Process(*each) for each in json.loads(file.read_text())] if iterating else []


def test_a_daemon_killed_in_the_middle_of_a_job_takes_its_ranks_along(site, start, make_job, until) -> None:
    job = make_job(slow=0.5)
    folder = site.jobs / job.key
    submit(site, job)
    daemon = start(2)
    until(lambda: _ranks(site, folder))
    ranks = _ranks(site, folder)
    assert len(ranks) == 3
    daemon.send_signal(signal.SIGKILL)
    until(lambda: not any(process.alive for process in ranks), 10)
    assert state_of(site, job.key) == "running"

    start(2)
    until(lambda: state_of(site, job.key) == "published")
    assert len((folder / "starts").read_text().split()) == 2
    with open_read_only(site.ledger) as view:
        states = [step.state for step in view.history(job.key)]
    assert states == ["queued", "running", "queued", "running", "solved", "published"]


def test_a_rank_that_was_killed_is_tried_again(site, start, make_job, until) -> None:
    job = make_job(kill=1)
    submit(site, job)
    start(2)
    until(lambda: state_of(site, job.key) == "published")
    with open_read_only(site.ledger) as view:
        again = view.history(job.key)[2]
    assert again.state == "queued"
    assert "rank 1 of 2 was killed or crashed" in str(again.sentence)


def test_what_an_earlier_daemon_left_running_is_ended(tmp_path) -> None:
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    process = Process.running(left.pid)
    assert process is not None
    other = Process(left.pid, process.started_ticks + 1)
    assert not other.alive
    (tmp_path / "processes.json").write_text(json.dumps([[left.pid, other.started_ticks]]))
    make_sure_they_are_gone(tmp_path)
    assert left.poll() is None
    (tmp_path / "processes.json").write_text(json.dumps([[left.pid, process.started_ticks]]))
    make_sure_they_are_gone(tmp_path)
    assert left.wait(10) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_folder_of_a_group_that_did_not_come_to_start_is_removed(tmp_path, monkeypatch) -> None:
    temporary, other, slot = tmp_path / "tmp", tmp_path / "other", tmp_path / "slot"
    for folder in (temporary, other, slot):
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    (make_temporary(slot, "ptyplugin-") / "s").touch()
    assert len(list(temporary.iterdir())) == 1
    make_sure_they_are_gone(slot)
    assert list(temporary.iterdir()) == list(slot.iterdir()) == []
    # A kill before it was made, and a file that somebody changed.
    (slot / "temporary").write_text(str(temporary / "ptyplugin-not-there"))
    make_sure_they_are_gone(slot)
    (slot / "temporary").write_text(str(other))
    make_sure_they_are_gone(slot)
    assert other.is_dir()
    assert list(slot.iterdir()) == []


def test_a_kill_at_any_step_of_a_jobs_life_loses_nothing(site, make_job, tmp_path) -> None:
    published = tmp_path / "published"

    def publish(result: Path, key: str) -> None:
        assert read_result(result).quality["ranks"] == 1
        with published.open("a") as file:
            file.write(f"{key}\n")

    launcher = Inline("stub_solving:solve")
    for step in range(1, 500):
        job = make_job(step)
        submit(site, job)
        killed = _killed_at(step, lambda: Daemon(site, launcher, publish).run_once())
        with Daemon(site, launcher, publish) as daemon, open_read_only(site.ledger) as view:
            daemon.run_once()
            assert view.show(job.key).state == "published"
            assert len(view.list()) == step
        assert published.read_text().count(job.key) in (1, 2)
        if not killed:
            break
    assert not killed
    assert step > 25


def _killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do ``work`` in a process that ends at once when it touches the file system for the ``step``-th time."""
    child = os.fork()
    if child == 0:
        left = [step]

        def hook(event: str, _: object) -> None:
            left[0] -= event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir", "sqlite3.connect")
            if left[0] == 0:
                os._exit(9)

        try:
            sys.addaudithook(hook)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


def test_a_second_daemon_says_so_and_ends(site, start, until) -> None:
    start(0)
    until(site.ledger.exists)
    second = start(0)
    assert second.wait(30) != 0
    assert second.stderr is not None
    assert b"is in use by another daemon" in second.stderr.read()
