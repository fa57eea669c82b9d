"""Live jobs: begun with the first frames, grown in order, ended; whatever happens to them, the final job is what it was."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptyplugin.callbacks import AutoReconstruct, Collector, RunEnded, assemble, live
from ptyplugin.callbacks.live import LiveRuns
from ptyplugin.jobs import Inbox
from ptyplugin.model import Growth, Job, JobError, JobParts, Refusal, Site, SiteError

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
#: Frames overlap, from the ninth on; see conftest for the geometry.
NEAR = {"y": {"key": "y", "unit": "nm", "sign": -1}, "x": {"key": "x", "unit": "nm"}}


class Service:
    """Takes jobs and growth; ``trouble`` is raised instead while there is some."""

    def __init__(self) -> None:
        self.jobs: list[Job | Refusal] = []
        self.growth: list[Growth] = []
        self.order: list[str] = []
        self.threads: set[int] = set()
        self.arrays: list[Mapping[str, Any]] = []
        self.trouble: list[Exception] = []
        self.growth_trouble: list[Exception] = []

    def __call__(self, site: Site, job: Job | Refusal, arrays: Mapping[str, Any]) -> str:
        self.threads.add(threading.get_ident())
        if self.trouble:
            raise self.trouble.pop()
        self.jobs.append(job)
        self.order.append(f"{job.purpose} of {job.source.run_uid}")
        self.arrays.append(arrays)
        return job.key

    def grow(self, site: Site, growth: Growth, arrays: Mapping[str, Any]) -> None:
        self.threads.add(threading.get_ident())
        if self.trouble or self.growth_trouble:
            raise (self.trouble or self.growth_trouble).pop()
        self.growth.append(growth)
        self.order.append("growth")
        self.arrays.append(arrays)

    def frames_of(self, key: str) -> list[int]:
        """Ids of the frames that a live job has; it is checked that growth is contiguous and ends once, at its end."""
        (job,) = [each for each in self.jobs if isinstance(each, Job) and each.key == key]
        parts = [each for each in self.growth if each.job == key]
        ids = [frame for first, after in job.frame_ids for frame in range(first, after)]
        for growth in parts:
            assert growth.first == len(ids)
            assert len(growth.positions_m) == growth.frame_count == sum(len(block.indices()) for block in growth.frames)
            ids += [frame for first, after in growth.frame_ids for frame in range(first, after)]
        assert [growth.ended for growth in parts] == [False] * (len(parts) - 1) + [True] * bool(parts)
        assert len(set(ids)) == len(ids)
        return ids


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield Site(home=tmp_path / "home")
    gc.collect()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY_S", 0.0)
    monkeypatch.setattr(live, "_LARGEST_SHARE", 0.0)
    monkeypatch.setattr(live, "_FIRST_PAUSE_S", 0.0)


def near(bench: Any, **tables: Any) -> Any:
    return bench.profile(**{"positions": NEAR, "live": {"recipe": "DM(20)", "probe_modes": 2, "first_frames": 9}, **tables})


def spread(documents: Any) -> Any:
    """The steps of a step scan 20 times as wide: 200 nm from point to point."""
    for name, document in documents:
        if name == "event" and str(document["descriptor"]).endswith("-primary"):
            document["data"]["y"] *= 20
    return documents


def play(bench: Any, documents: Any, service: Service, profile: Any = None, files: Any = None, each: int = 1) -> list[Any]:
    """Runs through collector, live jobs and assembler, ``each`` documents at a time; gives the final jobs."""
    profile = profile or near(bench)
    collector, reader = Collector(profile), files or bench.files()
    runs = LiveRuns(profile, Site(home=Path("/nowhere")), reader, service, service.grow)
    finals = []
    for number, (name, document) in enumerate(documents):
        for output in collector(name, document):
            runs.take(output)
            if isinstance(output, RunEnded):
                runs.work(collector.so_far)
                finals.append(assemble(output.run, profile, reader))
        if number % each == 0:
            runs.work(collector.so_far)
    for _ in range(100):
        if runs.unfinished():
            runs.work(collector.so_far)
    assert not runs.unfinished()
    return finals


def test_a_look_that_finds_nothing_does_not_put_off_what_comes_next(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frame and position come one after the other. From one handing over to the next, a period is waited for."""
    monkeypatch.setattr(live, "EVERY_S", 3600.0)
    monkeypatch.setattr(live, "_SOON_S", 0.0)
    service = Service()
    play(bench, spread(bench.stream_assets(range(1, 31))), service)
    (job,) = service.jobs
    assert isinstance(job, Job)
    assert job.frame_count == 9
    assert [(growth.first, growth.frame_count) for growth in service.growth] == [(9, 21)]


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_a_frame_after_a_silence_goes_at_once(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looked when nothing was there has put nothing off."""
    clock, service, collector = Clock(), Service(), Collector(near(bench))
    monkeypatch.setattr(live, "time", clock)
    monkeypatch.setattr(live, "EVERY_S", 0.25)
    runs = LiveRuns(near(bench), Site(home=Path("/nowhere")), bench.files(), service, service.grow)
    grown = []
    for name, document in spread(bench.stream_assets(range(1, 31)))[:-1]:
        for output in collector(name, document):
            runs.take(output)
        clock.now += 10.0 if name == "stream_datum" else 0.0
        runs.work(collector.so_far)
        grown += [len(service.growth)] if str(document.get("descriptor")).endswith("-primary") and name == "event" else []
    assert grown == [0] * 9 + list(range(1, 22))


def test_a_fly_scan_grows_to_its_end(bench: Any) -> None:
    service = Service()
    (final,) = play(bench, bench.fly(points=40, batches=(3, 12, 20, 21, 38)), service)
    (job,) = service.jobs
    assert isinstance(job, Job)
    assert (job.purpose, job.recipe, job.probe_modes, job.source.run_uid) == ("live", "DM(20)", 2, "run1")
    assert job.frame_count == 12
    assert service.frames_of(job.key) == list(range(40))
    together = [*job.positions_m, *(at for growth in service.growth for at in growth.positions_m)]
    assert together == final.job.positions_m
    assert job.geometry == final.job.geometry
    assert job.key != final.job.key


def test_a_step_scan_grows_too(bench: Any) -> None:
    service, numbers = Service(), range(1, 31)
    (final,) = play(bench, spread(bench.stream_assets(numbers)), service)
    (job,) = service.jobs
    assert isinstance(job, Job)
    assert service.frames_of(job.key) == list(range(30))
    assert len(service.growth) > 10
    assert final.job.frame_count == 30


def test_frames_inside_events_travel_with_the_job_and_its_growth(bench: Any) -> None:
    service = Service()
    (final,) = play(bench, spread(bench.arrays_in_events(range(1, 31))), service, near(bench, live={"first_frames": 20}))
    (job,) = service.jobs
    assert service.frames_of(job.key) == list(range(30))
    frames = np.concatenate([arrays["frames.npy"] for arrays in service.arrays if arrays])
    np.testing.assert_array_equal(frames, final.arrays["frames.npy"])


@pytest.mark.parametrize(
    ("announced", "table", "begins"),
    [(40, {}, 9), (300, {}, 15), (None, {}, 64), (10_000, {}, 64), (None, {"first_frames": 3}, 9), (100, {"first_share": 0.2}, 20)],
)
def test_when_it_begins(bench: Any, announced: int | None, table: Any, begins: int) -> None:
    service, documents = Service(), bench.fly(points=80, batches=range(1, 80))
    documents[0][1].pop("num_points")
    documents[0][1].update({} if announced is None else {"num_points": announced})
    play(bench, documents, service, near(bench, live=table))
    assert service.jobs[0].frame_count == begins


def test_the_shape_of_a_grid_announces_its_points(bench: Any) -> None:
    service, documents = Service(), bench.fly(points=80, batches=range(1, 80))
    documents[0][1].pop("num_points")
    documents[0][1]["shape"] = [20, 12]
    play(bench, documents, service, near(bench, live={}))
    assert service.jobs[0].frame_count == 12


def test_a_profile_without_live_has_no_live_job(bench: Any) -> None:
    service = Service()
    assert isinstance(play(bench, bench.fly(points=40), service, near(bench, live=None))[0], JobParts)
    assert service.order == []


def test_a_run_that_is_over_at_once_has_none(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY_S", 60.0)
    service = Service()
    assert isinstance(play(bench, bench.fly(points=40), service)[0], JobParts)
    assert service.order == []


def test_a_short_run_has_none(bench: Any) -> None:
    service = Service()
    assert isinstance(play(bench, bench.fly(points=8), service)[0], JobParts)
    assert service.order == []


def test_points_that_are_taken_again_are_right_in_the_final_job_only(bench: Any) -> None:
    numbers = [*range(1, 21), 11, 12, 13, *range(14, 31)]
    service = Service()
    (final,) = play(bench, spread(bench.stream_assets(numbers)), service)
    (job,) = service.jobs
    assert service.frames_of(job.key) == list(range(30))
    late = [at for growth in service.growth for at in growth.positions_m]
    kept = [*job.positions_m, *late]
    assert kept[:10] == final.job.positions_m[:10]
    assert kept[11] != final.job.positions_m[11]
    assert [number for block in final.job.frames for number in block.indices()][10:13] == [20, 21, 22]


def test_an_aborted_run_ends_its_live_job(bench: Any) -> None:
    service = Service()
    documents = bench.fly(points=40, batches=(20,), exit_status="abort")
    without_last = [each for each in documents if not str(each[1].get("uid")).endswith("/20")]
    (final,) = play(bench, without_last, service)
    assert service.frames_of(service.jobs[0].key) == list(range(20))
    assert service.growth[-1].ended
    assert final.job.frame_count == 20


def test_runs_back_to_back_and_interleaved(bench: Any) -> None:
    for mixed in (False, True):
        service = Service()
        one, two = (bench.fly(points=40, batches=(10, 20, 30), run=run) for run in ("run1", "run2"))
        documents = [each for pair in zip(one, two, strict=True) for each in pair] if mixed else [*one, *two]
        assert [final.job.frame_count for final in play(bench, documents, service)] == [40, 40]
        assert [job.source.run_uid for job in service.jobs] == ["run1", "run2"]
        assert [service.frames_of(job.key) for job in service.jobs] == [list(range(40))] * 2


def test_nothing_is_lost_and_the_order_is_kept_while_the_inbox_is_away(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    service.trouble = [SiteError("the inbox is full: make room.")] * 5
    service.growth_trouble = [SiteError("the inbox is away.")] * 7
    play(bench, bench.fly(points=40, batches=range(1, 40)), service)
    (job,) = service.jobs
    assert service.frames_of(job.key) == list(range(40))
    assert caplog.text.count("the inbox is full: make room.") == 1
    assert "what its live job should get is kept" in caplog.text


@pytest.mark.parametrize("trouble", [JobError("no such job."), ZeroDivisionError()])
def test_a_live_job_that_cannot_be_costs_the_final_one_nothing(bench: Any, trouble: Exception, caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(Service):
        def __call__(self, *others: Any) -> str:
            raise JobError("no live jobs here.")

    (expected,) = bench.collect(bench.fly(points=40), near(bench))
    service = Refusing()
    assert [bench.outcome(parts) for parts in play(bench, bench.fly(points=40), service)] == [bench.outcome(expected)]
    assert "no image while it goes on: no live jobs here." in caplog.text
    broken = bench.files()
    broken.read = lambda *_: (_ for _ in ()).throw(trouble)
    collector = Collector(near(bench))
    runs = LiveRuns(near(bench), Site(home=Path("/nowhere")), broken, service, service.grow)
    for each in bench.fly(points=40):
        for output in collector(*each):
            runs.take(output)
        runs.work(collector.so_far)
    assert not runs.unfinished()


def test_positions_that_come_late_are_waited_for(bench: Any) -> None:
    service, files = Service(), bench.files({"/x": 0, "/y": 200})
    documents = bench.fly(points=40, batches=(10, 20, 30))
    profile = near(bench)
    collector = Collector(profile)
    runs = LiveRuns(profile, Site(home=Path("/nowhere")), files, service, service.grow)
    for each in documents[:-1]:
        for output in collector(*each):
            runs.take(output)
    for there, frames in ((0, 0), (35, 0), (50, 12), (90, 22), (160, 40)):
        files.there["/x"] = there
        runs.work(collector.so_far)
        assert sum(each.frame_count for each in [*service.jobs, *service.growth]) == frames
    for output in collector(*documents[-1]):
        runs.take(output)
    runs.work(collector.so_far)
    assert service.frames_of(service.jobs[0].key) == list(range(40))


def test_a_readback_that_is_no_number_does_not_keep_the_others_waiting(bench: Any) -> None:
    for wrong in (3, 25):
        service, documents = Service(), bench.stream_assets(range(1, 41))
        for name, document in spread(documents):
            if name == "event" and document["seq_num"] == wrong and document["descriptor"] == "run1-primary":
                document["data"]["y"] = float("nan")
        (final,) = play(bench, documents, service)
        assert isinstance(final, Refusal)
        assert service.frames_of(service.jobs[0].key) == [frame for frame in range(40) if frame != wrong - 1]


def test_no_image_waits_for_the_monitor(bench: Any) -> None:
    service, documents = Service(), bench.fly(points=40, batches=(20,))
    number = {"dtype": "number", "shape": [], "source": "panda", "external": "STREAM:"}
    next(each for name, each in documents if name == "descriptor" and each["name"] == "primary")["data_keys"]["i0"] = number
    resource = {"uid": "i0", "run_start": "run1", "data_key": "i0", "mimetype": "application/x-hdf5", "uri": "file:///data/i0.h5"}
    ranges = {"indices": {"start": 0, "stop": 40}, "seq_nums": {"start": 1, "stop": 41}}
    datum = {"uid": "i0/0", "stream_resource": "i0", "descriptor": "run1-primary", **ranges}
    at = next(place for place, (name, _) in enumerate(documents) if name == "stream_resource")
    documents[at:at] = [("stream_resource", {**resource, "parameters": {"dataset": "/i0"}}), ("stream_datum", datum)]
    play(bench, documents[:-1], service, near(bench, monitor="i0"), bench.files({"/i0": 0}))
    assert sum(each.frame_count for each in [*service.jobs, *service.growth]) == 40


def test_what_cannot_be_handed_over_for_days_does_not_fill_the_memory(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_OPEN_RUNS", 3)
    service, collector = Service(), Collector(near(bench))
    service.trouble = [SiteError("the inbox is full: make room.")] * 10**4
    runs = LiveRuns(near(bench), Site(home=Path("/nowhere")), bench.files(), service, service.grow)
    for number in range(10):
        for each in bench.fly(points=40, run=f"run{number}"):
            for output in collector(*each):
                runs.take(output)
            runs.work(collector.so_far)
    assert len(runs._runs) <= 4
    service.trouble.clear()
    for _ in range(10):
        runs.work(collector.so_far)
    assert [job.source.run_uid for job in service.jobs] == ["run7", "run8", "run9"]
    assert [service.frames_of(job.key) for job in service.jobs] == [list(range(40))] * 3


def test_frames_far_outside_are_kept_out_and_said(bench: Any) -> None:
    class Settling:
        """The stage comes from 1 mm away during the first three frames."""

        def __init__(self) -> None:
            self.files = bench.files()

        def read(self, source: Any, start: int, stop: int, per_point: int) -> Any:
            return self.files.read(source, start, stop, per_point) + 1e6 * (np.arange(start, stop) < 12)

    service = Service()
    (final,) = play(bench, bench.fly(points=60, batches=(30, 40, 50)), service, files=Settling())
    assert service.frames_of(service.jobs[0].key) == list(range(3, 60))
    assert final.job.frame_ids == [(3, 60)]
    assert final.job.notes == ["Left out, frames far outside of the scan (was the stage still on its way?): 3 of 60."]


def test_a_unit_that_cannot_be_is_said_and_there_is_no_live_job(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    for unit, sentence in (("um", "none overlap: were they in"), ("pm", "were they in millimetres and taken for micrometres")):
        wrong = {"y": {"key": "y", "unit": unit}, "x": {"key": "x", "unit": unit}}
        play(bench, bench.fly(points=40, batches=(10, 20)), service, near(bench, positions=wrong))
        assert service.order == []
        assert caplog.text.count(sentence) == 1
        caplog.clear()


def test_one_line_is_said(bench: Any) -> None:
    class Line:
        def read(self, source: Any, start: int, stop: int, per_point: int) -> Any:
            return np.arange(start, stop) * (20.0 if source.dataset == "/x" else 0.0)

    service = Service()
    (final,) = play(bench, bench.fly(points=40), service, files=Line())
    assert final.job.notes == ["The scan is one line of 3.12e-06 m: the image is a strip along it, as wide as the beam."]
    assert service.frames_of(service.jobs[0].key) == list(range(40))


@QUICK
@given(data=st.data())
def test_whatever_the_order_growth_is_contiguous_and_part_of_the_run(bench: Any, data: st.DataObject) -> None:
    start, *middle, stop = bench.fly(points=40, batches=(5, 11, 20, 33))
    again = data.draw(st.lists(st.sampled_from(middle), max_size=5))
    descriptors = [each for each in middle if each[0] == "descriptor"]
    others = [each for each in [*middle, *again] if each[0] != "descriptor"]
    lost = data.draw(st.sets(st.integers(0, len(others) - 1), max_size=2))
    shuffled = data.draw(st.permutations([each for number, each in enumerate(others) if number not in lost]))
    service = Service()
    service.growth_trouble = [SiteError("away.")] * data.draw(st.integers(0, 3))
    finals = play(
        bench, [start, *descriptors, *shuffled, stop], service, near(bench, live={"first_share": 0.3}), each=data.draw(st.integers(1, 6))
    )
    if service.jobs:
        ids = service.frames_of(service.jobs[0].key)
        assert service.growth[-1].ended
        assert set(ids) <= set(range(40))
        if not lost:
            assert set(ids) == set(range(40))
    if not lost:
        (expected,) = bench.collect(bench.fly(points=40), near(bench))
        assert [bench.outcome(parts) for parts in finals] == [bench.outcome(expected)]


# ---- in a session ----------------------------------------------------------------------------------------------------------------------


def test_a_session_hands_over_the_live_job_its_growth_and_the_final_job(bench: Any, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ptyplugin")
    auto = AutoReconstruct(near(bench), site)
    documents = spread(bench.stream_assets(range(1, 31)))
    for name, document in documents[:-1]:
        auto(name, document)
    assert auto.flush(10.0)
    for name, document in documents[-1:]:
        auto(name, document)
    assert auto.flush(10.0)
    items = Inbox(site.inbox).waiting()
    kinds = ["growth" if (item / "growth.json").exists() else Job.from_bytes((item / "job.json").read_bytes()).purpose for item in items]
    assert (kinds[0], kinds[-2:]) == ("live", ["growth", "final"])
    grown = [Growth.from_bytes((item / "growth.json").read_bytes()) for item, kind in zip(items, kinds, strict=True) if kind == "growth"]
    assert grown[-1].ended
    assert Job.from_bytes((items[0] / "job.json").read_bytes()).frame_count + sum(each.frame_count for each in grown) == 30
    assert "live job" in caplog.text


def test_all_of_it_is_done_on_the_thread_of_auto_reconstruct(bench: Any, site: Site) -> None:
    service = Service()
    auto = AutoReconstruct(near(bench), site, service)
    for name, document in spread(bench.stream_assets(range(1, 31))):
        auto(name, document)
        assert name == "start" or auto.flush(10.0)
    assert service.order[0] == "live of run1"
    assert service.order[-2:] == ["growth", "final of run1"]
    assert len(service.threads) == 1
    assert threading.get_ident() not in service.threads


def test_a_function_without_growth_has_no_live_jobs(bench: Any, site: Site) -> None:
    service = Service()
    auto = AutoReconstruct(near(bench), site, lambda *job: service(*job))
    for name, document in spread(bench.stream_assets(range(1, 31))):
        auto(name, document)
    assert auto.flush(10.0)
    assert service.order == ["final of run1"]
