"""Step scans over Channel Access: motors arrive, and frames are the camera's where they stood."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("caproto", reason="the simulated IOC needs ptyplugin[sim,epics]")
pytest.importorskip("p4p", reason="the simulated IOC needs ptyplugin[sim,epics]")

from ioc_clients import POSITIONS, Seen, chi_square, read

from ptyplugin.model import DeviceError
from ptyplugin.sim import ioc

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def step(scans: Seen) -> Seen:
    return scans.run(0)


def test_motors_stand_where_the_plan_sent_them(step: Seen) -> None:
    at = [(event["data"]["stage_y"], event["data"]["stage_x"]) for event in step.named("event")]
    np.testing.assert_allclose(at, POSITIONS, atol=1e-9)
    keys = step.named("descriptor")[0]["data_keys"]
    assert keys["stage_y"]["units"] == keys["stage_x"]["units"] == "um"
    assert keys["detector"]["shape"] == [1, 128, 128]


def test_frames_are_the_cameras_at_the_motors_positions(step: Seen) -> None:
    frames, positions_m = read(step.file("detector")), np.asarray(POSITIONS) * 1e-6
    assert frames.shape == (len(POSITIONS), 128, 128)
    assert chi_square(frames, positions_m) == pytest.approx(1.0, abs=0.05)
    assert chi_square(frames, np.roll(positions_m, 1, axis=0)) > 2


def test_the_file_has_ids_and_times_as_area_detector_writes_them(step: Seen) -> None:
    ids = read(step.file("detector"), "/entry/instrument/NDAttributes/NDArrayUniqueId")
    times_s = read(step.file("detector"), "/entry/instrument/NDAttributes/NDArrayTimeStamp")
    np.testing.assert_array_equal(np.diff(ids), 1)
    start = step.named("start")[0]["time"]
    assert (np.diff(times_s) > 0).all()
    assert 0 < times_s[0] + 631152000 - start < 60


def test_a_put_is_complete_when_the_motor_has_arrived(step: Seen) -> None:
    assert step.seen["moved"] == pytest.approx(-10.0)
    assert step.seen["move_s"] >= 0.5, "10 um at 20 um/s"


def test_stop_and_limits(step: Seen) -> None:
    assert (step.seen["moving"], step.seen["done"]) == (0, 1)
    assert 0.0 < step.seen["on_the_way"] < 60.0
    assert step.seen["refused"] == "MotorLimitsError"


def test_energy_and_intensity_come_with_the_events(step: Seen) -> None:
    data = step.named("event")[0]["data"]
    assert data["mono-energy"] == 8000.0
    assert data["ion_chamber-rate"] == 1e5
    assert step.seen["energy"] == 8100.0


def test_what_does_not_start_says_why_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="'rain' is no imperfection"), ioc.running(tmp_path, options=["--imperfection", "rain=1"]):
        pass
