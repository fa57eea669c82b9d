"""A reconstruction over two nodes of a real Slurm, through the daemon; what is killed there costs a moment, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import slurm_here
from live_scan import LiveScan, write_scan

from ptyplugin.api import make_job, open_scan
from ptyplugin.io import read_result
from ptyplugin.jobs import submit
from ptyplugin.model import Job, Progress, Site, SlotNumbers, SlurmNumbers
from ptyplugin.service import Daemon, Place
from ptyplugin.service.pilots import Pilots

HERE = str(Path(__file__).parent)
pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm_here.Cluster]:
    if why := slurm_here.why_not():
        pytest.skip(why)
    with slurm_here.cluster() as cluster:
        yield cluster


class Running:
    """A daemon at work, and the queue that it uses."""

    def __init__(self, daemon: Daemon, site: Site, cluster: slurm_here.Cluster, scan: Path) -> None:
        self.daemon, self.site, self._cluster, self._scan = daemon, site, cluster, scan
        self.heard = list[Progress]()

    def submit(self, recipe: str, seed: int) -> Job:
        parts = make_job(open_scan(self._scan, site=self.site), recipe, seed=seed)
        submit(self.site, parts.job, parts.arrays)
        return parts.job

    def iterates(self, job: Job) -> bool:
        return any(progress.job == job.key and progress.iteration > 3 for progress in self.heard)

    def queue(self) -> list[str]:
        return self._cluster.says("squeue", "-h", "-o", "%i %T %N %j %k").splitlines()

    def wait_for(self, what: Callable[[], object], within_s: float = 60.0) -> None:
        end = time.monotonic() + within_s
        while not what():
            jobs = [(entry.state, entry.sentence) for entry in self.daemon.ledger.list()]
            assert time.monotonic() < end, f"{jobs}, {self.queue()}, {[slot.trouble or slot.waits for slot in self.daemon.slots]}"
            time.sleep(0.05)

    def frames_of(self, key: str) -> int:
        return max((progress.frames for progress in self.heard if progress.job == key), default=0)

    def is_done(self, job: Job) -> bool:
        return any(entry.key == job.key and entry.state == "published" for entry in self.daemon.ledger.list())

    def result_of(self, job: Job) -> Path:
        return self.site.results / f"{job.key}.h5"

    def said_of(self, job: Job) -> str:
        return " ".join(str(step.sentence) for step in self.daemon.ledger.history(job.key))


@contextmanager
def running(
    cluster: slurm_here.Cluster, folder: Path, scan: Path, launch: Callable[[Place], Pilots] | None = None, **asked: object
) -> Iterator[Running]:
    slurm = SlurmNumbers.model_validate({"partition": "test", "time": "00:10:00", "memory_gb_per_node": 2, **asked})
    # The ledger's disk is the daemon's own; what the ranks need is shared.
    site = Site(
        home=folder / "home",
        shared_dir=folder / "shared",
        results_dir=folder / "results",
        data_roots=[scan.parent.resolve(), folder.resolve()],
        slot=[SlotNumbers(slurm=slurm)],
    )
    with Daemon(site, launch, lambda result, key: None, lambda progress: going.heard.append(progress)) as daemon:
        going = Running(daemon, site, cluster, scan)
        thread = threading.Thread(target=daemon.run)
        thread.start()
        try:
            yield going
        finally:
            daemon.stop()
            thread.join(30)
            assert not thread.is_alive()


def _slow(place: Place) -> Pilots:
    assert place.slurm
    return Pilots(place.site.shared / "slots" / place.name, place.slurm, solve="slow_solving:solve")


@pytest.fixture(autouse=True)
def _found(cluster: slurm_here.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster by Slurm's commands, the slow solver by the ranks."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.config))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")])))


def test_a_pilot_over_two_nodes_and_what_may_happen_to_it(cluster, tmp_path: Path, small_cxi: Path, caplog) -> None:
    caplog.set_level("INFO")
    with running(cluster, tmp_path, small_cxi, _slow, nodes=2) as going:
        first = going.submit("DM(30)", 1)
        going.wait_for(lambda: going.is_done(first))
        assert read_result(going.result_of(first)).quality["error"] < 0.1
        (pilot,) = going.queue()
        _, state, nodes, name, comment = pilot.split()
        assert (state, nodes) == ("RUNNING", "n[1-2]")
        assert name == comment
        assert name.startswith("ptyplugin-")
        assert len(cluster.ranks()) == 2
        _nobody_else_learns_the_token(cluster, tmp_path)
        _a_live_job_grows_and_its_final_one_follows(going, tmp_path / "live.h5")
        assert going.queue() == [pilot], "it was the same pilot"

        second = going.submit("DM(30)", 2)
        going.wait_for(lambda: going.iterates(second))
        os.kill(cluster.ranks()[0], signal.SIGKILL)
        going.wait_for(lambda: going.is_done(second))
        assert "of 2 was killed or crashed" in going.said_of(second)
        assert name not in going.queue()[0], "it was done by a fresh pilot"

        third = going.submit("DM(30)", 3)
        going.wait_for(lambda: going.iterates(third))
        cluster.kill_controller()
        going.wait_for(lambda: going.is_done(third))
        assert "crashed" not in going.said_of(third), "who has its ranks needs no slurmctld"
        cluster.start_controller()

        fourth = going.submit("DM(30)", 4)
        going.wait_for(lambda: going.iterates(fourth) and going.queue())
        cluster.says("scancel", "--me")
        going.wait_for(lambda: going.is_done(fourth))
        assert "in which the 2 rank(s) of the solver lived, has ended (CANCELLED" in going.said_of(fourth)
    assert (going.queue(), cluster.ranks()) == ([], [])
    assert not list(tmp_path.glob("shared/slots/1/token.*"))


def _a_live_job_grows_and_its_final_one_follows(going: Running, file: Path) -> None:
    scan = LiveScan(going.site, file, write_scan(file, 12))
    live = scan.submit("live")
    for first, last in ((64, 100), (100, 144)):
        going.wait_for(lambda first=first: going.frames_of(live) == first)
        scan.grow(first, last)
    going.wait_for(lambda: going.frames_of(live) == 144)
    scan.grow(144, 144, ended=True)
    scan.submit("final")
    going.wait_for(lambda: going.is_done(scan.final))
    states = [step.state for step in going.daemon.ledger.history(live)]
    assert states == ["queued", "running", "solved", "cancelled"], "the final image has taken its place"
    assert len(read_result(going.result_of(scan.final)).positions_m) == 144
    assert not (going.site.jobs / live / "growth").exists()


def _nobody_else_learns_the_token(cluster: slurm_here.Cluster, folder: Path) -> None:
    assert not list(folder.glob("shared/slots/1/token.*")), "it is needed for a moment"
    for rank in cluster.ranks():
        words = Path(f"/proc/{rank}/cmdline").read_bytes().split(b"\0")
        assert b"token." in words[-2], "its place, not itself"


def test_a_pilot_for_each_reconstruction(cluster, tmp_path: Path, small_cxi: Path) -> None:
    with running(cluster, tmp_path, small_cxi, nodes=1, most_nodes=2, jobs_per_pilot=1) as going:
        time.sleep(0.5)
        assert going.queue() == [], "who has no job takes no nodes"
        job = going.submit("DM(30)", 1)
        going.wait_for(lambda: going.is_done(job))
        assert read_result(going.result_of(job)).quality["error"] < 0.1
        going.wait_for(lambda: not going.queue())
        _a_live_job_grows_and_its_final_one_follows(going, tmp_path / "live.h5")
        going.wait_for(lambda: not going.queue())
    assert cluster.ranks() == []
