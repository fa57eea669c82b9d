"""Fly scans: events that tell several positions of a frame, taken while the stage moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import JobParts, Refusal


def told(documents: Any, y: Any, x: Any, points: tuple[int, ...] = (1, 2, 3, 4, 5, 6)) -> Any:
    """The same documents; the events of these points tell the positions y(seq_num), x(seq_num)."""
    changed = []
    for name, document in documents:
        if name == "event" and document["descriptor"] == "run1-primary" and document["seq_num"] in points:
            at = {"y": y(document["seq_num"]), "x": x(document["seq_num"])}
            document = {**document, "data": {**document["data"], **at}}
        changed.append((name, document))
    return changed


def positions_of(bench: Any, documents: Any) -> NDArray[np.float64]:
    (parts,) = bench.collect(documents)
    assert isinstance(parts, JobParts), parts
    return np.array(parts.job.positions_m)


@pytest.mark.parametrize("style", ["stream_assets", "resource_datum", "arrays_in_events"])
def test_a_frame_has_the_positions_on_its_way(bench: Any, style: str) -> None:
    documents = told(getattr(bench, style)(), lambda n: 10.0 * n, lambda n: np.array([n, n + 0.5, n + 1]))
    positions_m = positions_of(bench, documents)
    assert positions_m.shape == (6, 3, 2)
    np.testing.assert_allclose(positions_m[1], [[-20e-6, 2e-6], [-20e-6, 2.5e-6], [-20e-6, 3e-6]])
    (parts,) = bench.collect(documents)
    assert parts.job.scan(None).positions_m.shape == (6, 3, 2)


@pytest.mark.parametrize(("style", "frames"), [("stream_assets", 3), ("resource_datum", 2), ("arrays_in_events", 2)])
@pytest.mark.parametrize("each", [1, 2])
def test_positions_of_a_point_are_shared_out_to_its_frames(bench: Any, style: str, frames: int, each: int) -> None:
    way = np.arange(float(frames * each))
    positions_m = positions_of(bench, told(getattr(bench, style)(frames=frames), lambda n: n + way, lambda n: [7.0] * len(way)))
    assert positions_m.shape == (6 * frames, each, 2)
    expected = -1e-6 * np.concatenate([number + way for number in range(1, 7)])
    np.testing.assert_allclose(positions_m[..., 0].ravel(), expected)
    np.testing.assert_allclose(positions_m[..., 1], 7e-6)


def test_lists_arrays_and_pages_say_the_same(bench: Any) -> None:
    from event_model import pack_event_page

    def documents(kind: Any) -> Any:
        return told(bench.stream_assets(), lambda n: 10.0 * n, lambda n: kind([n, n + 0.5]))

    listed, arrays = documents(list), documents(np.array)
    events = [document for name, document in listed if name == "event" and document["descriptor"] == "run1-primary"]
    others = [each for each in listed[:-1] if each[1] not in events]
    paged = [*others, ("event_page", pack_event_page(*events)), listed[-1]]
    outcomes = {bench.outcome(parts) for stream in (listed, arrays, paged) for parts in bench.collect(stream)}
    assert len(outcomes) == 1


@pytest.mark.parametrize(
    ("frames", "y", "x", "points", "sentence"),
    [
        (3, [1.0, 2.0], 0.0, (1, 2, 3, 4, 5, 6), "a point has 3 frames and 2 positions: record one, or the same number for each frame"),
        (1, [1.0, 2.0], 0.0, (3,), "the frames have 1 to 2 positions on their way: record the same number for each"),
        (1, [1.0, 2.0], [1.0, 2.0, 3.0], (1, 2, 3, 4, 5, 6), "6 of 6 positions are not finite"),
        (1, [1.0, "far"], [1.0, 2.0], (1, 2, 3, 4, 5, 6), "6 of 6 positions are not finite"),
        (1, [], [1.0], (2,), "1 of 6 positions are not finite (first: frame 1)"),
    ],
)
def test_positions_that_make_no_sense_are_told(bench: Any, frames: int, y: Any, x: Any, points: Any, sentence: str) -> None:
    (parts,) = bench.collect(told(bench.stream_assets(frames=frames), lambda _: y, lambda _: x, points))
    assert isinstance(parts, Refusal)
    assert sentence in parts.reason
