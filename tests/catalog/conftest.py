"""One real Tiled server for all tests of the catalog (a cold start takes 10 to 20 s), raw runs in it, and result files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import event_model
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.catalog import LocalServer, connect
from ptyplugin.io import write_result
from ptyplugin.model import (
    FrameBlock,
    Geometry,
    GeometryNumbers,
    Hdf5Source,
    Job,
    Progress,
    Reconstruction,
    RunSource,
    Site,
    Verdict,
)

H, W = 12, 16


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the catalog, the detector files (data/) and the results (results/) lie; unseen/ the server may not read."""
    place = tmp_path_factory.mktemp("beamline")
    for name in ("data", "results", "unseen"):
        (place / name).mkdir()
    return place


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[LocalServer]:
    """A server that may read data/ and results/, and nothing else."""
    with LocalServer(folder / "catalog", readable=[folder / "data", folder / "results"]) as running:
        yield running


@pytest.fixture(scope="session")
def site(server: LocalServer, folder: Path) -> Site:
    """A site with this catalog."""
    return Site(home=folder / "home", tiled_uri=server.uri, data_roots=[folder / "data"])


@pytest.fixture(scope="session")
def client(server: LocalServer, site: Site) -> Iterator[Any]:
    """A client for the root of the catalog."""
    connected = connect(site, server.api_key)
    yield connected
    connected.context.close()


@dataclass
class WrittenRun:
    """A run as it went by, and as it was written."""

    uid: str
    scan_id: int
    counts: NDArray[np.uint16]
    documents: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@pytest.fixture(scope="session")
def write_run(client: Any) -> Callable[..., None]:
    """Give documents to a TiledWriter."""

    def write(documents: list[tuple[str, Any]], batch_size: int) -> None:
        from bluesky_tiled_plugins import TiledWriter

        writer = TiledWriter(client["sim/raw"], batch_size=batch_size)
        for name, document in documents:
            writer(name, document)

    return write


@pytest.fixture(scope="session")
def stream_run(folder: Path, write_run: Callable[..., None]) -> WrittenRun:
    """A step scan of 6 points as an ophyd-async detector documents it; the fourth point was repeated after a pause (a rewind)."""
    rows = [(1, 0.0), (2, 1.0), (3, 2.0), (4, 3.0), (4, 3.5), (5, 4.0)]
    run = _begin("stream", len(rows), scan_id=7)
    place = folder / "data" / "stream.h5"
    _write_frames(place, run.counts)
    bundle = _descriptor(run, [1, H, W], "STREAM:")
    resource = {
        "uid": f"{run.uid}-resource",
        "data_key": "detector",
        "mimetype": "application/x-hdf5",
        "uri": f"file://localhost{place}",
        "parameters": {"dataset": "/entry/data/data", "chunk_shape": (1, H, W)},
        "run_start": run.uid,
    }
    run.documents.append(("stream_resource", resource))
    for row, (seq_num, y) in enumerate(rows):
        datum = {
            "uid": f"{run.uid}-datum/{row}",
            "stream_resource": resource["uid"],
            "descriptor": bundle,
            "indices": {"start": row, "stop": row + 1},
            "seq_nums": {"start": seq_num, "stop": seq_num + 1},
        }
        run.documents += [("stream_datum", datum), _event(run, bundle, row, seq_num, y, {})]
    _end(run, 5)  # the RunEngine counts seq_nums
    write_run(run.documents, 1)
    return run


@pytest.fixture(scope="session")
def legacy_run(folder: Path, write_run: Callable[..., None]) -> WrittenRun:
    """5 points with 2 frames each as an ophyd v1 AreaDetector documents them (AD_HDF5), written at the end in one go."""
    run = _begin("legacy", 10, scan_id=8)
    _write_frames(folder / "data" / "legacy.h5", run.counts)
    bundle = _descriptor(run, [2, H, W], "FILESTORE:")
    resource = {
        "uid": f"{run.uid}-resource",
        "spec": "AD_HDF5",
        "root": str(folder / "data"),
        "resource_path": "legacy.h5",
        "resource_kwargs": {"frame_per_point": 2},
        "path_semantics": "posix",
        "run_start": run.uid,
    }
    run.documents.append(("resource", resource))
    for point in range(5):
        datum = {"datum_id": f"{resource['uid']}/{point}", "resource": resource["uid"], "datum_kwargs": {"point_number": point}}
        run.documents += [("datum", datum), _event(run, bundle, point, point + 1, float(point), {"detector": datum["datum_id"]})]
    _end(run, 5)
    write_run(run.documents, 10_000)
    return run


@pytest.fixture(scope="session")
def inside_run(write_run: Callable[..., None]) -> WrittenRun:
    """4 points whose frames came inside the events; same scan id as the stream run, but younger."""
    run = _begin("inside", 4, scan_id=7, time=2000.0)
    bundle = _descriptor(run, [H, W], None)
    run.documents += [_event(run, bundle, row, row + 1, float(row), {"detector": run.counts[row].tolist()}) for row in range(4)]
    _end(run, 4)
    write_run(run.documents, 10_000)
    return run


def _begin(name: str, frames: int, scan_id: int, time: float = 1000.0) -> WrittenRun:
    counts = np.random.default_rng(len(name)).integers(0, 60_000, (frames, H, W), dtype=np.uint16)
    run = WrittenRun(f"{name}-0000-4000-8000-000000000000", scan_id, counts)
    start = {"uid": run.uid, "time": time, "scan_id": scan_id, "plan_name": "ptycho_grid", "energy_ev": 8000.0, "detector_distance_m": 3.0}
    run.documents.append(("start", start))
    return run


def _descriptor(run: WrittenRun, shape: list[int], external: str | None) -> str:
    detector: dict[str, Any] = {"source": "sim", "dtype": "array", "shape": shape, "dtype_numpy": "<u2", "object_name": "detector"}
    if external is not None:
        detector["external"] = external
    motors = {key: {"source": "sim", "dtype": "number", "shape": [], "units": "um", "object_name": key} for key in ("stage_y", "stage_x")}
    settings = {"data": {"detector-gain": 2}, "timestamps": {"detector-gain": 0.0}, "data_keys": {"detector-gain": dict(motors["stage_y"])}}
    uid = f"{run.uid}-primary"
    keys = {"detector": ["detector"], "stage_y": ["stage_y"], "stage_x": ["stage_x"]}
    document = {
        "uid": uid,
        "run_start": run.uid,
        "time": 1001.0,
        "name": "primary",
        "data_keys": {"detector": detector, **motors},
        "configuration": {"detector": settings},
        "hints": {},
        "object_keys": keys,
    }
    event_model.schema_validators[event_model.DocumentNames.descriptor].validate(document)
    run.documents.append(("descriptor", document))
    return uid


def _event(run: WrittenRun, descriptor: str, row: int, seq_num: int, y: float, more: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    data = {"stage_y": y, "stage_x": -y, **more}
    filled = {key: False for key, value in more.items() if isinstance(value, str)}
    document = {
        "uid": f"{run.uid}-event/{row}",
        "descriptor": descriptor,
        "seq_num": seq_num,
        "time": 1002.0 + row,
        "data": data,
        "timestamps": dict.fromkeys(data, 1002.0 + row),
        "filled": filled,
    }
    return "event", document


def _end(run: WrittenRun, events: int) -> None:
    stop = {"uid": f"{run.uid}-stop", "run_start": run.uid, "time": 1100.0, "exit_status": "success", "num_events": {"primary": events}}
    run.documents.append(("stop", stop))


def _write_frames(path: Path, counts: NDArray[np.uint16]) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("/entry/data/data", data=counts, chunks=(1, H, W))


@pytest.fixture(scope="session")
def make_result(folder: Path) -> Callable[..., tuple[Path, str, Reconstruction]]:
    """Write a result file for a run; gives its path, the job's key and what is in it."""

    def make(run_uid: str, *, scan_id: int = 7, where: str = "results", seed: int = 0) -> tuple[Path, str, Reconstruction]:
        job = _job(run_uid, scan_id, seed)
        reconstruction = _reconstruction(job, seed)
        path = folder / where / f"{job.key}.h5"
        write_result(path, reconstruction)
        return path, job.key, reconstruction

    return make


def _job(run_uid: str, scan_id: int, seed: int) -> Job:
    frames = FrameBlock(source=Hdf5Source(uri="file://localhost/nowhere.h5", dataset="/entry/data/data"), ranges=[(0, 3)])
    return Job(
        beamline="sim",
        source=RunSource(run_uid=run_uid, key="detector", scan_id=scan_id),
        geometry=GeometryNumbers(energy_ev=8000.0, distance_m=3.0, pixel_m=75e-6, shape=(H, H)),
        recipe="DM(10)",
        seed=seed,
        frames=[frames],
        frame_ids=[(0, 3)],
        positions_m=[[(0.0, 0.0)], [(1e-6, 0.0)], [(0.0, 1e-6)]],
        notes=["2 frames had no position and were left out."],
    )


def _reconstruction(job: Job, seed: int) -> Reconstruction:
    random = np.random.default_rng(seed)

    def waves(*shape: int) -> NDArray[np.complex64]:
        return np.asarray(random.normal(size=shape) + 1j * random.normal(size=shape), dtype=np.complex64)

    progress = [
        Progress(job.key, "DM", 1, 2, 0.5, {"constraint_residual": 0.25}),
        Progress(job.key, "DM", 2, 2, 1.0, {"constraint_residual": 0.125, "error": 0.01}),
    ]
    return Reconstruction(
        object=waves(2, 40, 44),
        probe=waves(2, H, H),
        geometry=Geometry(energy_ev=8000.0, distance_m=3.0, pixel_m=75e-6, shape=(H, H)),
        positions_m=np.array([[0.0, 0.0], [1e-6, 0.0], [0.0, 1e-6]]),
        positions_px=np.array([[4.0, 4.0], [24.0, 4.0], [4.0, 24.0]]),
        mask=np.zeros((H, H), np.uint8),
        progress=progress,
        quality={"error": 0.01, "not_measured": float("nan")},
        background=np.full((H, H), 0.25, np.float32),
        intensities=np.array([0.75, 1.0, 1.25], np.float32),
        verdict=Verdict("doubtful", "still falling", ("The error was still falling.",)),
        provenance={"job": job.model_dump(mode="json"), "recipe": job.recipe, "notes": job.notes, "versions": {"ptyplugin": "0"}},
    )
