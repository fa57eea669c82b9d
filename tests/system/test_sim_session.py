"""The simulated session, as a user opens it: RunEngine, devices over EPICS, catalog, plans, and the image of each scan in the catalog."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("caproto", reason="needs ptyplugin[epics]")
pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

TYPED = """
import json, time
uids = {"step": RE(ptycho_grid(points=30))[0], "fly": RE(ptycho_fly(rows=6, columns=7))[0]}
until, found = time.monotonic() + 150, {}
while len(found) < len(uids) and time.monotonic() < until:
    time.sleep(0.5)
    found = {name: results for name, uid in uids.items() if (results := ptyplugin.results(uid, state="published"))}
quality = lambda result: {"frames": len(result["positions_m"][:]), "error": result.metadata["quality"]["error"]}
told = {name: quality(results[0]) for name, results in found.items()}
print("TOLD", json.dumps({"found": told, "runs": len(catalog), "energy": mono.energy.source}))
"""


def test_a_step_and_a_fly_scan_become_images_in_the_catalog(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ptyplugin", "sim", "session", "--folder", str(tmp_path / "s"), "-c", TYPED]
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, env=environment)
    said = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert said, done.stdout[-2000:] + done.stderr[-3000:]
    told = json.loads(said[0].removeprefix("TOLD "))
    assert {name: one["frames"] for name, one in told["found"].items()} == {"step": 30, "fly": 42}
    assert all(one["error"] < 0.02 for one in told["found"].values())
    assert told["runs"] == 2
    assert told["energy"].startswith("ca://")
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in running, "service, catalog and IOC end with the session"


def test_it_ends_with_the_sentence_of_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.modules['IPython'] = None; from ptyplugin.cli import main; main()", "sim", "session"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "the session needs IPython: pip install 'ptyplugin[server,sim,epics]'." in done.stderr
