"""Slots under Slurm, with commands that only seem to be Slurm's: pilots are asked for, waited for, replaced and given back."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ptyplugin.io import read_result
from ptyplugin.jobs import submit
from ptyplugin.model import Cancelled, DiskError, RanksAway, RanksCrashed, Site, SiteError, SlotNumbers, SlurmNumbers, load_site
from ptyplugin.service import Daemon, Patience, Wish, pilot, pilots, slurm
from ptyplugin.service.pilots import Pilots
from ptyplugin.service.processes import Process
from ptyplugin.service.slots import crowding, places_of
from ptyplugin.service.slurm import Slurm, seconds
from ptyplugin.service.slurm_findings import slurm_found
from ptyplugin.solvers.devices import Devices
from ptyplugin.solvers.driver import Cupy, Driver

STUB = "stub_solving:solve"
NONE = Devices(Driver(trouble="there is no NVIDIA card or driver"), Cupy())


class Queue:
    """Slurm's side, as a test sees and changes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def jobs(self) -> list[dict[str, Any]]:
        return [json.loads(file.read_text()) for file in sorted(self.folder.glob("*.json"))]

    def listed(self) -> list[str]:
        return [job.number for job in Slurm().listed("ptyplugin-")]

    def change(self, number: int, **changes: object) -> None:
        file = self.folder / f"{number}.json"
        temporary = self.folder / "changed"
        temporary.write_text(json.dumps(json.loads(file.read_text()) | changes))
        temporary.replace(file)

    def away(self, is_away: bool) -> None:
        (self.folder / "away").touch() if is_away else (self.folder / "away").unlink()


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Jobs wait in it for ever."""
    folder, commands = tmp_path / "slurm", tmp_path / "bin"
    folder.mkdir()
    commands.mkdir()
    for command in ("sbatch", "srun", "squeue", "scancel", "scontrol"):
        (commands / command).write_text(f'#!/bin/sh\nexec {sys.executable} -I {Path(__file__).parent / "fake_slurm.py"} {command} "$@"\n')
        (commands / command).chmod(0o755)
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(pilot, "_FIRST_S", 0.1)
    monkeypatch.setattr(pilot, "_LONGEST_S", 0.1)
    return Queue(folder)


@pytest.fixture
def running_queue(queue: Queue) -> Queue:
    """Jobs run at once."""
    (queue.folder / "runs").touch()
    return queue


@pytest.fixture
def pilots_of(site: Site) -> Iterator[Callable[..., Pilots]]:
    made: list[Pilots] = []

    def pilots_of(patience: Patience | None = None, **asked: object) -> Pilots:
        table = SlurmNumbers.model_validate({"nodes": 2, "memory_gb_per_node": 1.0, **asked})
        made.append(Pilots(site.shared / "slots" / "1", table, solve=STUB, patience=patience))
        return made[-1]

    yield pilots_of
    for each in made:
        each.close()


def go_on() -> Wish:
    return Wish.GO_ON


def test_what_is_asked_of_slurm(queue: Queue, pilots_of, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TILED_API_KEY", "PTYPLUGIN_TOKEN", "PTYPLUGIN_NOTIFY", "SLURM_JOB_ID", "SLURM_CONF"):
        monkeypatch.setenv(name, f"value-of-{name}")
    group = pilots_of(partition="gpu", time="08:00:00", ranks_per_node=4, cpus_per_rank=2, gpus_per_node=4, options=["--qos=fast"])
    assert not group.look()
    (job,) = queue.jobs()
    asked = job["asked"]
    wanted = {"partition": "gpu", "time": "08:00:00", "nodes": "2", "ntasks-per-node": "4", "cpus-per-task": "2", "gpus-per-node": "4"}
    assert asked.items() >= (wanted | {"qos": "fast", "no-requeue": "", "export": "ALL"}).items()
    assert "account" not in asked
    assert asked["job-name"] == asked["comment"]
    words = job["script"].split()
    assert words[:6] == ["#!/bin/sh", "exec", "srun", "--kill-on-bad-exit=1", "--mpi=pmi2", "--nodes=2"]
    assert "--ntasks=8" in words
    # The token is in a file that only this user may read, and nowhere else.
    (file,) = (site.shared / "slots" / "1").glob("token.*")
    assert words[-1] == str(file)
    assert job["token_mode"] == "0o600"
    assert file.read_text() not in json.dumps(job)
    told = job["environment"]
    assert (told["TILED_API_KEY"], told["SLURM_CONF"], told["OMP_NUM_THREADS"]) == ("value-of-TILED_API_KEY", "value-of-SLURM_CONF", "2")
    assert not told.keys() & {"PTYPLUGIN_TOKEN", "PTYPLUGIN_NOTIFY", "SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"}
    assert told["MPIR_CVAR_CH4_NETMOD"] == "ofi"
    group.close()
    assert queue.listed() == []
    assert not file.exists()


@pytest.mark.parametrize(("mpi", "chosen", "told"), [("pmi2", "ucx", "ucx"), ("pmix", None, None)])
def test_a_site_chooses_how_its_ranks_talk(queue: Queue, pilots_of, monkeypatch: pytest.MonkeyPatch, mpi, chosen, told) -> None:
    name = "MPIR_CVAR_CH4_NETMOD"
    monkeypatch.delenv(name, raising=False)
    if chosen:
        monkeypatch.setenv(name, chosen)
    pilots_of(mpi=mpi).look()
    assert queue.jobs()[0]["environment"].get(name) == told


def test_ranks_of_a_pilot_solve_one_job_after_the_other(
    running_queue: Queue, pilots_of, task_of, make_job, site: Site, monkeypatch, until
) -> None:
    monkeypatch.setattr(pilot, "_THERE_S", 0.1)
    group = pilots_of(jobs_per_pilot=2)
    for seed in (1, 2):
        task = task_of(make_job(seed, say=seed))
        assert group.run(task, lambda _: None, go_on) == task.result
        assert read_result(task.result).quality["ranks"] == 2
        assert task.log.read_text() == f"{seed}\n{seed}\n"
        assert not list((site.shared / "slots" / "1").glob("token.*"))
        # Slurm may forget ranks that work.
        running_queue.change(1, state="FORGOTTEN")
        until(lambda: group._group is not None and group._group._engine._watch.is_over)
    assert len(running_queue.jobs()) == 1
    assert not group.look(), "after two jobs it has made way for a fresh one"
    assert len(running_queue.jobs()) == 2
    group.close()
    assert running_queue.listed() == []


def test_a_killed_rank_costs_the_pilot(running_queue: Queue, pilots_of, task_of, make_job) -> None:
    group = pilots_of()
    with pytest.raises(RanksCrashed, match="rank 1 of 2 was killed or crashed"):
        group.run(task_of(make_job(killed_always=1)), lambda _: None, go_on)
    assert not group.look()
    names = [job["asked"]["job-name"] for job in running_queue.jobs()]
    assert len(set(names)) == 2
    assert len({name.rpartition("-")[0] for name in names}) == 1


_DAEMON = """
import sys, time
from pathlib import Path
from ptyplugin.model import SlurmNumbers
from ptyplugin.service.pilots import Pilots
with Pilots(Path(sys.argv[1]), SlurmNumbers(memory_gb_per_node=1.0)) as group:
    while not group.look():
        time.sleep(0.05)
    print("there", flush=True)
    time.sleep(100)
"""


def test_a_pilot_ends_by_itself_when_its_daemon_is_killed(running_queue: Queue, tmp_path: Path, until) -> None:
    with subprocess.Popen([sys.executable, "-c", _DAEMON, str(tmp_path / "slot")], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"there\n"
        running = Process.running(running_queue.jobs()[0]["pid"])
        assert running is not None
        daemon.kill()
    until(lambda: not running.alive)
    assert running_queue.jobs()[0]["state"] == "RUNNING", "nobody cancelled it"


def test_a_pilot_near_its_time_limit_makes_way_and_loses_nothing(
    running_queue: Queue, pilots_of, task_of, make_job, monkeypatch, until
) -> None:
    monkeypatch.setattr(pilot, "_THERE_S", 0.1)
    monkeypatch.setattr(pilot, "_MARGIN", 0.5)
    group, task = pilots_of(), task_of(make_job(slow=0.2))
    with pytest.raises(RanksCrashed, match=r"Slurm job 1, .* is near its time limit: the job was put into a checkpoint"):
        group.run(task, lambda _: running_queue.change(1, left="0:00"), go_on)
    until(group.look)
    # While there is no job, nothing has to go wrong for that.
    running_queue.change(2, left="0:00")
    until(lambda: group.look() or len(running_queue.jobs()) == 3)


def test_a_job_that_makes_no_checkpoint_before_the_time_limit_has_had_a_try(
    running_queue: Queue, pilots_of, task_of, make_job, monkeypatch
) -> None:
    """Else it would begin anew in one pilot after the other, for ever."""
    monkeypatch.setattr(pilot, "_THERE_S", 0.1)
    group, task = pilots_of(Patience(wish_s=0.5)), task_of(make_job(hang=1))
    with pytest.raises(RanksCrashed, match=r"is near its time limit: the job did not come to a checkpoint in time"):
        group.run(task, lambda _: running_queue.change(1, left="0:00"), go_on)


def test_a_pilot_that_is_suspended_is_waited_for(running_queue: Queue, pilots_of, task_of, make_job, monkeypatch, until) -> None:
    """Others may come first, on some clusters: its job says nothing meanwhile, and is not given up; none is given to it."""
    monkeypatch.setattr(pilot, "_THERE_S", 0.1)
    group = pilots_of(Patience(silence_s=0.3))
    until(group.look)
    running_queue.change(1, state="SUSPENDED")
    until(lambda: group.waits)
    assert group.waits.startswith("Slurm job 1 of its ranks waits in the queue (SUSPENDED")
    assert not group.look()
    task = task_of(make_job(slow=0.6))
    assert group.run(task, lambda _: None, go_on) == task.result
    running_queue.away(True)
    time.sleep(0.3)
    running_queue.away(False)
    running_queue.change(1, state="RUNNING")
    until(group.look)
    running_queue.away(True)
    time.sleep(0.5)
    assert group.look(), "who has its ranks needs no slurmctld"
    running_queue.away(False)


def test_a_shared_folder_that_is_gone_is_no_reason_to_end(running_queue: Queue, pilots_of, site: Site, monkeypatch, until) -> None:
    group, unlink = pilots_of(), Path.unlink

    def stale(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("token."):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        unlink(path, missing_ok)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", stale)
        until(group.look)
        group.close()
    assert running_queue.listed() == []


def test_ranks_that_do_not_call_are_told_from_a_job_that_ended(queue: Queue, pilots_of, until) -> None:
    group = pilots_of(Patience(start_s=0.3))
    group.look()
    queue.change(1, state="RUNNING")
    with pytest.raises(
        RanksAway, match=r"Slurm job 1 runs, but 0 of its 2 rank\(s\) called the daemon at 127\.0\.0\.1 in time; the log is"
    ):
        until(group.look)


def test_a_pilot_of_which_nobody_knows_whether_it_was_submitted_is_cancelled(queue: Queue, pilots_of, monkeypatch) -> None:
    (queue.folder / "hangs").touch()
    monkeypatch.setattr(slurm, "_COMMAND_S", 2.0)
    with pytest.raises(RanksAway, match="sbatch did not answer within 2 s"):
        pilots_of().look()
    assert [job["state"] for job in queue.jobs()] == ["CANCELLED"]


def test_who_stops_does_not_wait_for_more_starts(queue: Queue, pilots_of, task_of, make_job, monkeypatch) -> None:
    """Each may take as long as Slurm's commands do."""
    asked: list[str] = []

    def submit(self: Slurm, options: object, script: str, environment: object) -> str:
        asked.append(script)
        raise RanksAway("sbatch did not answer within 10 s.")

    monkeypatch.setattr(Slurm, "submit", submit)
    for wish, starts in ((Wish.GO_ON, 3), (Wish.STOP, 1)):
        asked.clear()
        with pytest.raises(RanksAway):
            pilots_of().run(task_of(make_job(int(wish))), lambda _: None, lambda wish=wish: wish)
        assert len(asked) == starts


def test_a_site_may_hide_its_partitions_and_have_habits_of_its_own(queue: Queue, pilots_of, monkeypatch) -> None:
    (queue.folder / "greets").touch()
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    group = pilots_of(partition="hidden")
    group.look()
    assert group.waits.startswith("Slurm job 1 of its ranks waits in the queue")
    assert queue.listed() == ["1"]
    group.close()
    assert queue.listed() == []


def test_who_waits_in_the_queue_waits_in_peace(queue: Queue, pilots_of, task_of, make_job, until) -> None:
    group = pilots_of(Patience(start_s=0.2))
    assert not group.look()
    queue.change(1, reason="Resources")
    until(lambda: "Resources" in group.waits)
    assert group.waits == "Slurm job 1 of its ranks waits in the queue (PENDING, Resources)"
    queue.away(True)
    until(lambda: "Unable to contact slurm controller" in group.waits)
    time.sleep(0.3)
    assert not group.look()
    with pytest.raises(Cancelled):
        group.run(task_of(make_job()), lambda _: None, lambda: Wish.CANCEL)
    queue.away(False)
    assert len(queue.jobs()) == 1


def test_a_pilot_that_ends_before_its_ranks_come_is_told(queue: Queue, pilots_of, until) -> None:
    group = pilots_of()
    group.look()
    queue.change(1, state="TIMEOUT")
    with pytest.raises(RanksAway, match=r"Slurm job 1 ended before its 2 rank\(s\) called the daemon: TIMEOUT; the log is .*log.txt"):
        until(lambda: group.look())
    assert not group.look(), "the next one is not submitted at once"
    assert len(queue.jobs()) == 1
    until(lambda: group.look() or len(queue.jobs()) == 2)


def test_what_an_earlier_daemon_left_in_the_queue_is_cancelled_and_nothing_else(queue: Queue, pilots_of, site: Site) -> None:
    left = pilots_of()
    left.look()
    Slurm().submit(["--job-name=ptyplugin-somebody-else"], "", os.environ)
    pilots_of().look()
    assert [job["state"] for job in queue.jobs()] == ["CANCELLED", "PENDING", "PENDING"]
    folder = site.shared / "slots" / "1"
    ours = (folder / "slurm-name").read_text()
    assert all(queue.jobs()[place]["asked"]["job-name"].startswith(f"{ours}-") for place in (0, 2))
    assert len(list(folder.glob("token.*"))) == 1
    # A name that a full disk has cut short is none: all jobs would begin like it.
    for torn in ("", "ptyplugin-", f"{ours} "):
        (folder / "slurm-name").write_text(torn)
        assert pilot.own_name(folder) not in (ours, torn)


def test_slurm_that_is_not_there_or_refuses_is_told_in_one_sentence(queue: Queue, pilots_of, monkeypatch) -> None:
    with pytest.raises(RanksAway, match=r"^Slurm refuses: sbatch: error: invalid partition specified: nowhere\.$"):
        pilots_of(partition="nowhere").look()
    queue.away(True)
    with pytest.raises(RanksAway, match="Unable to contact slurm controller"):
        pilots_of().look()
    queue.away(False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        RanksAway, match=r"^squeue was not found: install Slurm's commands on this machine, or put their folder into PATH\.$"
    ):
        pilots_of().look()
    monkeypatch.undo()


def test_a_pilot_for_each_job_is_as_large_as_the_job(running_queue: Queue, pilots_of, task_of, make_job, monkeypatch) -> None:
    monkeypatch.setattr(pilots, "needed_bytes", lambda job, folder: int(1.5e9) if job.seed else 1)
    group = pilots_of(jobs_per_pilot=1, nodes=1, most_nodes=4)
    assert group.look()
    assert running_queue.jobs() == [], "who has no job takes no nodes"
    group.run(task_of(make_job(0)), lambda _: None, go_on)
    assert running_queue.listed() == []
    # The file system on which the result is may not be shared.
    monkeypatch.setattr(pilots, "_SEEN_S", 0.0)
    monkeypatch.setattr(pilots.os, "listdir", lambda folder: [])
    with pytest.raises(DiskError, match="results_dir in the site file must be a folder that the nodes and this machine share"):
        group.run(task_of(make_job(1)), lambda _: None, go_on)
    assert running_queue.listed() == []
    assert [job["asked"]["nodes"] for job in running_queue.jobs()] == ["1", "2"]


def test_the_daemon_uses_it_and_other_slots_do_not_wait_for_it(queue: Queue, site: Site, make_job, until) -> None:
    """A narrow slot whose pilot waits is no reason to leave small jobs to it."""
    table = SlurmNumbers(nodes=2, memory_gb_per_node=1.0)
    with Daemon(site.model_copy(update={"slot": [SlotNumbers(slurm=table)]})) as daemon:
        (waiting,) = daemon.slots
        assert not waiting.is_ready()
        assert (waiting.is_free, waiting.trouble) == (False, None)
        assert waiting.waits.startswith("Slurm job 1 of its ranks waits")
        submit(site, make_job())
        daemon._take_in()
        assert daemon.ledger.list()[0].state == "queued"
    assert queue.listed() == []


def test_places_under_slurm(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(
        "[[slot]]\n[[slot]]\ntime_limit_s = 60\n[slot.slurm]\nnodes = 2\nranks_per_node = 4\ngpus_per_node = 4\nmemory_gb_per_node = 80\n"
        "[[slot]]\n[slot.slurm]\nmost_nodes = 8\njobs_per_pilot = 1\nmemory_gb_per_node = 100\n"
    )
    here, gpus, large = places_of(load_site(file), NONE, {})
    assert [(place.ranks, place.beside, bool(place.slurm)) for place in (here, gpus, large)] == [(1, 0, False), (8, 0, True), (8, 0, True)]
    assert (gpus.memory_bytes, large.memory_bytes) == (160 * 10**9, 800 * 10**9)
    assert (gpus.limit_s, gpus.takes, large.takes) == (60, ("auto", "gpu"), ("cpu",))
    assert crowding([gpus, large]) is None, "their cores are elsewhere"
    assert large.slurm is not None
    assert [large.slurm.nodes_for(int(size)) for size in (1, 150e9, 900e9)] == [1, 2, 8]


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("gpus = [0]\n[slot.slurm]\nmemory_gb_per_node = 1", "gpus and ranks are of slots on this machine"),
        ("[slot.slurm]", "memory_gb_per_node: this key is missing"),
        ('[slot.slurm]\nmemory_gb_per_node = 1\npartition = "a b"', "write one word"),
        ('[slot.slurm]\nmemory_gb_per_node = 1\ntime = "soon"', "write a time such as 08:00:00"),
        ('[slot.slurm]\nmemory_gb_per_node = 1\noptions = ["--array=1-9"]', "--array is given by the service itself"),
        ('[slot.slurm]\nmemory_gb_per_node = 1\noptions = ["--arr=1-9"]', "--arr is given by the service itself"),
        ('[slot.slurm]\nmemory_gb_per_node = 1\noptions = ["--clusters=b"]', "the service sees one cluster"),
        ('[slot.slurm]\nmemory_gb_per_node = 1\noptions = ["rm -rf"]', "'rm -rf' is no option"),
        ('[slot.slurm]\nmemory_gb_per_node = 1\nhost = "0.0.0.0"', "write the one address"),
        ("[slot.slurm]\nmemory_gb_per_node = 1\nmost_nodes = 4", "most_nodes is for jobs_per_pilot = 1"),
    ],
)
def test_wrong_tables_are_told(tmp_path: Path, said: str, wrong: str) -> None:
    file = tmp_path / "site.toml"
    file.write_text(f"[[slot]]\n{said}\n")
    with pytest.raises(SiteError, match=wrong):
        load_site(file)


def test_the_example_is_a_site_file() -> None:
    site = load_site(Path(__file__).parents[2] / "examples" / "slurm" / "site.toml")
    assert [slot.slurm.nodes for slot in site.slot if slot.slurm] == [1, 2, 1]
    assert site.jobs.is_relative_to(site.shared)
    assert not site.ledger.is_relative_to(site.shared)


@pytest.mark.parametrize(
    ("left", "is_s"),
    [("0:07", 7), ("12:34", 754), ("1:00:00", 3600), ("2-03:04:05", 183845), ("UNLIMITED", float("inf")), ("?", float("inf"))],
)
def test_times_of_slurm(left: str, is_s: float) -> None:
    assert seconds(left) == is_s


def test_the_doctor_asks_slurm_without_submitting_anything(queue: Queue, site: Site, monkeypatch) -> None:
    def found(**asked: object) -> tuple[str, str]:
        table = SlurmNumbers.model_validate({"memory_gb_per_node": 1, **asked})
        shared = {"shared_dir": site.home, "results_dir": site.home, "slot": [SlotNumbers(), SlotNumbers(slurm=table)]}
        (finding,) = slurm_found(site.model_copy(update=shared))
        assert finding.about == "slot 2"
        return finding.state, finding.said

    assert found()[0] == "warning", "nodes do not reach the loopback of this machine"
    assert found(host="127.1")[0] == "warning", "by whatever name: Debian has that of the machine itself lead there"
    assert found(partition="nowhere") == ("wrong", "Slurm refuses: sbatch: error: invalid partition specified: nowhere.")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert found(port=taken.getsockname()[1])[0] == "wrong"
    monkeypatch.setenv("PATH", "/nowhere")
    assert found() == ("wrong", "sbatch was not found: install Slurm's commands on this machine, or put their folder into PATH.")
    monkeypatch.undo()
    assert queue.jobs() == []


def test_a_job_waits_where_slurm_is_away(queue: Queue, site: Site, make_job) -> None:
    """As any other trouble of the installation: it costs no try."""
    queue.away(True)
    table = SlurmNumbers(memory_gb_per_node=1.0, jobs_per_pilot=1)
    submit(site, job := make_job())
    with Daemon(site.model_copy(update={"slot": [SlotNumbers(slurm=table)]})) as daemon:
        daemon.run_once()
        waits = daemon.ledger.show(job.key)
        assert (waits.state, waits.tries) == ("queued", 0)
        assert "Unable to contact slurm controller" in str(waits.sentence)
