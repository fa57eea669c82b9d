"""The camera: what the detector counts when the stage stands somewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model.geometry import Geometry
from ptyplugin.sim.optics import far_field, shifted

_MOST_COUNTS = np.iinfo(np.uint16).max


@dataclass(frozen=True, slots=True)
class Camera:
    """Sample, probe and detector together.

    sample: transmission (y, x), complex; empty space (1) lies around it
    probe: (mode, y, x) complex, sum |probe|^2 = photons per frame that reach the sample
    origin_px: (y, x) pixel of the sample at which the patch starts when both stages stand at 0
    noise: source of the photon noise
    """

    sample: NDArray[np.complex128]
    probe: NDArray[np.complex128]
    geometry: Geometry
    origin_px: tuple[float, float]
    noise: np.random.Generator

    def position_px(self, stage_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """First row and column (..., yx) of the patch in the sample for stages at (..., yx) metres."""
        return np.asarray(np.asarray(stage_m) / np.asarray(self.geometry.object_pixel_m) + self.origin_px)

    def expected(self, stage_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean counts (y, x) with the stages at (y, x) metres: the far field of the exit waves."""
        at = self.position_px(stage_m)
        corner = np.floor(at).astype(np.int64)
        rest_y, rest_x = at - corner
        # Moving the probe by the rest moves the exit wave as a whole, which the far field does not see.
        return far_field(shifted(self.probe, (rest_y, rest_x)) * self._patch(int(corner[0]), int(corner[1])))

    def expose(self, stage_m: NDArray[np.float64]) -> NDArray[np.uint16]:
        """Counts (y, x) of one exposure with Poisson noise; a pixel saturates at 65535."""
        counts = self.noise.poisson(self.expected(stage_m))
        return np.asarray(np.minimum(counts, _MOST_COUNTS), dtype=np.uint16)

    def _patch(self, row: int, column: int) -> NDArray[np.complex128]:
        shape = self.geometry.shape
        patch = np.ones(shape, dtype=np.complex128)
        rows = slice(max(row, 0), max(min(row + shape[0], self.sample.shape[0]), 0))
        columns = slice(max(column, 0), max(min(column + shape[1], self.sample.shape[1]), 0))
        seen = self.sample[rows, columns]
        if seen.size:
            top, left = rows.start - row, columns.start - column
            patch[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
        return patch
