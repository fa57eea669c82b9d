"""The beamline: a real RunEngine, real documents, real files."""

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import event_model
import h5py
import numpy as np
import pytest
from bluesky import plan_stubs, preprocessors
from bluesky.utils import FailedStatus, RunEngineInterrupted
from numpy.typing import NDArray
from ophyd_async.core import TriggerInfo
from scipy import stats

from ptyplugin.model import DeviceError, ScanError
from ptyplugin.sim.beamline import Beamline
from ptyplugin.sim.frame_file import FrameFile
from ptyplugin.sim.legacy_detector import LegacyDetector

FRAMES = 14
Document = tuple[str, dict[str, Any]]


def scanned(beamline: Beamline, plan: Generator[Any, Any, Any] | None = None) -> list[Document]:
    documents: list[Document] = []
    beamline.RE(beamline.ptycho_grid() if plan is None else plan, lambda name, document: documents.append((name, document)))
    return documents


def named(documents: list[Document], name: str) -> list[dict[str, Any]]:
    return [document for each, document in documents if each == name]


def file_of(documents: list[Document]) -> Path:
    return Path(unquote(urlparse(named(documents, "stream_resource")[0]["uri"]).path))


def frames_in(documents: list[Document]) -> NDArray[np.uint16]:
    resource = named(documents, "stream_resource")[0]
    with h5py.File(file_of(documents)) as file:
        return np.asarray(file[resource["parameters"]["dataset"]])


@pytest.fixture(scope="module")
def beamline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beamline]:
    with Beamline(tmp_path_factory.mktemp("beam line"), frames=FRAMES, modes=2, seed=3) as built:
        yield built


@pytest.fixture(scope="module")
def run(beamline: Beamline) -> list[Document]:
    return scanned(beamline)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Beamline]:
    with Beamline(tmp_path, frames=5) as built:
        yield built


def test_documents_are_valid_and_complete(run: list[Document]) -> None:
    for name, document in run:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(document)
    counts = {"start": 1, "descriptor": 1, "stream_resource": 1, "stream_datum": FRAMES, "event": FRAMES, "stop": 1}
    assert Counter(name for name, _ in run) == counts


def test_each_stream_datum_comes_before_its_event(run: list[Document]) -> None:
    order = [name for name, _ in run]
    assert order == ["start", "descriptor", "stream_resource", *["stream_datum", "event"] * FRAMES, "stop"]
    for number, (datum, event) in enumerate(zip(named(run, "stream_datum"), named(run, "event"), strict=True)):
        assert datum["indices"] == {"start": number, "stop": number + 1}
        assert datum["seq_nums"] == {"start": number + 1, "stop": number + 2}
        assert event["seq_num"] == number + 1
        assert set(event["data"]) == {"stage_y", "stage_x"}


def test_start_tells_energy_distance_and_extent(beamline: Beamline, run: list[Document]) -> None:
    start = run[0][1]
    assert (start["plan_name"], start["energy_ev"], start["detector_distance_m"]) == ("ptycho_grid", 8000.0, 3.0)
    assert start["num_points"] == FRAMES
    low, high = beamline.positions_m.min(axis=0) * 1e6, beamline.positions_m.max(axis=0) * 1e6
    np.testing.assert_allclose(start["extents"], np.stack([low, high], axis=1))


def test_data_keys_name_units_and_frames(run: list[Document]) -> None:
    keys = named(run, "descriptor")[0]["data_keys"]
    assert set(keys) == {"detector", "stage_y", "stage_x"}
    assert keys["stage_y"]["units"] == keys["stage_x"]["units"] == "um"
    assert keys["detector"]["shape"] == [1, 128, 128]
    assert keys["detector"]["dtype_numpy"] == "<u2"


def test_events_hold_the_true_positions(beamline: Beamline, run: list[Document]) -> None:
    read = np.array([[event["data"]["stage_y"], event["data"]["stage_x"]] for event in named(run, "event")])
    np.testing.assert_allclose(read * 1e-6, beamline.positions_m, rtol=1e-12, atol=1e-18)
    offset = beamline.positions_px - beamline.positions_m / beamline.geometry.object_pixel_m
    np.testing.assert_allclose(offset, offset[:1].repeat(FRAMES, axis=0), atol=1e-9)


def test_all_patches_lie_in_the_sample(beamline: Beamline) -> None:
    assert beamline.positions_px.min() >= 0
    assert (beamline.positions_px.max(axis=0) + 128 <= beamline.object.shape).all()


def test_probe_power_is_the_photons(beamline: Beamline) -> None:
    assert beamline.probe.shape == (2, 128, 128)
    assert (np.abs(beamline.probe) ** 2).sum() == pytest.approx(1e6)


def test_frames_in_the_file_are_the_model_with_poisson_noise(beamline: Beamline, run: list[Document]) -> None:
    counts = frames_in(run).astype(float)
    expected = np.array([beamline.camera.expected(position) for position in beamline.positions_m])
    lit = expected > 20
    chi_square = ((counts - expected)[lit] ** 2 / expected[lit]).sum()
    assert 1e-4 < stats.chi2.cdf(chi_square, lit.sum()) < 1 - 1e-4
    wrong = np.roll(expected, 1, axis=0)
    assert ((counts - wrong)[lit] ** 2 / wrong[lit]).mean() > 2, "the frames must tell positions apart"


def test_file_is_written_as_detectors_do(run: list[Document]) -> None:
    resource = named(run, "stream_resource")[0]
    assert resource["mimetype"] == "application/x-hdf5"
    assert resource["data_key"] == "detector"
    assert " " not in resource["uri"]
    assert resource["uri"].startswith("file://localhost/")
    with h5py.File(file_of(run)) as file:
        dataset = file[resource["parameters"]["dataset"]]
        assert dataset.shape == (FRAMES, 128, 128)
        assert dataset.chunks == tuple(resource["parameters"]["chunk_shape"]) == (1, 128, 128)
        assert [dataset.id.get_create_plist().get_filter(0)[0]] == [32008], "bitshuffle"


def test_the_same_seed_gives_the_same_frames(beamline: Beamline, run: list[Document], tmp_path: Path) -> None:
    with Beamline(tmp_path, frames=FRAMES, modes=2, seed=3) as again:
        np.testing.assert_array_equal(again.object, beamline.object)
        np.testing.assert_array_equal(frames_in(scanned(again)), frames_in(run))


def test_two_runs_give_two_files(other: Beamline) -> None:
    first, second = scanned(other), scanned(other)
    assert file_of(first) != file_of(second)
    assert len(frames_in(first)) == len(frames_in(second)) == 5
    assert [run[0][1]["scan_id"] for run in (first, second)] == [1, 2]


def test_a_folder_is_made(tmp_path: Path) -> None:
    with Beamline(tmp_path / "new" / "folder", frames=2) as built:
        assert file_of(scanned(built)).parent == tmp_path / "new" / "folder"


def test_abort_closes_the_file(other: Beamline) -> None:
    documents: list[Document] = []

    def fail_at_third(name: str, document: dict[str, Any]) -> None:
        documents.append((name, document))
        if name == "event" and document["seq_num"] == 3:
            raise RuntimeError("somebody pulled a plug")

    with pytest.raises(RuntimeError, match="plug"):
        other.RE(other.ptycho_grid(), fail_at_third)
    assert documents[-1][0] == "stop"
    assert documents[-1][1]["exit_status"] == "fail"
    with h5py.File(file_of(documents), "r+") as file:
        assert len(file["/entry/data/data"]) == 3
    assert len(frames_in(scanned(other))) == 5, "the next run works"


def test_a_detector_that_cannot_write_fails_the_run(other: Beamline, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError("no space left on device")

    documents: list[Document] = []
    with monkeypatch.context() as patched:
        patched.setattr(FrameFile, "append", full)
        with pytest.raises(FailedStatus) as failure:
            other.RE(other.ptycho_grid(), lambda name, document: documents.append((name, document)))
    assert "no space left" in repr(failure.value.__cause__ or failure.value)
    assert documents[-1][1]["exit_status"] == "fail"
    assert len(frames_in(scanned(other))) == 5, "the next run works"


def test_closing_a_paused_beamline_ends_its_run(tmp_path: Path) -> None:
    documents: list[Document] = []

    def pausing(built: Beamline) -> Generator[Any, Any, Any]:
        def before_each(message: Any) -> tuple[Generator[Any, Any, Any] | None, None]:
            return (plan_stubs.pause(), None) if message.command == "create" and len(documents) > 6 else (None, None)

        return preprocessors.plan_mutator(built.ptycho_grid(), before_each)

    with Beamline(tmp_path, frames=5) as built:
        with pytest.raises(RunEngineInterrupted):
            built.RE(pausing(built), lambda name, document: documents.append((name, document)))
        assert documents[-1][0] != "stop"
    assert documents[-1][0] == "stop"
    assert documents[-1][1]["exit_status"] == "abort"
    assert len(frames_in(documents)) < 5


def test_close_leaves_no_thread_and_may_come_twice(tmp_path: Path, until) -> None:
    before = set(threading.enumerate())
    built = Beamline(tmp_path, frames=2)
    scanned(built)
    built.close()
    built.close()
    # bluesky's thread that watches for Ctrl-C is told to end, and not waited for.
    until(lambda: {thread for thread in threading.enumerate() if thread.is_alive()} <= before)


def test_two_beamlines_side_by_side(beamline: Beamline, other: Beamline) -> None:
    assert named(scanned(other), "stop")[0]["exit_status"] == "success"
    assert named(scanned(beamline), "stop")[0]["exit_status"] == "success"


def test_a_scan_outside_the_main_thread(other: Beamline) -> None:
    documents: list[Document] = []
    folder = file_of(scanned(other)).parent

    def work() -> None:
        with Beamline(folder, frames=3) as built:
            documents.extend(scanned(built))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert named(documents, "stop")[0]["num_events"] == {"primary": 3}


def test_several_frames_per_point(other: Beamline) -> None:
    @preprocessors.stage_decorator([other.detector])
    @preprocessors.run_decorator()
    def plan() -> Generator[Any, Any, None]:
        yield from plan_stubs.prepare(other.detector, TriggerInfo(collections_per_event=3, livetime=0.001), wait=True)
        for _ in range(2):
            yield from plan_stubs.trigger_and_read([other.detector, other.stage_y, other.stage_x])

    documents = scanned(other, plan())
    assert named(documents, "descriptor")[0]["data_keys"]["detector"]["shape"] == [3, 128, 128]
    assert [datum["indices"] for datum in named(documents, "stream_datum")] == [{"start": 0, "stop": 1}, {"start": 1, "stop": 2}]
    assert len(frames_in(documents)) == 6


@pytest.mark.system
def test_another_process_reads_frames_while_they_are_written(other: Beamline) -> None:
    read = (
        "import sys, h5py, hdf5plugin\n"
        "with h5py.File(sys.argv[1], 'r', libver='latest', swmr=True) as file:\n"
        "    frames = file[sys.argv[2]]\n"
        "    print(len(frames), int(frames[-1].sum()))\n"
    )
    seen: list[str] = []
    documents: list[Document] = []

    def look(name: str, document: dict[str, Any]) -> None:
        documents.append((name, document))
        if name == "event" and document["seq_num"] == 3:
            resource = named(documents, "stream_resource")[0]
            command = [sys.executable, "-c", read, str(file_of(documents)), resource["parameters"]["dataset"]]
            seen.append(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)

    other.RE(other.ptycho_grid(), look)
    assert seen == [f"3 {frames_in(documents)[2].sum()}\n"]


@pytest.mark.parametrize("frames_per_point", [1, 2])
def test_legacy_detector_speaks_resource_and_datum(other: Beamline, tmp_path: Path, frames_per_point: int) -> None:
    detector = LegacyDetector(other.camera, other.stage_y, other.stage_x, tmp_path, name="detector", frames_per_point=frames_per_point)
    documents = scanned(other, other.ptycho_grid(detector))
    for name, document in documents:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(document)
    order = [name for name, _ in documents]
    assert order == ["start", "descriptor", "resource", *["datum", "event"] * 5, "stop"]
    resource = named(documents, "resource")[0]
    assert resource["spec"] == "AD_HDF5"
    assert resource["resource_kwargs"] == {"frame_per_point": frames_per_point}
    for datum, event in zip(named(documents, "datum"), named(documents, "event"), strict=True):
        assert event["data"]["detector"] == datum["datum_id"]
        assert event["filled"] == {"detector": False}
        assert datum["datum_kwargs"] == {"point_number": event["seq_num"] - 1}
    with h5py.File(Path(resource["root"]) / resource["resource_path"]) as file:
        counts = np.asarray(file["/entry/data/data"]).astype(float)
    assert len(counts) == 5 * frames_per_point
    expected = np.array([other.camera.expected(position) for position in other.positions_m]).repeat(frames_per_point, axis=0)
    lit = expected > 20
    assert ((counts - expected)[lit] ** 2 / expected[lit]).mean() == pytest.approx(1.0, abs=0.1)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="0 points"):
        Beamline(tmp_path, frames=0)
    with pytest.raises(DeviceError, match="0 probe modes"):
        Beamline(tmp_path, modes=0)
    for photons in (0, -1, float("nan"), float("inf")):
        with pytest.raises(DeviceError, match="photons per frame"):
            Beamline(tmp_path, photons=photons)
