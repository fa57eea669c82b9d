"""Which frames go where."""

from __future__ import annotations

import numpy as np
import pytest

from ptyplugin.solvers.batches import RankFrames, block_size, frames_of_rank, in_blocks, in_random_batches


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
