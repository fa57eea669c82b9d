"""A live job that has only the catalog between it and the beamline, in and out: are all frames admitted, and how often does a page move?

``python -m benchmarks.live_tiled [--quick]``, or the part ``live_tiled`` of ``make bench``. All on this machine: a Tiled server, a session
that writes a fly scan into it (TiledWriter, ``batch_size=1``, a collect batch each quarter of a second), ``ptyplugin serve`` with a source
``tiled`` and two warm ranks, and a subscriber of the growing image. The service does not see the detector's file: its frames come through
the catalog, the captured positions from their file. Frames and positions lie in their files beforehand: of a file that is ahead of its
array in the catalog Tiled gives frames only where both have the same axes (0.2.20; else it answers 422), so these are (frame, 1, y, x).
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from benchmarks.live_job import GEOMETRY, write_scan
from benchmarks.serving import serving, site_file, until
from benchmarks.table import Table, verdict
from ptyplugin.catalog import LocalServer, connect
from ptyplugin.jobs import Entry, open_read_only
from ptyplugin.model import Growth, Job, Site, load_site

#: Frames a second, and in a collect batch; how long the first image may take from the document that announces this share of the frames, and
#: the longest time between two images, as the issue has them, seconds.
RATE, BATCH, FIRST_SHARE, FIRST_S, LONGEST_S = 100.0, 25, 0.05, 2.0, 2.0
_PATIENCE_S = 300.0
_CAPTURED = ("y", "x")
_PROFILE = f"""\
name = "bench"
beamline = "sim"
[detector]
key = "det"
pixel_m = {GEOMETRY.pixel_m}
[geometry]
energy = {{ value = {GEOMETRY.energy_ev}, unit = "eV" }}
distance = {{ value = {GEOMETRY.distance_m}, unit = "m" }}
[positions]
y = {{ key = "y", unit = "um" }}
x = {{ key = "x", unit = "um" }}
[reconstruction]
recipe = "DM(30)"
[live]
recipe = "DM(30)"
"""


def run(quick: bool) -> list[Table]:
    """All tables."""
    table = Table(f"a live job through Tiled, {RATE:g} frames/s of 128 x 128 px, 2 warm ranks", ["what", "measured", "unit", "limit"])
    table.notes.append(f"Load before: {os.getloadavg()[0]:.1f}.")
    with _beamline(100 if quick else 500) as beamline:
        beamline.fly("flown-before")
        _tell(table, beamline, "flown-measured")
    return [table]


def _tell(table: Table, beamline: _Beamline, uid: str) -> None:
    with _Subscriber(beamline, uid) as seen:
        begun_s, announced_s, ended_s = beamline.fly(uid)
    (live,) = beamline.jobs(uid, "live") or [None]
    ids, count = seen.ids()[: (live and live.frames) or 0], len(beamline.positions_m)
    right = ids == list(range(count))
    table.add(f"frame ids admitted of {count}, in batches of {BATCH}", len(ids), "", "ok (= ids in the run)" if right else "MISSED")
    table.add("the scan took", ended_s - begun_s, "s", "")
    times = [at for at in seen.times if at <= ended_s]
    if not times:
        table.add("images that a subscriber got while the scan ran", 0, "", "MISSED")
        return
    gaps = [after - before for before, after in pairwise([*times, ended_s])]
    first_s = times[0] - announced_s
    table.add("first image after the document that announces the first 5 %", first_s, "s", verdict(first_s, FIRST_S))
    table.add("time between the images that a subscriber gets, median", median(gaps), "s", "")
    table.add("the longest", max(gaps), "s", verdict(max(gaps), LONGEST_S))


class _Beamline:
    """A catalog, a detector's file, a file of captured positions (frame, yx), and the service."""

    def __init__(self, folder: Path, site: Site, client: Any, positions_m: NDArray[np.float64]) -> None:
        self.folder, self.site, self.client, self.positions_m = folder, site, client, positions_m

    def fly(self, uid: str) -> tuple[float, float, float]:
        """A scan, until its final job is done; when it began, FIRST_SHARE of it was announced, and all of it, Unix seconds."""
        from bluesky_tiled_plugins import TiledWriter

        write = TiledWriter(self.client["sim/raw"], batch_size=1)
        os.link(self.folder / "det" / "frames.h5", self.folder / "det" / f"{uid}.h5")
        for document in self._head(uid):
            write(*document)
        begun_s, announced_s, count = time.time(), 0.0, len(self.positions_m)
        for first in range(0, count, BATCH):
            stop = min(first + BATCH, count)
            # The batch is collected when its last frame was measured; a writer that is slow makes it late.
            time.sleep(max(0.0, begun_s + stop / RATE - time.time()))
            announced_s = announced_s or (time.time() if stop >= FIRST_SHARE * count else 0.0)
            ranges = {"indices": {"start": first, "stop": stop}, "seq_nums": {"start": first + 1, "stop": stop + 1}}
            for key in ("det", *_CAPTURED):
                names = {"uid": f"{uid}-{key}/{first}", "stream_resource": f"{uid}-{key}", "descriptor": f"{uid}-d"}
                write("stream_datum", {**names, **ranges})
        ended_s = time.time()
        end = {"uid": f"{uid}-s", "run_start": uid, "time": ended_s, "exit_status": "success", "num_events": {"primary": count}}
        write("stop", end)
        until(lambda: any(job.state in ("published", "failed") for job in self.jobs(uid, "final")), f"the final job of {uid}", _PATIENCE_S)
        return begun_s, announced_s, ended_s

    def jobs(self, uid: str, purpose: str) -> list[Entry]:
        """What the ledger has."""
        if not self.site.ledger.exists():
            return []
        with open_read_only(self.site.ledger) as ledger:
            return list(ledger.list(run_uid=uid, purpose=purpose))

    def _head(self, uid: str) -> Iterator[tuple[str, dict[str, Any]]]:
        limits = [[float(1e6 * axis.min()), float(1e6 * axis.max())] for axis in self.positions_m.T]
        told = {"plan_name": "fly", "motors": list(_CAPTURED), "extents": limits, "num_points": len(self.positions_m)}
        yield "start", {"uid": uid, "time": time.time(), **told}
        number = {"source": "box", "dtype": "array", "shape": [1], "dtype_numpy": "<f8", "units": "um", "external": "STREAM:"}
        frames = {"source": "det", "dtype": "array", "shape": [1, *GEOMETRY.shape], "dtype_numpy": "<u2", "external": "STREAM:"}
        keys = {"det": frames, **dict.fromkeys(_CAPTURED, number)}
        head = {"uid": f"{uid}-d", "run_start": uid, "time": time.time(), "name": "primary", "configuration": {}, "hints": {}}
        yield "descriptor", {**head, "data_keys": keys, "object_keys": {key: [key] for key in keys}}
        files = {"det": (f"det/{uid}.h5", "entry/data/data", [1, *GEOMETRY.shape]), "y": ("box.h5", "y", [64]), "x": ("box.h5", "x", [64])}
        for key, (file, dataset, chunk) in files.items():
            place = {"uid": f"{uid}-{key}", "run_start": uid, "data_key": key, "mimetype": "application/x-hdf5"}
            uri = f"file://localhost{self.folder / file}"
            yield "stream_resource", {**place, "uri": uri, "parameters": {"dataset": dataset, "chunk_shape": chunk}}


class _Subscriber:
    """Notes when the phase of a run's live job moved, Unix seconds: one image each, however many blocks it has. A context manager.

    It also notes which frames the live job gets: what it was given lies in its folder until it has ended.
    """

    def __init__(self, beamline: _Beamline, uid: str) -> None:
        self._beamline, self._uid = beamline, uid
        self._heard: dict[tuple[int, ...], list[float]] = {}
        self._spans: dict[int, list[tuple[int, int]]] = {}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._listen, self._gather)]

    @property
    def times(self) -> list[float]:
        """Of the block that moved most often."""
        return max(self._heard.values(), key=len, default=[])

    def ids(self) -> list[int]:
        """Frames of the live job, in their order."""
        return [frame for _, spans in sorted(self._spans.items()) for first, stop in spans for frame in range(first, stop)]

    def __enter__(self) -> _Subscriber:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _gather(self) -> None:
        while not self._stop.wait(0.05):
            for job in self._beamline.jobs(self._uid, "live"):
                folder = self._beamline.site.jobs / job.key
                with suppress(OSError):
                    self._spans.setdefault(0, Job.from_bytes((folder / "job.json").read_bytes()).frame_ids)
                for path in folder.glob("growth/*/growth.json"):
                    with suppress(OSError):
                        growth = Growth.from_bytes(path.read_bytes())
                        self._spans.setdefault(growth.first, growth.frame_ids)

    def _listen(self) -> None:
        while not self._stop.wait(0.1):
            for job in self._beamline.jobs(self._uid, "live"):
                try:
                    image = self._beamline.client[f"sim/processed/ptyplugin/{job.key}/live/1/object_phase"]
                except KeyError:
                    continue
                self._follow(image)

    def _follow(self, image: Any) -> None:
        subscription = image.subscribe()
        subscription.new_data.add_callback(self._take)
        subscription.start_in_thread(0)
        self._stop.wait()
        subscription.disconnect()

    def _take(self, update: Any) -> None:
        self._heard.setdefault(tuple(update.block), []).append(time.time())


@contextmanager
def _beamline(count: int) -> Iterator[_Beamline]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptyplugin-bench-"))).resolve()
        (folder / "det").mkdir()
        positions_m = write_scan(folder / "det" / "frames.h5", count)
        with h5py.File(folder / "det" / "frames.h5", "r+") as file:
            frames = file["entry/data/data"][()][:, None]
            del file["entry/data/data"]
            file.create_dataset("entry/data/data", data=frames, chunks=(1, *frames.shape[1:]))
        with h5py.File(folder / "box.h5", "w") as box:
            for axis, name in enumerate(_CAPTURED):
                box[name] = 1e6 * positions_m[:, axis]
        server = stack.enter_context(LocalServer(folder / "catalog", readable=[folder]))
        file = _site_file(folder, server.uri)
        site = load_site(file)
        client = connect(site, server.api_key)
        stack.callback(client.context.close)
        process = stack.enter_context(serving(file, folder, (), {"TILED_API_KEY": server.api_key}))
        log = folder / "serve.log"
        until(lambda: "connected" in log.read_text(encoding="utf-8") or process.poll(), "the service follows the catalog", _PATIENCE_S)
        yield _Beamline(folder, site, client, positions_m)


def _site_file(folder: Path, uri: str) -> Path:
    profile = folder / "bench.toml"
    profile.write_text(_PROFILE, encoding="utf-8")
    unseen = f'path_map = {{ "{folder}/det" = "{folder}/not_mounted" }}'
    tables = f'[[slot]]\nranks = 2\n[[source]]\nkind = "tiled"\nprofiles = ["{profile}"]'
    return site_file(folder, f'tiled_uri = "{uri}"\ndata_roots = ["{folder}"]\n{unseen}', tables)


if __name__ == "__main__":
    for made in run("--quick" in sys.argv):
        print(made.markdown())
