"""Fly scans: positions that lie in files, found by number or by time; what is missing is waited for, counted and said."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ptyplugin.callbacks import Collector, FileReader, Growth, RunEnded, assemble, locating, tape
from ptyplugin.callbacks.clock import Clock
from ptyplugin.callbacks.samples import SamplesAt
from ptyplugin.callbacks.track import Stretch
from ptyplugin.model import CatalogAway, FramesError, Hdf5Source, JobParts, OutsideDataRoots, Refusal, Site, TiledSource

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def job_of(parts: Any) -> Any:
    (made,) = parts
    assert isinstance(made, JobParts), made
    return made.job


def reason_of(parts: Any) -> str:
    (made,) = parts
    assert isinstance(made, Refusal), made
    return made.reason


def without(documents: Any, *names: str) -> Any:
    """Without documents whose uid begins so."""
    return [each for each in documents if not str(each[1].get("uid")).startswith(names)]


def test_each_frame_has_the_mean_of_its_samples(bench: Any) -> None:
    job = job_of(bench.collect(bench.fly(points=40, batches=(7, 30))))
    assert (job.frame_ids, job.frames[0].ranges, job.notes) == ([(0, 40)], [(0, 40)], [])
    first = 4.0 * np.arange(40)
    np.testing.assert_allclose(np.array(job.positions_m)[:, 0, 0], -1e-5 * (first + 1.5))
    np.testing.assert_allclose(np.array(job.positions_m)[:, 0, 1], -1e-6 * (first**2 + 3 * first + 3.5))


@pytest.mark.parametrize(("substeps", "y_um"), [(2, [0.5, 2.5]), (4, [0, 1, 2, 3]), (3, [0.5, 2, 3])])
def test_samples_become_sub_steps(bench: Any, substeps: int, y_um: list[float]) -> None:
    job = job_of(bench.collect(bench.fly(), bench.profile(positions={"substeps": substeps})))
    assert np.array(job.positions_m).shape == (6, substeps, 2)
    np.testing.assert_allclose(np.array(job.positions_m)[1, :, 0], -1e-5 * (4 + np.array(y_um)))
    one = job_of(bench.collect(bench.fly()))
    assert len({job.key, one.key}) == 2


def test_too_few_samples_for_the_sub_steps_are_said(bench: Any) -> None:
    assert "a frame has 4 positions on its way, and positions.substeps asks for 5" in reason_of(
        bench.collect(bench.fly(), bench.profile(positions={"substeps": 5}))
    )


def test_positions_that_events_list_can_be_averaged_too(bench: Any) -> None:
    listed = [
        (name, {**document, "data": {**document["data"], "x": [document["data"]["x"]] * 4}})
        if name == "event" and "x" in document["data"]
        else (name, document)
        for name, document in bench.stream_assets()
    ]
    assert np.array(job_of(bench.collect(listed)).positions_m).shape == (6, 4, 2)
    assert np.array(job_of(bench.collect(listed, bench.profile(positions={"substeps": 2}))).positions_m).shape == (6, 2, 2)


def test_a_single_sample_is_the_position(bench: Any) -> None:
    job = job_of(bench.collect(bench.fly(samples=1)))
    np.testing.assert_allclose(np.array(job.positions_m)[:, 0, 0], -1e-5 * np.arange(6))


def test_frames_of_a_point_share_its_samples(bench: Any) -> None:
    documents = bench.fly()
    for name, document in documents:
        if name == "descriptor" and document["name"] == "primary":
            document["data_keys"]["det"]["shape"] = [2, 16, 24]
    job = job_of(bench.collect(documents))
    assert job.frame_ids == [(0, 12)]
    np.testing.assert_allclose(np.array(job.positions_m)[:, 0, 0], -1e-5 * (2 * np.arange(12) + 0.5))


@QUICK
@given(data=st.data())
def test_positions_of_their_own_stream_are_paired_by_number_in_any_order(bench: Any, data: st.DataObject) -> None:
    profile = bench.profile(positions={"stream": "panda"})
    runs = [bench.fly(own_stream="panda", run="run1"), bench.fly(own_stream="panda", run="run2")]
    mixed = []
    for start, *middle, stop in runs:
        twice = [*middle, *data.draw(st.lists(st.sampled_from(middle), max_size=8))]
        descriptors = {document["uid"]: (name, document) for name, document in middle if name == "descriptor"}
        ordered = [start]
        for name, document in data.draw(st.permutations(twice)):
            if name == "event" and document["descriptor"] in descriptors:
                ordered.append(descriptors.pop(document["descriptor"]))
            if name != "descriptor" or descriptors.pop(document["uid"], None):
                ordered.append((name, document))
        mixed.append([*ordered, stop])
    waiting, interleaved = [list(each) for each in mixed], []
    while any(waiting):
        interleaved.append(data.draw(st.sampled_from([each for each in waiting if each])).pop(0))
    expected = {bench.outcome(parts) for run in runs for parts in bench.collect(run, profile)}
    assert {bench.outcome(parts) for parts in bench.collect(interleaved, profile)} == expected
    assert len(expected) == 2
    same = job_of(bench.collect(bench.fly())).positions_m
    assert job_of(bench.collect(runs[0], profile)).positions_m == same


def test_frames_before_positions_and_after_grow_alike(bench: Any) -> None:
    documents = bench.fly()
    frames = [each for each in documents if each[1].get("stream_resource") == "run1-det"]
    others = [each for each in documents[:-1] if each not in frames]
    for order in ([*others, *frames], [others[0], *[each for each in others[1:] if each[0] == "descriptor"], *frames, *others[1:]]):
        collector = Collector(bench.profile())
        outputs = [output for document in order for output in collector(*document)]
        grown = [record for output in outputs if isinstance(output, Growth) for record in output.records]
        assert [record.frame_id for record in grown] == list(range(6))
        assert all(record.captured is not None and record.positions_m == () for record in grown)


def test_positions_that_did_not_come_are_counted(bench: Any) -> None:
    documents = bench.fly(points=40, batches=(38,))
    lost = [each for each in documents if not str(each[1].get("uid")).startswith("run1-x/38")]
    wide = bench.profile(positions={"largest_mismatch": 0.06})
    job = job_of(bench.collect(lost, wide))
    assert job.frame_ids == [(0, 38)]
    assert job.notes == ["Left out, frames without a position (counted in points): 2 of 40."]
    assert "40 points, 38 with a position, 40 with frames, 38 with both" in reason_of(
        bench.collect(lost, bench.profile(positions={"largest_mismatch": 0.02}))
    )


def test_points_of_which_one_axis_alone_came_are_counted(bench: Any) -> None:
    lost = without(bench.fly(), "run1-det/1", "run1-x/1")
    assert "6 points, 3 with a position, 3 with frames, 3 with both" in reason_of(bench.collect(lost))


def test_samples_that_no_file_shows_are_counted_after_the_deadline(bench: Any) -> None:
    documents, files = bench.fly(points=40, batches=(20,)), bench.files({"/x": 155})
    wide = bench.profile(positions={"largest_mismatch": 0.06})
    assert job_of(bench.collect(documents, wide, files)).frame_ids == [(0, 38)]
    assert len(files.asked) > 2
    assert "frames and positions do not match (40 points, 38 with a position" in reason_of(
        bench.collect(documents, bench.profile(positions={"largest_mismatch": 0.02}), files)
    )
    assert "no frame of 'det' has a position in the files" in reason_of(bench.collect(documents, wide, bench.files({"/x": 0})))


def test_samples_that_come_late_are_waited_for(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locating, "DEADLINE_S", 20.0)
    files = bench.files({"/x": 0})
    threading.Timer(0.2, files.there.clear).start()
    assert job_of(bench.collect(bench.fly(), None, files)).frame_ids == [(0, 6)]


def test_positions_in_a_catalog_that_is_away_are_no_refusal(bench: Any) -> None:
    class Away:
        def read(self, source: Any, start: int, stop: int, per_point: int) -> Any:
            raise CatalogAway("the catalog does not answer.")

    with pytest.raises(CatalogAway):
        bench.collect(by_time(bench), clocked(bench), Away())


def test_nobody_who_may_read_is_said(bench: Any) -> None:
    collector = Collector(bench.profile())
    (run,) = [output.run for each in bench.fly() for output in collector(*each) if isinstance(output, RunEnded)]
    parts = assemble(run, bench.profile())
    assert isinstance(parts, Refusal)
    assert "the positions lie in files, which nobody here may read" in parts.reason


def test_a_monitor_that_is_captured_with_the_positions(bench: Any) -> None:
    for own_stream in ("", "panda"):
        documents = bench.fly(own_stream=own_stream)
        track = own_stream or "primary"
        number = {"dtype": "number", "shape": [], "source": "panda", "external": "STREAM:"}
        for name, document in documents:
            if name == "descriptor" and document["name"] == track:
                document["data_keys"]["i0"] = number
        resource = {"uid": "i0", "run_start": "run1", "data_key": "i0", "mimetype": "application/x-hdf5", "uri": "file:///data/i0.h5"}
        datum = {"uid": "i0/0", "stream_resource": "i0", "descriptor": f"run1-{track}"}
        ranges = {"indices": {"start": 0, "stop": 6}, "seq_nums": {"start": 1, "stop": 7}}
        documents[-1:-1] = [("stream_resource", {**resource, "parameters": {"dataset": "/i0"}}), ("stream_datum", {**datum, **ranges})]
        positions = {"stream": own_stream} if own_stream else {}
        job = job_of(bench.collect(documents, bench.profile(monitor="i0", positions=positions)))
        np.testing.assert_allclose(job.monitor, (5 + np.arange(6)) / 7.5)


def with_monitor(bench: Any, rows: int, files: Any) -> Any:
    """The job of a fly scan of six frames whose monitor has so many rows."""
    documents = bench.fly()
    for name, document in documents:
        if name == "descriptor" and document["name"] == "primary":
            document["data_keys"]["i0"] = {"dtype": "number", "shape": [], "source": "panda", "external": "STREAM:"}
    resource = {"uid": "i0", "run_start": "run1", "data_key": "i0", "mimetype": "application/x-hdf5", "uri": "file:///data/i0.h5"}
    ranges = {"indices": {"start": 0, "stop": rows}, "seq_nums": {"start": 1, "stop": rows + 1}}
    datum = {"uid": "i0/0", "stream_resource": "i0", "descriptor": "run1-primary", **ranges}
    documents[-1:-1] = [("stream_resource", {**resource, "parameters": {"dataset": "/i0"}}), ("stream_datum", datum)]
    return job_of(bench.collect(documents, bench.profile(monitor="i0"), files))


def test_a_monitor_that_is_shorter_than_the_frames_costs_no_frame(bench: Any) -> None:
    for rows, there in ((5, 6), (6, 5)):
        job = with_monitor(bench, rows, bench.files({"/i0": there}))
        assert job.frame_ids == [(0, 6)]
        np.testing.assert_allclose(job.monitor, [*((5 + np.arange(5)) / 7), 1.0])
        assert job.notes == ["The monitor 'i0' reads nothing above zero for 1 frames: the mean is used for them."]


# ---- by time ---------------------------------------------------------------------------------------------------------------------------

#: A box that takes 10 samples a second from 100 s on, in a stream of its own, and frames of 0.4 s with their time.
CLOCK = {"samples": "t", "frames": "det-time", "exposure": {"value": 4, "unit": "s"}}


def by_time(bench: Any, points: int = 10, samples: int = 60, first: int = 0) -> Any:
    """Frame n begins 2 s after the sample 5 n; samples are 1 s apart."""
    stream = bench.stream("run1")
    number = {"dtype": "number", "shape": [], "source": "panda", "external": "STREAM:"}
    stream.begin({"shape": [1, 16, 24], "external": "STREAM:"}, {"det-time": {**number, "units": "s"}})
    stream.descriptor("panda", {"t": {**number, "units": "s"}, "y": number, "x": {**number, "units": "um"}})
    counts = {"det": points, "det-time": points, "t": samples, "y": samples, "x": samples}
    for key, count in counts.items():
        resource = {"uid": f"run1-{key}", "run_start": "run1", "data_key": key, "mimetype": "application/x-hdf5"}
        stream.add("stream_resource", {**resource, "uri": f"file:///data/{key}.h5", "parameters": {"dataset": f"/{key}"}})
        track = "primary" if key.startswith("det") else "panda"
        begin = 0 if track == "primary" else first
        for low, high in ((begin, count // 2), (count // 2, count)):
            datum = {"uid": f"run1-{key}/{low}", "stream_resource": f"run1-{key}", "descriptor": f"run1-{track}"}
            span = {"indices": {"start": low, "stop": high}, "seq_nums": {"start": low + 1 - begin, "stop": high + 1 - begin}}
            stream.add("stream_datum", {**datum, **span})
    stream.count("primary", points)
    return stream.end()


class Times:
    """Frame n begins at 102 + 5 n s; otherwise as the files of the bench."""

    def __init__(self, bench: Any, step_s: float = 5.0, there: Any = None) -> None:
        self.files, self.step_s = bench.files(there), step_s

    def read(self, source: Any, start: int, stop: int, per_point: int) -> Any:
        if source.dataset == "/det-time":
            return 102.0 + self.step_s * np.arange(start, stop)
        return self.files.read(source, start, stop, per_point)


def clocked(bench: Any, **more: Any) -> Any:
    return bench.profile(positions={"stream": "panda", "clock": {**CLOCK, **more}})


def test_frames_are_found_by_time(bench: Any) -> None:
    job = job_of(bench.collect(by_time(bench), clocked(bench), Times(bench)))
    # Samples 2 + 5 n to 5 + 5 n lie in the exposure.
    np.testing.assert_allclose(np.array(job.positions_m)[:, 0, 0], -1e-5 * (5 * np.arange(10) + 3.5))
    assert job.notes == []
    wide = bench.profile(positions={"stream": "panda", "clock": {**CLOCK, "stamped": "end"}, "largest_mismatch": 0.1})
    ends = job_of(bench.collect(by_time(bench), wide, Times(bench)))
    # The exposure ends there: of the first frame it begins two seconds before the capture.
    assert ends.frame_ids == [(1, 10)]
    np.testing.assert_allclose(np.array(ends.positions_m)[:, 0, 0], -1e-5 * (5 * np.arange(1, 10) - 0.5))


def test_sub_steps_by_time(bench: Any) -> None:
    profile = bench.profile(positions={"stream": "panda", "clock": CLOCK, "substeps": 2})
    job = job_of(bench.collect(by_time(bench), profile, Times(bench)))
    np.testing.assert_allclose(np.array(job.positions_m)[:, :, 0], -1e-5 * (5 * np.arange(10)[:, None] + [2.5, 4.5]))


def test_a_capture_slower_than_the_frames_is_read_between_its_samples(bench: Any) -> None:
    profile = clocked(bench, exposure={"value": 500, "unit": "ms"})
    job = job_of(bench.collect(by_time(bench, points=40), profile, Times(bench, 1.3)))
    np.testing.assert_allclose(np.array(job.positions_m)[1:4, 0, 0], -1e-5 * (2 + 1.3 * np.array([1, 2, 3]) + 0.25), rtol=0.1)


def test_a_clock_that_counts_triggers_knows_dropped_frames(bench: Any) -> None:
    class Triggers(Times):
        def read(self, source: Any, start: int, stop: int, per_point: int) -> Any:
            numbers = np.delete(np.arange(100.0, 160.0), [3, 4])
            return numbers[start:stop] if source.dataset == "/det-time" else super().read(source, start, stop, per_point)

    profile = clocked(bench, exposure={"value": 1, "unit": "triggers"})
    job = job_of(bench.collect(by_time(bench), profile, Triggers(bench)))
    np.testing.assert_allclose(np.array(job.positions_m)[:, 0, 0], -1e-5 * np.array([0, 1, 2, 5, 6, 7, 8, 9, 10, 11]))


@QUICK
@given(data=st.data())
def test_by_time_any_order_gives_the_same_job(bench: Any, data: st.DataObject) -> None:
    start, *middle, stop = by_time(bench)
    descriptors = [each for each in middle if each[0] == "descriptor"]
    others = [each for each in middle if each[0] != "descriptor"]
    again = data.draw(st.lists(st.sampled_from(others), max_size=6))
    shuffled = [start, *descriptors, *data.draw(st.permutations([*others, *again])), stop]
    expected = bench.collect(by_time(bench), clocked(bench), Times(bench))
    assert [bench.outcome(parts) for parts in bench.collect(shuffled, clocked(bench), Times(bench))] == [
        bench.outcome(parts) for parts in expected
    ]


def test_frames_after_the_capture_are_counted_and_another_clock_is_said(bench: Any) -> None:
    wide = bench.profile(positions={"stream": "panda", "clock": CLOCK, "largest_mismatch": 0.3})
    assert job_of(bench.collect(by_time(bench, samples=40), wide, Times(bench))).frame_ids == [(0, 7)]
    assert "frames and positions do not match (10 points" in reason_of(
        bench.collect(by_time(bench, samples=40), clocked(bench), Times(bench))
    )

    class Elsewhen(Times):
        def read(self, source: Any, start: int, stop: int, per_point: int) -> Any:
            return super().read(source, start, stop, per_point) + (1e9 if source.dataset == "/det-time" else 0.0)

    reason = reason_of(bench.collect(by_time(bench), clocked(bench), Elsewhen(bench)))
    assert "those of the samples from 100.000000 to 159.000000 s: are both on one clock" in reason


def test_a_clock_that_is_set_back_costs_the_frames_that_it_leaves_in_doubt(bench: Any) -> None:
    class SetBack(Times):
        def __init__(self, at: int, by_s: float) -> None:
            super().__init__(bench)
            self.at, self.by_s = at, by_s

        def read(self, source: Any, start: int, stop: int, per_point: int) -> Any:
            found = super().read(source, start, stop, per_point)
            return found - self.by_s * (np.arange(start, stop) >= self.at) if source.dataset == "/t" else found

    wide = bench.profile(positions={"stream": "panda", "clock": CLOCK, "largest_mismatch": 0.3})
    job = job_of(bench.collect(by_time(bench), wide, SetBack(40, 6.0)))
    # It tells 134 to 139 s twice: in the exposures of frames 6 and 7. There is nothing any more for the last one.
    assert job.frame_ids == [(0, 6), (8, 10)]
    np.testing.assert_allclose(np.array(job.positions_m)[:6, 0, 0], -1e-5 * (5 * np.arange(6) + 3.5))
    np.testing.assert_allclose(np.array(job.positions_m)[6:, 0, 0], -1e-5 * (5 * np.arange(8, 10) + 9.5))
    # Begun anew in the middle, as a box does that is armed for each line.
    reason = reason_of(bench.collect(by_time(bench, points=5), wide, SetBack(30, 30.0)))
    assert "no frame of 'det' has a position" in reason
    assert "clock was set back, or began anew" in reason
    # Jitter is no jump.
    assert job_of(bench.collect(by_time(bench), wide, SetBack(40, 1.5))).frame_ids == [(0, 10)]


@QUICK
@given(seed=st.integers(0, 10**6), set_back=st.booleans(), portion=st.integers(1, 97))
@example(seed=5983, set_back=True, portion=1)
def test_a_capture_of_which_little_is_in_memory_gives_the_same(seed: int, set_back: bool, portion: int) -> None:
    rng = np.random.default_rng(seed)
    columns = {key: rng.normal(size=400).cumsum() for key in ("/y", "/x")}
    columns["/t"] = 50.0 + np.arange(400) + rng.uniform(-0.4, 0.4, 400) - 30.0 * set_back * (np.arange(400) > 250)

    class Captured:
        def read(self, source: Any, start: int, stop: int, per_point: int) -> Any:
            return columns[source.dataset][start:stop]

    def found(most: int, block: int) -> Any:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(tape, "MOST_KEPT", most)
            patched.setattr(tape, "BLOCK", block)
            clock = Clock(Captured(), 3.0, False, 2)
            for stop in (*range(portion, 400, portion), 400):
                at = [SamplesAt(Hdf5Source(uri="file:///a.h5", dataset=key), 0, stop, 1, 1.0) for key in ("/t", "/y", "/x")]
                assert clock.take([Stretch(*at, None)])
                assert sum(len(kept[0]) for kept in clock._tape._kept.values()) <= most + block
            return clock.at(times, ended=False)

    times = np.random.default_rng(seed).uniform(40.0, 470.0, 60)
    # How far beyond the last sample is believed depends on the usual step, which each block tells a little otherwise.
    for first, last in ((46.5, 50.0), (416.0, 419.5), (446.0, 449.5)):
        times = times[(times < first) | (times > last)]
    whole, little = found(1000, 1000), found(60, 20)
    np.testing.assert_array_equal(whole.known, little.known)
    np.testing.assert_allclose(whole.positions_m, little.positions_m, rtol=1e-12)


def test_a_clock_set_back_tells_no_shorter_step() -> None:
    class Captured:
        def read(self, source: Any, start: int, stop: int, per_point: int) -> Any:
            numbers = np.arange(60.0)
            return (numbers - 29.5 * (numbers >= 30) if source.dataset == "/t" else numbers)[start:stop]

    held = tape.Tape(Captured())
    at = [SamplesAt(Hdf5Source(uri="file:///panda.h5", dataset=key), 0, 60, 1, 1.0) for key in ("/t", "/y", "/x")]
    assert held.take([Stretch(*at, None)])
    assert held.step_s == 1.0


@pytest.mark.parametrize("change", [lambda times: times + 0.1, lambda times: times[:-1]])
def test_a_capture_that_was_written_anew_is_not_mixed_with_the_one_before(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    monkeypatch.setattr(tape, "MOST_KEPT", 30)
    monkeypatch.setattr(tape, "BLOCK", 20)
    numbers = np.arange(60.0)

    class Captured:
        def read(self, source: Any, start: int, stop: int, per_point: int) -> Any:
            return numbers[start:stop]

    clock = Clock(Captured(), 1.0, False, 1)
    at = [SamplesAt(Hdf5Source(uri="file:///panda.h5", dataset=key), 0, 60, 1, 1.0) for key in ("/t", "/y", "/x")]
    assert clock.take([Stretch(*at, None)])
    assert clock.at(np.arange(58.0), ended=True).known.all()
    numbers = change(numbers)
    with pytest.raises(FramesError, match=r"the capture in file:///panda.h5 is another one than a moment ago"):
        clock.at(np.arange(58.0), ended=True)


@pytest.mark.parametrize("glitch", [1e18, -1e300, float("inf"), float("nan")])
def test_an_absurd_sample_spoils_no_other_frame(bench: Any, glitch: float) -> None:
    class Glitch(Times):
        def read(self, source: Any, start: int, stop: int, per_point: int) -> Any:
            found = super().read(source, start, stop, per_point)
            return np.where(np.arange(start, stop) == 10, glitch, found) if source.dataset == "/y" else found

    job = job_of(bench.collect(by_time(bench), clocked(bench), Glitch(bench)))
    means = 5 * np.arange(10) + 3.5
    # What is no number is left out of the mean.
    means[1] = 8.0
    expected = means if not math.isfinite(glitch) else np.delete(means, 1)
    np.testing.assert_allclose(np.array(job.positions_m)[:, 0, 0], -1e-5 * expected, rtol=1e-12)


def test_positions_by_time_from_events(bench: Any) -> None:
    """As a flyer of ophyd hands them over: pages of events with their timestamps."""
    from event_model import pack_event_page

    stream = bench.stream("run1")
    stream.begin({"shape": [1, 16, 24], "external": "STREAM:"})
    number = {"dtype": "number", "shape": [], "source": "flyer"}
    stream.descriptor("flyer", {"y": number, "x": {**number, "units": "um"}})
    resource = {"uid": "run1-det", "run_start": "run1", "data_key": "det", "mimetype": "application/x-hdf5", "uri": "file:///data/det.h5"}
    stream.add("stream_resource", {**resource, "parameters": {"dataset": "/det"}})
    datum = {"uid": "run1-det/0", "stream_resource": "run1-det", "descriptor": "run1-primary"}
    stream.add("stream_datum", {**datum, "indices": {"start": 0, "stop": 6}, "seq_nums": {"start": 1, "stop": 7}})
    at = len(stream.documents)
    for number in range(40):
        stream.event("flyer", number + 1, {"y": 10.0 * number, "x": -(1.0 * number**2)}, timestamps={"y": 100.0 + number, "x": 0.0})
    for number in range(6):
        stream.event("primary", number + 1, {"det": f"{number}"}, timestamps={"det": 102.0 + 5 * number})
    events = [document for name, document in stream.documents[at:] if document["descriptor"] == "run1-flyer"]
    others = [each for each in stream.documents[at:] if each[1] not in events]
    stream.documents[at:] = [("event_page", pack_event_page(*events[:25])), *others, ("event_page", pack_event_page(*events[25:]))]
    profile = bench.profile(positions={"stream": "flyer", "clock": {"exposure": {"value": 4, "unit": "s"}}})
    job = job_of(bench.collect(stream.end(), profile, bench.files()))
    np.testing.assert_allclose(np.array(job.positions_m)[:, 0, 0], -1e-5 * (5 * np.arange(6) + 3.5))


# ---- files -----------------------------------------------------------------------------------------------------------------------------


def test_values_are_read_while_the_file_is_written(tmp_path: Path) -> None:
    site = Site(home=tmp_path, data_roots=[tmp_path])
    source = Hdf5Source(uri=(tmp_path / "panda.h5").as_uri(), dataset="/y")
    with h5py.File(tmp_path / "panda.h5", "w", libver="latest") as file:
        flat = file.create_dataset("y", shape=(0,), maxshape=(None,), chunks=(8,), dtype="f8")
        rows = file.create_dataset("rows", data=np.arange(12.0).reshape(4, 3))
        file.swmr_mode = True
        for count in (5, 11):
            flat.resize(count, axis=0)
            flat[...] = np.arange(count)
            flat.flush()
            np.testing.assert_array_equal(FileReader(site).read(source, 2, 9, 1), np.arange(2, min(9, count)))
        assert rows.shape == (4, 3)
        in_rows = Hdf5Source(uri=source.uri, dataset="/rows")
        np.testing.assert_array_equal(FileReader(site).read(in_rows, 4, 11, 3), np.arange(4, 11))
        assert len(FileReader(site).read(in_rows, 12, 15, 3)) == 0
        with pytest.raises(FramesError, match="rows of 3 samples, and the documents announce 1 a point"):
            FileReader(site).read(in_rows, 0, 2, 1)
        with pytest.raises(FramesError, match="has no dataset '/z'"):
            FileReader(site).read(Hdf5Source(uri=source.uri, dataset="/z"), 0, 2, 1)
    with pytest.raises(OutsideDataRoots):
        FileReader(Site(home=tmp_path, data_roots=[tmp_path / "elsewhere"])).read(source, 0, 2, 1)
    with pytest.raises(FramesError, match="lie in the catalog"):
        FileReader(site).read(TiledSource(run_uid="r", stream="s", key="k"), 0, 2, 1)


def test_a_file_outside_the_data_roots_is_refused_at_once(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locating, "DEADLINE_S", 60.0)
    begun = time.monotonic()
    assert "lies outside the site's data_roots" in reason_of(bench.collect(bench.fly(), None, FileReader(Site(home=tmp_path))))
    assert time.monotonic() - begun < 30
