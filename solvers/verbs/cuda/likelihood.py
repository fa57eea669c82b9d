"""The part of CudaVerbs that is about lines, along which all frames get more likely at once. They are looked at on the host."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs import DeviceScalar, Likelihood, Pair
from ptyplugin.solvers.verbs.cuda.base import BLOCKS, Base, blocks_for, sides_of
from ptyplugin.solvers.verbs.cuda.device import Array
from ptyplugin.solvers.verbs.cuda.scalars import CudaScalar, add_up
from ptyplugin.solvers.verbs.line_search import (
    AT_LIMIT,
    DARK_COUNTS,
    TRIALS,
    conjugate_share,
    first_line,
    is_taken_back,
    step_length,
    trial_lengths,
)

_NOISES: tuple[Likelihood, ...] = ("amplitude", "gaussian", "poisson")


class LikelihoodVerbs(Base):
    """See ptyplugin.solvers.verbs.Verbs for the equations."""

    _detector: Any

    def line(self) -> Array:
        return self.device.put(first_line())

    def line_sums(self) -> Array:
        return self.device.zeros((1, 1 + TRIALS), np.float64)

    def line_likelihoods(self, sums: Array, A: Any, dA: Any, ddA: Any, b: Batch, noise: Likelihood, line: Array) -> None:
        self._settle()
        p, waves = self._placing.placed(b), [self._array(each) for each in (A, dA, ddA)]
        if not p.count:
            return
        partials = self._new((p.count, blocks_for(p.pixels), 1 + TRIALS), np.float64)
        lengths = self.device.put(self._lengths(line).astype(np.float32))
        arguments = partials, *waves, lengths, np.int32(TRIALS), *noise_of(noise), *self._detector(waves[0], 1.0, p)
        self._run("line_likelihoods", self._over_frames(p), *arguments, COUNTS_FLOAT=p.is_float)
        add_up(self.device, sums, partials, 1 + TRIALS)

    def keep_lower(self, line: Array, likelihood: DeviceScalar, X: Pair, kept: Pair, gradient: Pair, kept_gradient: Pair) -> None:
        self._settle()
        seen = self.device.get(line)
        taken_back = is_taken_back(seen, likelihood.read())
        self.device.fill(line, seen)
        if taken_back:
            for now, before in zip((*X, *gradient), (*kept, *kept_gradient), strict=True):
                self._become(now, before)

    def conjugate(self, line: Array, direction: Pair, steepest: Pair, gradient: Pair, kept_gradient: Pair) -> None:
        self._settle()
        each = tuple(zip(steepest, gradient, kept_gradient, direction, strict=True))
        seen = self.device.get(line)
        share = conjugate_share(seen, *np.sum([self._products(*pairs) for pairs in each], axis=0))
        self.device.fill(line, seen)
        for z, g, before, s in each:
            self._combine(s, share, z, 1.0)
            self._become(before, g)

    def inward(self, s: Array, O: Array, largest: float) -> None:
        self._settle()
        self._run("inward", (blocks_for(s.size),), s, O, np.int64(s.size), np.float32(AT_LIMIT * largest))
        self._written(s)

    def line_step(self, line: Array, X: Pair, kept: Pair, direction: Pair, sums: Array) -> None:
        self._settle()
        seen = self.device.get(line)
        length = step_length(seen, self.device.get(sums))
        self.device.fill(line, seen)
        for x, before, s in zip(X, kept, direction, strict=True):
            self._become(before, x)
            if length:
                self._combine(x, 1.0, s, length)

    def smooth(self, X: Array, width_px: float) -> None:
        self._settle()
        pixels = X.shape[-2] * X.shape[-1]
        self.device.fft(X, False)
        self._run("smooth", (blocks_for(pixels), len(X)), X, *sides_of(X), np.float32(width_px), np.float32(1 / pixels))
        self.device.fft(X, True)
        self._written(X)

    def roughness(self, num: Array, den: Array, O: Array, weight: float) -> DeviceScalar:
        self._settle()
        if not weight:
            return CudaScalar(self.device, (), self._settle)
        partials = self._slots.take(blocks_for(den.size) * len(O))
        arguments = num, partials.array, O, self._light_of(den), *sides_of(O), np.float64(weight)
        self._run("roughness", (blocks_for(den.size), len(O)), *arguments)
        self._written(num)
        return self._scalar(partials)

    def line_roughness(self, sums: Array, den: Array, O: Array, dO: Array, weight: float, line: Array) -> None:
        self._settle()
        if not weight:
            return
        partials, lengths = self._new((blocks_for(den.size) * len(O), 1 + TRIALS), np.float64), self.device.put(self._lengths(line))
        arguments = partials, O, dO, self._light_of(den), lengths, np.int32(TRIALS), *sides_of(O), np.float64(weight)
        self._run("roughness", (blocks_for(den.size), len(O)), *arguments, function="line_roughness")
        add_up(self.device, sums, partials, 1 + TRIALS)

    def _lengths(self, line: Array) -> NDArray[np.float64]:
        """(trial,) the lengths that are tried."""
        return trial_lengths(self.device.get(line))

    def _become(self, X: Array, Y: Array) -> None:
        """X <- Y"""
        self.device.fill(X, Y)
        self._written(X)

    def _combine(self, X: Array, mine: float, Y: Array, other: float) -> None:
        """X <- mine X + other Y"""
        self._run("combine", (blocks_for(X.size),), X, Y, np.int64(X.size), np.float32(mine), np.float32(other))
        self._written(X)

    def _products(self, z: Array, g: Array, before: Array, s: Array) -> NDArray[np.float64]:
        """Re <z, g>, Re <z, before>, Re <g, s>"""
        partials, sums = self._new((BLOCKS, 3), np.float64), self.device.zeros((3,), np.float64)
        self._run("products", (BLOCKS,), partials, z, g, before, s, np.int64(z.size))
        add_up(self.device, sums, partials, 3)
        return self.device.get(sums)

    def _light_of(self, den: Array) -> Array:
        """(BLOCKS,) float64: the sums of parts of den."""
        lights = self._new((BLOCKS,), np.float64)
        self._run("roughness", (BLOCKS,), lights, den, np.int64(den.size), function="light_of")
        return lights


def noise_of(noise: Likelihood) -> tuple[Any, ...]:
    """Arguments: which noise, and counts that are taken for granted where logarithms are taken."""
    return np.int32(_NOISES.index(noise)), np.float32(DARK_COUNTS)
