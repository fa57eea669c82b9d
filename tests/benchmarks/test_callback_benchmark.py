"""The benchmark of AutoReconstruct measures what it says."""

from __future__ import annotations

import h5py

from benchmarks.callback_overhead import _plans, milliseconds, stream_assets, write_frames
from benchmarks.table import Table
from ptyplugin.callbacks import AutoReconstruct
from ptyplugin.jobs import Inbox
from ptyplugin.jobs.contents import parse
from ptyplugin.model import Site


def test_its_documents_become_a_job(tmp_path) -> None:
    site = Site(home=tmp_path)
    auto = AutoReconstruct("sim", site)
    taken = milliseconds(auto, stream_assets(30, "a"), 0.0)
    assert {kind: len(times) for kind, times in taken.items()} == {
        "start": 1,
        "descriptor": 1,
        "stream_resource": 1,
        "stream_datum": 30,
        "event": 30,
        "stop": 1,
    }
    assert auto.flush(20.0)
    (item,) = Inbox(site.inbox).waiting()
    assert parse((item / "job.json").read_bytes()).frame_count == 30


def test_its_plan_is_one_that_is_reconstructed(tmp_path) -> None:
    table = Table("plan", ["what", "measured", "unit", "limit"])
    _plans(table, Site(home=tmp_path), 2, 20)
    jobs = [parse((item / "job.json").read_bytes()) for item in Inbox(tmp_path / "inbox").waiting()]
    assert [job.frame_count for job in jobs] == [20, 20]
    assert [row[2] for row in table.rows] == ["s", "1/s", "%"]


def test_with_frames_in_its_files_it_has_a_live_job(tmp_path) -> None:
    table, frames = Table("plan", ["what", "measured", "unit", "limit"]), write_frames(tmp_path / "frames.h5", 240)
    site = Site(home=tmp_path / "home", data_roots=[tmp_path])
    _plans(table, site, 1, 240, frames)
    items = [item / "job.json" for item in Inbox(site.inbox).waiting()]
    live, final = (parse(path.read_bytes()) for path in items if path.exists())
    assert [live.purpose, final.purpose] == ["live", "final"]
    assert final.frame_count == 240
    with h5py.File(final.frames[0].source.uri.removeprefix("file://localhost").removeprefix("file://")) as file:
        assert file[final.frames[0].source.dataset].shape == (240, 128, 128)
