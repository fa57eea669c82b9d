"""Positions on the way of a fly scan, from the catalog as from the documents."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptyplugin.callbacks import Collector, FileReader, RunEnded, assemble
from ptyplugin.catalog import find_run, run_documents
from ptyplugin.model import FramesError, JobParts, Site, TiledSource
from ptyplugin.profiles import load_profile
from ptyplugin.service.sources.catalog import Catalog

pytestmark = pytest.mark.system


def positions_of(documents: Any, reader: Any = None, substeps: int | None = None) -> Any:
    profile = load_profile("sim")
    profile = profile.model_copy(update={"positions": profile.positions.model_copy(update={"substeps": substeps})})
    collector = Collector(profile)
    (run,) = [output.run for name, document in documents for output in collector(name, document) if isinstance(output, RunEnded)]
    parts = assemble(run, profile, reader)
    assert isinstance(parts, JobParts), parts
    return np.array(parts.job.positions_m)


def test_positions_on_the_way_come_back_from_the_catalog(client: Any, site: Site, write_run: Callable[..., None]) -> None:
    uid, keys = "flyscan-0000-4000-8000-000000000000", ("stage_y", "stage_x")
    number = {"source": "sim", "dtype": "number", "shape": [], "units": "um"}
    data_keys = {
        "detector": {"source": "sim", "dtype": "array", "shape": [12, 16], "dtype_numpy": "<u2"},
        "stage_y": number,
        "stage_x": {**number, "dtype": "array", "shape": [3], "dtype_numpy": "<f8"},
    }
    head = {"uid": f"{uid}-primary", "run_start": uid, "time": 1001.0, "name": "primary", "hints": {}}
    names = {key: [key] for key in ("detector", *keys)}
    documents: list[tuple[str, dict[str, Any]]] = [
        ("start", {"uid": uid, "time": 1000.0, "scan_id": 9, "plan_name": "fly", "energy_ev": 8000.0, "detector_distance_m": 3.0}),
        ("descriptor", {**head, "data_keys": data_keys, "configuration": {}, "object_keys": names}),
    ]
    for row in range(4):
        data = {"detector": np.full((12, 16), row).tolist(), "stage_y": 5.0 * row, "stage_x": [row, row + 0.25, row + 0.5]}
        event = {
            "uid": f"{uid}-{row}",
            "descriptor": f"{uid}-primary",
            "seq_num": row + 1,
            "time": 1002.0 + row,
            "data": data,
            "filled": {},
        }
        documents.append(("event", {**event, "timestamps": dict.fromkeys(data, 1002.0 + row)}))
    documents.append(
        ("stop", {"uid": f"{uid}-stop", "run_start": uid, "time": 1100.0, "exit_status": "success", "num_events": {"primary": 4}})
    )
    write_run(documents, 10_000)
    expected = positions_of(documents)
    assert expected.shape == (4, 3, 2)
    np.testing.assert_array_equal(positions_of(run_documents(find_run(client, site, "sim", uid))), expected)


@pytest.mark.parametrize("samples", [1, 3])
def test_captured_positions_come_back_from_the_catalog(
    client: Any, site: Site, write_run: Callable[..., None], folder: Path, samples: int
) -> None:
    """No events at all: frames and positions lie in files, which the catalog names."""
    uid, points = f"captured-{samples}-4000-8000-000000000000", 6
    with h5py.File(folder / "data" / f"captured{samples}.h5", "w") as file:
        file["/entry/data/data"] = np.zeros((points, 12, 16), np.uint16)
        file["/y"], file["/x"] = np.arange(points * samples, dtype=np.float64), np.arange(points * samples) ** 2.0
    number = {"source": "panda", "dtype": "array", "shape": [samples], "dtype_numpy": "<f8", "units": "um", "external": "STREAM:"}
    frames = {"source": "det", "dtype": "array", "shape": [1, 12, 16], "dtype_numpy": "<u2", "external": "STREAM:"}
    data_keys = {"detector": frames, "stage_y": number, "stage_x": number}
    head = {"uid": f"{uid}-primary", "run_start": uid, "time": 1001.0, "name": "primary", "hints": {}}
    names = {key: [key] for key in data_keys}
    documents: list[tuple[str, dict[str, Any]]] = [
        ("start", {"uid": uid, "time": 1000.0, "scan_id": 10, "plan_name": "fly", "energy_ev": 8000.0, "detector_distance_m": 3.0}),
        ("descriptor", {**head, "data_keys": data_keys, "configuration": {}, "object_keys": names}),
    ]
    for key, dataset, chunk in (("detector", "/entry/data/data", [1, 12, 16]), ("stage_y", "/y", [1024]), ("stage_x", "/x", [1024])):
        resource = {"uid": f"{uid}-{key}", "run_start": uid, "data_key": key, "mimetype": "application/x-hdf5"}
        place = f"file://localhost{folder}/data/captured{samples}.h5"
        documents.append(("stream_resource", {**resource, "uri": place, "parameters": {"dataset": dataset, "chunk_shape": chunk}}))
    for begin, end in ((0, 4), (4, 6)):
        for key in data_keys:
            datum = {"uid": f"{uid}-{key}/{begin}", "stream_resource": f"{uid}-{key}", "descriptor": head["uid"]}
            ranges = {"indices": {"start": begin, "stop": end}, "seq_nums": {"start": begin + 1, "stop": end + 1}}
            documents.append(("stream_datum", {**datum, **ranges}))
    stop = {"uid": f"{uid}-stop", "run_start": uid, "time": 1100.0, "exit_status": "success", "num_events": {"primary": points}}
    documents.append(("stop", stop))
    write_run(documents, 1)
    reader = FileReader(site)
    expected = positions_of(documents, reader)
    assert expected.shape == (points, 1, 2)
    np.testing.assert_allclose(expected[:, 0, 0], 1e-6 * (samples * np.arange(points) + (samples - 1) / 2))
    np.testing.assert_array_equal(positions_of(run_documents(find_run(client, site, "sim", uid)), reader), expected)


def test_positions_that_are_arrays_of_the_catalog_are_read_there(
    client: Any, server: Any, site: Site, write_run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long lists in events, which are kept as arrays: 20 samples of each axis on the way of a frame."""
    monkeypatch.setenv("TILED_API_KEY", server.api_key)
    uid, points, samples = "arrays-0000-4000-8000-000000000000", 4, 20
    number = {"source": "box", "dtype": "array", "shape": [samples], "dtype_numpy": "<f8", "units": "um"}
    frames = {"source": "sim", "dtype": "array", "shape": [12, 16], "dtype_numpy": "<u2"}
    data_keys = {"detector": frames, "stage_y": number, "stage_x": number}
    head = {"uid": f"{uid}-primary", "run_start": uid, "time": 1001.0, "name": "primary", "hints": {}, "configuration": {}}
    documents: list[tuple[str, dict[str, Any]]] = [
        ("start", {"uid": uid, "time": 1000.0, "scan_id": 11, "plan_name": "fly", "energy_ev": 8000.0, "detector_distance_m": 3.0}),
        ("descriptor", {**head, "data_keys": data_keys, "object_keys": {key: [key] for key in data_keys}}),
    ]
    for row in range(points):
        way = (np.arange(samples) / samples).tolist()
        data = {"detector": np.full((12, 16), row).tolist(), "stage_y": [5.0 * row + at for at in way], "stage_x": [row + at for at in way]}
        event = {"uid": f"{uid}-{row}", "descriptor": head["uid"], "seq_num": row + 1, "time": 1002.0 + row, "data": data, "filled": {}}
        documents.append(("event", {**event, "timestamps": dict.fromkeys(data, 1002.0 + row)}))
    stop = {"uid": f"{uid}-stop", "run_start": uid, "time": 1100.0, "exit_status": "success", "num_events": {"primary": points}}
    documents.append(("stop", stop))
    write_run(documents, 1)
    expected = positions_of(documents, substeps=samples)
    assert expected.shape == (points, samples, 2)
    catalog, profile = Catalog(site), load_profile("sim")
    reader = FileReader(site, partial(catalog.samples, profile.beamline))
    read = list(run_documents(find_run(client, site, "sim", uid)))
    np.testing.assert_array_equal(positions_of(read, reader, samples), expected)
    source = TiledSource(run_uid=uid, stream="primary", key="stage_y")
    np.testing.assert_allclose(reader.read(source, 30, 100, samples), expected[..., 0].ravel()[30:] / 1e-6)
    assert len(reader.read(source, 100, 110, samples)) == 0
    with pytest.raises(FramesError, match="has no primary/nothing of run arrays-"):
        reader.read(TiledSource(run_uid=uid, stream="primary", key="nothing"), 0, 1, 1)
    catalog.close()
