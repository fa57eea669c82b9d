"""The benchmark of AutoReconstruct measures what it says."""

from __future__ import annotations

from benchmarks.callback_overhead import _plans, milliseconds, stream_assets
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
