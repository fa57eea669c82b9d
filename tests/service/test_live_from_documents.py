"""From the documents of a fly scan to its live and its final image: session, inbox, daemon and solver together."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from live_scan import GEOMETRY, SIDE, write_scan

from ptyplugin.callbacks import AutoReconstruct
from ptyplugin.io import read_result
from ptyplugin.jobs import read_snapshot
from ptyplugin.model import Profile, Site
from ptyplugin.service import Daemon, Inline

pytestmark = pytest.mark.system

UID, SAMPLES, ACROSS = "flown-1", 4, 16
PROFILE = Profile.model_validate(
    {
        "name": "flown",
        "beamline": "sim",
        "detector": {"key": "det", "pixel_m": GEOMETRY.pixel_m},
        "geometry": {"energy": {"value": GEOMETRY.energy_ev, "unit": "eV"}, "distance": {"value": GEOMETRY.distance_m, "unit": "m"}},
        "positions": {"y": {"key": "box-y"}, "x": {"key": "box-x"}},
        "reconstruction": {"recipe": "DM(30)"},
        "live": {"recipe": "DM(10)"},
    }
)


def fly(folder: Path, positions_m: Any, batch: int = 16, period_s: float = 0.1) -> Iterator[tuple[str, dict[str, Any]]]:
    """Documents of a fly scan, while the box writes what they announce, a moment later."""
    number = {"dtype": "array", "shape": [SAMPLES], "source": "box", "units": "um", "external": "STREAM:"}
    frames = {"dtype": "array", "shape": [1, SIDE, SIDE], "source": "det", "external": "STREAM:"}
    keys = {"det": ("frames.h5", "/entry/data/data"), "box-y": ("box.h5", "/y"), "box-x": ("box.h5", "/x")}
    yield "start", {"uid": UID, "time": time.time(), "scan_id": 1, "plan_name": "fly", "num_points": len(positions_m)}
    head = {"uid": "flown-primary", "run_start": UID, "time": time.time(), "name": "primary", "configuration": {}}
    yield "descriptor", {**head, "data_keys": {"det": frames, "box-y": number, "box-x": number}}
    for key, (file, dataset) in keys.items():
        resource = {"uid": f"flown-{key}", "run_start": UID, "data_key": key, "mimetype": "application/x-hdf5"}
        yield "stream_resource", {**resource, "uri": (folder / file).as_uri(), "parameters": {"dataset": dataset}}
    with h5py.File(folder / "box.h5", "w", libver="latest") as box:
        columns = [box.create_dataset(name, shape=(0,), maxshape=(None,), chunks=(64,), dtype="f8") for name in "yx"]
        box.swmr_mode = True
        for begin in range(0, len(positions_m), batch):
            end = min(begin + batch, len(positions_m))
            for key in keys:
                datum = {"uid": f"flown-{key}/{begin}", "stream_resource": f"flown-{key}", "descriptor": "flown-primary"}
                ranges = {"indices": {"start": begin, "stop": end}, "seq_nums": {"start": begin + 1, "stop": end + 1}}
                yield "stream_datum", {**datum, **ranges}
            for axis, column in enumerate(columns):
                column.resize(end * SAMPLES, axis=0)
                column[begin * SAMPLES :] = 1e6 * np.repeat(positions_m[begin:end, axis], SAMPLES)
                column.flush()
            time.sleep(period_s)
    yield "stop", {"uid": "flown-stop", "run_start": UID, "time": time.time(), "exit_status": "success", "num_events": {"primary": end}}


def test_an_image_while_the_scan_flies_and_another_at_its_end(tmp_path: Path, until: Callable[..., None]) -> None:
    positions_m = write_scan(tmp_path / "frames.h5", ACROSS)
    site, stop = Site(home=tmp_path / "home", data_roots=[tmp_path], device="cpu"), threading.Event()
    with Daemon(site, Inline(), lambda *_: None) as daemon:
        thread = threading.Thread(target=daemon.run, args=(stop,))
        thread.start()
        try:
            auto = AutoReconstruct(PROFILE, site)
            for name, document in fly(tmp_path, positions_m):
                if name == "stop":
                    until(lambda: daemon.ledger.list(run_uid=UID, purpose="live"))
                    (live,) = daemon.ledger.list(run_uid=UID, purpose="live")
                    until(lambda key=live.key: getattr(read_snapshot(site.jobs / key), "frames", 0) == len(positions_m))
                auto(name, document)
            assert auto.flush(20.0)
            del auto
            gc.collect()
            until(lambda: [entry.state for entry in daemon.ledger.list(run_uid=UID)] == ["cancelled", "published"], 60.0)
            steps = [step.state for step in daemon.ledger.history(live.key)]
            entries = daemon.ledger.list(run_uid=UID)
        finally:
            stop.set()
            daemon.stop()
            thread.join(20)
    assert steps == ["queued", "running", "solved", "cancelled"]
    assert [entry.frames for entry in entries] == [ACROSS**2] * 2
    result = read_result(Path(str(entries[1].result)))
    assert len(result.positions_m) == ACROSS**2
    assert result.quality["error"] < 0.01
