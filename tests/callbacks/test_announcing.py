"""Where a scan says that it will go: as Bluesky's plans write it, in the units and signs of the profile, and as others write it."""

from __future__ import annotations

from typing import Any

import pytest

from ptyplugin.callbacks import Collector
from ptyplugin.callbacks.announcing import announced_extent


def extent_of(bench: Any, live: dict[str, Any] | None, **start: Any) -> Any:
    profile = bench.profile(**({"live": live} if live is not None else {}))
    documents = list(bench.stream_assets())
    documents[0] = ("start", {**documents[0][1], **start})
    collector = Collector(profile)
    for document in documents[:-1]:
        collector(*document)
    run = collector.so_far("run1")
    assert run is not None
    return announced_extent(run, profile)


def test_a_grid_is_announced_in_units_and_signs_of_its_axes(bench: Any) -> None:
    extent = extent_of(bench, {}, motors=("x", "y"), extents=([2, 8], [-1, 3.5]))
    assert extent == (pytest.approx((-3.5e-6, 2e-6)), pytest.approx((1e-6, 8e-6)))
    # A data key of a device may have more behind its name.
    assert extent_of(bench, {}, motors=["other", "x", "y"], extents=[[0, 9], [8, 2], [3.5, -1]]) == extent


@pytest.mark.parametrize(
    "start",
    [
        {},
        {"motors": ["x", "y"]},
        {"motors": ["x", "y"], "extents": [[2, 8]]},
        {"motors": ["x", "z"], "extents": [[2, 8], [1, 2]]},
        {"motors": ["x", "y"], "extents": [[2, 8], [1, float("inf")]]},
        {"motors": ["x", "y"], "extents": [[2, 8], [float("nan"), 2]]},
        {"motors": ["x", "y"], "extents": [[2, 8], [1, 1e300]]},
        {"motors": ["x", "y"], "extents": [[2, 8], "wide"]},
        {"motors": 7, "extents": {"x": 3}},
        {"motors": [None, "y"], "extents": [[1, 2], [1, 2]]},
    ],
)
def test_what_is_no_announcement_is_passed_over(bench: Any, start: Any) -> None:
    assert extent_of(bench, {}, **start) is None


def test_profiles_without_live_jobs_do_not_look(bench: Any) -> None:
    assert extent_of(bench, None, motors=("x", "y"), extents=([2, 8], [-1, 3.5])) is None
