"""A scan goes on when service and catalog are away, and its image comes when they are back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bluesky.callbacks.buffer import BufferingWrapper
from bluesky_tiled_plugins import TiledWriter

from ptyplugin.callbacks import AutoReconstruct
from ptyplugin.catalog import LocalServer, connect, search
from ptyplugin.jobs import open_read_only
from ptyplugin.model import Profile, Site
from ptyplugin.profiles import load_profile
from ptyplugin.service import Daemon, Inline
from ptyplugin.sim.beamline import Beamline

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

FRAMES = 36


@pytest.fixture
def quick() -> Profile:
    """The simulated beamline's profile with a short recipe."""
    profile = load_profile("sim")
    return profile.model_copy(update={"reconstruction": profile.reconstruction.model_copy(update={"recipe": "DM(3)"})})


def published(site: Site) -> list[str]:
    with open_read_only(site.ledger) as ledger:
        return [entry.state for entry in ledger.list()]


def test_no_service_and_no_catalog_then_both(tmp_path: Path, quick: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    away = Site(home=tmp_path / "home", data_roots=[tmp_path / "data"], tiled_uri="http://127.0.0.1:9")
    automatic = AutoReconstruct(profile=quick, site=away)
    with Beamline(tmp_path / "data", frames=FRAMES) as beamline:
        beamline.RE.subscribe(automatic)
        (uid,) = beamline.RE(beamline.ptycho_grid())
        assert automatic.flush(10)
    # The catalog is away: the job is solved from the files alone, and waits for publication.
    with Daemon(away, launcher=Inline()) as daemon:
        daemon.run_once()
    assert published(away) == ["solved"]
    # The raw run never came into this catalog: the result does.
    with LocalServer(tmp_path / "catalog", readable=[away.results]) as server:
        monkeypatch.setenv("TILED_API_KEY", server.api_key)
        back = away.model_copy(update={"tiled_uri": server.uri})
        with Daemon(back, launcher=Inline()) as daemon:
            daemon.run_once()
        assert published(back) == ["published"]
        client = connect(back)
        (result,) = search(client["sim/processed/ptyplugin"], scan_uid=uid)
        assert result["object"][:].shape == result["object"].shape
        client.context.close()


def test_the_raw_writer_beside_it_loses_its_server(tmp_path: Path, quick: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server dies before the scan; the plan ends well, and the job does not need the raw run in the catalog."""
    site = Site(home=tmp_path / "home", data_roots=[tmp_path / "data"])
    automatic = AutoReconstruct(profile=quick, site=site)
    stopped: list[str] = []
    monkeypatch.setenv("TILED_RETRY_ATTEMPTS", "1")
    with Beamline(tmp_path / "data", frames=FRAMES) as beamline:
        with LocalServer(tmp_path / "catalog") as server:
            monkeypatch.setenv("TILED_API_KEY", server.api_key)
            client = connect(site.model_copy(update={"tiled_uri": server.uri}))
            raw = TiledWriter(client["sim/raw"], batch_size=1, backup_directory=str(tmp_path / "backup"))
            writer = BufferingWrapper(raw)
        beamline.RE.subscribe(writer)
        beamline.RE.subscribe(automatic)
        beamline.RE.subscribe(lambda name, document: stopped.append(document["exit_status"]), "stop")
        beamline.RE(beamline.ptycho_grid())
        assert automatic.flush(10)
        writer.shutdown(wait=True)
        client.context.close()
    assert stopped == ["success"]
    assert list((tmp_path / "backup").rglob("*.jsonl")), "what the raw writer could not write lies in its backup folder"
    with Daemon(site, launcher=Inline()) as daemon:
        daemon.run_once()
    assert published(site) == ["solved"]


EXIT_AT_ONCE = """
import sys
from pathlib import Path
from ptyplugin.callbacks import AutoReconstruct
from ptyplugin.model import Site
from ptyplugin.sim.beamline import Beamline
folder = Path(sys.argv[1])
with Beamline(folder / "data", frames=9) as beamline:
    beamline.RE.subscribe(AutoReconstruct(profile="sim", site=Site(home=folder / "home")))
    beamline.RE(beamline.ptycho_grid())
"""


def test_the_queue_is_flushed_when_the_interpreter_exits(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", EXIT_AT_ONCE, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "home" / "inbox" / "new").iterdir())) == 1
