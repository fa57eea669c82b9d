"""Growth of a live job, and what the job shows of itself."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from ptyplugin.model import FrameBlock, Growth, Hdf5Source, JobError, Snapshot

GROWTH = Growth(
    job="0123456789abcdef",
    first=64,
    frames=[FrameBlock(source=Hdf5Source(uri="file:///data/a.h5", dataset="/entry/data/data"), ranges=[(64, 66)])],
    frame_ids=[(64, 66)],
    positions_m=[[(0.0, 1e-6)], [(0.0, 2e-6)]],
)


def test_comes_back_as_it_was_written_and_gives_its_scan() -> None:
    again = Growth.from_bytes(GROWTH.to_bytes())
    scan = again.scan(None)
    assert again == GROWTH
    assert again.frame_count == 2
    np.testing.assert_array_equal(scan.frame_ids, [64, 65])
    np.testing.assert_array_equal(scan.positions_m[:, 0], [[0, 1e-6], [0, 2e-6]])


def test_may_say_only_that_the_run_is_over() -> None:
    last = Growth.from_bytes(Growth(job=GROWTH.job, first=66, ended=True).to_bytes())
    assert last.ended
    assert last.frame_count == 0


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(JobError, match=r"growth of a job cannot be read: colour"):
        Growth.from_bytes(b'{"colour": 1, "job": "0123456789abcdef", "first": 0}')


@pytest.mark.parametrize(
    ("place", "wrong", "sentence"),
    [
        (["first"], 10**30, "first: Input should be less than or equal to 10000000"),
        (["frame_ids"], [[0, 10**15]], "frame_ids: Value error, the ranges of frames list 1000000000000000 frames"),
        (["frame_ids"], [[5, 3], [0, 4]], "each range upwards"),
        (["frames", 0, "ranges"], [[0, 6 * 10**6]] * 2, "list 12000000 frames"),
        (["frames", 0, "ranges"], [[2**63, 2**63 + 2]], "up to number 9223372036854775810"),
    ],
)
def test_numbers_that_would_fill_the_memory_are_refused(place: list[Any], wrong: Any, sentence: str) -> None:
    said = json.loads(GROWTH.to_bytes())
    table = said
    for key in place[:-1]:
        table = table[key]
    table[place[-1]] = wrong
    with pytest.raises(JobError, match=sentence):
        Growth.from_bytes(json.dumps(said).encode())


def test_a_snapshot_with_a_hole_is_not_sound() -> None:
    whole = Snapshot("a", "DM", 1, 2, {}, 3, 0.0, np.ones((4, 4), np.complex64), np.ones((1, 2, 2), np.complex64), (1e-8, 1e-8), (0.0, 0.0))
    torn = np.ones((4, 4), np.complex64)
    torn[1, 1] = np.nan
    assert whole.is_sound
    assert not dataclasses.replace(whole, object=torn).is_sound
