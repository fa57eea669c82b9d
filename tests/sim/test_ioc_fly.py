"""Fly scans: frames and positions without events, and each frame over PVAccess."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("caproto", reason="the simulated IOC needs ptyplugin[sim,epics]")
pytest.importorskip("p4p", reason="the simulated IOC needs ptyplugin[sim,epics]")

from ioc_clients import FLIGHT, Seen, chi_square, read

pytestmark = pytest.mark.system

FRAMES = len(FLIGHT.positions)
IDS = "/entry/instrument/NDAttributes/NDArrayUniqueId"


@pytest.fixture(scope="module")
def flights(scans: Seen) -> Seen:
    return Seen(scans.run(1).documents + scans.run(2).documents, scans.seen)


def encoders_m(run: Seen) -> np.ndarray:
    return np.stack([read(run.file(f"stage_{axis}"), axis) for axis in "yx"], axis=1).reshape(FRAMES, 3, 2) * 1e-6


def test_a_fly_scan_has_no_events_and_streams_without_gaps(flights: Seen) -> None:
    run = flights.run(0)
    assert run.named("event") == run.named("event_page") == []
    assert run.named("stop")[0]["exit_status"] == "success"
    assert run.named("stop")[0]["num_events"] == {"primary": FRAMES}
    start, keys = run.named("start")[0], run.named("descriptor")[0]["data_keys"]
    assert (start["num_points"], start["sample"], start["plan_name"]) == (FRAMES, "star", "ptycho_fly")
    assert {name: key["shape"] for name, key in keys.items()} == {
        "detector": [1, 128, 128],
        "stage_y": [3],
        "stage_x": [3],
        "ion_chamber": [3],
    }
    assert keys["stage_y"]["units"] == "um"
    for resource in run.named("stream_resource"):
        indices = [datum["indices"] for datum in run.named("stream_datum") if datum["stream_resource"] == resource["uid"]]
        edges = [indices[0]["start"], *(index["stop"] for index in indices)]
        assert len(indices) > 1, "they come while it flies"
        assert (edges[0], edges[-1]) == (0, FRAMES)
        assert edges[:-1] == [index["start"] for index in indices]


def test_frames_are_blurred_over_the_way_that_the_encoders_saw(flights: Seen) -> None:
    run = flights.run(0)
    frames, way_m = read(run.file("detector")), encoders_m(run)
    assert frames.shape == (FRAMES, 128, 128)
    np.testing.assert_allclose(way_m.mean(axis=1), FLIGHT.positions * 1e-6, atol=1e-12)
    assert chi_square(frames, way_m) == pytest.approx(1.0, abs=0.02)
    assert chi_square(frames, way_m.mean(axis=1)) > 1.05, "the blur is seen"
    assert chi_square(frames, np.roll(way_m, 1, axis=0)) > 2


def test_the_monitor_is_there_for_each_sample(flights: Seen) -> None:
    run = flights.run(0)
    monitor = read(run.file("ion_chamber"), "monitor")
    np.testing.assert_allclose(monitor, 1e5 / 300 / 3)
    assert len(monitor) == 3 * FRAMES


def test_each_frame_comes_over_pvaccess_as_it_is_in_the_file(flights: Seen) -> None:
    run, images = flights.run(0), flights.seen["images"][0]
    assert [image["id"] for image in images] == read(run.file("detector"), IDS).tolist()
    assert [image["sum"] for image in images] == read(run.file("detector")).sum(axis=(1, 2), dtype=np.int64).tolist()
    assert {(tuple(image["shape"]), image["dtype"], image["codec"]) for image in images} == {((128, 128), "uint16", "")}


def test_dropped_and_doubled_frames_are_whole_in_the_file(flights: Seen) -> None:
    run, images = flights.run(1), flights.seen["images"][1]
    written = read(run.file("detector"), IDS)
    np.testing.assert_array_equal(np.diff(written), 1)
    assert len(written) == FRAMES
    expected = [each for each in written.tolist() if each % 7 for _ in range(2 if each % 5 == 0 else 1)]
    assert [image["id"] for image in images] == expected


def test_the_controller_says_that_it_is_done(flights: Seen) -> None:
    assert flights.seen["status"] == "Done"
