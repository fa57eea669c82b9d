"""What goes wrong on request, and an IOC that is killed and started again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest

pytest.importorskip("caproto", reason="the simulated IOC needs ptyplugin[sim,epics]")
pytest.importorskip("p4p", reason="the simulated IOC needs ptyplugin[sim,epics]")

from ioc_clients import FLIGHT, POSITIONS, Seen, read, session

from ptyplugin.sim.ioc.process import Ioc

pytestmark = pytest.mark.system

FRAMES = len(FLIGHT.positions)


@pytest.fixture(scope="module")
def faults(served: Ioc) -> Seen:
    return session(served, "faults")


def announced(run: Seen) -> int:
    resource = next(each for each in run.named("stream_resource") if each["data_key"] == "detector")
    return max(datum["indices"]["stop"] for datum in run.named("stream_datum") if datum["stream_resource"] == resource["uid"])


def test_a_wrong_unit_is_said_everywhere(faults: Seen) -> None:
    assert faults.seen["wrong_unit"] == ["mm", "mm"]


def test_a_stalled_motor_ends_its_moves_where_it_stands(faults: Seen) -> None:
    assert faults.seen["moves"] == pytest.approx([1.0, 2.0, 2.0])


def test_encoders_see_a_stall_during_a_fly_scan(faults: Seen) -> None:
    run = faults.run(0)
    x, y = read(run.file("stage_x"), "x"), read(run.file("stage_y"), "y")
    assert faults.seen["status"][0] == "success"
    np.testing.assert_allclose(x[:30], FLIGHT.positions[:30, 1], atol=1e-9)
    assert np.ptp(x[30:]) < 1e-9
    np.testing.assert_allclose(y, FLIGHT.positions[:, 0], atol=1e-9)


def test_a_detector_that_falls_silent_fails_the_run_and_not_the_next(faults: Seen) -> None:
    assert faults.seen["status"][1:] == ["fail", "success"]
    said = faults.seen["failures"][0]
    assert "the fly scan ended early" in said
    assert "had nothing new for 1.0 s. Does its IOC run, and is it on?" in said
    assert faults.run(1).named("stop")[0]["reason"] == said
    assert len(read(faults.run(1).file("detector"))) == 40
    assert len(read(faults.run(1).file("stage_x"), "x")) == FRAMES
    assert len(read(faults.run(2).file("detector"))) == FRAMES


def test_a_session_goes_on_after_the_ioc_was_ended_between_scans(faults: Seen) -> None:
    assert faults.seen["ended"] == [0, -9]
    assert faults.seen["restarted"][0] == "success"
    assert len(read(faults.run(3).file("detector"))) == len(POSITIONS)


def test_frames_that_were_announced_are_there_after_a_kill_during_a_scan(faults: Seen) -> None:
    run = faults.run(4)
    assert faults.seen["restarted"][1] == "fail"
    assert 0 < announced(run) < 200
    with h5py.File(run.file("detector"), "r", libver="latest", swmr=True) as file:
        frames = np.asarray(file["/entry/data/data"])
    assert len(frames) >= announced(run)
    assert (frames.sum(axis=(1, 2)) > 0).all()


def test_a_fly_scan_succeeds_after_a_kill_during_one(faults: Seen) -> None:
    assert faults.seen["restarted"][2] == "success"
    assert announced(faults.run(5)) == FRAMES


def test_the_ioc_has_said_nothing(served: Ioc, faults: Seen) -> None:
    assert (served.folder / "ioc.log").read_text() == ""


def test_an_ioc_ends_with_a_session_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom ptyplugin.sim import ioc\n"
        "with ioc.running(Path(sys.argv[1])) as served:\n    print(served.pid, flush=True)\n    sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.kill()
    end_s = time.monotonic() + 30.0
    while Path(f"/proc/{pid}").exists() and "Z (" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < end_s
        time.sleep(0.1)
