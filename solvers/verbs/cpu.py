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
from ptyplugin.solvers.verbs import Complex, DeviceScalar, Real
from ptyplugin.solvers.verbs import cpu_kernels as kernels
from ptyplugin.solvers.verbs.cpu_fft import FftName, best_fft
from ptyplugin.solvers.verbs.cpu_program import Array, Corners, Crew, FftOf, Kernel, Program, Row, Sum, Waves, backward, floats, forward
from ptyplugin.solvers.verbs.reference import fresnel_kernel

#: An array, or Waves.
Wave = Any
Steps = tuple[tuple[Kernel, Any], ...]

_TINY = float(np.finfo(np.float32).tiny)


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


class CpuVerbs:
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
        self._program: Program | None = None
        self._there, self._back = _transforms(geometry, self._own.fft.backward_scale)
        self._root = np.float32(1 if geometry.near_field else (geometry.shape[0] * geometry.shape[1]) ** -0.5)
        self._good: tuple[Array, Array] = (np.empty(0), np.empty(0))

    def finish(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.run()

    def batch_frames(self, shape: tuple[int, int], waves: int) -> int:
        """All: one frame after the other is in the cache anyway."""
        return sys.maxsize

    def zero(self) -> DeviceScalar:
        return CpuScalar(np.zeros(()), (), self.finish)

    def cut(self, O: Complex, b: Batch) -> Complex:
        self.finish()
        patches = np.empty((len(b), b.corners.shape[1], len(O), *b.good.shape), dtype=self.dtype)
        for j in range(len(b)):
            kernels.cut(j, floats(patches), floats(O), b.corners)
        return patches

    def exit_waves(self, O: Complex, P: Complex, b: Batch) -> Wave:
        w = self._new_waves(b, len(P) * b.corners.shape[1] * len(O), reads=(O, P))
        self._do(b, kernels.exit_waves, w, O, P, b.corners)
        return w

    def reflect(self, psi: Wave, O: Complex, P: Complex, b: Batch, overlap: float, wave: float) -> Wave:
        w = self._new_waves(b, psi.shape[1], frames=(psi,), reads=(O, P))
        self._do(b, kernels.reflect, w, psi, O, P, b.corners, np.float32(overlap), np.float32(wave))
        return w

    def to_detector(self, w: Wave, b: Batch) -> Wave:
        return self._transformed(w, self._there)

    def to_sample(self, A: Wave, b: Batch) -> Wave:
        return self._transformed(A, self._back)

    def onto_modulus(self, A: Wave, b: Batch, slack: float) -> DeviceScalar:
        residuals = np.zeros(len(b))
        numbers = (self._root, np.float32(slack), np.float32(1))
        self._admit(b, frames=(A,))
        self._do(b, kernels.onto_modulus, A, Row(b.good.shape[1]), b.counts, self._good_of(b), residuals, *numbers)
        return self._scalar(residuals)

    def modulus_residual(self, A: Wave, b: Batch) -> DeviceScalar:
        residuals = np.zeros(len(b))
        self._admit(b, frames=(A,))
        self._do(b, kernels.modulus_residual, A, Row(b.good.shape[1]), b.counts, self._good_of(b), residuals, self._root)
        return self._scalar(residuals)

    def advance(self, psi: Complex, w: Wave, O: Complex, P: Complex, b: Batch, wave: float, data: float, overlap: float) -> None:
        self._admit(b, frames=(psi, w), reads=(O, P))
        self._do(b, kernels.advance, psi, w, O, P, b.corners, np.float32(wave), np.float32(data), np.float32(overlap))

    def sums(self, X: Complex) -> tuple[Complex, Real]:
        return np.zeros_like(X), np.zeros(X.shape[-2:], dtype=np.float32)

    def object_sums(self, num: Complex, den: Real, psi: Wave, P: Complex, b: Batch) -> None:
        self._admit(b, frames=(psi,), reads=(P,), adds=(num, den))
        total, light = Sum(num, b.corners, b.good.shape), Sum(den, b.corners, b.good.shape)
        self._do(b, kernels.coverage_sums, light, Corners(light), _intensity(P))
        self._do(b, kernels.object_sums, total, Corners(total), psi, P)

    def probe_sums(self, num: Complex, den: Real, psi: Wave, O: Complex, b: Batch) -> None:
        self._admit(b, frames=(psi,), reads=(O,), adds=(num, den))
        self._do(b, kernels.probe_sums, Sum(num), Sum(den), psi, O, b.corners)

    def coverage_sums(self, den: Real, P: Complex, b: Batch) -> None:
        self._admit(b, reads=(P,), adds=(den,))
        light = Sum(den, b.corners, b.good.shape)
        self._do(b, kernels.coverage_sums, light, Corners(light), _intensity(P))

    def weigh(self, num: Complex, den: Real, X: Complex, weight: Real | SupportsIndex) -> None:
        self.finish()
        den[...] = weight
        np.maximum(den, 1e-6 * max(den.max(), _TINY), out=den)
        np.multiply(X, den, out=num)

    def quotient(self, X: Complex, num: Complex, den: Real, inertia: float) -> None:
        self.finish()
        kernels.quotient(floats(X), floats(num), den, np.float32(inertia) * den.max())

    def object_step(self, O: Complex, P: Complex, w: Wave, b: Batch, step: float, damping: float) -> None:
        self.finish()
        weight = _intensity(P)
        kernels.step_weight(weight, np.float32(step), np.float32(damping))
        for j in range(len(b)):
            kernels.object_step(j, floats(O), floats(P), floats(_array(w)), b.corners, weight)

    def probe_step(self, P: Complex, patches: Complex, w: Wave, b: Batch, step: float, damping: float) -> None:
        self.finish()
        for j, patch in enumerate(patches):
            weight = _intensity(patch.reshape(-1, *patch.shape[-2:]))
            kernels.step_weight(weight, np.float32(step * len(patch) / len(patches)), np.float32(damping))
            kernels.probe_step(j, floats(P), floats(patches), floats(_array(w)), weight)

    def clip_modulus(self, X: Complex, largest: float) -> None:
        self.finish()
        kernels.clip_modulus(floats(X), np.float32(largest))

    def fix_power(self, P: Complex, O: Complex, power: float) -> None:
        self.finish()
        # No dot product: BLAS would wake its own threads, which then stand in the way of ours.
        scale = np.sqrt(power / max(float(np.square(floats(P), dtype=np.float64).sum()), _TINY))
        floats(P)[...] *= np.float32(scale)
        floats(O)[...] *= np.float32(1 / scale)

    def _new_waves(self, b: Batch, waves: int, frames: tuple[Wave, ...] = (), reads: tuple[Array, ...] = ()) -> Wave:
        if len(b) < 2:
            self.finish()
            return self._own.fft.empty((len(b), waves, *b.good.shape))
        return self._program_for(b, frames, reads, ()).new_waves(waves)

    def _admit(self, b: Batch, frames: tuple[Wave, ...] = (), reads: tuple[Array, ...] = (), adds: tuple[Array, ...] = ()) -> None:
        """Make ready for steps on ``b`` that use these arrays: have a program in which they may be noted, or do them at once."""
        if len(b) < 2:
            self.finish()
        else:
            self._program_for(b, frames, reads, adds)

    def _program_for(self, b: Batch, frames: tuple[Wave, ...], reads: tuple[Array, ...], adds: tuple[Array, ...]) -> Program:
        program = self._program
        if program is None or not program.fits(b):
            program = self._next_program(b)
        while not program.admits([_array(w) for w in frames if not (isinstance(w, Waves) and w.pending_in(program))], reads, adds):
            program = self._next_program(b)
        return program

    def _next_program(self, b: Batch) -> Program:
        self.finish()
        self._program = Program(b, self._crew)
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
                if not (kernel is kernels.scale_waves and program.scale_last(kernels.onto_modulus, slot, argument)):
                    program.step(kernel, slot, argument)
            return program.renamed(w)
        self.finish()
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
    """sum_m |X_m|^2"""
    power = np.empty(X.shape[-2:], dtype=np.float32)
    kernels.intensity(power, floats(X))
    return power
