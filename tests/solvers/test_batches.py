"""Which frames go where."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.solvers.batches import RankFrames, block_size, frames_of_rank, in_blocks, in_compact_batches, in_random_batches


def frames(count: int) -> RankFrames:
    corners = np.zeros((count, 1, 2), np.int32)
    return RankFrames(np.arange(count), corners, corners.astype(np.float32), np.zeros((count, 8, 8), np.uint16), np.ones((8, 8), bool))


def test_every_frame_is_in_one_block_and_blocks_are_equal_in_number() -> None:
    few, many = in_blocks(frames(5), 4, 11), in_blocks(frames(11), 4, 11)
    assert [len(b) for b in few] == [4, 1, 0]
    assert [len(b) for b in many] == [4, 4, 3]
    assert [b.index for b in few][:2] == [slice(0, 4), slice(4, 5)]


def test_single_frames_come_once_each_in_an_order_that_the_seed_fixes() -> None:
    walk = [b.index.start for b in in_random_batches(frames(9), 1, 11, (1, 2)) if len(b)]
    assert sorted(walk) == list(range(9))
    assert walk == [b.index.start for b in in_random_batches(frames(9), 1, 11, (1, 2)) if len(b)]
    assert walk != [b.index.start for b in in_random_batches(frames(9), 1, 11, (1, 3)) if len(b)]
    assert len(list(in_random_batches(frames(9), 1, 11, (1, 2)))) == 11


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_ranks_share_all_frames_in_equal_compact_parts(size: int) -> None:
    rows, columns = (axis.ravel() for axis in np.meshgrid(np.arange(20.0), np.arange(20.0), indexing="ij"))
    positions = np.stack([rows, columns], axis=1) * 1e-6
    parts = [frames_of_rank(positions, rank, size) for rank in range(size)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(400))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    if size == 4:
        boxes = [np.ptp(positions[part], axis=0).prod() for part in parts]
        assert sum(boxes) < 1.1 * np.ptp(positions, axis=0).prod()


def test_more_ranks_than_frames_leave_some_without() -> None:
    parts = [frames_of_rank(np.array([[0.0, 0.0], [1e-6, 0.0]]), rank, 3) for rank in range(3)]
    assert sorted(len(part) for part in parts) == [0, 1, 1]


def test_blocks_fit_the_cache() -> None:
    assert block_size((128, 128), 1, 8) in range(16, 33)
    assert block_size((2048, 2048), 4, 8) == 1


def test_a_batch_says_which_frames_of_a_drawn_order_it_is() -> None:
    scan = frames(11)
    for draw in (in_random_batches, in_compact_batches):
        drawn = draw(scan, 4, 15, (1, 2))
        walks = [list(drawn), [b for part in drawn.parts(3) for b in part]]
        assert {len(walk) for walk in walks} == {4}
        for b in itertools.chain(*walks):
            assert b.frames is scan
            assert b.order is drawn.order
            np.testing.assert_array_equal(drawn.order[b.first : b.first + len(b)], np.arange(11)[b.index])
        assert [b.first for b in walks[0]] == [b.first for b in walks[1]] == [0, 4, 8, 11]


def test_a_batch_in_natural_order_says_where_it_begins() -> None:
    scan = frames(5)
    assert [(b.first, b.order, b.frames is scan) for b in in_blocks(scan, 2, 7)] == [
        (0, None, True),
        (2, None, True),
        (4, None, True),
        (5, None, True),
    ]
    b = scan.chosen(np.array([3]))
    assert b.order is not None
    assert (b.first, b.order.tolist()) == (0, [3])


def test_what_verbs_have_put_in_the_place_of_counts_is_indexed_only() -> None:
    class Part:
        def __init__(self, index: Any) -> None:
            self.index = index

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
            return np.full((1, 8, 8), 7)

    class Held:
        shape, dtype = (5, 8, 8), np.dtype(np.uint16)

        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: Any) -> Part:
            return Part(index)

    held: Any = Held()
    scan = replace(frames(5), counts=held)
    natural, drawn = list(in_blocks(scan, 2, 5)), list(in_random_batches(scan, 2, 5, (1,)))
    for b in natural + drawn:
        assert isinstance(b.counts, Part)
        assert b.counts.index is b.index
        np.testing.assert_array_equal(b.host_counts, np.full((1, 8, 8), 7))
    assert replace(scan, corners=scan.corners + 1).counts is held
