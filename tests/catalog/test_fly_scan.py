"""Positions on the way of a fly scan, from the catalog as from the documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ptyplugin.callbacks import Collector, RunEnded, assemble
from ptyplugin.catalog import find_run, run_documents
from ptyplugin.model import JobParts, Site
from ptyplugin.profiles import load_profile

pytestmark = pytest.mark.system


def positions_of(documents: Any) -> Any:
    profile = load_profile("sim")
    collector = Collector(profile)
    (run,) = [output.run for name, document in documents for output in collector(name, document) if isinstance(output, RunEnded)]
    parts = assemble(run, profile)
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
