"""The main job, from a scan to an image in the catalog, as a user starts it; and what a stranger finds in the catalog afterwards."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ptyplugin.catalog import LocalServer

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

LAST_LINE = re.compile(r"object phase RMS against the truth (\d\.\d+) rad, (\d+) frames, (\d+\.\d) s from the last frame")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of `ptyplugin demo`, run as a user runs it, on two ranks."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, "-m", "ptyplugin", "demo", "--out", str(folder), "--frames", "81", "--ranks", "2", "--in-process"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


@pytest.fixture(scope="module")
def server(demo: tuple[Path, str]) -> Iterator[LocalServer]:
    """A new server over what the demo left."""
    folder, _ = demo
    with LocalServer(folder / "catalog", readable=[folder / "data", folder / "results"]) as running:
        yield running


def in_fresh_process(code: str, server: LocalServer) -> dict[str, object]:
    """What ``code`` prints as JSON in a new interpreter that has nothing but the address and the key."""
    environment = {**os.environ, "TILED_API_KEY": server.api_key}
    done = subprocess.run([sys.executable, "-c", code, server.uri], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_last_line_tells_how_good_it_is(demo: tuple[Path, str]) -> None:
    found = LAST_LINE.search(demo[1].strip().splitlines()[-1])
    assert found, demo[1]
    assert float(found[1]) < 0.10, "81 frames are fewer than the 200 of the demo: the margin of the centre is small"
    assert int(found[2]) == 81


def test_there_is_a_picture_and_nothing_runs_on(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(folder) not in running


FIND_WITH_TILED = """
import json, sys
from tiled.client import from_uri
from tiled.queries import Key
assert "ptyplugin" not in sys.modules
client = from_uri(sys.argv[1])
uid = next(iter(client["sim/raw"]))
(result,) = client["sim/processed/ptyplugin"].search(Key("scan_uid") == uid).values()
arrays = {name: result[name] for name in ("object", "probe", "positions_m", "object_phase")}
print(json.dumps({
    "uid": uid,
    "shapes": {name: list(array.shape) for name, array in arrays.items()},
    "types": {name: str(array[:].dtype) for name, array in arrays.items()},
    "errors": [row for row in result["progress"].read()["error"].tolist() if row == row],
    "state": result.metadata["state"],
}))
"""


def test_a_stranger_with_only_tiled_finds_the_result(demo: tuple[Path, str], server: LocalServer) -> None:
    found = in_fresh_process(FIND_WITH_TILED, server)
    assert found["state"] == "published"
    assert found["shapes"]["positions_m"] == [81, 2]
    assert found["shapes"]["probe"] == [1, 128, 128]
    assert found["shapes"]["object"][1:] == found["shapes"]["object_phase"]
    assert found["types"] == {"object": "complex64", "probe": "complex64", "positions_m": "float64", "object_phase": "float32"}
    assert found["errors"][-1] < found["errors"][0] < 1


READ_WITH_DATABROKER = """
import json, sys
from tiled.client import from_uri
import databroker
client = from_uri(sys.argv[1])
catalog = client["sim/raw"]
uid = next(iter(catalog))
run = catalog[uid]
names = [name for name, _ in run.documents()]
table = run["primary"].read(["stage_y", "stage_x"])
old = catalog.v2[uid].primary.read()
print(json.dumps({
    "names": sorted(set(names)),
    "points": len(table["stage_y"]),
    "frames": list(old["detector"].shape),
    "uid": run.start["uid"] == uid,
}))
"""


def test_databroker_still_reads_the_raw_run(demo: tuple[Path, str], server: LocalServer) -> None:
    found = in_fresh_process(READ_WITH_DATABROKER, server)
    assert found["points"] == 81
    assert found["frames"][0] == 81
    assert found["uid"] is True
    assert {"start", "descriptor", "stop"} <= set(found["names"])


def test_the_results_command_finds_it_too(demo: tuple[Path, str], server: LocalServer) -> None:
    folder, _ = demo
    site = folder / "site-again.toml"
    site.write_text((folder / "site.toml").read_text() + f'\ntiled_uri = "{server.uri}"\n')
    environment = {**os.environ, "TILED_API_KEY": server.api_key}
    command = [sys.executable, "-m", "ptyplugin", "results", "--site", str(site), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)
    assert one["scan_id"] == 1
    command = [sys.executable, "-m", "ptyplugin", "jobs", "list", "--site", str(site), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [job["state"] for job in json.loads(done.stdout)] == ["published"]
