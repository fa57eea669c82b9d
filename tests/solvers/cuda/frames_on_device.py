"""Frames for comparing the verbs for GPUs with the reference, and one way to ask both."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from shim import HostDevice
from verb_cases import geometry_of, random

from ptyplugin.model import Geometry
from ptyplugin.solvers.batches import Batch, RankFrames
from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs


class Kind(NamedTuple):
    """What frames are like, and what of a sample they see."""

    shape: tuple[int, int]
    modes: int = 1
    object_modes: int = 1
    substeps: int = 1
    counts: Any = np.uint16
    rests: bool = True
    beam: bool = False
    near_field: bool = False

    @property
    def geometry(self) -> Geometry:
        return geometry_of(self.shape, self.near_field)


#: Every word of the frames at least once, in few combinations.
KINDS = [
    Kind((64, 64), rests=False),
    Kind((24, 20), 3, 2, 2, beam=True),
    Kind((20, 26), 2, 1, 3, np.float32),
    Kind((25, 27), 1, 2, 1, np.float32, beam=True, near_field=True),
    Kind((24, 20), 2, 1, 2, near_field=True),
]

#: And in which order threads run: 1: reversed.
CASES = [*((kind, "0") for kind in KINDS), (KINDS[1], "1"), (KINDS[3], "1")]


class Frames:
    """5 frames in an object that is 9 x 7 px larger than they are, two of them in its corners; a sixth of their pixels is masked.

    O, P: object and probe, dO, dP: a direction; psi: waves. About as many counts as the model has.
    """

    def __init__(self, kind: Kind) -> None:
        rng, shape = np.random.default_rng(kind.shape), kind.shape
        self.kind, self.waves = kind, kind.modes * kind.object_modes * kind.substeps
        self.O, self.P = random(rng, kind.object_modes, shape[0] + 9, shape[1] + 7), 3 * random(rng, kind.modes, *shape)
        self.dO, self.dP = random(rng, *self.O.shape), random(rng, *self.P.shape)
        self.psi = random(rng, 5, self.waves, *shape)
        corners = rng.integers((0, 0), (10, 8), (5, kind.substeps, 2)).astype(np.int32)
        corners[0], corners[-1] = 0, (9, 7)
        rests = rng.uniform(-0.5, 0.5, corners.shape).astype(np.float32) * kind.rests
        good, counts = rng.random(shape) > 1 / 6, rng.poisson(3 * rng.gamma(0.3, 50, (5, *shape))).astype(kind.counts)
        counts[:, ~good] = 60_000
        background = rng.random(shape).astype(np.float32) if kind.beam else None
        intensities = rng.uniform(0.8, 1.2, 5).astype(np.float32) if kind.beam else None
        self.frames = RankFrames(np.arange(5), corners, rests, counts, good, background, intensities)


class Side:
    """Verbs and one of them for frames: what they are given goes where they compute, in their precision, and what they give comes back."""

    def __init__(self, do: Any, frames: RankFrames) -> None:
        self.do, self.frames = do, do.hold(frames)
        self._real = np.zeros(0, do.dtype).real.dtype

    def of(self, host: NDArray[Any]) -> Any:
        """A copy of ``host`` where the verbs compute."""
        return self.do.array(host.astype(self.do.dtype if host.dtype.kind == "c" else self._real))

    def host(self, X: Any) -> NDArray[Any]:
        return np.array(self.do.host(X))

    def some(self, numbers: Any) -> Batch:
        """These frames: a slice, or numbers."""
        return self.frames.batch(numbers.start, numbers.stop) if isinstance(numbers, slice) else self.frames.chosen(np.asarray(numbers))

    def detected(self, O: Any, P: Any, b: Batch) -> Any:
        """Waves on the detector."""
        return self.do.to_detector(self.do.exit_waves(O, P, b), b)


#: Which frames a batch has.
BATCHES = [slice(0, 5), slice(2, 3), slice(5, 5), [1, 3, 4], [3]]


def mine(kind: Kind) -> CudaVerbs:
    return CudaVerbs(kind.geometry, HostDevice())


def judge(kind: Kind) -> ReferenceVerbs:
    return ReferenceVerbs(kind.geometry, np.complex128)


Results = dict[str, Any]


def compare(kind: Kind, order: str, results: Callable[[Side, Frames, Batch], Results], tolerance: float, **of: float) -> None:
    """Ask ``results`` of both sides, for every batch; numbers agree to ``tolerance`` of the largest of each array.

    order: of the threads; of: other tolerances, by the last word of the name of a result
    """
    case = Frames(kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIM_REVERSED", order)
        for numbers in BATCHES:
            given, expected = (results(side, case, side.some(numbers)) for side in (Side(do(kind), case.frames) for do in (mine, judge)))
            assert given.keys() == expected.keys()
            for name, value in given.items():
                agree(value, expected[name], of.get(name.split()[-1], tolerance), f"{name}, frames {numbers}")


def agree(value: Any, expected: Any, tolerance: float, said: str) -> None:
    value, expected = np.asarray(value), np.asarray(expected)
    assert value.shape == expected.shape, said
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance * scale, err_msg=said)
