"""The verbs of least-squares steps for processors against the reference."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import Geometry
from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cpu import CpuVerbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs


def random(rng: np.random.Generator, *shape: int) -> NDArray[np.complex64]:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


class Case:
    """5 frames with rests, a sixth of their pixels masked, and what the verbs get."""

    def __init__(self, shape: tuple[int, int], modes: int, object_modes: int, substeps: int, kind: Any) -> None:
        rng = np.random.default_rng(shape[0])
        self.O, self.P = random(rng, object_modes, shape[0] + 9, shape[1] + 7), random(rng, modes, *shape)
        self.dO, self.dP = random(rng, *self.O.shape), random(rng, *self.P.shape)
        corners = rng.integers((0, 0), (10, 8), (5, substeps, 2)).astype(np.int32)
        rests = rng.uniform(-0.5, 0.5, corners.shape).astype(np.float32)
        good, counts = rng.random(shape) > 1 / 6, rng.poisson(1, (5, *shape)).astype(kind)
        self.b = Batch(slice(0, 5), corners, rests, counts, good)
        self.psi = random(rng, 5, modes * substeps * object_modes, *shape)

    def one(self, frame: int) -> Batch:
        index = slice(frame, frame + 1)
        return Batch(index, self.b.corners[index], self.b.rests[index], self.b.counts[index], self.b.good)


def results(do: Any, case: Case, b: Batch) -> dict[str, Any]:
    O, P, psi, gave = case.O.copy(), case.P.copy(), case.psi[b.index].copy(), {}
    for noise in ("gaussian", "poisson"):
        A = do.to_detector(do.exit_waves(O, P, b), b)
        residual = do.zero() + do.likelihood_step(A, b, noise)
        gave[f"{noise} step and back"] = np.array(do.to_sample(A, b))
        gave[f"{noise} residual"] = residual.read()
        A = psi.copy()
        do.likelihood_step(A, b, noise)
        do.finish()
        gave[f"{noise} step of an array"] = A
    sums = do.step_sums(psi, do.exit_waves(case.dO, P, b), do.exit_waves(O, case.dP, b), b)
    do.finish()
    gave["step_sums"] = sums
    num, den = do.sums(O)
    do.object_sums(num, den, psi, P, b)
    do.precondition(num, den, 0.3)
    gave["precondition"] = num
    do.add_steps(O, case.dO, P, case.dP, np.array([[4.0, 5.0, 1.0, 2.0, 3.0]]), 0.5, 0.7)
    return gave | {"add_steps O": O, "add_steps P": P}


@pytest.mark.parametrize("near_field", [False, True], ids=["far", "near"])
@pytest.mark.parametrize(
    ("shape", "modes", "object_modes", "substeps", "threads", "kind"),
    [
        ((64, 64), 1, 1, 1, 1, np.uint16),
        ((64, 48), 3, 2, 2, 2, np.uint16),
        ((100, 100), 2, 1, 1, 2, np.float32),
        ((65, 81), 1, 1, 1, 2, np.uint16),
    ],
)
def test_every_verb_agrees_with_the_reference(
    shape: tuple[int, int], modes: int, object_modes: int, substeps: int, threads: int, kind: Any, near_field: bool
) -> None:
    case = Case(shape, modes, object_modes, substeps, kind)
    geometry = Geometry(8000.0, 1.0, 75e-6, shape, focus_distance_m=5e-3 if near_field else None)
    mine, judge = CpuVerbs(geometry, threads), ReferenceVerbs(geometry)
    for b in (case.b, case.one(2)):
        expected = results(judge, case, b)
        for name, value in results(mine, case, b).items():
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=2e-5 * scale, err_msg=f"{name} of {len(b)} frames")


def test_an_empty_batch_adds_nothing_and_darkness_stays_dark() -> None:
    geometry = Geometry(8000.0, 1.0, 75e-6, (12, 10))
    case = Case((12, 10), 1, 1, 1, np.uint16)
    for do in (CpuVerbs(geometry), ReferenceVerbs(geometry)):
        none = Batch(slice(5, 5), case.b.corners[:0], case.b.rests[:0], case.b.counts[:0], case.b.good)
        w = do.exit_waves(case.O, case.P, none)
        assert do.likelihood_step(w, none, "gaussian").read() == 0
        sums = do.step_sums(w, do.exit_waves(case.dO, case.P, none), do.exit_waves(case.O, case.dP, none), none)
        do.finish()
        assert not sums.any()
        dark = np.zeros_like(case.psi)
        do.likelihood_step(dark, case.b, "poisson")
        do.finish()
        assert not dark.any()
        num, den = do.sums(case.O)
        do.precondition(num, den, 0.5)
        assert not num.any()
