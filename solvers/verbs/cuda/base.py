"""What all parts of CudaVerbs share: launches, waves, moved probes, and numbers that stay on the device."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ptyplugin.model import Geometry
from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cuda.device import Array, Device
from ptyplugin.solvers.verbs.cuda.half import HalfWaves, is_half
from ptyplugin.solvers.verbs.cuda.placing import Placed, Placing
from ptyplugin.solvers.verbs.cuda.scalars import CudaScalar, Slots
from ptyplugin.solvers.verbs.reference import fresnel_kernel

#: Threads of a block wherever a kernel does not say otherwise, and blocks that share a reduction of a canvas.
THREADS, BLOCKS = 256, 256
#: Stretches into which the frames of a batch are cut where they are summed over, pixel by pixel.
GROUPS = 16
#: What a grid of blocks has at most along its second axis, which frames and layers lie along.
MOST_BLOCKS = 65535


class Waves:
    """Waves of a batch (frame, wave, y, x) on the device: ``owed`` times ``array``. The factor is paid by the next verb, at no cost."""

    __slots__ = ("_array", "owed", "shape")

    def __init__(self, array: Array | None, owed: float = 1.0, shape: tuple[int, ...] = ()) -> None:
        """array: None: they are not there yet, but will have this shape"""
        self._array, self.owed, self.shape = array, owed, shape if array is None else tuple(array.shape)

    @property
    def array(self) -> Array:
        """The waves, without what they are owed."""
        if self._array is None:
            raise RuntimeError("these waves are gone: the verb that they were given to has used them up")
        return self._array

    @array.setter
    def array(self, array: Array) -> None:
        self._array = array

    def __len__(self) -> int:
        return self.shape[0]


class MovedProbe(NamedTuple):
    """P on the frames of a batch: moved by their rests (frame, probe mode, sub-step, y, x), or the same for all; strides in elements."""

    array: Array
    frame: int
    mode: int
    step: int

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.array, np.int64(self.frame), np.int64(self.mode), np.int64(self.step)


class Base:
    """What the parts of CudaVerbs share; decision record 0007 tells how they fit together.

    Args:
        geometry: far or near field, and the shape of a frame.
        device: where all arrays lie.
    """

    dtype: np.dtype[Any] = np.dtype(np.complex64)

    def __init__(self, geometry: Geometry, device: Device) -> None:
        self.device, self.near_field = device, geometry.near_field
        self._shape = (geometry.shape[0], geometry.shape[1])
        self._pixels = self._shape[0] * self._shape[1]
        self._c = 1.0 if geometry.near_field else float(self._pixels)
        self._transfer = device.put(fresnel_kernel(geometry).astype(np.complex64)) if geometry.near_field else None
        self._placing, self._slots = Placing(device), Slots(device)
        self._moved_probes: dict[Any, tuple[Array, Any]] = {}
        self._versions: dict[int, int] = {}

    def finish(self) -> None:
        """Nothing is put off beyond what ``_settle`` does: whoever reads numbers on the host waits for them."""
        self._settle()

    def _settle(self) -> None:
        """Do what has been put off."""

    # Launches

    def _run(self, file: str, blocks: tuple[int, ...], *args: Any, function: str = "", shared: int = 0, **defines: int) -> None:
        """Launch a kernel with THREADS threads a block; nothing where there are no blocks."""
        if all(blocks):
            self.device.kernel(file, function, **defines)(blocks, (THREADS,), args, shared_mem=shared)

    def _over_frames(self, p: Placed, *more: int) -> tuple[int, ...]:
        """Blocks: pixels of a frame, frames."""
        return blocks_for(p.pixels), p.count, *more

    def _new(self, shape: tuple[int, ...], dtype: Any = np.complex64) -> Array:
        return self.device.empty(shape, dtype)

    def _copy(self, X: Array) -> Array:
        """X, which may be a view, in new contiguous memory."""
        copy = self._new(X.shape, X.dtype)
        self.device.fill(copy, X)
        return copy

    # Waves

    def _array(self, w: Any) -> Array:
        """Waves as they are, with what is owed paid; a copy of those in half precision."""
        if isinstance(w, HalfWaves):
            wide = self._new(w.shape)
            self._run("widen", (blocks_for(w.size),), wide, w.halves, np.int64(w.size), PSI_HALF=is_half(w.halves))
            return wide
        if not isinstance(w, Waves):
            return w  # type: ignore[no-any-return]
        if w.owed != 1:
            self._scale(w.array, w.owed)
            w.owed = 1.0
        return w.array

    def _scale(self, X: Array, factor: float) -> None:
        self._run("rescale", (blocks_for(X.size),), X, np.int64(X.size), np.float32(factor))

    # The probe on frames

    def _moved(self, P: Array, b: Batch) -> MovedProbe:
        """P_j = S_j P, moved by the rests of each frame."""
        p = self._placing.placed(b)
        if not p.moves:
            return MovedProbe(P, 0, p.pixels, 0)
        # What memory and batch it was made for, and how often that memory has been written since. Both are kept: else what comes after
        # them might lie in the same place.
        key = (P.data.ptr, P.shape, self._versions.get(P.data.ptr, 0), *p.key)
        if key not in self._moved_probes:
            while len(self._moved_probes) > 1:
                self._moved_probes.pop(next(iter(self._moved_probes)))
            self._moved_probes[key] = self._move(P, p), (P, p.tables)
        return MovedProbe(self._moved_probes[key][0], len(P) * p.substeps * p.pixels, p.substeps * p.pixels, p.pixels)

    def _move(self, P: Array, p: Placed) -> Array:
        """(frame, probe mode, sub-step, y, x): the inverse transform of the transform of P times ramps (Fourier shift theorem)."""
        spectrum = self._copy(P)
        self.device.fft(spectrum, False)
        moved = self._new((p.count, len(P), p.substeps, *p.shape))
        if p.count:
            self._run("ramps", self._over_frames(p), moved, spectrum, *p.rests, np.int32(len(P)), *self._sides(p), np.float32(1 / p.pixels))
            self.device.fft(moved, True)
        return moved

    def _sides(self, p: Placed) -> tuple[Any, ...]:
        """Arguments: rows and columns of a frame."""
        return np.int32(p.shape[0]), np.int32(p.shape[1])

    def _written(self, *arrays: Array) -> None:
        """These arrays have other values now."""
        for X in arrays:
            self._versions[X.data.ptr] = self._versions.get(X.data.ptr, 0) + 1

    def _forget(self) -> None:
        """Make all that is kept between verbs anew."""
        self._moved_probes.clear()
        self._placing.forget()

    # Numbers

    def _scalar(self, partials: Any) -> CudaScalar:
        return CudaScalar(self.device, (partials,), self._settle)

    def _largest(self, den: Array) -> Array:
        """(BLOCKS,) float32: the largest numbers of parts of a contiguous float32 array; kernels take the largest of them."""
        partials = self._new((BLOCKS,), np.float32)
        self._run("largest", (BLOCKS,), partials, den, np.int64(den.size))
        return partials


def blocks_for(count: int) -> int:
    """Blocks of THREADS threads that have a thread for each of ``count``."""
    return -(-count // THREADS)


def canvas(X: Array) -> tuple[Any, ...]:
    """Arguments for kernels over canvases (mode, y, x) that may be views: array, modes, rows, columns, strides of mode and row."""
    modes, rows, columns = X.shape if X.ndim == 3 else (1, *X.shape)
    strides = [stride // X.itemsize for stride in X.strides]
    assert strides[-1] == 1 or columns == 1
    mode = strides[0] if X.ndim == 3 else 0
    return X, np.int32(modes), np.int32(rows), np.int32(columns), np.int64(mode), np.int64(strides[-2])


def parts(w: Any) -> tuple[Array, float]:
    """Waves: their memory, and the factor it is owed."""
    if isinstance(w, HalfWaves):
        return w.halves, 1.0
    return (w.array, w.owed) if isinstance(w, Waves) else (w, 1.0)


def object_of(O: Array) -> tuple[Any, ...]:
    """Arguments: object, object modes, rows, columns."""
    return O, np.int32(len(O)), *sides_of(O)


def sides_of(X: Array) -> tuple[Any, ...]:
    """Arguments: rows and columns."""
    return np.int32(X.shape[-2]), np.int32(X.shape[-1])
