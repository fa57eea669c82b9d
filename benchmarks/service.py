"""The service: what a job costs beside its solving, what an idle daemon takes, and how soon a job goes on after a kill. On the CPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.service_jobs import job_of
from benchmarks.serving import home, serving, site_file, until
from benchmarks.table import Table, verdict
from ptyplugin.jobs import open_read_only, submit
from ptyplugin.model import Cancelled, Job, Site, load_site
from ptyplugin.service import Daemon, Mpiexec, Place, Wish
from ptyplugin.service.solving import Task

_ROOT = Path(__file__).resolve().parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")
#: Jobs, and those after which memory is looked at for the first time.
_MANY, _FIRST = 10_000, 1000


def run(quick: bool) -> list[Table]:
    """All tables."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    table = Table("the service, 2 warm ranks", ["what", "measured", "unit", "limit"])
    with home() as site:
        _ways(table, site, 20 if quick else 200)
    with home() as site:
        _idle(table, site, 2.0 if quick else 20.0)
    with home() as site:
        _killed(table, site, 1 if quick else 5)
    with home() as site:
        _memory(table, site, 200 if quick else _MANY, 100 if quick else _FIRST)
    return [table]


def _launch(solve: str) -> Callable[[Place], Mpiexec]:
    def launch(place: Place) -> Mpiexec:
        # One group for all jobs: what it leaks shall show.
        folder = place.site.home / "slots" / place.name
        return Mpiexec(folder, place.ranks, gpus=(), solve=f"benchmarks.service_jobs:{solve}", jobs_per_group=2 * _MANY)

    return launch


def _task(site: Site, job: Job) -> Task:
    folder = site.jobs / job.key
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_bytes(job.to_bytes())
    return Task(folder, site)


def _ways(table: Table, site: Site, count: int) -> None:
    task = _task(site, job_of(0))
    with Mpiexec(site.home / "slots" / "ways", 2, gpus=(), solve="benchmarks.service_jobs:nothing") as group:
        times = []
        for _ in range(count):
            begun = time.perf_counter()
            with suppress(Cancelled):
                group.run(task, lambda _: None, lambda: Wish.GO_ON)
            times.append(1e3 * (time.perf_counter() - begun))
    _add(table, "empty job through the warm group, median", statistics.median(times[1:]), "ms", 5.0)
    with Daemon(site, _launch("empty"), lambda result, key: None) as daemon:
        slot, times = daemon._slots[0], []
        for seed in range(1, count):
            submit(site, job_of(seed))
            daemon._take_in()
            begun = time.perf_counter()
            assert slot.solve_next()
            times.append(1e3 * (time.perf_counter() - begun))
    _add(table, "the same through the ledger, with its result file, median", statistics.median(times[1:]), "ms", 40.0)


def _idle(table: Table, site: Site, seconds: float) -> None:
    # Nobody answers there: all that a catalog costs while there is nothing for it.
    file = site_file(site.home, 'tiled_uri = "http://127.0.0.1:9"', "[[slot]]\nranks = 2")
    with serving(file, site.home) as service:
        known = load_site(file).home / "slots" / "1" / "processes.json"
        until(known.exists, "ranks begin")
        ranks, publisher = [pid for pid, _ in json.loads(known.read_text())], _publisher_of(service.pid)
        until(lambda: _cpu_s(ranks[0]) == (time.sleep(2.0), _cpu_s(ranks[0]))[1], "they have warmed up")
        pids = (service.pid, publisher, *ranks)
        before = [_cpu_s(pid) for pid in pids]
        time.sleep(seconds)
        used = [100 * (_cpu_s(pid) - was) / seconds for pid, was in zip(pids, before, strict=True)]
        _add(table, "idle daemon with its publisher, of one core", used[0] + used[1], "%", 1.0)
        table.add("its ranks, of one core", max(used[2:]), "%", None)
        _add(table, "idle daemon with its publisher, memory: what is shared counts in part", sum(map(_share_mb, pids[:2])), "MB", 300.0)
        table.add("of these the daemon alone, memory", _resident_mb(service.pid), "MB", None)
        table.add("each of its ranks, memory", max(map(_resident_mb, ranks[:2])), "MB", None)
        begun = time.monotonic()
    table.add("from SIGTERM until all is down, idle", time.monotonic() - begun, "s", None)


def _killed(table: Table, site: Site, times: int) -> None:
    """kill -9 of a rank in the middle of a job of the real solver."""
    from ptyplugin.api import make_job, open_scan

    parts = make_job(open_scan(_small_scan(site.home / "small.cxi"), site=site), "DM(100000)")
    submit(site, parts.job, parts.arrays)
    folder, known = site.jobs / parts.job.key, site.home / "slots" / "1" / "processes.json"
    back, again = [], []
    with Daemon(site, _launch("noted"), lambda result, key: None) as daemon:
        thread = threading.Thread(target=daemon.run)
        thread.start()
        for _ in range(times):
            until(lambda: list(folder.glob("checkpoint.*")), "a checkpoint")
            time.sleep(1.0)
            killed = time.time()
            os.kill(json.loads(known.read_text())[1][0], signal.SIGKILL)
            until(lambda since=killed: _queued_again(site, parts.job.key, since), "the job is queued again", 30, 0.005)
            back.append(_queued_again(site, parts.job.key, killed) - killed)
            until(lambda since=killed + back[-1]: _times(folder)[-1] > since, "the job iterates again", 60, 0.005)
            again.append(next(each for each in _times(folder) if each > killed + back[-1]) - killed)
        begun = time.monotonic()
        daemon.stop()
        thread.join()
        stopped = time.monotonic() - begun
    _add(table, "from the kill of a rank until the job may be started again, worst", max(back), "s", 1.0)
    _add(table, "from the kill of a rank until the job iterates again, worst", max(again), "s", 5.0)
    _add(table, "from a stop until the job is in a checkpoint and all is down", stopped, "s", 30.0)


def _memory(table: Table, site: Site, many: int, first: int) -> None:
    with Daemon(site, _launch("empty"), lambda result, key: None) as daemon:
        slot, sizes = daemon._slots[0], []
        for seed in range(many):
            job = job_of(seed)
            _task(site, job)
            daemon._ledger.put(job)
            assert slot.solve_next()
            (site.results / f"{job.key}.h5").unlink()
            shutil.rmtree(site.jobs / job.key)
            if seed + 1 in (first, many):
                ranks = [pid for pid, _ in json.loads((site.home / "slots" / "1" / "processes.json").read_text())][:2]
                sizes.append([_resident_mb(pid) for pid in (os.getpid(), *ranks)])
    for name, place in (("the daemon", 0), ("a rank", 1)):
        grown = 100 * (sizes[1][place] / sizes[0][place] - 1)
        _add(table, f"memory of {name} after {many} empty jobs, against that after {first}", grown, "%", 5.0)


def _add(table: Table, what: str, value: float, unit: str, limit: float) -> None:
    table.add(what, value, unit, verdict(value, limit))


def _queued_again(site: Site, key: str, after: float) -> float:
    """When it was put back, Unix seconds; 0 if it was not."""
    with open_read_only(site.ledger) as view:
        times = [step.at_s for step in view.history(key) if step.state == "queued" and step.at_s > after]
    return times[0] if times else 0.0


def _times(folder: Path) -> list[float]:
    return [float(line.split()[1]) for line in (folder / "iterations").read_text().splitlines() if len(line.split()) == 2]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _share_mb(pid: int) -> float:
    """Memory of its own, and of what it shares with others its share."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def _publisher_of(daemon: int) -> int:
    children = [int(pid) for task in Path(f"/proc/{daemon}/task").iterdir() for pid in (task / "children").read_text().split()]
    return next(pid for pid in children if b"ptyplugin.catalog.apart" in Path(f"/proc/{pid}/cmdline").read_bytes())


def _small_scan(path: Path) -> Path:
    """36 frames of 48 px; what they show does not matter."""
    import h5py

    side, step_m = 48, 1e-7
    counts = np.random.default_rng(0).poisson(20.0, (36, side, side)).astype(np.uint16)
    at = np.array([(x, y, 0) for y in range(6) for x in range(6)], dtype=np.float64) * step_m
    with h5py.File(path, "w") as file:
        detector, source = (file.create_group(f"entry_1/instrument_1/{name}") for name in ("detector_1", "source_1"))
        for name, value in {"data": counts, "distance": 1.0, "x_pixel_size": 75e-6, "y_pixel_size": 75e-6}.items():
            detector[name] = value
        source["energy"] = 8000.0 * 1.602176634e-19
        file["entry_1/sample_1/geometry_1/translation"] = at
    return path
