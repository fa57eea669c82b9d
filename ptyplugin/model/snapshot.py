"""Snapshot: the image of a reconstruction that goes on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model.progress import ErrorName


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """What a job that runs shows of itself, now and then.

    job: its key; stage, iteration, iterations, errors: as in Progress
    frames: how many it has by now
    taken_s: Unix time
    object: (y, x) complex64, the first mode; probe: (mode, y, x) complex64
    pixel_m: (y, x) of the object; origin_m: (y, x) position of a patch whose first pixel is [0, 0] of the object
    """

    job: str
    stage: str
    iteration: int
    iterations: int
    errors: dict[ErrorName, float]
    frames: int
    taken_s: float
    object: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    pixel_m: tuple[float, float]
    origin_m: tuple[float, float]

    @property
    def is_sound(self) -> bool:
        """Whether all of it is finite: only then it takes the place of an earlier one."""
        return bool(np.isfinite(self.object).all() and np.isfinite(self.probe).all())
