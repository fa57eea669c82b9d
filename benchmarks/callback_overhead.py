"""What AutoReconstruct costs the RunEngine per document: median and 99th percentile of ``__call__``, in milliseconds.

The documents come as fast as a scan of 1 kHz would send them, while the thread behind collects them and writes the jobs into
an inbox on the disk. Run: ``python benchmarks/callback_overhead.py [POINTS]``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ptyplugin.callbacks import AutoReconstruct
from ptyplugin.model import Site

Documents = Iterator[tuple[str, dict[str, Any]]]
PERIOD_S = 1e-3


def begun(run: str, detector: dict[str, Any]) -> Documents:
    """Start and descriptor; a start document of the usual size."""
    metadata = {f"key_{number}": {"value": number, "text": "metadata " * 4} for number in range(40)}
    yield "start", {"uid": run, "time": 0.0, "scan_id": 1, "energy_ev": 8000.0, "detector_distance_m": 2.0, "md": metadata}
    motor = {"dtype": "number", "shape": [], "source": "sim", "units": "um"}
    keys = {"detector": {"dtype": "array", "source": "sim", **detector}, "stage_y": motor, "stage_x": motor}
    yield "descriptor", {"uid": f"{run}-d", "run_start": run, "name": "primary", "time": 0.0, "data_keys": keys, "configuration": {}}


def event(run: str, point: int, data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    data = {"stage_y": float(point % 100), "stage_x": float(point // 100), **data}
    head = {"uid": f"{run}-e{point}", "time": float(point), "seq_num": point + 1, "descriptor": f"{run}-d", "filled": {}}
    return "event", {**head, "data": data, "timestamps": dict.fromkeys(data, 0.0)}


def stopped(run: str, points: int) -> tuple[str, dict[str, Any]]:
    return "stop", {"uid": f"{run}-s", "run_start": run, "time": 0.0, "exit_status": "success", "num_events": {"primary": points}}


def stream_assets(points: int) -> Documents:
    """ophyd-async."""
    yield from begun("a", {"shape": [1, 128, 128], "external": "STREAM:"})
    parameters = {"dataset": "/entry/data/data", "chunk_shape": [1, 128, 128]}
    resource = {"uid": "r", "run_start": "a", "data_key": "detector", "mimetype": "application/x-hdf5", "parameters": parameters}
    yield "stream_resource", {**resource, "uri": "file://localhost/data/a.h5"}
    for point in range(points):
        ranges = {"indices": {"start": point, "stop": point + 1}, "seq_nums": {"start": point + 1, "stop": point + 2}}
        yield "stream_datum", {"uid": f"r/{point}", "stream_resource": "r", "descriptor": "a-d", **ranges}
        yield event("a", point, {})
    yield stopped("a", points)


def arrays_in_events(points: int) -> Documents:
    """Images of 512 x 512 uint16 inside the events."""
    yield from begun("b", {"shape": [512, 512]})
    counts = np.zeros((512, 512), dtype=np.uint16)
    for point in range(points):
        yield event("b", point, {"detector": counts})
    yield stopped("b", points)


def milliseconds(auto: AutoReconstruct, documents: Documents) -> dict[str, list[float]]:
    """Time of each call by the kind of document."""
    taken: dict[str, list[float]] = {}
    for name, document in documents:
        begin = time.perf_counter()
        auto(name, document)
        end = time.perf_counter()
        taken.setdefault(name, []).append(1e3 * (end - begin))
        time.sleep(max(0.0, PERIOD_S - (end - begin)))
    return taken


def main() -> None:
    points = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as folder:
        for style, documents in {"ophyd-async": stream_assets(points), "arrays in events": arrays_in_events(min(points, 500))}.items():
            auto = AutoReconstruct("sim", Site(home=Path(folder)))
            for name, taken in milliseconds(auto, documents).items():
                median, high = np.percentile(taken, [50, 99])
                print(f"{style:17} {name:16} {len(taken):6} documents   median {median:.4f} ms   99 % {high:.4f} ms")
            begin = time.perf_counter()
            done = auto.flush(60.0)
            print(f"{style:17} {'job in the inbox' if done else 'NOT DONE':16} {time.perf_counter() - begin:.3f} s after the stop document")


if __name__ == "__main__":
    main()
