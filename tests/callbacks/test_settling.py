"""Where frames should not be, from their positions alone."""

from __future__ import annotations

import numpy as np
import pytest

from ptyplugin.callbacks.settling import far_outside, standing_still

STEP_M = 1e-6
#: 7 lines of 9 frames, to and fro (frame, yx).
GRID = STEP_M * np.array([(row, column if row % 2 == 0 else 8 - column) for row in range(7) for column in range(9)])
ANNOUNCED = ((0.0, 0.0), (6 * STEP_M, 8 * STEP_M))


def settled(frames: int) -> np.ndarray:
    """The first frames of each line lie far outside."""
    return GRID - 60 * STEP_M * (np.arange(len(GRID)) % 9 < frames)[:, None]


@pytest.mark.parametrize(
    ("positions_m", "announced_m", "far"),
    [
        (GRID, None, 0),
        (GRID, ANNOUNCED, 0),
        (settled(4), ANNOUNCED, 28),
        (settled(4)[:9], ANNOUNCED, 4),
        # Hardly a frame is where it should be.
        (GRID - 60 * STEP_M * np.exp(-(1 + np.arange(63) % 9) / 2)[:, None], ANNOUNCED, 22),
        # Nobody said where it goes: a fifth of the frames may be a part of its own.
        (settled(2), None, 0),
        (np.concatenate([GRID, GRID[:5] + 60 * STEP_M]), None, 5),
        # It announced its way from where it began.
        (GRID + 1e-3, ANNOUNCED, 0),
        (np.add(GRID, (0, 12 * STEP_M)), ANNOUNCED, 0),
        (np.add(GRID, (9 * STEP_M, 0)), ANNOUNCED, 0),
        (np.concatenate([GRID, GRID[:5] + 60 * STEP_M]) + 1e-3, ANNOUNCED, 5),
        (GRID[:8] * [1, 0], ANNOUNCED, 0),
        (np.zeros((20, 2)), ((0.0, 0.0), (0.0, 0.0)), 0),
    ],
)
def test_frames_far_outside_of_the_scan(positions_m: np.ndarray, announced_m: object, far: int) -> None:
    assert np.count_nonzero(far_outside(positions_m, announced_m)) == far


@pytest.mark.parametrize(("axis", "name", "other"), [(1, "x", "y"), (0, "y", "x")])
def test_a_motor_that_stands_still(axis: int, name: str, other: str) -> None:
    stalled = np.where(np.arange(63) < 20, GRID[:, 1], GRID[20, 1])
    positions_m = np.stack([GRID[:, 0], stalled], axis=1)[:, :: 1 if axis else -1]
    assert standing_still(positions_m, 0.1 * STEP_M) == (
        f"{name} stood still during the last 43 of 63 frames, and {other} went on: was a motor stalled?"
    )


#: One line, along which the stage settles, or drifts, across it.
LINE = STEP_M * np.arange(60.0)
SETTLES, DRIFTS = 2 * STEP_M * np.exp(-LINE / LINE[3]), LINE / 200


@pytest.mark.parametrize(
    "positions_m",
    [
        *(GRID, GRID[:9], GRID[:20], GRID[:, ::-1], GRID[::-1], np.zeros((9, 2))),
        *(np.stack([across, LINE], axis=1) for across in (SETTLES, DRIFTS)),
    ],
)
def test_a_scan_that_does_not(positions_m: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01 * STEP_M, positions_m.shape)
    assert standing_still(positions_m + noise, 0.1 * STEP_M) == ""
