"""Runs of a catalog: the job that AutoReconstruct would have made, its frames from file or catalog, its results found again."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ptyplugin.api import make_job, open_scan, reconstruct, results
from ptyplugin.api.runs import job_of_documents
from ptyplugin.catalog import LocalServer, connect, publish
from ptyplugin.io import read_result, write_result
from ptyplugin.jobs import JOB_FILE
from ptyplugin.jobs.inbox import Inbox
from ptyplugin.model import CatalogError, FramesError, Job, ProfileError, ScanError, Site
from ptyplugin.profiles import load_profile

pytestmark = pytest.mark.system


class Scanned(NamedTuple):
    """A simulated scan in a real catalog."""

    uid: str
    site: Site
    client: Any
    api_key: str
    documents: list[tuple[str, dict[str, Any]]]
    automatic: Job


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scanned]:
    """16 points under a RunEngine with TiledWriter and AutoReconstruct subscribed."""
    from bluesky_tiled_plugins import TiledWriter

    from ptyplugin.callbacks import AutoReconstruct
    from ptyplugin.sim.beamline import Beamline

    folder = tmp_path_factory.mktemp("api_runs")
    documents: list[tuple[str, dict[str, Any]]] = []
    with LocalServer(folder / "catalog", readable=[folder / "data", folder / "results"]) as server:
        site = Site(home=folder / "home", results_dir=folder / "results", data_roots=[folder / "data"], tiled_uri=server.uri)
        client = connect(site, server.api_key)
        with Beamline(folder / "data", frames=16) as beamline:
            automatic = AutoReconstruct("sim", site)
            for callback in (TiledWriter(client["sim/raw"], batch_size=1), automatic, lambda *document: documents.append(document)):
                beamline.RE.subscribe(callback)
            (uid,) = beamline.RE(beamline.ptycho_grid())
            assert automatic.flush(30)
        (item,) = Inbox(site.inbox).waiting()
        yield Scanned(uid, site, client, server.api_key, documents, Job.from_bytes((item / JOB_FILE).read_bytes()))
        client.context.close()


@pytest.fixture(autouse=True)
def _key(scanned: Scanned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILED_API_KEY", scanned.api_key)


def test_same_job_as_the_automatic_one(scanned: Scanned) -> None:
    scan_id = scanned.documents[0][1]["scan_id"]
    for name in (scanned.uid, scanned.uid[:8], str(scan_id)):
        job = open_scan(name, profile="sim", site=scanned.site).job
        assert job.key == scanned.automatic.key
        assert (job.frames, job.positions_m) == (scanned.automatic.frames, scanned.automatic.positions_m)
    assert make_job(open_scan(scanned.uid, profile="sim", site=scanned.site)).job.key == scanned.automatic.key
    assert open_scan(scanned.uid, profile=load_profile("sim"), site=scanned.site, client=scanned.client).job.key == scanned.automatic.key


def test_results_are_found_again(scanned: Scanned) -> None:
    scan = open_scan(scanned.uid, profile="sim", site=scanned.site)
    image = reconstruct(scan, "ePIE(2)", seed=4)
    assert (image.provenance["scan_uid"], image.provenance["beamline"]) == (scanned.uid, "sim")
    path = scanned.site.results / f"{image.provenance['key']}.h5"
    write_result(path, image)
    publish(scanned.client, scanned.site, path, image.provenance["key"])
    scan_id = scanned.documents[0][1]["scan_id"]
    by_site = [results(name, site=scanned.site) for name in (scanned.uid, scan_id, str(scan_id), None)]
    by_client = [results(scanned.client["sim/raw"][scanned.uid]), results(scanned.client["sim/processed/ptyplugin"], scan_uid=scanned.uid)]
    for found in by_site + by_client:
        assert [one.metadata["job"] for one in found] == [image.provenance["key"]]
    np.testing.assert_array_equal(by_client[0][0].reconstruction().object, image.object)
    assert results("another-uid", site=scanned.site) == []
    assert results(site=scanned.site, since="2999-01-01") == []


def test_commands_on_a_run(scanned: Scanned, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ptyplugin.cli.app import app

    site, scan_id = tmp_path / "site.toml", str(scanned.documents[0][1]["scan_id"])
    site.write_text(f'tiled_uri = "{scanned.site.tiled_uri}"\nresults_dir = "{tmp_path}"\ndata_roots = ["{scanned.site.data_roots[0]}"]\n')
    words = ["reconstruct", scan_id, "--profile", "sim", "--recipe", "ePIE(1)", "--site", str(site), "--publish", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert read_result(tmp_path / f"{said['key']}.h5").provenance["scan_uid"] == scanned.uid
    assert said["published"] == f"sim/processed/ptyplugin/{said['key']}"
    again = CliRunner().invoke(app, words)
    assert json.loads(again.stdout)["published"] == said["published"], "to publish twice is to publish once"
    found = CliRunner().invoke(app, ["results", "--scan-id", scan_id, "--site", str(site), "--json"])
    assert said["key"] in [one["key"] for one in json.loads(found.stdout)]
    table = CliRunner().invoke(app, ["results", "--uid", scanned.uid, "--limit", "1", "--site", str(site)])
    assert {said["key"][:8], scanned.uid[:8], scan_id, "final", "ePIE(1)"} <= set(table.stdout.split())
    nothing = CliRunner().invoke(app, ["results", "--since", "2999-01-01", "--site", str(site)])
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "no results found.\n")
    wrong = CliRunner().invoke(app, ["results", "--since", "yesterday", "--site", str(site)])
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "'yesterday' is no time" in wrong.stderr


def test_a_file_is_published_beside_the_runs(scanned: Scanned, small_cxi: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ptyplugin.cli.app import app

    site = tmp_path / "site.toml"
    site.write_text(f'tiled_uri = "{scanned.site.tiled_uri}"\nresults_dir = "{tmp_path}"\n')
    done = CliRunner().invoke(app, ["reconstruct", str(small_cxi), "--recipe", "ePIE(1)", "--site", str(site), "--publish"])
    assert done.exit_code == 0, done.output
    key = make_job(open_scan(small_cxi), "ePIE(1)").job.key
    assert f"catalog  files/processed/ptyplugin/{key}" in done.stdout
    assert scanned.client["files/processed/ptyplugin"][key].metadata["scan_uid"] is None


def test_a_catalog_that_cannot_be_is_told_before_the_work(small_cxi: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ptyplugin.cli.app import app

    site = tmp_path / "site.toml"
    for text, sentence in (("", "no catalog is named"), ('tiled_uri = "http://127.0.0.1:9"\n', "does not answer")):
        site.write_text(f'results_dir = "{tmp_path}/results"\n{text}')
        done = CliRunner().invoke(app, ["reconstruct", str(small_cxi), "--site", str(site), "--publish"])
        assert (done.exit_code, done.stdout) == (1, "")
        assert sentence in done.stderr
    assert not (tmp_path / "results").exists()
    both = CliRunner().invoke(app, ["reconstruct", str(small_cxi), "--publish", "-o", str(tmp_path / "a.h5")])
    assert both.exit_code == 2
    assert "leave out --output" in " ".join(both.stderr.replace("│", " ").split())


def test_frames_through_the_catalog_where_the_file_is_not_mounted(scanned: Scanned, caplog: pytest.LogCaptureFixture) -> None:
    scan = open_scan(scanned.uid, profile="sim", site=scanned.site)
    with scan.frames() as frames:
        here = frames.read(np.arange(16))
    data = scanned.site.data_roots[0]
    elsewhere = scanned.site.model_copy(update={"path_map": {str(data): str(data / "not_mounted")}})
    with caplog.at_level(logging.WARNING), open_scan(scanned.uid, profile="sim", site=elsewhere).frames() as frames:
        np.testing.assert_array_equal(frames.read(np.arange(16)), here)
    assert "are read through the catalog" in caplog.text
    without_catalog = elsewhere.model_copy(update={"tiled_uri": None})
    with pytest.raises(FramesError, match="does not exist"):
        reconstruct(open_scan(scanned.uid, profile="sim", site=without_catalog, client=scanned.client), "ePIE(1)")


def test_no_such_run(scanned: Scanned) -> None:
    with pytest.raises(CatalogError, match="there is no run 99999"):
        open_scan("99999", profile="sim", site=scanned.site)


def test_run_without_what_the_profile_names(scanned: Scanned, tmp_path: Path) -> None:
    profile = load_profile("sim")
    other = profile.model_copy(update={"detector": profile.detector.model_copy(update={"key": "eiger"})})
    with pytest.raises(ScanError, match="'eiger'"):
        open_scan(scanned.uid, profile=other, site=scanned.site)
    with pytest.raises(ProfileError, match="is no file; to read it as a run"):
        open_scan(scanned.uid, site=scanned.site)


def test_run_that_has_not_ended(scanned: Scanned) -> None:
    with pytest.raises(ScanError, match="no stop document"):
        job_of_documents([each for each in scanned.documents if each[0] != "stop"], load_profile("sim"), scanned.site)
