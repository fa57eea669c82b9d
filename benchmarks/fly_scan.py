"""Fly scans of the simulated beamline, with all that belongs to one on this machine: IOC, RunEngine, AutoReconstruct, Tiled, service.

Frames are computed before a scan begins. ``ptycho_fly`` triggers detector and position capture over Channel Access; the detector writes
HDF5 (SWMR) and sends NTNDArrays over PV Access; a raw writer and AutoReconstruct are subscribed; ``ptyplugin serve`` has two warm ranks.
``python -m benchmarks fly``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
from numpy.typing import NDArray

from benchmarks.serving import serving, site_file, until
from benchmarks.table import Table, verdict
from ptyplugin.api import solve_job
from ptyplugin.catalog import LocalServer
from ptyplugin.io import read_result
from ptyplugin.io.spool import CONNECTED, FRAME, Spool, spool_folder
from ptyplugin.jobs import JOB_FILE, Entry, open_read_only, read_snapshot
from ptyplugin.model import Growth, Job, LedgerError, Site, load_site
from ptyplugin.sim import ioc
from ptyplugin.sim.ioc.files import EPICS_EPOCH_S

_ROOT = Path(__file__).resolve().parents[1]
_CHANNEL, _ATTRIBUTES = "SIM:Pva1:Image", "/entry/instrument/NDAttributes"
#: Limits of the issue, seconds and a ratio.
_FIRST_S, _EVERY_S, _FINAL_S, _ERROR = 2.0, 2.0, 10.0, 1.05
#: Share of the frames with which the first image begins, as the profile says it.
_FIRST_SHARE = 0.05
#: Over PV Access each so many-th frame is lost.
_DROP = 50
_PATIENCE_S, _LOOK_S = 150.0, 0.02


def run(quick: bool) -> list[Table]:
    """All tables."""
    table = Table("fly scans, everything on this machine, 128 x 128 px, DM(30), 2 warm ranks", ["what", "measured", "unit", "limit"])
    table.notes.append(
        f"Load before: {os.getloadavg()[0]:.1f}. Over PV Access each {_DROP}th frame is lost, and the file is shown after the last one."
    )
    with _hall() as hall:
        hall.fly("file", 64, 50.0)
        _followed(table, hall, 100 if quick else 500, 50.0)
        for way, name in {"file": "HDF5 in place", "pva": "PV Access"}.items():
            _fast(table, hall, way, name, 300 if quick else 3000, 300.0)
    return [table]


def _followed(table: Table, hall: _Hall, count: int, rate: float) -> None:
    """A scan from its first image to its final one."""
    scan = hall.fly("file", count, rate)
    name = f"{count} frames at {rate:g} a second, HDF5 in place: "
    _images(table, name, scan)
    final_s = hall.ended_s(scan, "final", "solved") - scan.last_frame_s
    shown_s = hall.ended_s(scan, "final", "published") - scan.last_frame_s
    table.add(name + "last frame to the final result", final_s, "s", verdict(final_s, _FINAL_S))
    table.add(name + "last frame to the final image in the catalog", shown_s, "s", verdict(shown_s, _FINAL_S))
    (final,) = hall.entries(scan, "final")
    folder = hall.site.jobs / final.key
    alone = solve_job(Job.from_bytes((folder / JOB_FILE).read_bytes()), folder, hall.site)
    assert final.result is not None
    assert alone is not None
    ratio = read_result(final.result).quality["error"] / alone.quality["error"]
    table.add(name + "its error, in ratio to that of an offline run", ratio, "", verdict(ratio, _ERROR))


def _fast(table: Table, hall: _Hall, way: str, called: str, count: int, rate: float) -> None:
    """Whether all frames are admitted, each once and at its place, while the run is open."""
    scan = hall.fly(way, count, rate, hold=True, drop=_DROP if way == "pva" else 0)
    name = f"{count} frames at {rate:g} a second, {called}: "
    _images(table, name, scan)
    written, admitted = scan.read(f"{_ATTRIBUTES}/NDArrayUniqueId"), scan.admitted
    right = int(np.count_nonzero(written[admitted] == np.arange(count) + written[0])) if len(admitted) == count else 0
    table.add(name + "frame ids admitted that are those in the file", right, "", verdict(right, count, most=False))
    whole_s = next((at_s for at_s, frames in scan.images if frames == count), float("nan"))
    table.add(name + "last frame to all of them in an image", whole_s - scan.last_frame_s, "s", "")
    if way == "pva":
        rows = Spool(spool_folder(hall.site, _CHANNEL)).rows_since(scan.begun_s)
        numbers = rows["number"][(rows["kind"] == FRAME) & (rows["received_s"] >= scan.begun_s)]
        table.add(
            name + "healed from the file",
            count - len(np.intersect1d(numbers, written)),
            "",
            f"lost on purpose: {np.sum(written % _DROP == 0)}",
        )


def _images(table: Table, name: str, scan: _Scan) -> None:
    announced_s = next(at_s for stop, at_s in scan.announced if stop >= min(64, int(np.ceil(_FIRST_SHARE * scan.count))))
    if not scan.images:
        table.add(name + "no image came before the final one", None, "", "MISSED")
        return
    first_s, times = scan.images[0][0] - announced_s, [at_s for at_s, _ in scan.images]
    going = [at_s for at_s in times if at_s <= scan.last_frame_s]
    # Without an image while it flew, the first one was waited for; without one afterwards, that of the last frame.
    marks = [*(going or [announced_s]), *(times[len(going) :][:1] or [scan.last_frame_s])]
    longest_s = max(after - before for before, after in pairwise(marks))
    table.add(name + "first image after the document that announces the first 5 %, or 64 frames", first_s, "s", verdict(first_s, _FIRST_S))
    table.add(name + "longest time between images while it flies", longest_s, "s", verdict(longest_s, _EVERY_S))
    span_s = scan.last_frame_s - scan.first_frame_s
    table.add(name + "frames a second that the detector took", (scan.count - 1) / span_s, "1/s", "")


@dataclass(slots=True)
class _Scan:
    """A scan as the session told it and as its images came; times in Unix seconds.

    announced: frames so far, and when; images: when one came, and how many frames it had; admitted: numbers in the file, in their order
    """

    way: str
    count: int
    uid: str = ""
    begun_s: float = 0.0
    file: Path = Path()
    announced: list[tuple[int, float]] = field(default_factory=list)
    images: list[tuple[float, int]] = field(default_factory=list)
    admitted: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    ended: str = ""

    @property
    def first_frame_s(self) -> float:
        """When the detector had its first frame."""
        return float(self.read(f"{_ATTRIBUTES}/NDArrayTimeStamp")[0]) + EPICS_EPOCH_S

    @property
    def last_frame_s(self) -> float:
        """When the detector had its last frame."""
        return float(self.read(f"{_ATTRIBUTES}/NDArrayTimeStamp")[-1]) + EPICS_EPOCH_S

    def read(self, dataset: str) -> NDArray[Any]:
        """A dataset of its file."""
        with h5py.File(self.file, "r", libver="latest", swmr=True) as file:
            return np.asarray(file[dataset])


class _Hall:
    """Where it is measured. Files lie in ``data``; the service looks for them in ``mounted``, where they are let appear."""

    def __init__(self, folder: Path, site: Site, session: subprocess.Popen[str]) -> None:
        self._folder, self.site, self._session = folder, site, session

    def fly(self, way: str, count: int, rate: float, hold: bool = False, drop: int = 0) -> _Scan:
        """Fly, watch its images, and wait for the end of its jobs.

        hold: the run stays open until all frames are in an image
        """
        scan, held = _Scan(way, count), self._folder / f"go-{time.time_ns()}"
        order = {"profile": way, "frames": count, "rate": rate, "drop": drop, "hold": str(held) if hold else ""}
        assert self._session.stdin is not None
        self._session.stdin.write(json.dumps(order) + "\n")
        self._session.stdin.flush()
        listening = threading.Thread(target=self._listen, args=(scan,))
        listening.start()
        self._watch(scan, held if hold else None)
        listening.join()
        self.ended_s(scan, "final", "published")
        return scan

    def entries(self, scan: _Scan, purpose: str) -> list[Entry]:
        """Its jobs."""
        try:
            with open_read_only(self.site.ledger) as ledger:
                return list(ledger.list(run_uid=scan.uid, purpose=purpose))
        except LedgerError:
            return []

    def ended_s(self, scan: _Scan, purpose: str, state: str) -> float:
        """When its job came into this state, Unix seconds; waits for that."""
        found: list[float] = []

        def is_there() -> bool:
            for entry in self.entries(scan, purpose):
                if entry.state == "failed":
                    raise RuntimeError(f"job {entry.key} failed: {entry.sentence}")
                with open_read_only(self.site.ledger) as ledger:
                    found.extend(step.at_s for step in ledger.history(entry.key) if step.state == state)
            return bool(found)

        until(is_there, f"the {purpose} job of a scan of {scan.count} frames is {state}", _PATIENCE_S, 0.1)
        return found[0]

    def _listen(self, scan: _Scan) -> None:
        assert self._session.stdout is not None
        for line in self._session.stdout:
            told = json.loads(line)
            if "begun" in told:
                scan.uid, scan.begun_s = told["begun"], told["at_s"]
            elif "file" in told:
                scan.file = Path(unquote(urlparse(told["file"]).path))
                if scan.way == "file":
                    self._mount(scan)
            elif "announced" in told:
                scan.announced.append((told["announced"], told["at_s"]))
                if scan.way != "file" and told["announced"] == scan.count:
                    self._mount(scan)
            scan.ended = told.get("ended", scan.ended)
            if "done" in told:
                return
        scan.ended = "the session ended"

    def _mount(self, scan: _Scan) -> None:
        (self._folder / "mounted" / scan.file.name).symlink_to(scan.file)

    def _watch(self, scan: _Scan, held: Path | None) -> None:
        """Note its live images, until the final one is there."""
        until(lambda: scan.ended or self.entries(scan, "live"), "a live job begins", _PATIENCE_S)
        jobs, end_s, seen_s = self.entries(scan, "live"), time.monotonic() + _PATIENCE_S, 0.0
        while jobs and not self._is_over(scan):
            folder = self.site.jobs / jobs[0].key
            if time.monotonic() > end_s:
                raise TimeoutError(f"of {scan.count} frames {scan.images[-1:] or 'none'} were in an image within {_PATIENCE_S:g} s")
            snapshot = read_snapshot(folder)
            if snapshot is not None and snapshot.taken_s != seen_s:
                seen_s = snapshot.taken_s
                scan.images.append((time.time(), snapshot.frames))
                if held is not None and snapshot.frames == scan.count and not held.exists():
                    scan.admitted = _admitted(folder)
                    held.touch()
            time.sleep(_LOOK_S)
        if scan.ended != "success":
            raise RuntimeError(f"the scan ended: {scan.ended}")

    def _is_over(self, scan: _Scan) -> bool:
        """Whether no live image will come."""
        return bool(scan.ended) and any(entry.state in ("solved", "published", "failed") for entry in self.entries(scan, "final"))


def _admitted(folder: Path) -> NDArray[np.int64]:
    """Numbers of the frames in the detector's file that a live job has got, in their order."""
    grown = [Growth.from_bytes(path.read_bytes()) for path in sorted(folder.glob("growth/*/growth.json"))]
    parts: list[Job | Growth] = [Job.from_bytes((folder / JOB_FILE).read_bytes()), *grown]
    return np.concatenate([block.indices() for part in parts for block in part.frames])


@contextmanager
def _hall() -> Iterator[_Hall]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptyplugin-bench-")))
        for name in ("data", "mounted", "ioc"):
            (folder / name).mkdir()
        catalog = stack.enter_context(
            LocalServer(folder / "catalog", readable=[folder / "data", folder / "results"], beamlines=["file", "pva"])
        )
        served = stack.enter_context(ioc.running(folder / "ioc", options=["--range-um", "30", "--imperfection", "substeps=1"]))
        file = _site_file(folder, catalog.uri)
        environment = {**served.environment, "TILED_API_KEY": catalog.api_key}
        stack.enter_context(serving(file, folder, [], environment))
        session = stack.enter_context(_session(folder, file, environment))
        site = load_site(file)
        spool = Spool(spool_folder(site, _CHANNEL))
        until(lambda: bool(np.any(spool.rows_since(0.0)["kind"] == CONNECTED)), "frames are recorded", _PATIENCE_S)
        yield _Hall(folder, site, session)


def _site_file(folder: Path, catalog: str) -> Path:
    """The site; and a profile for each way of the frames."""
    text = (_ROOT / "profiles" / "sim_fly.toml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("substeps")]
    for way, channel in {"file": "", "pva": f'\npva = "{_CHANNEL}"'}.items():
        profile = (
            "\n".join(lines)
            .replace("[live] ", '[reconstruction]\nrecipe = "DM(30)"\n\n[live] ')
            .replace('beamline = "sim"', f'beamline = "{way}"')
        )
        (folder / f"{way}.toml").write_text(profile + channel + "\n", encoding="utf-8")
    lines = [
        f'results_dir = "{folder}/results"',
        f'data_roots = ["{folder}/data", "{folder}/mounted"]',
        f'path_map = {{ "{folder}/data" = "{folder}/mounted" }}',
        f'tiled_uri = "{catalog}"',
    ]
    return site_file(folder, "\n".join(lines), f'[[slot]]\nranks = 2\n[[source]]\nkind = "pva"\nprofiles = ["{folder}/pva.toml"]')


@contextmanager
def _session(folder: Path, file: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.fly_session", str(folder), str(file)]
    said = {**os.environ, **environment, "OPHYD_CONTROL_LAYER": "dummy"}
    with (
        (folder / "session.log").open("w") as log,
        subprocess.Popen(command, cwd=_ROOT, env=said, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError((folder / "session.log").read_text()[-2000:])
            yield process
        finally:
            process.kill()
