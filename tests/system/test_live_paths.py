"""The image while it scans, by each way that frames take, and what may happen to a scan: IOC, session, service and catalog are real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("caproto", reason="the simulated IOC needs ptyplugin[sim,epics]")
pytest.importorskip("p4p", reason="the simulated IOC needs ptyplugin[sim,epics]")

from benchmarks.paths_hall import IDS, Hall, Scan, check_live_image, detector_of, frames_live, hall, live_job, read
from benchmarks.serving import until
from ptyplugin.catalog import connect, search
from ptyplugin.io.ways import SpoolWay
from ptyplugin.jobs import Entry
from ptyplugin.model import Job

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ROWS, COLUMNS = 7, 9
FRAMES = ROWS * COLUMNS


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    with hall(tmp_path_factory.mktemp("paths")) as found:
        yield found


@pytest.fixture(scope="module")
def catalog(there: Hall) -> Iterator[Any]:
    client = connect(there.site, there.catalog.api_key)
    yield client
    client.context.close()


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """A scan that is given this file does not end before it is there."""
    return tmp_path / "go"


def check_admitted(there: Hall, scan: Scan, live: Entry) -> None:
    """The live job has got the frames of the detector's file, each once."""
    written = read(scan.file, IDS)
    np.testing.assert_array_equal(np.diff(written), 1)
    np.testing.assert_array_equal(there.admitted(live), np.arange(len(written)))


def check_final(there: Hall, catalog: Any, scan: Scan, profile: str, frames: int, error: float = 0.02) -> Any:
    """Its final result is in the catalog, and the live one has made way."""
    until(lambda: [entry.state for entry in there.entries(scan, "final")] == ["published"], "the final result")
    (result,) = search(catalog[f"{profile}/processed/ptyplugin"], scan_uid=scan.uid)
    assert (result.metadata["purpose"], len(result["positions_m"][:])) == ("final", frames)
    assert result.metadata["quality"]["error"] < error
    return result


def test_the_file_in_place(there: Hall, catalog: Any, hold: Path) -> None:
    with there.scan("fly", "file", rows=ROWS, columns=COLUMNS, hold=str(hold)) as scan:
        live = live_job(there, scan)
        until(lambda: frames_live(there, live) == FRAMES, "all frames are admitted")
        check_live_image(catalog, "file", live, FRAMES)
        check_admitted(there, scan, live)
        hold.touch()
    assert "came from" not in there.said(live)
    assert scan.end["ended"] == "success"
    check_final(there, catalog, scan, "file", FRAMES)


def test_pv_access_with_gaps_and_duplicates_healed_from_the_file(there: Hall, catalog: Any, hold: Path) -> None:
    faults = {"DropFrames": 10, "DuplicateIds": 7}
    with there.scan("fly", "pva", visible=False, rows=ROWS, columns=COLUMNS, hold=str(hold), faults=faults) as scan:
        live = live_job(there, scan)
        until(lambda: scan.announced == FRAMES, "all frames are measured")
        ids = read(scan.file, IDS)
        sent = np.flatnonzero(ids % 10)
        until(lambda: frames_live(there, live) == len(sent), "all frames that were sent are admitted")
        begun_s = Job.from_bytes((there.site.jobs / live.key / "job.json").read_bytes()).source.begun_s
        way = SpoolWay(there.site, detector_of("pva"), begun_s)
        assert np.flatnonzero(way.has(np.arange(FRAMES))).tolist() == sent.tolist()
        np.testing.assert_array_equal(way.read(sent), read(scan.file)[sent])
        there.mount(scan)
        until(lambda: frames_live(there, live) == FRAMES, "those that were lost come from the file")
        check_live_image(catalog, "pva", live, FRAMES)
        check_admitted(there, scan, live)
        hold.touch()
    assert "came from the spool of SIM:Pva1:Image" in there.said(live)
    check_final(there, catalog, scan, "pva", FRAMES)


@pytest.mark.parametrize(("way", "came_from"), [("tiled", "the catalog"), ("eiger", "the spool of tcp://127.0.0.1")])
def test_catalog_or_stream_is_enough_where_no_file_is_there(there: Hall, catalog: Any, hold: Path, way: str, came_from: str) -> None:
    raw = {"raw": there.catalog.uri} if way == "tiled" else {}
    with there.scan("fly", way, visible=False, rows=ROWS, columns=COLUMNS, hold=str(hold), **raw) as scan:
        live = live_job(there, scan)
        until(lambda: frames_live(there, live) == FRAMES, "all frames are admitted")
        check_live_image(catalog, way, live, FRAMES)
        check_admitted(there, scan, live)
        hold.touch()
    assert f"came from {came_from}" in there.said(live)
    check_final(there, catalog, scan, way, FRAMES)


def test_two_fly_scans_back_to_back_the_second_of_which_is_aborted(there: Hall, catalog: Any) -> None:
    scans = []
    # Of the first one, frames come before their positions.
    for order in ({"faults": {"LatePositions": 30}}, {"abort_after": 30, "period_s": 0.02}):
        with there.scan("fly", "file", rows=ROWS, columns=COLUMNS, **order) as scan:
            scans.append(scan)
    assert [scan.end["ended"] for scan in scans] == ["success", "abort"]
    for scan in scans:
        live_job(there, scan)
        measured = len(read(scan.file))
        assert measured == FRAMES if scan.end["ended"] == "success" else 30 <= measured < FRAMES
        until(lambda scan=scan: there.entries(scan, "final"), "a final job")
        result = check_final(there, catalog, scan, "file", there.entries(scan, "final")[0].frames)
        assert len(result["positions_m"][:]) == min(scan.announced, measured)
    assert any("exit status 'abort'" in note for note in result.metadata["notes"])


def test_a_step_scan_with_devices_of_ophyd_that_is_paused(there: Hall, catalog: Any, hold: Path) -> None:
    with there.scan("step", "step", ophyd=True, points=27, pause_after=15, hold=str(hold)) as scan:
        until(lambda: scan.paused, "it is paused")
        live = live_job(there, scan)
        so_far = there.entries(scan, "live")
        until(lambda: len(there.admitted(live)) >= 15, "what was taken is handed over")
        check_live_image(catalog, "step", live, len(there.admitted(live)))
        assert so_far[0].state == "running"
        hold.touch()
    assert scan.end["ended"] == "success"
    check_final(there, catalog, scan, "step", 27)


def test_a_motor_record_that_says_mm_and_means_um(there: Hall) -> None:
    with there.scan("step", "step", points=10, faults={"WrongUnit": 1}) as scan:
        pass
    until(lambda: [entry.state for entry in there.entries(scan, "final")] == ["failed"], "it is refused")
    said = str(there.entries(scan, "final")[0].sentence)
    assert "in micrometres and taken for millimetres" in said
    assert there.entries(scan, "live") == []


def test_a_detector_that_falls_silent_in_a_scan_of_one_line(there: Hall, catalog: Any) -> None:
    faults = {"DetectorOff": 25, "MotorStalled": 20}
    with there.scan("fly", "file", rows=1, columns=40, patience_s=1.0, faults=faults) as scan:
        pass
    assert scan.end["ended"] == "fail"
    assert "detector (SIM:det:HDF1:NumCaptured_RBV) had nothing new for 1.0 s" in scan.end["said"]
    notes = check_final(there, catalog, scan, "file", 25, error=0.2).metadata["notes"]
    for said in ("exit status 'fail'", "is one line"):
        assert any(said in note for note in notes)
    live_job(there, scan)


def test_an_ioc_that_is_killed_in_mid_scan_and_comes_back(there: Hall, catalog: Any, hold: Path) -> None:
    with there.scan("fly", "file", rows=10, columns=20, patience_s=1.0) as scan:
        until(lambda: scan.announced > 40, "it flies")
        there.ioc.kill()
        live_job(there, scan)
    there.bring_back_ioc()
    assert scan.end["ended"] == "fail"
    assert scan.end["said"] == scan.end["reason"]
    assert "the fly scan ended early" in scan.end["said"]
    assert "(SIM:" in scan.end["said"]
    assert "Does its IOC run" in scan.end["said"]
    assert 40 < scan.announced <= len(read(scan.file))
    result = check_final(there, catalog, scan, "file", scan.announced)
    assert any("exit status 'fail'" in note for note in result.metadata["notes"])
    with there.scan("fly", "pva", visible=False, rows=ROWS, columns=COLUMNS, hold=str(hold)) as after:
        live = live_job(there, after)
        until(lambda: frames_live(there, live) == FRAMES, "all frames of the scan after it are admitted")
        there.mount(after)
        hold.touch()
    assert after.end["ended"] == "success"
    assert "came from the spool of SIM:Pva1:Image" in there.said(live)
    check_final(there, catalog, after, "pva", FRAMES)
