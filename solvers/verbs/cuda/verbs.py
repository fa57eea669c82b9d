"""The verbs for GPUs, complex64. Where they run, and how, is told in decision record 0007."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ptyplugin.model import Geometry
from ptyplugin.solvers.batches import Batch, RankFrames
from ptyplugin.solvers.verbs import DeviceScalar
from ptyplugin.solvers.verbs.cuda.base import BLOCKS, GROUPS, MOST_BLOCKS, blocks_for, canvas, object_of, parts, sides_of
from ptyplugin.solvers.verbs.cuda.detector_verbs import DetectorVerbs
from ptyplugin.solvers.verbs.cuda.device import NULL, Array, Device
from ptyplugin.solvers.verbs.cuda.frames import FrameVerbs
from ptyplugin.solvers.verbs.cuda.half import HalfWaves, half_of, is_half, on_host
from ptyplugin.solvers.verbs.cuda.likelihood import LikelihoodVerbs
from ptyplugin.solvers.verbs.cuda.placing import DeviceCounts, Placed
from ptyplugin.solvers.verbs.cuda.positions import PositionVerbs
from ptyplugin.solvers.verbs.cuda.repeating import RepeatVerbs
from ptyplugin.solvers.verbs.cuda.scalars import CudaScalar
from ptyplugin.solvers.verbs.cuda.waves import WaveVerbs

#: Waves of one batch, bytes: launches of less would take longer than their work.
_BATCH_BYTES = 2**26
#: Share of the free memory that counts take if nobody has planned.
_COUNTS_SHARE = 0.5
#: Rows and columns of an object's tile.
_TILE = (8, 32)


class CudaVerbs(WaveVerbs, RepeatVerbs, LikelihoodVerbs, FrameVerbs, PositionVerbs, DetectorVerbs):
    """See ptyplugin.solvers.verbs.Verbs for the equations.

    Args:
        geometry: far or near field, and the shape of a frame.
        device: where all arrays lie.
        fused: whether S3 is used where it can be.
    """

    def __init__(self, geometry: Geometry, device: Device, fused: bool = True) -> None:
        super().__init__(geometry, device, fused)
        #: What the waves of a batch, and the counts of frames that are not held yet, may take; counts: None: as much as there is.
        self.batch_bytes = _BATCH_BYTES
        self.counts_bytes: int | None = None
        #: Whether sums onto the object are atomic: less is read, but no two runs give the same bits.
        self.atomics = False
        #: Whether waves that are stored are in half precision.
        self.half_waves = False
        self._recordings = {}

    def batch_frames(self, shape: tuple[int, int], waves: int) -> int:
        return min(max(1, self.batch_bytes // (shape[0] * shape[1] * waves * self.dtype.itemsize)), MOST_BLOCKS)

    def zero(self) -> DeviceScalar:
        return CudaScalar(self.device, (), self._settle)

    # Waves

    def cut(self, O: Array, b: Batch) -> Array:
        self._settle()
        p = self._placing.placed(b)
        patches = self._new((p.count, p.substeps, len(O), *p.shape))
        self._run("cut", self._over_frames(p), patches, *object_of(O), *p.places, *self._sides(p))
        return patches

    # Sums over frames

    def sums(self, X: Any) -> tuple[Array, Array]:
        """Both in one buffer, so that ranks add them up at once."""
        self._settle()
        complex_shape, real_shape = tuple(X.shape), tuple(X.shape[-2:])
        pixels = real_shape[0] * real_shape[1]
        buffer = self.device.zeros((2 * X.size + pixels,), np.float32)
        return buffer[: 2 * X.size].view(np.complex64).reshape(complex_shape), buffer[2 * X.size :].reshape(real_shape)

    def object_sums(self, num: Array, den: Array, psi: Any, P: Array, b: Batch) -> None:
        self._settle()
        array, owed = parts(psi)
        self._onto_object(num, den, array, owed, P, b)

    def coverage_sums(self, den: Array, P: Array, b: Batch) -> None:
        self._settle()
        p = self._placing.placed(b)
        probe = (P, np.int64(0), np.int64(p.pixels), np.int64(0), np.int32(len(P)))
        self._gather_tiles(p, b, 1, NULL, den, NULL, np.float32(1), NULL, np.int32(1), *sides_of(den), *probe)

    def probe_sums(self, num: Array, den: Array, psi: Any, O: Array, b: Batch) -> None:
        self._settle()
        p, (array, owed) = self._placing.placed(b), parts(psi)
        if not p.count:
            return
        groups, patches = min(GROUPS, p.count), self._patches(O, len(num), p)
        light = self._new((groups, *p.shape), np.float32)
        self._run("probe_sums", (blocks_for(p.pixels), groups), light, *patches, function="transmissions")
        self._add_groups(den, light)
        if p.moves:
            onto = self._new((p.count, len(num), p.substeps, *p.shape))
            waves = array, np.float32(owed)
            self._run("probe_sums", self._over_frames(p), onto, *waves, *patches, function="onto_probe", PSI_HALF=is_half(array))
            self._add_moved_back(num, onto, p)
            return
        partial = self._new((groups, *num.shape))
        self._run("probe_sums", (blocks_for(p.pixels), groups), partial, array, np.float32(owed), *patches, PSI_HALF=is_half(array))
        self._add_groups(num, partial)

    def _onto_object(self, num: Array, den: Any, psi: Array, owed: float, P: Array, b: Batch, weights: Any = NULL) -> None:
        """num[corner_j] += owed weights_j sum_m P_m* psi_jm;  den[corner_j] += sum_m |P_m|^2, unless it is NULL"""
        p, probe = self._placing.placed(b), self._moved(P, b)
        modes = np.int32(len(num)), *sides_of(num)
        arguments = num, den, psi, np.float32(owed), weights, *modes, *probe.arguments, np.int32(len(P))
        self._gather_tiles(p, b, len(num), *arguments)

    def _gather_tiles(self, p: Placed, b: Batch, object_modes: int, *arguments: Any) -> None:
        """Launch ``object_sums`` on the part of the object that the batch may touch; arguments: up to the probe modes."""
        if not p.count:
            return
        if self.atomics:
            self._run("scatter", self._over_frames(p), *arguments, *p.places, *self._sides(p), PSI_HALF=is_half(arguments[2]))
            return
        rows, columns = (int(size) for size in arguments[6:8])
        low, high = np.zeros(2, np.int64), np.array([rows, columns])
        if not p.whole:
            low, high = b.corners.min(axis=(0, 1)), b.corners.max(axis=(0, 1)) + p.shape
        tiles = [-(-int(length) // side) for length, side in zip(high - low, _TILE, strict=True)]
        first = np.int32(low[0]), np.int32(low[1])
        rest = np.int32(p.count), *p.places, *self._sides(p), *first
        self._run("object_sums", (tiles[1], tiles[0], object_modes), *arguments, *rest, PSI_HALF=is_half(arguments[2]))

    def _patches(self, O: Array, probe_modes: int, p: Placed) -> tuple[Any, ...]:
        return *object_of(O), np.int32(probe_modes), np.int32(p.count), *p.places, *self._sides(p)

    # Between sums and steps

    def weigh(self, num: Array, den: Array, X: Array, weight: Any) -> None:
        self._settle()
        light = den
        if isinstance(weight, int | np.integer):
            self.device.fill(den, float(weight))
        else:
            light = self._copy(weight)
        view = canvas(X)
        self._run("weigh", (blocks_for(den.size), int(view[1])), num, den, *view, light, self._largest(light))

    def quotient(self, X: Array, num: Array, den: Array, inertia: float) -> None:
        self._settle()
        view = canvas(X)
        self._run("quotient", (blocks_for(den.size), int(view[1])), *view, num, den, self._largest(den), np.float32(inertia))
        self._written(X)

    # Whole objects and probes

    def copy(self, X: Any) -> Array:
        self._settle()
        return self._copy(self._array(X))

    def momentum(self, X: Array, before: Array, velocity: Array, friction: float) -> None:
        self._settle()
        self._run("momentum", (blocks_for(X.size),), X, before, velocity, np.int64(X.size), np.float32(friction))
        self._written(X, before, velocity)

    def clip_modulus(self, X: Array, largest: float) -> None:
        self._settle()
        self._run("clip_modulus", (blocks_for(X.size),), X, np.int64(X.size), np.float32(largest))
        self._written(X)

    def fix_power(self, P: Array, O: Array, power: float) -> None:
        self._settle()
        partials = self._new((BLOCKS,), np.float64)
        self._run("fix_power", (BLOCKS,), partials, P, np.int64(P.size), function="power_of")
        for X, divide in ((P, 0), (O, 1)):
            self._run("fix_power", (blocks_for(X.size),), X, np.int64(X.size), partials, np.float64(power), np.int32(divide))
        self._written(P, O)

    # Between host and device

    def array(self, host: Any) -> Any:
        if self.half_waves and np.ndim(host) == HalfWaves.ndim:
            return half_of(self.device, host)
        return self.device.put(np.ascontiguousarray(host))

    def host(self, X: Any) -> Any:
        self._settle()
        if isinstance(X, HalfWaves):
            return on_host(self.device, X)
        return self.device.get(self._array(X))

    def put(self, X: Array, value: Any) -> None:
        self._settle()
        self.device.fill(X, value)
        self._written(X)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        if self.half_waves and len(shape) == HalfWaves.ndim:
            return HalfWaves(self.device.zeros((*shape, 2), np.float16))
        return self.device.zeros(shape, dtype)

    def longer(self, X: Any, count: int) -> Any:
        self._settle()
        array, _ = parts(X)
        longer = self.device.zeros((count, *array.shape[1:]), array.dtype)
        self.device.fill(longer[: len(array)], array)
        return HalfWaves(longer) if isinstance(X, HalfWaves) else longer

    def hold(self, frames: RankFrames) -> RankFrames:
        count_bytes = max(1, frames.counts.dtype.itemsize * self._pixels)
        room = self.device.memory()[0] * _COUNTS_SHARE if self.counts_bytes is None else self.counts_bytes
        host = frames.counts.host if isinstance(frames.counts, DeviceCounts) else frames.counts
        resident = min(len(frames), int(room) // count_bytes)
        self.forget_recordings()  # they keep the counts of frames that were held before
        self._forget()
        counts: Any = DeviceCounts(host, self.device, resident)
        if self.counts_bytes is not None:
            self.counts_bytes -= resident * count_bytes
        return replace(frames, counts=counts)

    def use_less_memory(self) -> bool:
        smallest = self._pixels * self.dtype.itemsize
        if self.counts_bytes == 0 and self.batch_bytes <= smallest:
            return False
        self.counts_bytes, self.batch_bytes = 0, max(self.batch_bytes // 2, smallest)
        self.forget_recordings()
        self._forget()
        return True
