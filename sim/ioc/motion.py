"""How stages move: where they are at any time, in the unit of their motor record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


class Path(Protocol):
    """Where one stage is over time.

    end_s: when it has arrived
    """

    @property
    def end_s(self) -> float: ...

    def at(self, time_s: Times) -> Times:
        """Positions (time) at the times (time), seconds."""
        ...

    def since_start(self, time_s: Times) -> Times:
        """Seconds (time) since the stage last had to settle; infinite where it never had."""
        ...


@dataclass(frozen=True, slots=True)
class Ramp:
    """A move with constant acceleration up to a velocity, and down again. ``Ramp.rest`` stands still.

    ramp_s: time to reach the velocity, as a motor record's ACCL
    """

    start_s: float
    start: float
    target: float
    velocity: float
    ramp_s: float

    @classmethod
    def rest(cls, position: float) -> Ramp:
        """Standing at a position for ever."""
        return cls(-np.inf, position, position, 1.0, 0.0)

    @property
    def _pace(self) -> tuple[float, float, float]:
        """Duration, time of each ramp and highest velocity: a short move does not reach the velocity asked for."""
        distance = abs(self.target - self.start)
        if distance < self.velocity * self.ramp_s:
            ramp_s = float(np.sqrt(distance * self.ramp_s / self.velocity))
            return 2 * ramp_s, ramp_s, distance / ramp_s if ramp_s else 0.0
        return distance / self.velocity + self.ramp_s, self.ramp_s, self.velocity

    @property
    def end_s(self) -> float:
        """When it has arrived."""
        return self.start_s + self._pace[0]

    def at(self, time_s: Times) -> Times:
        """Positions (time) at the times (time), seconds."""
        if self.start == self.target:
            return np.full_like(time_s, self.target)
        duration, ramp_s, velocity = self._pace
        passed = np.clip(time_s - self.start_s, 0.0, duration)
        left = duration - passed
        way = velocity * (passed - ramp_s / 2)
        if ramp_s:
            rate = velocity / ramp_s / 2
            way = np.where(passed < ramp_s, rate * passed**2, np.where(left < ramp_s, abs(self.target - self.start) - rate * left**2, way))
        return np.asarray(self.start + np.sign(self.target - self.start) * way)

    def since_start(self, time_s: Times) -> Times:
        """Seconds (time) since it arrived; during the move as if it just had."""
        return np.maximum(time_s - self.end_s, 0.0) if np.isfinite(self.start_s) else np.full_like(time_s, np.inf)


@dataclass(frozen=True, slots=True)
class Track:
    """One stage's part of a trajectory: straight from knot to knot.

    times_s, positions: (knot); line_starts_s: (line) when each line begins
    """

    times_s: Times
    positions: Times
    line_starts_s: Times

    @property
    def end_s(self) -> float:
        """When the last knot is reached."""
        return float(self.times_s[-1])

    def at(self, time_s: Times) -> Times:
        """Positions (time) at the times (time), seconds."""
        return np.interp(time_s, self.times_s, self.positions)

    def since_start(self, time_s: Times) -> Times:
        """Seconds (time) since the line began."""
        line = np.maximum(np.searchsorted(self.line_starts_s, time_s, side="right") - 1, 0)
        return np.maximum(time_s - self.line_starts_s[line], 0.0)

    def later(self, time_s: float) -> Track:
        """The same, begun at a later time."""
        return Track(self.times_s + time_s, self.positions, self.line_starts_s + time_s)

    def stalled(self, time_s: float) -> Track:
        """The same, standing still from a time on."""
        keep = self.times_s < time_s
        stop = self.at(np.asarray([time_s]))
        return Track(
            np.concatenate([self.times_s[keep], [time_s, max(self.end_s, time_s + 1e-9)]]),
            np.concatenate([self.positions[keep], stop, stop]),
            self.line_starts_s,
        )
