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
uids = {uids}
until, found = time.monotonic() + 150, {{}}
while len(found) < len(uids) and time.monotonic() < until:
    time.sleep(0.5)
    found = {{name: results for name, uid in uids.items() if (results := ptyplugin.results(uid, state="published"))}}
quality = lambda result: {{"frames": len(result["positions_m"][:]), "error": result.metadata["quality"]["error"]}}
told = {{name: quality(results[0]) for name, results in found.items()}}
fly_refused = ""
if type(y).__module__.startswith("ophyd."):
    try:
        ptycho_fly()
    except Exception as error:
        fly_refused = str(error)
print("TOLD", json.dumps({{"found": told, "runs": len(catalog), "devices": type(y).__module__, "fly_refused": fly_refused}}))
"""


@pytest.mark.parametrize(
    ("options", "plans", "frames"),
    [
        ([], "dict(step=RE(ptycho_grid(points=30))[0], fly=RE(ptycho_fly(rows=6, columns=7))[0])", {"step": 30, "fly": 42}),
        (["--ophyd"], "dict(spiral=RE(ptycho_spiral(points=27))[0])", {"spiral": 27}),
    ],
    ids=["ophyd_async", "ophyd"],
)
def test_scans_become_images_in_the_catalog(tmp_path: Path, options: list[str], plans: str, frames: dict[str, int]) -> None:
    command = [sys.executable, "-m", "ptyplugin", "sim", "session", "--folder", str(tmp_path / "s"), *options]
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")}
    command += ["-c", TYPED.format(uids=plans)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, env=environment)
    said = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert said, done.stdout[-2000:] + done.stderr[-3000:]
    told = json.loads(said[0].removeprefix("TOLD "))
    assert {name: one["frames"] for name, one in told["found"].items()} == frames
    assert all(one["error"] < 0.02 for one in told["found"].values())
    assert told["runs"] == len(frames)
    assert ("without --ophyd" in told["fly_refused"]) == bool(options)
    assert "warming up the solver" in done.stderr
    assert told["devices"] == ("ophyd.epics_motor" if options else "ophyd_async.epics.motor")
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in running, "service, catalog and IOC end with the session"


@pytest.mark.parametrize(
    ("words", "who", "packages", "extras"),
    [
        (["demo"], "the demo", "uvicorn, IPython, caproto", "server,sim,epics"),
        (["demo", "--in-process"], "the demo", "uvicorn, IPython", "server,sim"),
        (["sim", "session"], "the session", "uvicorn, IPython, caproto", "server,sim,epics"),
        (["sim", "ioc"], "the simulated beamline", "IPython, caproto", "sim,epics"),
    ],
)
def test_all_that_is_missing_is_said_at_once_and_nothing_is_left(
    tmp_path: Path, words: list[str], who: str, packages: str, extras: str
) -> None:
    hide = "import sys; sys.modules.update(uvicorn=None, IPython=None, caproto=None); from ptyplugin.cli import main; main()"
    command = [sys.executable, "-c", hide, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"ptyplugin: {who} needs {packages}, not installed here: pip install 'ptyplugin[{extras}]'.\n"
    assert not list(tmp_path.iterdir())
