"""Job, Site and Profile: the borders, where input is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ptyplugin.jobs.contents import arrays_beside
from ptyplugin.model import (
    BesideArray,
    FrameBlock,
    FramesError,
    GeometryNumbers,
    Hdf5Source,
    Job,
    JobError,
    OutsideDataRoots,
    Preparation,
    Quantity,
    Refusal,
    Resources,
    RunSource,
    ScanError,
    Site,
    SiteError,
    canonical_json,
    load_site,
    monitor_field,
    positions_field,
    ranges_of,
)


def make_job(**change: Any) -> Job:
    numbers: dict[str, Any] = {
        "beamline": "sim",
        "source": RunSource(run_uid="9acjef", key="detector", scan_id=7),
        "geometry": GeometryNumbers(energy_ev=8000.0, distance_m=2.0, pixel_m=75e-6, shape=(128, 128)),
        "recipe": "DM(100)+ePIE(50)",
        "frames": [FrameBlock(source=Hdf5Source(uri="file://localhost/data/a.h5", dataset="/entry/data/data"), ranges=[(0, 3)])],
        "frame_ids": [(0, 3)],
        "positions_m": [[(0.0, 0.0)], [(1e-6, 0.0)], [(0.0, 1e-6)]],
    }
    return Job(**(numbers | change))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"positions_m": [], "frame_ids": []}, "0 frames with a position"),
        ({"positions_m": [[], [], []]}, "give y and x per frame"),
        ({"positions_m": [[(0.0, 0.0)], [(0.0, 1e-6), (1e-6, 0.0)], [(0.0, 0.0)]]}, "different numbers of sub-steps"),
    ],
)
def test_positions_of_a_job_that_cannot_be(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ScanError, match=sentence):
        make_job(**change).scan(None)


def test_a_block_without_frames_is_no_block() -> None:
    job = make_job().model_dump(mode="json")
    job["frames"][0]["ranges"] = []
    with pytest.raises(JobError, match="a block of frames has no range"):
        Job.from_bytes(canonical_json(job))


def test_json_round_trip_keeps_job_bytes_and_key() -> None:
    job = make_job()
    again = Job.from_bytes(job.to_bytes())
    assert again == job
    assert again.to_bytes() == job.to_bytes()
    assert len(job.key) == 16
    assert int(job.key, 16) >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"resources": Resources(ranks=4, priority=9)},
        {"notes": ["2 frames dropped"]},
        {"source": RunSource(run_uid="9acjef", key="detector")},
        {"source": RunSource(run_uid="9acjef", key="detector", begun_s=1.7e9)},
    ],
)
def test_what_does_not_change_the_result_does_not_change_the_key(change: dict[str, Any]) -> None:
    assert make_job(**change).key == make_job().key


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": "DM(101) + ePIE(50)"},
        {"probe_modes": 2},
        {"object_modes": 2},
        {"subpixel": "none"},
        {"seed": 1},
        {"purpose": "live"},
        {"positions_from": "y = -stage_y [um], x = +stage_x [um]"},
        {"attempt": 1},
        {"preparation": Preparation(crop_px=64)},
        {"source": RunSource(run_uid="other", key="detector")},
        {"start_probe": BesideArray(name="probe.npy", sha256="0" * 64)},
    ],
)
def test_what_changes_the_result_changes_the_key(change: dict[str, Any]) -> None:
    assert make_job(**change).key != make_job().key


def test_many_positions_lie_beside_the_job_and_are_checked(tmp_path: Path) -> None:
    positions = np.random.default_rng(0).normal(size=(10_001, 1, 2)) * 1e-6
    arrays: dict[str, Any] = {}
    job = make_job(positions_m=positions_field(positions, arrays), frame_ids=[(0, 10_001)])
    np.save(tmp_path / "positions.npy", arrays["positions.npy"])
    assert np.array_equal(job.scan(tmp_path).positions_m, positions)
    np.save(tmp_path / "positions.npy", arrays["positions.npy"] + 1e-9)
    with pytest.raises(JobError, match="is not the array that was submitted"):
        job.scan(tmp_path)
    (tmp_path / "positions.npy").write_bytes(b"\x93NUMPY torn")
    with pytest.raises(JobError, match="cannot be read"):
        job.scan(tmp_path)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"format": 2}', make_job().to_bytes()[:-9]])
def test_what_is_no_job_is_refused_with_the_field(data: bytes) -> None:
    with pytest.raises(JobError, match="this job cannot be read: "):
        Job.from_bytes(data)


def test_names_beside_a_job_cannot_leave_its_folder() -> None:
    for name in ("../x.npy", "/etc/x.npy", "a/b.npy", "x.txt"):
        with pytest.raises(ValidationError):
            BesideArray(name=name, sha256="0" * 64)


def test_a_refusal_has_a_key_of_its_own() -> None:
    refusal = Refusal(beamline="sim", source=RunSource(run_uid="9acjef", key="detector"), reason="no such key")
    assert refusal.key != make_job().key
    assert b"no such key" in refusal.to_bytes()


@given(st.lists(st.integers(0, 30), max_size=40))
def test_ranges_give_the_indices_back_in_their_order(indices: list[int]) -> None:
    assert [i for start, stop in ranges_of(indices) for i in range(start, stop)] == indices


@pytest.mark.parametrize("path", ["{beam}/raw", "{beamline", "{0}", "{beamline.name}", "", "/"])
def test_a_path_in_the_catalog_must_be_one(tmp_path: Path, path: str) -> None:
    site = tmp_path / "site.toml"
    for name in ("raw_path", "processed_path"):
        site.write_text(f'{name} = "{path}"\n')
        with pytest.raises(SiteError, match=rf"site\.toml: {name}: .*path"):
            load_site(site)


def test_only_files_under_data_roots_are_read(tmp_path: Path) -> None:
    root, outside = tmp_path / "data", tmp_path / "secret"
    root.mkdir(), outside.mkdir()
    (root / "link").symlink_to(outside)
    site = Site(data_roots=[root], path_map={"/detector": str(root)})
    assert site.local_path(f"file://localhost{root}/a%20b.h5") == root / "a b.h5"
    assert site.local_path("file://ioc7/detector/2026/a.h5") == root / "2026" / "a.h5"
    for uri in (f"file://{outside}/a.h5", f"file://{root}/../secret/a.h5", f"file://{root}/link/a.h5", "file:///detectors/a.h5"):
        with pytest.raises(OutsideDataRoots, match="outside the site's data_roots"):
            site.local_path(uri)
    for uri in ("http://127.0.0.1/a.h5", "s3://bucket/a.h5", "", "file://host", f"file://{root}/a%00.h5"):
        with pytest.raises(FramesError):
            site.local_path(uri)


def test_without_data_roots_nothing_is_read() -> None:
    with pytest.raises(OutsideDataRoots, match=r"\(none\)"):
        Site().local_path("file:///data/a.h5")


def test_the_site_file_is_read_and_its_mistakes_named(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text('home = "/srv/ptyplugin"\ndata_roots = ["/data"]\nranks = 2\n')
    site = load_site(path)
    assert (site.inbox, site.ledger, site.results) == (
        Path("/srv/ptyplugin/inbox"),
        Path("/srv/ptyplugin/ledger.sqlite"),
        Path("/srv/ptyplugin/results"),
    )
    assert load_site(environment={"PTYPLUGIN_SITE": str(path)}) == site
    path.write_text('hom = "/srv"\n')
    with pytest.raises(SiteError, match=r"site\.toml: hom: there is no such key: did you mean home\?"):
        load_site(path)
    path.write_text("home = \n")
    with pytest.raises(SiteError, match="is no TOML"):
        load_site(path)
    with pytest.raises(SiteError, match="cannot be read"):
        load_site(tmp_path / "absent.toml")


def test_all_mistakes_of_a_site_file_are_named_with_value_and_advice(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(
        'home = 5\nranks = "many"\nhttp_port = 99999\ndata_roots = ["/a", 7]\nwhatever = 1\n'
        '[[slot]]\nrank = 2\n[[source]]\nkind = "pigeon"\n[[source]]\nprofiles = ["sim"]\n[[source]]\nkind = "sweep"\n'
    )
    with pytest.raises(SiteError) as caught:
        load_site(path)
    said = str(caught.value)
    for sentence in (
        'home: it is 5: write a path in quotes, such as "/data".',
        "ranks: it is 'many': write a whole number.",
        "http_port: Input should be less than or equal to 65535 (it is 99999).",
        'data_roots 2: it is 7: write a path in quotes, such as "/data".',
        "whatever: there is no such key: the reference of the site file has all.",
        "slot 1 rank: there is no such key: did you mean ranks?",
        "source 1: there is no kind 'pigeon': write one of zmq, kafka, tiled, sweep, http, pva, eiger.",
        'source 2: this table has no kind: add one, such as kind = "zmq".',
        "source 3 sweep profiles: this key is missing: add it.",
    ):
        assert sentence in said
    assert "\n" not in said


def test_a_quantity_is_one_thing_with_a_unit() -> None:
    assert Quantity(reading="energy").unit is None
    for wrong in ({}, {"value": 8.0}, {"value": 8.0, "start": "e", "unit": "keV"}, {"start": "energy"}):
        with pytest.raises(ValidationError):
            Quantity(**wrong)  # type: ignore[arg-type]


def test_a_monitor_is_part_of_the_key_only_where_there_is_one() -> None:
    plain, arrays = make_job(), dict[str, Any]()
    told = make_job(monitor=[0.5, 1.0, 1.5])
    beside = make_job(monitor=monitor_field(np.ones(10_001), arrays))
    older = {name: value for name, value in plain.model_dump(mode="json").items() if name != "monitor"}
    assert Job.from_bytes(canonical_json(older)).key == plain.key
    assert len({plain.key, told.key, beside.key, make_job(monitor=[0.5, 1.5, 1.0]).key}) == 4
    np.testing.assert_array_equal(told.scan(None).monitor, [0.5, 1.0, 1.5])
    assert plain.scan(None).monitor is None
    assert isinstance(beside.monitor, BesideArray)
    assert arrays_beside(beside) == {"monitor.npy": beside.monitor.sha256}
