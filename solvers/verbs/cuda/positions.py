"""The part of CudaVerbs that is about positions."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cuda.base import blocks_for, parts, sides_of
from ptyplugin.solvers.verbs.cuda.device import Array
from ptyplugin.solvers.verbs.cuda.frame_sums import FrameSums
from ptyplugin.solvers.verbs.cuda.half import HalfWaves, is_half
from ptyplugin.solvers.verbs.cuda.placing import Placed
from ptyplugin.solvers.verbs.positions import FINE_POINTS, FINE_REACH_PX, lowest_between, lowest_whole


class PositionVerbs(FrameSums):
    """See ptyplugin.solvers.verbs.Verbs for the equations."""

    _detector: Any
    _model: Any

    def derivatives(self, O: Array) -> tuple[Array, Array]:
        self._settle()
        along_y, along_x = self._new(O.shape), self._new(O.shape)
        pixels = O.shape[-2] * O.shape[-1]
        self._run("derivatives", (blocks_for(pixels), len(O)), along_y, along_x, O, *sides_of(O))
        return along_y, along_x

    def position_gradient(self, A: Any, Ay: Any, Ax: Any, b: Batch) -> NDArray[np.float64]:
        self._settle()
        p, waves = self._placing.placed(b), [self._array(each) for each in (A, Ay, Ax)]
        return self._frame_sums("position_gradient", p, 6, *waves, *self._detector(waves[0], 1.0, p), COUNTS_FLOAT=p.is_float)

    def move_waves(self, psi: Any, shifts: Any, b: Batch) -> None:
        self._settle()
        p, array = self._placing.placed(b), self._array(psi)
        if not p.count:
            return
        self.device.fft(array, False)
        by = self.device.put(np.ascontiguousarray(shifts, dtype=np.float32))
        arguments = array, by, np.int32(array.shape[1]), *self._sides(p), np.float32(1 / p.pixels)
        self._run("move_waves", self._over_frames(p), *arguments)
        self.device.fft(array, True)
        if isinstance(psi, HalfWaves):
            numbers = blocks_for(psi.size), psi.halves, array, np.int64(psi.size)
            self._run("widen", numbers[:1], *numbers[1:], function="narrow_again", PSI_HALF=is_half(psi.halves))

    def correlate(self, psi: Any, O: Array, P: Array, b: Batch, reach: float) -> NDArray[np.float64]:
        """The search of ``solvers.verbs.positions.best_shifts``; sums on the device, the choice of their lowest points on the host."""
        self._settle()
        p = self._placing.placed(b)
        if not p.count:
            return np.zeros((0, 2))
        spectrum = self._correlation(psi, O, P, b)
        at = np.stack([lowest_whole(window) for window in self._window(spectrum, p, int(reach))])
        surfaces = self._surfaces(spectrum, at, p)
        return np.stack([lowest_between(*each, reach) for each in zip(surfaces, at, strict=True)])

    def _correlation(self, psi: Any, O: Array, P: Array, b: Batch) -> Array:
        """(frame, y, x): the Fourier transform of what is to be smallest."""
        p, (array, owed) = self._placing.placed(b), parts(psi)
        terms, spectrum = self._new((4, p.count, *p.shape)), self.device.zeros((p.count, *p.shape), np.complex64)
        model = self._model(O, P, b)
        for layer in range(p.substeps * len(O)):
            numbers = np.float32(owed), np.int32(layer % p.substeps), np.int32(layer // p.substeps)
            arguments = terms, array, *numbers, *model
            self._run("correlate", self._over_frames(p), *arguments, function="correlation_terms", PSI_HALF=is_half(array))
            self.device.fft(terms, False)
            self._run("correlate", (blocks_for(spectrum.size),), spectrum, terms, np.int64(spectrum.size))
        return spectrum

    def _window(self, spectrum: Array, p: Placed, whole: int) -> NDArray[np.float32]:
        """(frame, row, column) on the host: what is to be smallest, at whole pixels around no shift."""
        surface, window = self._copy(spectrum), self._new((p.count, 2 * whole + 1, 2 * whole + 1), np.float32)
        self.device.fft(surface, True)
        blocks = blocks_for((2 * whole + 1) ** 2), p.count
        self._run("correlate", blocks, window, surface, np.int32(whole), *self._sides(p), function="correlation_window")
        return self.device.get(window)

    def _surfaces(self, spectrum: Array, at: NDArray[np.float64], p: Placed) -> NDArray[np.float64]:
        """(frame, point, point) on the host: what is to be smallest, on a fine grid around ``at`` (frame, yx) px."""
        places, points, turns = self.device.put(at.astype(np.int32)), np.int32(FINE_POINTS), []
        for axis, size in enumerate(p.shape):
            turns.append(self._new((p.count, size, FINE_POINTS)))
            arguments = turns[axis], places, np.int32(axis), np.int32(size), points, np.float64(FINE_REACH_PX)
            self._run("correlate", (blocks_for(size * FINE_POINTS), p.count), *arguments, function="correlation_turns")
        half = self._new((p.count, p.shape[0], FINE_POINTS), np.complex128)
        blocks = blocks_for(p.shape[0] * FINE_POINTS), p.count
        self._run("correlate", blocks, half, spectrum, turns[1], *self._sides(p), points, function="correlation_rows")
        surfaces = self._new((p.count, FINE_POINTS, FINE_POINTS), np.float64)
        blocks = blocks_for(FINE_POINTS**2), p.count
        self._run("correlate", blocks, surfaces, half, turns[0], np.int32(p.shape[0]), points, function="correlation_surface")
        return self.device.get(surfaces)
