"""The part of CudaVerbs that is about steps: of single batches (ePIE, LSQML), and back onto a probe that is moved."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cuda.base import BLOCKS, GROUPS, Base, blocks_for, object_of, parts
from ptyplugin.solvers.verbs.cuda.device import Array
from ptyplugin.solvers.verbs.cuda.placing import Placed
from ptyplugin.solvers.verbs.cuda.scalars import add_up

#: Blocks that share the search for the largest transmission of one frame.
_PARTS = 32


class StepVerbs(Base):
    """See ptyplugin.solvers.verbs.Verbs for the equations."""

    sums: Any
    _onto_object: Any

    def object_step(self, O: Array, P: Array, w: Any, b: Batch, step: float | Array, damping: float) -> None:
        self._settle()
        p, (array, owed) = self._placing.placed(b), parts(w)
        if p.count * p.substeps == 1:
            self._patch_step(O, P, array, owed, b, step, damping)
        elif p.count:
            change, light = self.sums(O)
            self._onto_object(change, light, array, owed, P, b)
            numbers = np.int64(light.size), self._length(step), np.float32(damping)
            self._run("object_step", (blocks_for(light.size), len(O)), O, change, light, self._largest(light), *numbers)
        self._written(O)

    def _patch_step(self, O: Array, P: Array, w: Array, owed: float, b: Batch, step: float | Array, damping: float) -> None:
        """Of one frame, whose patch nothing else touches."""
        p, probe, partials = self._placing.placed(b), self._moved(P, b), self._new((BLOCKS,), np.float32)
        light = probe.array, np.int64(probe.mode), np.int32(len(P)), np.int32(p.pixels)
        self._run("object_step", (BLOCKS,), partials, *light, function="patch_light")
        numbers = self._length(step), np.float32(owed), np.float32(damping)
        arguments = O, w, partials, *numbers, *self._model(O, P, b)
        self._run("object_step", (blocks_for(p.pixels),), *arguments, function="patch_step")

    def probe_step(self, P: Array, patches: Array, w: Any, b: Batch, step: float | Array, damping: float) -> None:
        self._settle()
        p, (array, owed) = self._placing.placed(b), parts(w)
        if not p.count:
            return
        shares, objects = min(_PARTS, blocks_for(p.pixels)), patches.shape[2]
        T, largest = self._new((p.count, *p.shape), np.float32), self._new((p.count, shares), np.float32)
        layers = np.int32(p.substeps * objects), np.int32(p.substeps), np.int32(p.pixels)
        self._run("probe_step", (shares, p.count), T, largest, patches, *layers, function="transmission")
        scale = owed / p.count * p.substeps**-0.5
        modes = np.int32(len(P)), np.int32(objects), np.int32(p.substeps), np.int32(p.pixels)
        waves, numbers = (patches, array, T, largest, np.int32(shares)), (self._length(step), np.float32(scale), np.float32(damping))
        if p.moves:
            onto = self._new((p.count, len(P), p.substeps, *p.shape))
            self._run("probe_step", self._over_frames(p), onto, *waves, *modes, *numbers, function="weighted_onto_probe")
            self._add_moved_back(P, onto, p)
        else:
            self._run("probe_step", (blocks_for(p.pixels), len(P)), P, *waves, np.int32(p.count), *modes, *numbers)
        self._written(P)

    def _length(self, step: float | Array) -> Array:
        """(1,) float32: kernels read it from there, so that it may be another one when they are done again."""
        if not isinstance(step, float | int | np.floating):
            return step
        length = self._new((1,), np.float32)
        self.device.fill(length, step)
        return length

    def precondition(self, num: Array, den: Array, damping: float) -> None:
        self._settle()
        arguments = num, den, self._largest(den), np.int64(den.size), np.float32(damping)
        self._run("precondition", (blocks_for(den.size), len(num)), *arguments)
        self._written(num)

    def step_sums(self, w: Any, u: Any, v: Any, b: Batch) -> Array:
        self._settle()
        (array, owed), along, across = parts(w), self._array(u), self._array(v)
        sums = self.device.zeros((1, 5), np.float64)
        if array.size:
            partials = self._new((BLOCKS, 5), np.float64)
            self._run("step_sums", (BLOCKS,), partials, array, along, across, np.int64(array.size), np.float32(owed))
            add_up(self.device, sums, partials, 5)
        return sums

    def add_steps(self, O: Array, dO: Array, P: Array, dP: Array, sums: Array, object_share: float, probe_share: float) -> None:
        self._settle()
        moves = np.int32(object_share > 0), np.int32(probe_share > 0)
        for X, dX, of_probe, share in ((O, dO, 0, object_share), (P, dP, 1, probe_share)):
            arguments = X, dX, np.int64(X.size), sums, *moves, np.int32(of_probe), np.float32(share)
            self._run("add_steps", (blocks_for(X.size),), *arguments)
        self._written(O, P)

    def _model(self, O: Array, P: Array, b: Batch) -> tuple[Any, ...]:
        """Arguments: MODEL_PARAMETERS."""
        p = self._placing.placed(b)
        return *object_of(O), *self._moved(P, b).arguments, np.int32(len(P)), *p.places, *self._sides(p)

    def _detector(self, A: Array, owed: float, p: Placed) -> tuple[Any, ...]:
        """Arguments: DETECTOR_PARAMETERS."""
        return np.int32(A.shape[1]), np.int32(p.pixels), np.float32(owed**2 / self._c), *p.measured

    def _add_groups(self, total: Array, partial: Array, factor: float = 1.0) -> None:
        """total += factor times the sum over the first axis of partial; both float32 or both complex64"""
        sums, terms = (X.view(np.float32) for X in (total, partial))
        numbers = np.int32(len(terms)), np.int64(sums.size), np.float32(factor)
        self._run("add_groups", (blocks_for(sums.size),), sums, terms, *numbers)

    def _add_moved_back(self, num: Array, onto: Array, p: Placed) -> None:
        """num_m += sum over frames and sub-steps of onto (frame, probe mode, sub-step, y, x), each moved back by its rest."""
        self.device.fft(onto, False)
        groups = min(GROUPS, p.count)
        partial, spectrum = self._new((groups, *num.shape)), self.device.zeros(num.shape, np.complex64)
        arguments = partial, onto, np.int32(len(num)), np.int32(p.count), *p.rests, *self._sides(p)
        self._run("moved_back", (blocks_for(p.pixels), groups), *arguments)
        self._add_groups(spectrum, partial)
        self.device.fft(spectrum, True)
        self._add_groups(num, spectrum.reshape((1, *spectrum.shape)), 1 / p.pixels)
