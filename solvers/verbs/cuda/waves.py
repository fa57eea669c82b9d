"""The part of CudaVerbs that is about waves: to the detector and back.

By S1 each verb is a kernel of its own, and cuFFT transforms. By S3, where ``fused`` covers the frames, a chain of verbs is noted until it
is complete, and done by three kernels: exit_waves or reflect, to_detector, a verb on the detector, to_sample, and then advance, reflect,
or whoever looks at the waves. There is one chain at a time. A verb that does not go on with it has it done first, so that nothing that
the chain reads can change meanwhile.
"""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ptyplugin.model import Geometry
from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs import DeviceScalar, Likelihood, Noise
from ptyplugin.solvers.verbs.cuda.base import Waves, blocks_for, parts
from ptyplugin.solvers.verbs.cuda.device import NULL, Array, Device
from ptyplugin.solvers.verbs.cuda.fused import (
    AMPLITUDE_GRADIENT,
    GAUSSIAN_GRADIENT,
    GAUSSIAN_STEP,
    ONTO_MODULUS,
    POISSON_GRADIENT,
    POISSON_STEP,
    DetectorVerb,
    FusedFft,
    plan_for,
)
from ptyplugin.solvers.verbs.cuda.half import is_half
from ptyplugin.solvers.verbs.cuda.likelihood import noise_of
from ptyplugin.solvers.verbs.cuda.placing import Placed
from ptyplugin.solvers.verbs.cuda.scalars import Part
from ptyplugin.solvers.verbs.cuda.steps import StepVerbs

#: How far a chain has come.
_SOURCE, _ON_DETECTOR, _MEASURED, _BACK = range(4)
_GRADIENTS: dict[Likelihood, DetectorVerb] = {
    "amplitude": AMPLITUDE_GRADIENT,
    "gaussian": GAUSSIAN_GRADIENT,
    "poisson": POISSON_GRADIENT,
}


@dataclass(slots=True)
class Chain:
    """What has been asked for: waves w = overlap P_j O_j + factor psi_j of a batch, and what was then done to them."""

    batch: Batch
    waves: Waves
    fused: FusedFft
    model: tuple[Any, ...]
    psi: Array | None
    overlap: float
    factor: float
    come: int = _SOURCE
    verb: DetectorVerb = ONTO_MODULUS
    slack: float = 0.0
    residuals: Part | None = None
    likelihoods: Part | None = None


class WaveVerbs(StepVerbs):
    """See ptyplugin.solvers.verbs.Verbs for the equations.

    Args:
        geometry: far or near field, and the shape of a frame.
        device: where all arrays lie.
        fused: whether S3 is used where it can be.
    """

    def __init__(self, geometry: Geometry, device: Device, fused: bool = True) -> None:
        super().__init__(geometry, device)
        self._chain: Chain | None = None
        self._fuses = fused and not self.near_field
        self._fused_of: dict[int, FusedFft | None] = {}

    # Waves

    def exit_waves(self, O: Array, P: Array, b: Batch) -> Waves:
        return self._begun(None, O, P, b, 1, 0)

    def reflect(self, psi: Any, O: Array, P: Array, b: Batch, overlap: float, wave: float) -> Waves:
        if not self._goes_on(psi, b, _BACK):
            self._settle()
            before, owed = parts(psi)
            return self._begun(before, O, P, b, overlap, wave * owed)
        chain, model = self._taken(), self._model(O, P, b)
        w = self._new(chain.waves.shape)
        chain.fused.finish(w, self._to_columns(chain), model, 0.0, wave, overlap)
        return Waves(w)

    def advance(self, psi: Array, w: Any, O: Array, P: Array, b: Batch, wave: float, data: float, overlap: float) -> None:
        stored, _ = parts(psi)
        if self._goes_on(w, b, _BACK):
            chain, model = self._taken(), self._model(O, P, b)
            chain.fused.finish(stored, self._to_columns(chain), model, wave, data, overlap)
            return
        self._settle()
        p, (change, owed) = self._placing.placed(b), parts(w) if data else (NULL, 1.0)
        numbers = np.float32(wave), np.float32(data * owed), np.float32(overlap)
        self._run("advance", self._over_frames(p), stored, change, *numbers, *self._model(O, P, b), PSI_HALF=is_half(stored))

    def to_detector(self, w: Any, b: Batch) -> Waves:
        return self._gone_on(w, _ON_DETECTOR) if self._goes_on(w, b, _SOURCE) else self._transformed(w, b, forward=True)

    def to_sample(self, A: Any, b: Batch) -> Waves:
        return self._gone_on(A, _BACK) if self._goes_on(A, b, _MEASURED) else self._transformed(A, b, forward=False)

    # The detector

    def onto_modulus(self, A: Any, b: Batch, slack: float) -> DeviceScalar:
        if self._goes_on(A, b, _ON_DETECTOR):
            return self._measured(ONTO_MODULUS, slack)
        return self._on_detector("onto_modulus", A, b, np.float32(slack))

    def likelihood_step(self, A: Any, b: Batch, noise: Noise) -> DeviceScalar:
        if self._goes_on(A, b, _ON_DETECTOR):
            return self._measured(POISSON_STEP if noise == "poisson" else GAUSSIAN_STEP, 0.0)
        return self._on_detector("likelihood_step", A, b, np.int32(noise == "poisson"))

    def likelihood_gradient(self, A: Any, b: Batch, noise: Likelihood) -> tuple[DeviceScalar, DeviceScalar]:
        if self._goes_on(A, b, _ON_DETECTOR):
            residual, chain = self._measured(_GRADIENTS[noise], 0.0), self._chain
            assert chain is not None
            chain.likelihoods = self._slots.take(chain.fused.partials(len(b)))
            return self._scalar(chain.likelihoods), residual
        likelihoods = self._slots.take(len(b) * blocks_for(self._pixels))
        return self._scalar(likelihoods), self._on_detector("likelihood_gradient", A, b, likelihoods.array, *noise_of(noise))

    def modulus_residual(self, A: Any, b: Batch) -> DeviceScalar:
        self._settle()
        p, (array, owed) = self._placing.placed(b), parts(A)
        partials = self._slots.take(p.count * blocks_for(p.pixels))
        arguments = array, partials.array, *self._detector(array, owed, p)
        self._run("modulus_residual", self._over_frames(p), *arguments, COUNTS_FLOAT=p.is_float)
        return self._scalar(partials)

    def _on_detector(self, verb: str, A: Any, b: Batch, *options: Any) -> DeviceScalar:
        """A verb that scales A in place. What an inverse transform will owe is folded into its factor."""
        self._settle()
        p, (array, owed) = self._placing.placed(b), parts(A)
        partials = self._slots.take(p.count * blocks_for(p.pixels))
        ahead = p.pixels if isinstance(A, Waves) and not self.near_field else 1
        arguments = array, partials.array, *options, np.float32(owed / ahead), *self._detector(array, owed, p)
        self._run(verb, self._over_frames(p), *arguments, COUNTS_FLOAT=p.is_float)
        if isinstance(A, Waves):
            A.owed = float(ahead)
        return self._scalar(partials)

    # S1

    def _source(self, psi: Array | None, model: tuple[Any, ...], p: Placed, overlap: float, factor: float) -> Array:
        """w_j = overlap P_j O_j + factor psi_j"""
        w = self._new(self._shape_of(model, p))
        if psi is None:
            self._run("exit_waves", self._over_frames(p), w, *model)
        else:
            self._run("reflect", self._over_frames(p), w, psi, np.float32(overlap), np.float32(factor), *model, PSI_HALF=is_half(psi))
        return w

    def _transformed(self, w: Any, b: Batch, forward: bool) -> Waves:
        self._settle()
        array, owed = parts(w)
        p = self._placing.placed(b)
        if not array.size:
            return Waves(array)
        if not self.near_field:
            self.device.fft(array, not forward)
            return Waves(array, owed if forward else owed / p.pixels)
        self.device.fft(array, False)
        numbers = np.int32(array.shape[1]), np.int32(forward), np.int32(p.moves), np.float32(owed / p.pixels)
        self._run("propagate", self._over_frames(p), array, self._transfer, *numbers, *p.rests, *self._sides(p))
        self.device.fft(array, True)
        return Waves(array)

    # S3

    def _begun(self, psi: Array | None, O: Array, P: Array, b: Batch, overlap: float, factor: float) -> Waves:
        self._settle()
        p, model = self._placing.placed(b), self._model(O, P, b)
        shape = self._shape_of(model, p)
        fused = self._fused(shape[1]) if p.count else None
        if fused is None:
            return Waves(self._source(psi, model, p, overlap, factor))
        waves = Waves(None, shape=shape)
        self._chain = Chain(b, waves, fused, model, psi, overlap, factor)
        return waves

    def _goes_on(self, w: Any, b: Batch, come: int) -> bool:
        """Whether ``w`` are the waves of the chain, which has come just so far."""
        chain = self._chain
        return chain is not None and w is chain.waves and b is chain.batch and chain.come == come

    def _gone_on(self, w: Any, come: int) -> Waves:
        chain = self._chain
        assert chain is not None
        chain.come = come
        waves: Waves = w
        return waves

    def _measured(self, verb: DetectorVerb, slack: float) -> DeviceScalar:
        chain = self._chain
        assert chain is not None
        chain.residuals = self._slots.take(chain.fused.partials(len(chain.batch)))
        chain.come, chain.verb, chain.slack = _MEASURED, verb, slack
        return self._scalar(chain.residuals)

    def _taken(self) -> Chain:
        """The chain, which somebody does now."""
        chain, self._chain = self._chain, None
        assert chain is not None
        return chain

    def _to_columns(self, chain: Chain) -> Array:
        """All of a chain but the inverse transform along x, which the last kernel does."""
        p, w = self._placing.placed(chain.batch), self._new(chain.waves.shape)
        assert chain.residuals is not None
        chain.fused.rows(w, chain.model, chain.overlap, chain.psi, chain.factor)
        likelihoods = None if chain.likelihoods is None else chain.likelihoods.array
        chain.fused.columns(w, chain.verb, p.measured, chain.residuals.array, likelihoods, chain.slack)
        return w

    def _settle(self) -> None:
        """Do the chain as far as it has come: somebody looks."""
        if self._chain is None:
            return
        chain = self._taken()
        if chain.come in (_MEASURED, _BACK):
            w = self._to_columns(chain)
            chain.fused.finish(w, w)
        else:
            w = self._source(chain.psi, chain.model, self._placing.placed(chain.batch), chain.overlap, chain.factor)
        if chain.come in (_ON_DETECTOR, _MEASURED):
            self.device.fft(w, False)
        chain.waves.array = w

    def _forget(self) -> None:
        super()._forget()
        self._chain = None  # of a sweep that failed

    def _move(self, P: Array, p: Placed) -> Array:
        fused = self._fused(len(P) * p.substeps)
        if fused is None:
            return super()._move(P, p)
        spectrum, moved = self._copy(P), self._new((p.count, len(P), p.substeps, *p.shape))
        self.device.fft(spectrum, False)
        fused.move_probe(moved, spectrum, p.rests)
        return moved

    def _fused(self, waves: int) -> FusedFft | None:
        """What transforms frames with so many waves by S3, if anything does."""
        if waves not in self._fused_of:
            plan = plan_for(self._shape, waves, self.device.shared_bytes) if self._fuses else None
            self._fused_of[waves] = None if plan is None else FusedFft(self.device, plan)
        return self._fused_of[waves]

    @staticmethod
    def _shape_of(model: tuple[Any, ...], p: Placed) -> tuple[int, ...]:
        """(frame, wave, y, x); model: object, object modes, rows, columns, probe, three strides, probe modes, ..."""
        return p.count, int(model[1]) * int(model[8]) * p.substeps, *p.shape
