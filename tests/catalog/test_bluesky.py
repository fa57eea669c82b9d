"""With a RunEngine: what TiledWriter wrote of a simulated scan, read here and by databroker."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptyplugin.catalog import CatalogFrames, LocalServer, find_run, publish, run_documents
from ptyplugin.model import Reconstruction, Site, TiledSource

pytestmark = pytest.mark.system

POINTS = 6


@pytest.fixture(scope="module", params=[1, 10_000], ids=["at once", "at the end"])
def scanned(request: pytest.FixtureRequest, client: Any, folder: Path) -> list[tuple[str, Any]]:
    """Documents of a simulated scan, which a TiledWriter wrote document by document or at the end."""
    from bluesky_tiled_plugins import TiledWriter

    from ptyplugin.sim.beamline import Beamline

    live: list[tuple[str, Any]] = []

    def remember(name: str, document: Any) -> None:
        live.append((name, document))

    with Beamline(folder / "data", frames=POINTS) as beamline:
        beamline.RE.subscribe(remember)
        beamline.RE.subscribe(TiledWriter(client["sim/raw"], batch_size=request.param))
        beamline.RE(beamline.ptycho_grid())
    return live


def test_a_simulated_scan_comes_back(client: Any, site: Site, scanned: list[tuple[str, Any]]) -> None:
    start = scanned[0][1]
    documents = list(run_documents(find_run(client, site, "sim", start["uid"])))
    assert documents[0] == ("start", start)
    resource = dict(scanned)["stream_resource"]
    rebuilt = dict(documents)["stream_resource"]
    assert (rebuilt["uri"], rebuilt["mimetype"]) == (resource["uri"], "application/x-hdf5")
    assert rebuilt["parameters"]["dataset"] == resource["parameters"]["dataset"]
    (page,) = [document for name, document in documents if name == "event_page"]
    events = [document for name, document in scanned if name == "event"]
    for motor in ("stage_y", "stage_x"):
        assert page["data"][motor] == [event["data"][motor] for event in events]
    (datum,) = [document for name, document in documents if name == "stream_datum"]
    assert (datum["indices"], datum["seq_nums"]) == ({"start": 0, "stop": POINTS}, {"start": 1, "stop": POINTS + 1})
    frames = CatalogFrames(client, site, "sim", TiledSource(run_uid=start["uid"], stream="primary", key="detector"))
    assert (len(frames), frames.shape) == (POINTS, (128, 128))
    assert np.all(frames.read(np.arange(POINTS)).sum(axis=(1, 2)) > 0)


@pytest.mark.parametrize("scanned", [10_000], indirect=True)
def test_databroker_reads_the_raw_run_after_publishing(
    client: Any,
    site: Site,
    server: LocalServer,
    scanned: list[tuple[str, Any]],
    make_result: Callable[..., tuple[Path, str, Reconstruction]],
) -> None:
    uid = scanned[0][1]["uid"]
    publish(client, site, *make_result(uid)[:2])
    script = """
import os, sys
from databroker.client import CatalogOfBlueskyRuns
from tiled.client import from_uri
catalog = from_uri(os.environ["URI"])["sim/raw"]
assert isinstance(catalog, CatalogOfBlueskyRuns), catalog
run = catalog[sys.argv[1]]
data = run.primary.read()
names = [name for name, _ in run.documents()]
print(data["detector"].shape, data["stage_y"].shape, names[0], names[-1], names.count("event"), sorted(run))
"""
    environment = {"PATH": "", "TILED_API_KEY": server.api_key, "URI": server.uri}
    done = subprocess.run([sys.executable, "-c", script, uid], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == f"({POINTS}, 1, 128, 128) ({POINTS},) start stop {POINTS} ['primary']", done.stderr
