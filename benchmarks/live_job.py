"""A live job on two warm ranks, its frames handed over as a scan does: how soon it shows something, how often, and how soon it is done.

``python -m benchmarks.live_job [--quick]``, or the part ``live`` of ``make bench``. The frames lie in their file beforehand.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from benchmarks.serving import home, until
from benchmarks.table import Table, verdict
from ptyplugin.api import solve_job
from ptyplugin.io import read_result
from ptyplugin.jobs import Entry, grow, submit
from ptyplugin.model import FrameBlock, GeometryNumbers, Growth, Hdf5Source, Job, Reconstruction, RunSource, Site, Snapshot
from ptyplugin.service import Daemon
from ptyplugin.service.publisher import Publish
from ptyplugin.sim.optics import annular_probe, far_field
from ptyplugin.sim.sample import make_sample

_SIDE, _STEP = 128, 8
GEOMETRY = GeometryNumbers(energy_ev=8000, distance_m=3, pixel_m=75e-6, shape=(_SIDE, _SIDE))
#: Growth is handed over so often, seconds.
_EVERY_S = 0.25


@dataclass
class _Scan:
    """count frames of ``path``, at so many a second."""

    path: Path
    positions_m: NDArray[np.float64]
    run: str
    rate: float
    first: int

    def job(self, purpose: str, frames: int | None = None) -> Job:
        count = frames or (self.first if purpose == "live" else len(self.positions_m))
        said = {"frames": [self._block(0, count)], "frame_ids": [(0, count)], "positions_m": self._positions(0, count)}
        source = RunSource(run_uid=self.run, key="detector")
        return Job.model_validate(
            {"beamline": "bench", "source": source, "purpose": purpose, "geometry": GEOMETRY, "recipe": "DM(30)", **said}
        )

    def growth(self, start: int, stop: int) -> Growth:
        said = {"frames": [self._block(start, stop)], "frame_ids": [(start, stop)], "positions_m": self._positions(start, stop)}
        return Growth.model_validate({"job": self.job("live").key, "first": start, "ended": stop == len(self.positions_m), **said})

    def _block(self, start: int, stop: int) -> FrameBlock:
        return FrameBlock(source=Hdf5Source(uri=self.path.as_uri(), dataset="entry/data/data"), ranges=[(start, stop)])

    def _positions(self, start: int, stop: int) -> list[list[tuple[float, float]]]:
        return [[(float(y), float(x))] for y, x in self.positions_m[start:stop]]


class _Seen:
    """When which frames of which purpose were shown, Unix seconds."""

    def __init__(self) -> None:
        self.shown: list[tuple[float, int, str | None]] = []

    def __call__(self, snapshot: Snapshot, entry: Entry) -> None:
        self.shown.append((time.time(), snapshot.frames, entry.purpose))

    def times(self, purpose: str) -> list[float]:
        return [at for at, _, of in self.shown if of == purpose]


def run(quick: bool) -> list[Table]:
    """All tables."""
    table = Table("a live job, 2 warm ranks, 128 x 128 px, DM(30)", ["what", "measured", "unit", "limit"])
    table.notes.append(f"Load before: {os.getloadavg()[0]:.1f}.")
    with home() as site:
        _followed(table, site, 100 if quick else 500, 50.0)
    with home() as site:
        _fast(table, site, 300 if quick else 3000, 300.0)
    return [table]


def _followed(table: Table, site: Site, count: int, rate: float) -> None:
    scan = _Scan(site.home / "scan.h5", write_scan(site.home / "scan.h5", count), "bench-1", rate, max(count // 20, 9))
    live, final, seen, begun_s, ended_s, kept = _done(site, scan)
    shown = seen.times("live")
    longest_s = _longest(shown)
    table.add(f"first image after the first {scan.first} of {count} frames", shown[0] - begun_s, "s", verdict(shown[0] - begun_s, 2.0))
    table.add(f"longest time between images while {rate:g} frames/s come", longest_s, "s", verdict(longest_s, 2.0))
    table.add("last frame to the finished live image", live - ended_s, "s", verdict(live - ended_s, 10.0))
    table.add("last frame to the final result", final - ended_s, "s", "")
    alone = solve_job(scan.job("final"), None, site)
    assert alone is not None
    ratio = kept.quality["error"] / alone.quality["error"]
    table.add("the error of that, in ratio to that of the same recipe on all frames at once", ratio, "", verdict(ratio, 1.05))


def _fast(table: Table, site: Site, count: int, rate: float) -> None:
    scan = _Scan(site.home / "scan.h5", write_scan(site.home / "scan.h5", count), "bench-2", rate, 64)
    live, _, seen, _, ended_s, kept = _done(site, scan, with_final=False)
    shown = seen.times("live")
    longest_s = _longest(shown)
    table.add(
        f"frames admitted of {count} at {rate:g} a second", len(kept.positions_m), "", verdict(len(kept.positions_m), count, most=False)
    )
    table.add("longest time between images meanwhile", longest_s, "s", verdict(longest_s, 2.0))
    table.add("last frame to the finished live image", live - ended_s, "s", "")


def _longest(times_s: list[float]) -> float:
    return max((after - before for before, after in pairwise(times_s)), default=0.0)


def _done(site: Site, scan: _Scan, with_final: bool = True) -> tuple[float, float, _Seen, float, float, Reconstruction]:
    """When live and final job were solved, what was shown, when the first share and the last frames were handed over; the last result."""
    seen, kept = _Seen(), list[Reconstruction]()
    keep: Publish = lambda result, key: None  # noqa: E731
    with Daemon(site, publish=keep) as daemon:
        daemon.add_snapshot_listener(seen)
        daemon.ledger.listen(lambda entry: _keep(entry, kept))
        thread = threading.Thread(target=daemon.run)
        thread.start()
        try:
            warm = submit(site, replace(scan, run="warm").job("final", scan.first))
            until(lambda: any(entry.key == warm and entry.state == "published" for entry in daemon.ledger.list()), "a first job", 300.0)
            begun_s = time.time()
            submit(site, scan.job("live"))
            ended_s = _hand_over(site, scan, begun_s)
            if with_final:
                submit(site, scan.job("final"))
            keys = [scan.job("live").key, *([scan.job("final").key] if with_final else [])]
            until(lambda: all(any(step.state == "solved" for step in daemon.ledger.history(key)) for key in keys), "the jobs", 300.0)
            solved = [next(step.at_s for step in daemon.ledger.history(key) if step.state == "solved") for key in keys]
        finally:
            daemon.stop()
            thread.join()
    return solved[0], solved[-1], seen, begun_s, ended_s, kept[-1]


def _keep(entry: Entry, kept: list[Reconstruction]) -> None:
    """Results in their order: that of a live job goes when the final one takes its place."""
    if entry.state == "solved" and entry.result is not None:
        kept.append(read_result(entry.result))


def _hand_over(site: Site, scan: _Scan, begun_s: float) -> float:
    """Hand frames over at their pace; when the last ones were, Unix seconds."""
    done, count = scan.first, len(scan.positions_m)
    while done < count:
        time.sleep(_EVERY_S)
        there = min(count, scan.first + int((time.time() - begun_s) * scan.rate))
        grow(site, scan.growth(done, there))
        done = there
    return time.time()


def write_scan(path: Path, count: int) -> NDArray[np.float64]:
    """Write so many frames of a raster; gives their positions (frame, yx) m."""
    rng, across = np.random.default_rng(1), round(count**0.5)
    probe = annular_probe(_SIDE, pupil_px=20.0, spot_px=24.0) * np.sqrt(1e6)
    at = np.array([divmod(number, across) for number in range(count)]) * _STEP + rng.integers(0, 3, (count, 2))
    size = _SIDE + (int(at.max()) + 3)
    sample = make_sample((size, size), 3)
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset("entry/data/data", (count, _SIDE, _SIDE), np.uint16, chunks=(1, _SIDE, _SIDE))
        for number, (y, x) in enumerate(at):
            data[number] = rng.poisson(far_field(probe[None] * sample[None, y : y + _SIDE, x : x + _SIDE])).clip(0, 65535)
    return at * np.asarray(GEOMETRY.build().object_pixel_m)


if __name__ == "__main__":
    for made in run("--quick" in sys.argv):
        print(made.markdown())
