"""Many small scans as documents over 0MQ, with the service starting late: does every scan have its result?

    python -m benchmarks.scan_burst --scans 1000 --rate 2000

A real Tiled server holds all scans (the first by TiledWriter, the others copied in its database). A real 0MQ proxy and bluesky's Publisher
send their documents at ``--rate`` a second, and a third into it the daemon starts. 0MQ has by then lost the first third, and loses more
where nobody keeps up; the sweep and the gaps in the numbers of events heal that. Each job reads all its frames and writes its result
file, but does not reconstruct (see ``glance``): the way of the scans is measured, not the solver. Results go into the same catalog, by
the real publisher, and are counted there, as files, and in the ledger. A line on stderr says now and then how far it is.
"""

from __future__ import annotations

import argparse
import math
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import msgpack
import numpy as np

from ptyplugin.catalog import LocalServer, connect, search
from ptyplugin.io.opening import open_frames
from ptyplugin.jobs import open_read_only
from ptyplugin.model import Job, Progress, Reconstruction, Site
from ptyplugin.service import Daemon, Inline, Wish
from ptyplugin.service.sources import Sources

Documents = list[tuple[str, dict[str, Any]]]

POINTS, SIDE = 16, 64
#: How long to wait for the last result after the last document, seconds a scan, and at the least.
_PATIENCE_S, _LEAST_S = 3.0, 120.0
#: How often is said how far it is, seconds.
_SAY_S = 20.0

_PROFILE = """\
name = "burst"
beamline = "sim"
[detector]
key = "detector"
pixel_m = 75e-6
[geometry]
energy = { start = "energy_ev", unit = "eV" }
distance = { start = "detector_distance_m", unit = "m" }
[positions]
y = { key = "stage_y", unit = "um" }
x = { key = "stage_x", unit = "um" }
[reconstruction]
recipe = "DM(2)"
"""

_PROXY = """\
import sys
from bluesky.callbacks.zmq import Proxy
proxy = Proxy("127.0.0.1", "127.0.0.1")
print(proxy.in_port, proxy.out_port, flush=True)
proxy.start()
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a burst came to.

    results: scans with a result file that is published, by the ledger; in_catalog: scans with exactly one result in the catalog
    documents: that came over 0MQ; healed: runs asked from the catalog
    solved_s: until the last job was solved, seconds: until the last result was published, from the first document on
    """

    scans: int
    results: int
    in_catalog: int
    sent: int
    documents: int
    healed: int
    solved_s: float
    seconds: float

    def __str__(self) -> str:
        lost = 1 - self.documents / self.sent
        return (
            f"{self.results} of {self.scans} scans have their result, {self.in_catalog} in the catalog; "
            f"0MQ brought {self.documents} of {self.sent} documents "
            f"({lost:.1%} lost), {self.healed} scans came from the catalog; "
            f"all solved after {self.solved_s:.0f} s, published after {self.seconds:.0f} s"
        )


def write_frames(path: Path, points: int = POINTS, side: int = SIDE) -> None:
    """A file of frames: counts of a disc that moves a little."""
    y, x = np.mgrid[:side, :side] - side / 2
    random = np.random.default_rng(5)
    with h5py.File(path, "w") as file:
        frames = [random.poisson(200 * np.exp(-((y - dy) ** 2 + (x - dx) ** 2) / 30)) for dy, dx in random.normal(0, 2, (points, 2))]
        file.create_dataset("/entry/data/data", data=np.array(frames, np.uint16), chunks=(1, side, side))


def scan_documents(uid: str, scan_id: int, frames: Path, begun_s: float, points: int = POINTS, side: int = SIDE) -> Documents:
    """A step scan as an ophyd-async detector documents it: its frames are the first ``points`` of the file."""
    number = {"source": "sim", "dtype": "number", "shape": [], "units": "um"}
    keys: dict[str, Any] = {key: {**number, "object_name": key} for key in ("stage_y", "stage_x")}
    keys["detector"] = {
        "source": "sim",
        "dtype": "array",
        "shape": [1, side, side],
        "dtype_numpy": "<u2",
        "object_name": "detector",
        "external": "STREAM:",
    }
    start = {"uid": uid, "time": begun_s, "scan_id": scan_id, "plan_name": "grid_scan", "energy_ev": 8000.0, "detector_distance_m": 2.0}
    descriptor = {"uid": f"{uid}-primary", "run_start": uid, "time": begun_s, "name": "primary", "data_keys": keys, "configuration": {}}
    resource = {
        "uid": f"{uid}-resource",
        "run_start": uid,
        "data_key": "detector",
        "mimetype": "application/x-hdf5",
        "uri": f"file://localhost{frames}",
        "parameters": {"dataset": "/entry/data/data", "chunk_shape": [1, side, side]},
    }
    objects = {key: [key] for key in keys}
    documents: Documents = [
        ("start", start),
        ("descriptor", {**descriptor, "hints": {}, "object_keys": objects}),
        ("stream_resource", resource),
    ]
    for row in range(points):
        numbers = {"indices": {"start": row, "stop": row + 1}, "seq_nums": {"start": row + 1, "stop": row + 2}}
        datum = {"uid": f"{uid}-resource/{row}", "stream_resource": f"{uid}-resource", "descriptor": f"{uid}-primary", **numbers}
        data = {"stage_y": 0.4 * (row // 4) + 0.03 * (row % 3), "stage_x": 0.4 * (row % 4) + 0.02 * (row % 5)}
        event = {"uid": f"{uid}-event/{row}", "descriptor": f"{uid}-primary", "seq_num": row + 1, "time": begun_s + row, "data": data}
        documents += [("stream_datum", datum), ("event", {**event, "timestamps": dict.fromkeys(data, begun_s + row), "filled": {}})]
    stop = {"uid": f"{uid}-stop", "run_start": uid, "time": begun_s + points, "exit_status": "success", "num_events": {"primary": points}}
    return [*documents, ("stop", stop)]


def glance(
    job: Job, folder: Path, site: Site, ranks: Any, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]
) -> Reconstruction | None:
    """In place of a solver: the mean frame as probe."""
    with open_frames(job, site, folder, None) as frames:
        mean = frames.read(np.arange(len(frames))).mean(axis=0, dtype=np.float64)
    scan = job.scan(folder)
    return Reconstruction(
        object=np.ones((1, 2, 2), np.complex64),
        probe=mean[None].astype(np.complex64),
        geometry=job.geometry.build(),
        positions_m=scan.positions_m[:, 0],
        positions_px=scan.positions_m[:, 0],
        mask=np.zeros(mean.shape, np.uint8),
        progress=[Progress(job.key, "GLANCE", 1, 1, 0.0, {"error": 1.0})],
        quality={"error": 1.0},
        provenance={"job": job.model_dump(mode="json"), "beamline": job.beamline},
    )


@contextmanager
def zmq_proxy() -> Iterator[tuple[str, str]]:
    """bluesky's 0MQ proxy in a process of its own; the addresses for publishers and for subscribers."""
    process = subprocess.Popen([sys.executable, "-c", _PROXY], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        addresses = process.stdout.readline().split()
        yield addresses[0], addresses[1]
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def burst(folder: Path, scans: int, rate: float) -> Outcome:
    """Run it in ``folder``, with servers of its own."""
    frames = folder / "data" / "frames.h5"
    frames.parent.mkdir()
    write_frames(frames)
    profile, runs = write_profile(folder), runs_of(scans, frames)
    with (
        LocalServer(folder / "catalog", readable=[frames.parent, folder / "home" / "results"]) as server,
        zmq_proxy() as (publishers, subscribers),
    ):
        os.environ["TILED_API_KEY"] = server.api_key
        site = Site.model_validate(
            {
                "home": folder / "home",
                "data_roots": [frames.parent],
                "tiled_uri": server.uri,
                "device": "cpu",
                "source": [{"kind": "zmq", "address": subscribers, "profiles": [str(profile)]}],
            }
        )
        fill(site, runs[:1])
        copy_runs(server.folder / "catalog.db", runs)
        return send_and_solve(site, runs, publishers, rate)


def write_profile(folder: Path) -> Path:
    """The profile of these scans."""
    profile = folder / "burst.toml"
    profile.write_text(_PROFILE)
    return profile


def runs_of(scans: int, frames: Path) -> list[Documents]:
    """The documents of so many scans, each with a file of its own: another name of this one."""
    runs = []
    for number in range(scans):
        os.link(frames, own := frames.with_name(f"{number:04d}.h5"))
        runs.append(scan_documents(f"burst-{number:04d}-4000-8000-000000000000", number, own, time.time()))
    return runs


def fill(site: Site, runs: list[Documents]) -> None:
    """Write all scans into the catalog."""
    from bluesky_tiled_plugins import TiledWriter

    client = connect(site)
    raw = client["sim/raw"]
    for documents in runs:
        writer = TiledWriter(raw)
        for name, document in documents:
            writer(name, document)
    client.context.close()


def copy_runs(database: Path, runs: list[Documents]) -> None:
    """Copy the first of these runs, which is in the catalog, to all others, within its database: a second for a thousand."""
    first = runs[0][0][1]
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        (node,) = connection.execute("SELECT id, parent FROM nodes WHERE key = ?", (first["uid"],))
        for documents in runs[1:]:
            other = documents[0][1]
            changed = {first["uid"]: other["uid"], f'"scan_id":{first["scan_id"]},': f'"scan_id":{other["scan_id"]},'}
            changed[_file_of(runs[0])] = _file_of(documents)
            _copy_node(connection, node[0], node[1], changed)


def _file_of(documents: Documents) -> str:
    return next(str(document["uri"]) for name, document in documents if name == "stream_resource")


def _copy_node(connection: sqlite3.Connection, node: int, parent: int, changed: dict[str, str]) -> None:
    columns = "structure_family, specs, time_created, time_updated"
    ((key, metadata),) = connection.execute("SELECT key, metadata FROM nodes WHERE id = ?", (node,))
    for old, new in changed.items():
        key, metadata = key.replace(old, new), metadata.replace(old, new)
    query = f"INSERT INTO nodes (parent, key, metadata, {columns}) SELECT ?, ?, ?, {columns} FROM nodes WHERE id = ?"
    copy = connection.execute(query, (parent, key, metadata, node)).lastrowid
    assert copy is not None
    columns = "structure_id, mimetype, parameters, properties, management, structure_family, time_created, time_updated"
    for (source,) in connection.execute("SELECT id FROM data_sources WHERE node_id = ?", (node,)).fetchall():
        query = f"INSERT INTO data_sources (node_id, {columns}) SELECT ?, {columns} FROM data_sources WHERE id = ?"
        _copy_assets(connection, source, connection.execute(query, (copy, source)).lastrowid, changed)
    for (child,) in connection.execute("SELECT id FROM nodes WHERE parent = ?", (node,)).fetchall():
        _copy_node(connection, child, copy, changed)


def _copy_assets(connection: sqlite3.Connection, source: int, copy: int | None, changed: dict[str, str]) -> None:
    columns = "is_directory, hash_type, hash_content, size, time_created, time_updated"
    query = "SELECT id, data_uri, parameter, num FROM assets JOIN data_source_asset_association ON asset_id = id WHERE data_source_id = ?"
    for asset, uri, parameter, number in connection.execute(query, (source,)).fetchall():
        own = uri
        for old, new in changed.items():
            own = own.replace(old, new)
        if own != uri:
            query = f"INSERT INTO assets (data_uri, {columns}) SELECT ?, {columns} FROM assets WHERE id = ? ON CONFLICT DO NOTHING"
            connection.execute(query, (own, asset))
            ((asset,),) = connection.execute("SELECT id FROM assets WHERE data_uri = ?", (own,))
        query = "INSERT INTO data_source_asset_association (data_source_id, asset_id, parameter, num) VALUES (?, ?, ?, ?)"
        connection.execute(query, (copy, asset, parameter, number))


def send_and_solve(site: Site, runs: list[Documents], publishers: str, rate: float) -> Outcome:
    """Send the documents, start the service late, and wait for the results."""
    from bluesky.callbacks.zmq import Publisher

    publisher = Publisher(publishers, serializer=msgpack.packb)
    documents = [document for run in runs for document in run]
    begun_s = time.monotonic()
    sending = threading.Thread(target=_send, args=(publisher, documents, rate))
    try:
        sending.start()
        _wait_until(begun_s + len(documents) / rate / 3)
        with Daemon(site, Inline("benchmarks.scan_burst:glance")) as daemon, Sources(site) as sources:
            working = threading.Thread(target=daemon.run)
            working.start()
            sending.join()
            uids = {run[0][1]["uid"] for run in runs}
            solved_s = _wait_for_results(site, uids, time.monotonic() + max(_LEAST_S, _PATIENCE_S * len(runs))) - begun_s
            seconds = time.monotonic() - begun_s
            daemon.stop()
            working.join()
            counts = [state.counts for state in sources.states()]
    finally:
        sending.join()
        publisher.close()
    with open_read_only(site.ledger) as ledger:
        done = {entry.run_uid for entry in ledger.list(state="published") if entry.result is not None and entry.result.exists()} & uids
    came = sum(each["documents"] for each in counts)
    healed = sum(each["healed"] for each in counts)
    return Outcome(len(runs), len(done), _in_catalog(site, uids), len(documents), came, healed, solved_s, seconds)


def _in_catalog(site: Site, uids: set[str]) -> int:
    """Scans with exactly one whole result."""
    client = connect(site)
    found = Counter(node.metadata["scan_uid"] for node in search(client, state="published"))
    client.context.close()
    return sum(found[uid] == 1 for uid in uids)


def _send(publisher: Any, documents: Documents, rate: float) -> None:
    begun_s = time.monotonic()
    for number, (name, document) in enumerate(documents):
        _wait_until(begun_s + number / rate)
        publisher(name, document)


def _wait_until(when_s: float) -> None:
    left_s = when_s - time.monotonic()
    if left_s > 0:
        time.sleep(left_s)


def _wait_for_results(site: Site, uids: set[str], end_s: float) -> float:
    """Until all are published; when the last one was solved, by the monotonic clock."""
    solved_s, said_s = math.inf, time.monotonic()
    with open_read_only(site.ledger) as ledger:
        while time.monotonic() < end_s:
            states = {entry.run_uid: entry.state for entry in ledger.list()}
            if all(states.get(uid) in ("solved", "published", "failed") for uid in uids):
                solved_s = min(solved_s, time.monotonic())
            if all(states.get(uid) in ("published", "failed") for uid in uids):
                break
            if time.monotonic() - said_s > _SAY_S:
                said_s = time.monotonic()
                sys.stderr.write(f"scan_burst: {dict(Counter(states.values()))} of {len(uids)}\n")
            time.sleep(0.5)
    return solved_s


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=2000.0, help="documents a second")
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="ptyplugin-burst-") as folder:
        outcome = burst(Path(folder), asked.scans, asked.rate)
    print(outcome)
    sys.exit(not outcome.results == outcome.in_catalog == outcome.scans)


if __name__ == "__main__":
    main()
