"""Step scans with ophyd's own devices: their documents lead to the frames."""

from __future__ import annotations

from pathlib import Path

import event_model
import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest

pytest.importorskip("caproto", reason="the simulated IOC needs ptyplugin[sim,epics]")
pytest.importorskip("p4p", reason="the simulated IOC needs ptyplugin[sim,epics]")

from ioc_clients import POSITIONS, Seen, chi_square, read, session

from ptyplugin.sim.ioc.process import Ioc

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def legacy(served: Ioc) -> Seen:
    return session(served, "legacy")


def file_of(run: Seen) -> Path:
    resource = run.named("resource")[0]
    return Path(resource["root"]) / resource["resource_path"]


@pytest.mark.parametrize(("number", "frames_per_point"), [(0, 1), (1, 2)])
def test_documents_lead_to_the_frames(legacy: Seen, number: int, frames_per_point: int) -> None:
    run = legacy.run(number)
    for name, document in run.documents:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(document)
    resource = run.named("resource")[0]
    assert resource["spec"] == "AD_HDF5"
    assert resource["resource_kwargs"] == {"frame_per_point": frames_per_point}
    for datum, event in zip(run.named("datum"), run.named("event"), strict=True):
        assert event["data"]["detector"] == datum["datum_id"]
        assert datum["datum_kwargs"] == {"point_number": event["seq_num"] - 1}
    at_m = np.array([(event["data"]["stage_y"], event["data"]["stage_x"]) for event in run.named("event")]) * 1e-6
    np.testing.assert_allclose(at_m, np.asarray(POSITIONS) * 1e-6, atol=1e-15)
    frames = read(file_of(run))
    assert len(frames) == frames_per_point * len(POSITIONS)
    assert chi_square(frames, at_m.repeat(frames_per_point, axis=0)) == pytest.approx(1.0, abs=0.05)


def test_files_of_an_eiger_are_linked_from_a_master_file_per_point(legacy: Seen) -> None:
    run = legacy.run(2)
    resource, data = run.named("resource")[0], run.named("datum")
    assert resource["spec"] == "AD_EIGER2"
    assert resource["resource_kwargs"] == {"images_per_file": 2}
    assert [event["data"]["detector"] for event in run.named("event")] == [datum["datum_id"] for datum in data]
    frames = []
    for datum in data:
        with h5py.File(f"/{resource['resource_path']}_{datum['datum_kwargs']['seq_id']}_master.h5") as master:
            assert list(master["entry/data"]) == ["data_000001", "data_000002"]
            assert isinstance(master["entry/data"].get("data_000001", getlink=True), h5py.ExternalLink)
            frames += [np.asarray(each) for each in master["entry/data"].values()]
            assert master["entry/instrument/detector/x_pixel_size"][()] == 75e-6
    stack = np.concatenate(frames)
    assert len(stack) == 3 * len(POSITIONS)
    assert chi_square(stack, np.asarray(POSITIONS).repeat(3, axis=0) * 1e-6) == pytest.approx(1.0, abs=0.05)


def test_two_runs_are_two_files(legacy: Seen) -> None:
    assert file_of(legacy.run(0)) != file_of(legacy.run(1))


def test_motors_stop_and_keep_to_their_limits(legacy: Seen) -> None:
    assert legacy.seen["moving"]
    assert 2.25 < legacy.seen["stopped_at"] < 50.0
    assert legacy.seen["refused"] == "LimitError"
