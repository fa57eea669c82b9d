"""A fly scan: where each frame is taken, and how the stages get there. Client and server share it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model.errors import ScanError
from ptyplugin.sim.ioc.motion import Track

Floats = NDArray[np.float64]

#: The most frames that the controller takes in one trajectory.
MOST_FRAMES = 100_000


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Positions at the middle of each frame, and their timing.

    positions: (frame, yx) in the stages' unit, um; exposure_s: of a frame; period_s: from one frame to the next
    line_length: frames per line, 0 for one path without lines; turn_s: from a line's last frame to the begin of the next line

    Raises:
        ScanError: no positions, or a timing that cannot be.
    """

    positions: Floats
    exposure_s: float
    period_s: float
    line_length: int = 0
    turn_s: float = 0.1

    def __post_init__(self) -> None:
        shape = np.shape(self.positions)
        if len(shape) != 2 or shape[1] != 2 or not 0 < shape[0] <= MOST_FRAMES or not np.isfinite(self.positions).all():
            raise ScanError(f"a trajectory of shape {shape} was asked for: give 1 .. {MOST_FRAMES} finite positions (frame, yx).")
        if not 0 < self.exposure_s <= self.period_s or not self.turn_s > 0 or self.line_length < 0:
            raise ScanError(
                f"a trajectory with {self.exposure_s:g} s exposure, {self.period_s:g} s period, {self.turn_s:g} s turns and lines of "
                f"{self.line_length} frames was asked for: give 0 < exposure <= period, turns above 0 and a length that is not negative."
            )

    @classmethod
    def grid(
        cls, rows: int, columns: int, step: float, *, period_s: float, exposure_s: float | None = None, turn_s: float = 0.1
    ) -> Trajectory:
        """Lines along x around 0, to and fro, ``step`` apart in both directions, um. The exposure fills the period unless told."""
        y, x = (step * (np.arange(count) - (count - 1) / 2) for count in (rows, columns))
        lines = [np.stack([np.full(columns, at), x[:: 1 if row % 2 == 0 else -1]], axis=1) for row, at in enumerate(y)]
        return cls(np.concatenate(lines), exposure_s or period_s, period_s, columns, turn_s)

    @classmethod
    def spiral(cls, frames: int, step: float, *, period_s: float, exposure_s: float | None = None) -> Trajectory:
        """One path of turns ``step`` apart with frames ``step`` apart on it, around 0, um. The exposure fills the period unless told."""
        # Archimedes: after an arc of length s the angle is sqrt(4 pi s / pitch), nearly.
        angle = np.sqrt(4 * np.pi * (np.arange(frames) + 0.5))
        radius = step * angle / (2 * np.pi)
        positions = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
        return cls(positions, exposure_s or period_s, period_s)

    @property
    def _lines(self) -> list[NDArray[np.intp]]:
        frames = np.arange(len(self.positions))
        return np.split(frames, frames[self.line_length :: self.line_length]) if self.line_length else [frames]

    @property
    def starts_s(self) -> Floats:
        """When each frame's exposure begins (frame), seconds after the start."""
        starts, at_s = [], self.turn_s
        for line in self._lines:
            starts.append(at_s + self.period_s * np.arange(len(line)))
            at_s += self.period_s * len(line) + self.turn_s
        return np.concatenate(starts)

    def tracks(self) -> tuple[Track, Track]:
        """The ways of y and x, from rest at the begin of the first line; at constant velocity into and out of each line."""
        starts_s = self.starts_s
        times, knots, begins = [np.zeros(1)], [np.zeros((1, 2))], []
        for line in self._lines:
            middle_s, at = starts_s[line] + self.exposure_s / 2, self.positions[line]
            share = self.exposure_s / 2 / self.period_s
            first = at[:1] - share * (at[1:2] - at[:1]) if len(at) > 1 else at
            last = at[-1:] + share * (at[-1:] - at[-2:-1]) if len(at) > 1 else at
            times += [starts_s[line[:1]], middle_s, starts_s[line[-1:]] + self.exposure_s]
            knots += [first, at, last]
            begins.append(starts_s[line[0]])
        knots[0] = knots[1]
        at_s, at = np.concatenate(times), np.concatenate(knots)
        return Track(at_s, at[:, 0], np.asarray(begins)), Track(at_s, at[:, 1], np.asarray(begins))
