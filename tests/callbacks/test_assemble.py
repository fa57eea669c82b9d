"""From clean and from incomplete runs to jobs and refusals: the content, checked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptyplugin.callbacks import Collector, FrameAt, Growth, RunEnded, RunStarted
from ptyplugin.model import DEFAULT_RECIPE, BesideSource, Hdf5Source, Job, JobParts, Orientation, Refusal, TiledSource


def job_of(bench: Any, documents: Any, profile: Any = None) -> Job:
    (parts,) = bench.collect(documents, profile)
    assert isinstance(parts, JobParts), parts
    return parts.job


def reason_of(bench: Any, documents: Any, profile: Any = None) -> str:
    (refusal,) = bench.collect(documents, profile)
    assert isinstance(refusal, Refusal), refusal
    assert refusal.source.run_uid == "run1"
    return refusal.reason


def changed(documents: Any, name: str, change: Any, which: Any = lambda document: True) -> Any:
    """The documents with ``change(document)`` merged into each of one kind; None takes the document away."""
    out = []
    for kind, document in documents:
        merged = change(document) if kind == name and which(document) else {}
        if merged is not None:
            out.append((kind, {**document, **merged}))
    return out


def primary(document: Any) -> bool:
    return document.get("descriptor", document.get("uid")) == "run1-primary"


def test_stream_assets(bench: Any) -> None:
    job = job_of(bench, bench.stream_assets())
    (block,) = job.frames
    assert block.source == Hdf5Source(uri="file://localhost/data/run1.h5", dataset="/entry/det")
    assert block.ranges == [(0, 6)]
    assert job.frame_ids == [(0, 6)]
    assert (job.source.run_uid, job.source.stream, job.source.key, job.source.scan_id) == ("run1", "primary", "det", 7)
    assert job.source.begun_s == dict(bench.stream_assets())["start"].get("time")
    told = changed(bench.stream_assets(), "start", lambda _: {"time": 1.7e9})
    assert (job_of(bench, told).source.begun_s, job_of(bench, told).key) == (1.7e9, job.key)
    assert (job.geometry.energy_ev, job.geometry.distance_m, job.geometry.pixel_m) == (8000.0, 2.0, 75e-6)
    assert job.geometry.shape == (16, 24)
    assert job.notes == []
    assert (job.beamline, job.recipe, job.purpose) == ("bl", DEFAULT_RECIPE, "final")
    scan = job.scan(None)
    events = [document["data"] for name, document in bench.stream_assets() if name == "event" and primary(document)]
    np.testing.assert_allclose(scan.positions_m[:, 0, 0], [-1e-6 * data["y"] for data in events])
    np.testing.assert_allclose(scan.positions_m[:, 0, 1], [1e-6 * data["x"] for data in events])


def test_a_rewound_stream_takes_the_later_row_and_the_later_position(bench: Any) -> None:
    documents = bench.streams["stream assets, rewound"]()
    job = job_of(bench, documents)
    assert job.frames[0].ranges == [(0, 2), (4, 8)]
    assert job.frame_ids == [(0, 6)]
    assert job.notes == ["Left out, frames of points that were taken again: 2."]
    later = [document["data"]["y"] for name, document in documents if name == "event" and primary(document)][4]
    assert job.scan(None).positions_m[2, 0, 0] == pytest.approx(-1e-6 * later)


def test_a_detector_that_was_staged_again_is_taken_from_the_resource_begun_later(bench: Any) -> None:
    again = changed(
        bench.stream_assets([3, 4, 5, 6]), "stream_resource", lambda each: {"uid": each["uid"] + "-2", "uri": "file:///data/2.h5"}
    )
    again = changed(again, "stream_datum", lambda each: {"stream_resource": each["stream_resource"] + "-2"})
    more = [each for each in again if each[0] in ("stream_resource", "stream_datum")]
    clean = bench.stream_assets()
    job = job_of(bench, [*clean[:-1], *more, clean[-1]])
    assert [(block.source.uri, block.ranges) for block in job.frames] == [
        ("file://localhost/data/run1.h5", [(0, 2)]),
        ("file:///data/2.h5", [(0, 4)]),
    ]
    assert job.notes == ["Left out, frames of points that were taken again: 4."]


@pytest.mark.parametrize(("style", "frames"), [("stream_assets", 3), ("resource_datum", 2), ("arrays_in_events", 4)])
def test_several_frames_at_a_point_have_its_position_each(bench: Any, style: str, frames: int) -> None:
    job = job_of(bench, getattr(bench, style)(frames=frames))
    assert job.frames[0].ranges == [(0, 6 * frames)]
    assert job.frame_ids == [(0, 6 * frames)]
    positions = job.scan(None).positions_m[:, 0]
    assert (positions.reshape(6, frames, 2) == positions.reshape(6, frames, 2)[:, :1]).all()
    assert len(np.unique(positions, axis=0)) == 6


def test_resource_and_datum(bench: Any) -> None:
    job = job_of(bench, bench.resource_datum())
    assert job.frames[0].source == Hdf5Source(uri="file://localhost/data/run1/det.h5", dataset="/entry/data/data")
    assert job.frames[0].ranges == [(0, 6)]
    rewound = job_of(bench, bench.streams["resource and datum, rewound"]())
    assert rewound.frames[0].ranges == [(0, 2), (4, 8)]
    assert rewound.notes == ["Left out, frames of points that were taken again: 2."]


@pytest.mark.parametrize(
    ("change", "uris", "dataset", "ranges"),
    [
        ({"spec": "AD_HDF5_SWMR"}, ["/data/run1/det.h5"], "/entry/data/data", [[(0, 6)]]),
        ({"spec": "XSP3"}, ["/data/run1/det.h5"], "/entry/instrument/detector/data", [[(0, 6)]]),
        ({"resource_kwargs": {"dataset": "/a/b", "frame_per_point": 1}}, ["/data/run1/det.h5"], "/a/b", [[(0, 6)]]),
        ({"root": "/", "resource_path": "/a b/%.h5"}, ["/a%20b/%25.h5"], "/entry/data/data", [[(0, 6)]]),
        ({"root": "", "resource_path": "/x.h5"}, ["/x.h5"], "/entry/data/data", [[(0, 6)]]),
        ({"root": "C:\\", "resource_path": "d\\x.h5", "path_semantics": "windows"}, ["/C%3A/d/x.h5"], "/entry/data/data", [[(0, 6)]]),
        (
            {
                "spec": "AD_HDF5_SINGLE",
                "resource_path": "sub/",
                "resource_kwargs": {"template": "%s%s_%6.6d.h5", "filename": "scan", "frame_per_point": 1},
            },
            [f"/data/sub/scan_{number:06d}.h5" for number in range(6)],
            "/entry/data/data",
            [[(0, 1)]] * 6,
        ),
    ],
)
def test_specs_of_ophyd(bench: Any, change: Any, uris: list[str], dataset: str, ranges: Any) -> None:
    documents = changed(bench.resource_datum(), "resource", lambda _: change, lambda each: each["uid"] == "run1-det")
    job = job_of(bench, documents)
    assert [block.source.uri for block in job.frames] == [f"file://localhost{uri}" for uri in uris]
    assert {block.source.dataset for block in job.frames} == {dataset}
    assert [block.ranges for block in job.frames] == ranges


def test_datum_may_name_frames_and_dataset(bench: Any) -> None:
    def by_frame(each: Any) -> Any:
        return {"datum_kwargs": {"dataset": "/entry/data/data_2", "frame": each["datum_kwargs"]["point_number"]}}

    def by_indices(each: Any) -> Any:
        point = each["datum_kwargs"]["point_number"]
        return {"datum_kwargs": {"indices": {"start": 2 * point, "stop": 2 * point + 2}}}

    job = job_of(bench, changed(bench.resource_datum(), "datum", by_frame))
    assert (job.frames[0].source.dataset, job.frames[0].ranges) == ("/entry/data/data_2", [(0, 6)])
    assert job_of(bench, changed(bench.resource_datum(), "datum", by_indices)).frames[0].ranges == [(0, 12)]


def test_arrays_in_events_lie_beside_the_job(bench: Any) -> None:
    documents = bench.arrays_in_events(frames=2)
    (parts,) = bench.collect(documents)
    counts = np.concatenate([document["data"]["det"] for name, document in documents if name == "event" and primary(document)])
    np.testing.assert_array_equal(parts.arrays["frames.npy"], counts)
    assert parts.arrays["frames.npy"].dtype == np.uint16
    assert isinstance(parts.job.frames[0].source, BesideSource)
    assert parts.job.frames[0].ranges == [(0, 12)]
    listed = changed(documents, "event", lambda each: {"data": {**each["data"], "det": each["data"]["det"].tolist()}}, primary)
    (as_lists,) = bench.collect(listed)
    np.testing.assert_array_equal(as_lists.arrays["frames.npy"], counts)


def test_frames_of_a_run_in_the_catalog(bench: Any) -> None:
    documents = changed(bench.stream_assets(), "stream_resource", lambda _: {"mimetype": "application/x-tiled", "uri": "http://h/run1"})
    assert job_of(bench, documents).frames[0].source == TiledSource(run_uid="run1", stream="primary", key="det")


def test_pages_say_what_events_and_datums_say(bench: Any) -> None:
    from event_model import pack_datum_page, pack_event_page

    for style in ("stream_assets", "resource_datum", "arrays_in_events"):
        documents = getattr(bench, style)()
        events = [document for name, document in documents if name == "event" and primary(document)]
        datums = [document for name, document in documents if name == "datum" and document["resource"] == "run1-det"]
        others = [
            (name, document) for name, document in documents[:-1] if document not in datums and (name != "event" or not primary(document))
        ]
        pages = [("datum_page", pack_datum_page(*datums))] if datums else []
        paged = [*others, *pages, ("event_page", pack_event_page(*events)), documents[-1]]
        assert [bench.outcome(parts) for parts in bench.collect(paged)] == [bench.outcome(parts) for parts in bench.collect(documents)]


def test_outputs_keep_coming_while_the_run_is_open(bench: Any) -> None:
    collector = Collector(bench.profile())
    outputs = [output for name, document in bench.streams["stream assets, rewound"]() for output in collector(name, document)]
    assert outputs[0] == RunStarted("run1", 7)
    grown = [record for output in outputs if isinstance(output, Growth) for record in output.records]
    # Points 3 and 4 grow again when their later row comes and when their later position comes.
    assert [record.frame_id for record in grown] == [0, 1, 2, 3, 2, 2, 3, 3, 4, 5]
    latest = {record.frame_id: record for record in grown}
    ended = outputs[-1]
    assert isinstance(ended, RunEnded)
    for record in ended.run.records:
        assert record.positions_m == latest[record.frame_id].positions_m
        assert record.frame == latest[record.frame_id].frame
        assert isinstance(record.frame, FrameAt)


def test_an_aborted_run_gives_what_was_taken(bench: Any) -> None:
    clean = bench.stream_assets(exit_status="abort", reason="beam\nlost")
    without_last = [each for each in clean if not (each[0] == "event" and primary(each[1]) and each[1]["seq_num"] == 6)]
    for _, document in without_last:
        document.get("num_events", {}).pop("primary", None)
    job = job_of(bench, without_last)
    assert job.frame_ids == [(0, 5)]
    assert job.notes == [
        "The run ended with exit status 'abort' (beam lost): only what was taken until then is used.",
        "Left out, frames without a position (counted in points): 1 of 6.",
    ]


def test_missing_frames_within_the_tolerance_are_left_out_and_told(bench: Any) -> None:
    documents = bench.stream_assets(range(1, 41))
    documents = changed(documents, "stream_datum", lambda _: None, lambda each: each["uid"] == "run1-det/9")
    job = job_of(bench, documents)
    assert job.frame_ids == [(0, 9), (10, 40)]
    assert job.frames[0].ranges == [(0, 9), (10, 40)]
    assert job.notes == ["Left out, positions without a frame: 1 of 40."]
    strict = bench.profile(positions={"largest_mismatch": 0.02})
    reason = reason_of(bench, documents, strict)
    assert "40 points, 40 with a position, 39 with frames, 39 with both" in reason
    assert "2.5% are missing, and positions.largest_mismatch of the profile allows 2.0%" in reason


def test_missing_positions_within_the_tolerance_are_left_out_and_told(bench: Any) -> None:
    documents = bench.stream_assets(range(1, 41))
    lost = changed(documents, "event", lambda _: None, lambda each: primary(each) and each["seq_num"] == 40)
    job = job_of(bench, lost)
    assert job.frame_ids == [(0, 39)]
    assert job.notes == [
        "Left out, points that the run counted, but whose documents did not come: 1 of 40.",
        "Left out, frames without a position (counted in points): 1 of 40.",
    ]


def test_runs_that_are_no_ptychography_give_nothing(bench: Any) -> None:
    assert bench.collect(bench.stream_assets(), bench.profile(plan_names=["spiral"])) == []
    other = bench.profile(detector={"key": "eiger"}, positions={"y": {"key": "a"}, "x": {"key": "b"}})
    assert bench.collect(bench.stream_assets(), other) == []
    # The baseline has both motors in every run.
    alone = bench.stream()
    alone.descriptor("baseline", {"x": {}, "y": {}})
    alone.baseline(1, 8.0)
    assert bench.collect(alone.end()) == []
    assert len(bench.collect(bench.stream_assets(), bench.profile(plan_names=["scan_nd"]))) == 1


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"detector": {"key": "eiger"}}, "detector.key = 'eiger' is not in stream 'primary'. Its keys are: det, det-sum, x, y."),
        ({"detector": {"stream": "flow"}}, "detector.stream = 'flow' is no stream of the run, which has: baseline, primary."),
        ({"positions": {"x": {"key": "mono_energy"}}}, "positions.x.key = 'mono_energy' is not in stream 'primary' but in 'baseline'."),
        ({"positions": {"stream": "panda"}}, "positions.stream = 'panda' is no stream of the run, which has: baseline, primary."),
        ({"positions": {"y": {"key": "y"}}}, "the position 'y' comes without a unit: give its unit in the profile, one of m, mm, um"),
        ({"positions": {"y": {"key": "y", "unit": "furlong"}}}, "in the unit 'furlong', which is not known"),
        (
            {"geometry": {"energy": {"start": "energy_kev", "unit": "GeV"}}},
            "energy (key 'energy_kev' of the start document) comes in",
        ),
        (
            {"geometry": {"energy": {"start": "beam.energy", "unit": "eV"}}},
            "energy (key 'beam.energy' of the start document) is not in",
        ),
        ({"geometry": {"energy": {"reading": "eiger"}}}, "geometry.energy (data key 'eiger') is not in the documents of this run"),
        ({"geometry": {"energy": {"reading": "det", "unit": "eV"}}}, "geometry.energy (data key 'det') is not in the documents"),
        ({"geometry": {"distance": {"configuration": "nothing"}}}, "geometry.distance (configuration key 'nothing') is not in"),
        ({"geometry": {"energy": {"start": "plan_name", "unit": "eV"}}}, "is 'scan_nd', which is no finite number"),
        ({"geometry": {"energy": {"value": 8, "unit": "eV"}}}, "energy_ev = 8 is outside"),
        ({"geometry": {"distance": {"value": 8, "unit": "um"}}}, "distance_m = 8e-06 is outside"),
        ({"preparation": {"crop_px": 17}}, "preparation.crop_px = 17 px is larger than the frame of 16 x 24 px"),
    ],
)
def test_what_the_profile_does_not_find_is_said(bench: Any, tables: Any, sentence: str) -> None:
    assert sentence in reason_of(bench, bench.stream_assets(), bench.profile(**tables))


@pytest.mark.parametrize(
    ("style", "name", "change", "sentence"),
    [
        ("stream_assets", "event", {"data": {"y": float("nan"), "x": 1.0}}, "6 of 6 positions are not finite"),
        ("stream_assets", "event", {"data": {"y": None, "x": "far"}}, "6 of 6 positions are not finite"),
        ("stream_assets", "event", {"data": {"y": 1.0, "x": 1.0}}, "all 6 positions are the same"),
        ("stream_assets", "event", {"data": {"y": 1.0}}, "no frame of 'det' has a position (6 points, 0 with a position, 6 with frames"),
        ("stream_assets", "stream_datum", None, "no frame of 'det' has a position (6 points, 6 with a position, 0 with frames"),
        ("stream_assets", "stream_resource", {"mimetype": "image/tiff"}, "frames of the type 'image/tiff' are not read"),
        ("stream_assets", "stream_resource", {"parameters": {"dataset": "d", "slice": "1:2"}}, "are a slice of their dataset"),
        ("stream_assets", "stream_resource", {"parameters": {}}, "come without the name of their dataset"),
        ("stream_assets", "stream_datum", {"seq_nums": {"start": 1, "stop": 5}}, "no frame of 'det' has a position"),
        (
            "resource_datum",
            "resource",
            {"spec": "AD_TIFF"},
            "the spec 'AD_TIFF' (/data/run1/det.h5) are not read; those that are: AD_HDF5",
        ),
        ("resource_datum", "resource", {"root": "", "resource_path": "a.h5"}, "'a.h5', which is no absolute path"),
        ("resource_datum", "datum", {"datum_kwargs": {}}, "does not say which frames it stands for"),
        ("resource_datum", "datum", {"datum_kwargs": {"indices": {"start": 0, "stop": 200_000}}}, "a point announces 200000 frames"),
        ("arrays_in_events", "event", {"data": {"y": 1.0, "x": 1.0, "det": "gone"}}, "no frame of 'det' has a position"),
        ("arrays_in_events", "event", {"data": {"y": 1.0, "x": 1.0, "det": [[[1, 2], [3]]]}}, "no frame of 'det' has a position"),
    ],
)
def test_what_the_run_lacks_is_said(bench: Any, style: str, name: str, change: Any, sentence: str) -> None:
    which = primary if name == "event" else lambda each: True
    assert sentence in reason_of(bench, changed(getattr(bench, style)(), name, lambda _: change, which))


def test_frames_of_different_kinds_in_one_run_are_refused(bench: Any) -> None:
    def odd(each: Any) -> bool:
        return primary(each) and each["seq_num"] == 3

    larger = changed(bench.arrays_in_events(), "event", lambda each: {"data": {**each["data"], "det": np.zeros((8, 8))}}, odd)
    assert "have different shapes ((16, 24), (8, 8))" in reason_of(bench, larger)
    more = changed(bench.arrays_in_events(), "event", lambda each: {"data": {**each["data"], "det": np.zeros((2, 16, 24))}}, odd)
    assert "the points of this run have 1 to 2 frames" in reason_of(bench, more)
    mixed = changed(bench.resource_datum(), "event", lambda each: {"data": {**each["data"], "det": np.zeros((16, 24))}}, odd)
    assert "5 frames lie in files and 1 inside events" in reason_of(bench, mixed)


def test_a_run_without_any_data(bench: Any) -> None:
    empty = bench.stream().end(exit_status="fail", reason="limit switch")
    assert bench.collect(empty) == []
    named = reason_of(bench, empty, bench.profile(plan_names=["scan_nd"]))
    assert "detector.stream = 'primary' is no stream of the run, which has: none" in named


def test_energy_may_stand_anywhere(bench: Any) -> None:
    documents = changed(bench.stream_assets(), "start", lambda _: {"beam": {"energy": np.float64(7.1)}})
    for energy, expected in [
        ({"start": "energy_kev", "unit": "keV"}, 8000.0),
        ({"start": "beam.energy", "unit": "keV"}, 7100.0),
        ({"reading": "mono_energy"}, 8000.0),
        ({"reading": "mono_energy", "unit": "eV"}, None),
        ({"value": 1.3e-15, "unit": "J"}, 8113.96),
    ]:
        profile = bench.profile(geometry={"energy": energy})
        if expected is None:
            assert "energy_ev = 8 is outside" in reason_of(bench, documents, profile)
        else:
            assert job_of(bench, documents, profile).geometry.energy_ev == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("egu", "factor"), [("mm", 1e3), ("um", 1.0), ("", 1.0), (7, 1.0)])
def test_unit_of_a_motor_is_that_of_its_record_now(bench: Any, egu: Any, factor: float) -> None:
    """With ophyd the data key goes on to say what the unit was when it connected."""

    def documents() -> Any:
        for name, document in bench.stream_assets():
            if name == "descriptor" and "det" in document["data_keys"]:
                document["configuration"]["x"] = {"data": {"x_motor_egu": egu, 5: 5}, "data_keys": {}, "timestamps": {}}
            yield name, document

    x_m, again_m = (np.array(job_of(bench, each).positions_m)[..., 1] for each in (bench.stream_assets(), documents()))
    np.testing.assert_allclose(again_m, factor * x_m, rtol=1e-12)


def test_unit_of_a_configuration_comes_from_its_data_key(bench: Any) -> None:
    profile = bench.profile(geometry={"distance": {"configuration": "det_distance"}})
    assert "distance_m = 2000 is outside" in reason_of(bench, bench.stream_assets(), profile)


def test_preparation_and_reconstruction_come_from_the_profile(bench: Any) -> None:
    profile = bench.profile(
        detector={"orientation": "transpose", "mask_dataset": "/mask", "saturated_counts": 100.0},
        geometry={"focus_distance": {"value": 3.65, "unit": "mm"}},
        preparation={"centre_px": (7.5, 8.0)},
        reconstruction={"recipe": "ePIE(7)", "probe_modes": 3, "object_modes": 2, "subpixel": "none", "seed": 5},
    )
    job = job_of(bench, bench.stream_assets(), profile)
    assert job.geometry.shape == (24, 16)
    assert job.geometry.focus_distance_m == pytest.approx(3.65e-3)
    assert job.preparation.orientation is Orientation.TRANSPOSE
    assert (job.preparation.mask_dataset, job.preparation.centre_px, job.preparation.saturated_counts) == ("/mask", (7.5, 8.0), 100.0)
    assert (job.recipe, job.probe_modes, job.object_modes, job.subpixel, job.seed) == ("ePIE(7)", 3, 2, "none", 5)
    assert job_of(bench, bench.stream_assets(), bench.profile(preparation={"crop_px": 16})).geometry.shape == (16, 16)


def test_positions_of_many_frames_lie_beside_the_job(bench: Any) -> None:
    (parts,) = bench.collect(bench.stream_assets(range(1, 10_002)))
    assert parts.arrays["positions.npy"].shape == (10_001, 1, 2)
    assert parts.job.frame_count == 10_001


def test_jobs_read_back(bench: Any) -> None:
    for style in bench.streams.values():
        (parts,) = bench.collect(style())
        assert Job.from_bytes(parts.job.to_bytes()) == parts.job


def test_a_corrected_sign_makes_another_job_of_the_same_run(bench: Any) -> None:
    profile = bench.profile()
    turned = profile.positions.model_copy(update={"x": profile.positions.x.model_copy(update={"sign": -profile.positions.x.sign})})
    as_it_was = job_of(bench, bench.stream_assets())
    corrected = job_of(bench, bench.stream_assets(), profile.model_copy(update={"positions": turned}))
    assert corrected.key != as_it_was.key


def with_monitor(documents: Any, readings: list[Any]) -> Any:
    """The same run with a monitor "i0" beside the motors."""

    def declared(document: Any) -> Any:
        return {"data_keys": {**document["data_keys"], "i0": {"dtype": "number", "shape": [], "source": "sim"}}}

    def read(document: Any) -> Any:
        return {"data": {**document["data"], "i0": readings[document["seq_num"] - 1]}}

    return changed(changed(documents, "descriptor", declared, primary), "event", read, primary)


@pytest.mark.parametrize("style", ["stream assets, 3 frames a point", "resource and datum", "arrays in events"])
def test_a_monitor_becomes_the_intensity_of_each_frame(bench: Any, style: str) -> None:
    readings = [10.0, 20.0, 30.0, 20.0, 10.0, 30.0]
    documents = with_monitor(bench.streams[style](), readings)
    job, silent = job_of(bench, documents, bench.profile(monitor="i0")), job_of(bench, documents)
    monitor = job.scan(None).monitor
    assert monitor is not None
    np.testing.assert_allclose(monitor, np.repeat(np.array(readings) / 20, job.frame_count // 6))
    assert silent.scan(None).monitor is None
    assert job.key != silent.key
    assert Job.from_bytes(job.to_bytes()) == job


def test_a_monitor_that_says_nothing_for_some_frames_is_told(bench: Any) -> None:
    documents = with_monitor(bench.stream_assets(), [10.0, 0.0, 30.0, "off", 10.0, 30.0])
    job = job_of(bench, documents, bench.profile(monitor="i0"))
    np.testing.assert_allclose(job.scan(None).monitor, [0.5, 1, 1.5, 1, 0.5, 1.5])
    assert any("'i0' reads nothing above zero for 2 frames" in note for note in job.notes)


def test_a_monitor_that_is_not_there_is_refused(bench: Any) -> None:
    assert "monitor = 'i1' is not in stream 'primary'" in reason_of(bench, bench.stream_assets(), bench.profile(monitor="i1"))
    dark = with_monitor(bench.stream_assets(), [0.0] * 6)
    assert "'i0' reads nothing above zero in this run" in reason_of(bench, dark, bench.profile(monitor="i0"))
    filed = changed(dark, "descriptor", lambda d: {"data_keys": {**d["data_keys"], "i0": {"external": "FILESTORE:"}}}, primary)
    assert "monitor: 'i0' lies in files of a kind that is not read ('FILESTORE:')" in reason_of(bench, filed, bench.profile(monitor="i0"))
