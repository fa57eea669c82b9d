"""The verbs for processors, complex64: fused loops over one frame at a time, which stays in the cache, on one or several threads.

Verbs on the frames of a batch are noted and done together, as late as possible: when another verb or somebody outside needs a result
(``finish``). A batch of one frame is done at once. Decision record 0003 tells why.
"""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import Geometry
from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs import Complex, DeviceScalar, Real, cpu_lsq, cpu_ml, cpu_moving, cpu_patches, cpu_steps
from ptyplugin.solvers.verbs import cpu_kernels as kernels
from ptyplugin.solvers.verbs.cpu_detector import DetectorVerbs
from ptyplugin.solvers.verbs.cpu_fft import FftName, best_fft
from ptyplugin.solvers.verbs.cpu_frames import FrameVerbs
from ptyplugin.solvers.verbs.cpu_lsq import StepVerbs
from ptyplugin.solvers.verbs.cpu_ml import LikelihoodVerbs
from ptyplugin.solvers.verbs.cpu_moving import Moving
from ptyplugin.solvers.verbs.cpu_positions import PositionVerbs
from ptyplugin.solvers.verbs.cpu_program import (
    Array,
    Corners,
    Crew,
    FftOf,
    Kernel,
    Light,
    Modes,
    Program,
    Row,
    Sum,
    Waves,
    backward,
    floats,
    forward,
)
from ptyplugin.solvers.verbs.host import HostArrays, number
from ptyplugin.solvers.verbs.reference import fresnel_kernel

#: An array, or Waves.
Wave = Any
Steps = tuple[tuple[Kernel, Any], ...]

#: Kernels on waves whose last argument is a factor.
_SCALING = (kernels.onto_modulus, cpu_lsq.likelihood_step, cpu_ml.likelihood_gradient)

_TINY = float(np.finfo(np.float32).tiny)
_NO_BACKGROUND = np.empty((0, 0), np.float32)


class CpuScalar(DeviceScalar):
    """A number whose terms may still have to be computed; ``array`` sees to it."""

    __slots__ = ("_finish", "_terms", "_total")

    def __init__(self, total: NDArray[np.float64], terms: tuple[NDArray[np.float64], ...], finish: Callable[[], None]) -> None:
        self._total, self._terms, self._finish = total, terms, finish

    @property
    def array(self) -> NDArray[np.float64]:
        if self._terms:
            self._finish()
            self._total, self._terms = np.asarray(self._total + sum(term.sum() for term in self._terms)), ()
        return self._total

    def __add__(self, other: DeviceScalar) -> DeviceScalar:
        if isinstance(other, CpuScalar):
            return CpuScalar(np.asarray(self._total + other._total), self._terms + other._terms, self._finish)
        return CpuScalar(np.asarray(self._total + other.array), self._terms, self._finish)


class CpuVerbs(HostArrays, FrameVerbs, StepVerbs, LikelihoodVerbs, PositionVerbs, DetectorVerbs):
    """See ptyplugin.solvers.verbs.Verbs for the equations.

    Args:
        geometry: far or near field, and the shape of a frame.
        threads: how many threads share the frames of a batch. The same number gives the same bits.
        fft: which library transforms; pyFFTW where it is installed if None.
    """

    dtype: np.dtype[Any] = np.dtype(np.complex64)

    def __init__(self, geometry: Geometry, threads: int = 1, fft: FftName | None = None) -> None:
        self.fft: FftName = fft or best_fft()
        self._crew = Crew(threads, self.fft, geometry.shape)
        self._own = self._crew.threads[0]
        self._moving = Moving(self._own.fft)
        self.near_field = geometry.near_field
        self._program: Program | None = None
        self._rooms = 0  # for patches of this program
        self._there, self._back = _transforms(geometry, self._own.fft.backward_scale)
        self._roots = np.array([1 if geometry.near_field else (geometry.shape[0] * geometry.shape[1]) ** -0.5], np.float32)
        self._good: tuple[Array, Array] = (np.empty(0), np.empty(0))

    def finish(self) -> None:
        self._run()
        self._moving.flush()

    def batch_frames(self, shape: tuple[int, int], waves: int) -> int:
        """All: one frame after the other is in the cache anyway."""
        return sys.maxsize

    def zero(self) -> DeviceScalar:
        return CpuScalar(np.zeros(()), (), self.finish)

    def cut(self, O: Complex, b: Batch) -> Complex:
        self._run()
        patches = np.empty((len(b), b.corners.shape[1], len(O), *b.good.shape), dtype=self.dtype)
        for j in range(len(b)):
            kernels.cut(j, floats(patches), floats(O), b.corners)
        return patches

    def exit_waves(self, O: Complex, P: Complex, b: Batch) -> Wave:
        w = self._new_waves(b, len(P) * b.corners.shape[1] * len(O), reads=(O, P))
        self._do(b, kernels.exit_waves, w, O, self._moved(P, b), b.corners)
        return w

    def reflect(self, psi: Wave, O: Complex, P: Complex, b: Batch, overlap: float, wave: float) -> Wave:
        w = self._new_waves(b, psi.shape[1], frames=(psi,), reads=(O, P))
        self._do(b, kernels.reflect, w, psi, O, self._moved(P, b), b.corners, np.float32(overlap), np.float32(wave))
        return w

    def to_detector(self, w: Wave, b: Batch) -> Wave:
        return self._transformed(w, self._with_rests(self._there, b, -1))

    def to_sample(self, A: Wave, b: Batch) -> Wave:
        return self._transformed(A, self._with_rests(self._back, b, 1))

    def onto_modulus(self, A: Wave, b: Batch, slack: float) -> DeviceScalar:
        residuals = np.zeros(len(b))
        numbers = (*self._light_of(b), np.float32(slack), np.float32(1))
        self._admit(b, frames=(A,))
        self._do(b, kernels.onto_modulus, A, Row(b.good.shape[1]), b.counts, self._good_of(b), residuals, *numbers)
        return self._scalar(residuals)

    def modulus_residual(self, A: Wave, b: Batch) -> DeviceScalar:
        residuals = np.zeros(len(b))
        self._admit(b, frames=(A,))
        self._do(b, kernels.modulus_residual, A, Row(b.good.shape[1]), b.counts, self._good_of(b), residuals, *self._light_of(b))
        return self._scalar(residuals)

    def advance(self, psi: Complex, w: Wave, O: Complex, P: Complex, b: Batch, wave: float, data: float, overlap: float) -> None:
        self._admit(b, frames=(psi, w), reads=(O, P))
        numbers = (np.float32(wave), np.float32(data), np.float32(overlap))
        self._do(b, kernels.advance, psi, w, O, self._moved(P, b), b.corners, *numbers)

    def sums(self, X: Complex) -> tuple[Complex, Real]:
        return np.zeros_like(X), np.zeros(X.shape[-2:], dtype=np.float32)

    def object_sums(self, num: Complex, den: Real, psi: Wave, P: Complex, b: Batch) -> None:
        self._admit(b, frames=(psi,), reads=(P,), adds=(num, den))
        total, light = Sum(num, b.corners, b.good.shape), Sum(den, b.corners, b.good.shape)
        moved = self._moved(P, b)
        power: Any = Light((b.rests.shape[1], *P.shape[1:])) if isinstance(moved, Modes) else _intensity(moved)
        if isinstance(moved, Modes):
            self._do(b, kernels.intensity, power, moved)
        if cpu_patches.are_cheaper(b, len(self._crew.threads)):
            self._object_patches(num, den, psi, moved, power, b)
            return
        self._do(b, kernels.coverage_sums, light, Corners(light), power)
        self._do(b, kernels.object_sums, total, Corners(total), psi, moved)

    def _object_patches(self, num: Complex, den: Real, psi: Wave, moved: Any, power: Any, b: Batch) -> None:
        """What object_sums does, by patches."""
        places = cpu_patches.patches_of(b)
        self._rooms += 1
        waves = places.room(self._crew, ("waves added", self._rooms), len(num), num.dtype)
        light = places.room(self._crew, ("light added", self._rooms), 1, den.dtype)
        self._do(b, cpu_patches.lay_light, light[:, 0], places.inner, power)
        self._do(b, cpu_patches.lay_waves, waves, places.inner, psi, moved)
        self._afterwards(lambda: places.add(self._crew, den[None], light))
        self._afterwards(lambda: places.add(self._crew, num, waves))

    def probe_sums(self, num: Complex, den: Real, psi: Wave, O: Complex, b: Batch) -> None:
        self._admit(b, frames=(psi,), reads=(O,), adds=(num, den))
        if not b.rests.any():
            self._do(b, kernels.probe_sums, Sum(num[:, None]), Sum(den), psi, O, b.corners)
            return
        spectrum, onto = np.zeros_like(num), self._new_waves(b, len(num) * b.rests.shape[1])
        self._do(b, cpu_moving.clear, onto)
        self._do(b, kernels.probe_sums, self._as_modes(onto, len(num)), Sum(den), psi, O, b.corners)
        self._do(b, forward, onto, FftOf())
        self._do(b, cpu_moving.add_moved_back, Sum(spectrum), onto, b.rests)
        self._afterwards(lambda: self._moving.add_inverse(num, spectrum))

    def coverage_sums(self, den: Real, P: Complex, b: Batch) -> None:
        self._admit(b, reads=(P,), adds=(den,))
        light = Sum(den, b.corners, b.good.shape)
        self._do(b, kernels.coverage_sums, light, Corners(light), _intensity(P[:, None]))

    def weigh(self, num: Complex, den: Real, X: Complex, weight: Real | SupportsIndex) -> None:
        self.finish()
        den[...] = weight
        np.maximum(den, 1e-6 * max(den.max(), _TINY), out=den)
        np.multiply(X, den, out=num)

    def quotient(self, X: Complex, num: Complex, den: Real, inertia: float) -> None:
        self.finish()
        kernels.quotient(floats(X), floats(num), den, np.float32(inertia) * den.max())

    def object_step(self, O: Complex, P: Complex, w: Wave, b: Batch, step: float | Real, damping: float) -> None:
        if not len(b):
            return
        if b.corners.shape[:2] != (1, 1):
            num, den = self.sums(O)
            self.object_sums(num, den, w, P, b)
            self.finish()
            kernels.step_weight(den[None], np.float32(number(step)), np.float32(damping))
            cpu_steps.add_weighted(floats(O), floats(num), den)
            return
        self._run()
        moved = self._moved(P, b)
        weight = _intensity(moved)
        kernels.step_weight(weight, np.float32(number(step)), np.float32(damping))
        kernels.object_step(0, floats(O), floats(moved), floats(_array(w)), b.corners, weight)

    def probe_step(self, P: Complex, patches: Complex, w: Wave, b: Batch, step: float | Real, damping: float) -> None:
        has_rests = bool(b.rests.any())
        if has_rests:
            self._run()
        else:
            self.finish()
        for j, patch in enumerate(patches):
            length = number(step) * len(patch) / len(patches) * (self._moving.scale if has_rests else 1)
            weight = _intensity(patch.reshape(-1, 1, *patch.shape[-2:]))
            kernels.step_weight(weight, np.float32(length), np.float32(damping))
            if has_rests:
                onto = self._own.fft.empty((1, len(P) * len(patch), *P.shape[1:]))
                onto[...] = 0
                kernels.probe_step(j, self._as_modes(onto, len(P)), floats(patches), floats(_array(w)), weight[0])
                self._moving.step_back(P, onto, b.rests[j])
            else:
                kernels.probe_step(j, floats(P[:, None]), floats(patches), floats(_array(w)), weight[0])

    def copy(self, X: Complex) -> Complex:
        self.finish()
        return X.copy()

    def momentum(self, X: Complex, before: Complex, velocity: Complex, friction: float) -> None:
        self.finish()
        cpu_steps.momentum(floats(X), floats(before), floats(velocity), np.float32(friction))

    def clip_modulus(self, X: Complex, largest: float) -> None:
        self.finish()
        kernels.clip_modulus(floats(X), np.float32(largest))

    def fix_power(self, P: Complex, O: Complex, power: float) -> None:
        self.finish()
        # No dot product: BLAS would wake its own threads, which then stand in the way of ours.
        scale = np.sqrt(power / max(float(np.square(floats(P), dtype=np.float64).sum()), _TINY))
        floats(P)[...] *= np.float32(scale)
        floats(O)[...] *= np.float32(1 / scale)
        self._moving.forget()

    def _run(self) -> None:
        """Do what has been put off, except for steps of a probe that its moved forms do not need."""
        program, self._program = self._program, None
        if program is not None:
            program.run()

    def _moved(self, P: Complex, b: Batch) -> Any:
        """P as kernels take it, (probe mode, sub-step or 1, y, 2 x): moved by the rests of the frame at work."""
        if not b.rests.any():
            self._moving.flush()
            return P[:, None]
        program = self._program
        if len(b) < 2 or program is None:
            return self._moving.moved(P, b.rests[0])
        if id(P) not in program.moved:
            slot = program.slot_of(program.new_waves(len(P) * b.rests.shape[1]))
            program.step(cpu_moving.moved_spectra, slot, floats(self._moving.spectrum(P)), b.rests)
            program.step(backward, slot, FftOf())
            program.moved[id(P)] = P, Modes(slot, len(P))
        return program.moved[id(P)][1]

    def _as_modes(self, w: Wave, modes: int) -> Any:
        """Waves (1, probe mode * sub-step, y, x) as (probe mode, sub-step, y, 2 x)."""
        if isinstance(w, Waves) and self._program is not None:
            return Modes(self._program.slot_of(w), modes)
        return floats(w).reshape(modes, -1, *floats(w).shape[-2:])

    def _with_rests(self, steps: Steps, b: Batch, sign: int) -> Steps:
        """The near field's transform, moved by the rests or back."""
        if not self.near_field or not b.rests.any():
            return steps
        return (*steps[:-1], (cpu_moving.move_waves, np.float32(sign) * b.rests), steps[-1])

    def _afterwards(self, work: Callable[[], None]) -> None:
        """Do it when the steps noted so far are done."""
        if self._program is None:
            work()
        else:
            self._program.afterwards(work)

    def _new_waves(self, b: Batch, waves: int, frames: tuple[Wave, ...] = (), reads: tuple[Array, ...] = ()) -> Wave:
        if len(b) < 2:
            self._run()
            return self._own.fft.empty((len(b), waves, *b.good.shape))
        return self._program_for(b, frames, reads, ()).new_waves(waves)

    def _admit(self, b: Batch, frames: tuple[Wave, ...] = (), reads: tuple[Array, ...] = (), adds: tuple[Array, ...] = ()) -> None:
        """Make ready for steps on ``b`` that use these arrays: have a program in which they may be noted, or do them at once."""
        if len(b) > 1:
            self._program_for(b, frames, reads, adds)
        elif reads or adds:
            self.finish()
        else:
            self._run()

    def _program_for(self, b: Batch, frames: tuple[Wave, ...], reads: tuple[Array, ...], adds: tuple[Array, ...]) -> Program:
        program = self._program
        if program is None or not program.fits(b):
            program = self._next_program(b)
        while not program.admits([_array(w) for w in frames if not (isinstance(w, Waves) and w.pending_in(program))], reads, adds):
            program = self._next_program(b)
        return program

    def _next_program(self, b: Batch) -> Program:
        self.finish()
        self._program, self._rooms = Program(b, self._crew), 0
        return self._program

    def _do(self, b: Batch, kernel: Kernel, *arguments: Any) -> None:
        """Note a step of the program, or do it at once for a batch of one frame."""
        if len(b) > 1 and self._program is not None:
            self._program.step(kernel, *(self._noted(argument) for argument in arguments))
        elif len(b):
            kernel(0, *(self._at_once(argument) for argument in arguments))

    def _noted(self, argument: Any) -> Any:
        if isinstance(argument, Waves):
            program = self._program
            return program.slot_of(argument) if program is not None and argument.pending_in(program) else floats(argument.array())
        return floats(argument) if isinstance(argument, np.ndarray) else argument

    def _at_once(self, argument: Any) -> Any:
        match argument:
            case Sum():
                return floats(argument.array)
            case Corners():
                return argument.sum.corners
            case FftOf():
                return self._own.fft
            case Row():
                return self._own.scratch(("row", 0), (argument.columns,), np.float32)
            case Waves() | np.ndarray():
                return floats(_array(argument))
        return argument

    def _transformed(self, w: Wave, steps: Steps) -> Wave:
        program = self._program
        if isinstance(w, Waves) and program is not None and w.pending_in(program):
            slot = program.slot_of(w)
            for kernel, argument in steps:
                if not (kernel is kernels.scale_waves and program.scale_last(_SCALING, slot, argument)):
                    program.step(kernel, slot, argument)
            return program.renamed(w)
        self._run()
        w = _array(w)
        for j in range(len(w)):
            for kernel, argument in steps:
                kernel(j, floats(w), self._at_once(argument))
        return w

    def _good_of(self, b: Batch) -> Array:
        """``good`` as 1 and 0; all batches of a scan share one."""
        if self._good[0] is not b.good:
            self._good = b.good, b.good.astype(np.float32)
        return self._good[1]

    def _light_of(self, b: Batch) -> tuple[Array, Array]:
        """What makes a wave on the detector a modulus: roots and background, as _modulus takes them."""
        roots = self._roots if b.intensities is None else self._roots * np.sqrt(b.intensities)
        return roots, _NO_BACKGROUND if b.background is None else b.background

    def _scalar(self, residuals: NDArray[np.float64]) -> DeviceScalar:
        if len(residuals) == 1:
            return CpuScalar(residuals.reshape(()), (), self.finish)
        return CpuScalar(np.zeros(()), (residuals,), self.finish)


def _transforms(geometry: Geometry, scale: float) -> tuple[Steps, Steps]:
    """Steps to the detector, and back to the sample; ``scale`` is what an FFT library leaves out of its inverse."""
    if geometry.near_field:
        kernel = fresnel_kernel(geometry) * scale
        there, back = (floats(factor.astype(np.complex64)) for factor in (kernel, kernel.conj()))
        return (
            ((forward, FftOf()), (kernels.multiply, there), (backward, FftOf())),
            ((forward, FftOf()), (kernels.multiply, back), (backward, FftOf())),
        )
    rescaled: Steps = ((kernels.scale_waves, np.float32(scale)),) if scale != 1 else ()
    return ((forward, FftOf()),), (*rescaled, (backward, FftOf()))


def _array(w: Wave) -> Array:
    return w.array() if isinstance(w, Waves) else w


def _intensity(X: Complex) -> Array:
    """(sub-step or 1, y, x): sum_m |X_m|^2 of (mode, sub-step or 1, y, x or 2 x)"""
    X = floats(X)
    power = np.empty((X.shape[1], X.shape[2], X.shape[3] // 2), dtype=np.float32)
    kernels.intensity(0, power, X)
    return power
