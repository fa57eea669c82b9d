"""Object modes: states of the sample that add incoherently."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import Geometry
from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cpu import CpuVerbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

FAR = Geometry(8000.0, 1.0, 75e-6, (24, 18))
NEAR = Geometry(8000.0, 1.0, 75e-6, (24, 18), focus_distance_m=5e-3)


def random(rng: np.random.Generator, *shape: int) -> NDArray[np.complex64]:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


class Case:
    """4 frames of 24 x 18 px with rests, 2 probe modes, 2 sub-steps, 3 object modes."""

    def __init__(self) -> None:
        rng = np.random.default_rng(6)
        self.O, self.P = random(rng, 3, 34, 28), random(rng, 2, 24, 18)
        self.dO, self.dP = random(rng, *self.O.shape), random(rng, *self.P.shape)
        corners = rng.integers(0, 10, (4, 2, 2)).astype(np.int32)
        rests = rng.uniform(-0.5, 0.5, corners.shape).astype(np.float32)
        counts, good = rng.poisson(30, (4, 24, 18)).astype(np.uint16), rng.random((24, 18)) > 0.2
        self.b = Batch(slice(0, 4), corners, rests, counts, good)
        self.psi = random(rng, 4, 2 * 3 * 2, 24, 18)

    def one(self) -> Batch:
        b = self.b
        return replace(b, index=slice(2, 3), corners=b.corners[2:3], rests=b.rests[2:3], counts=b.counts[2:3])


def results(do: Any, case: Case, b: Batch) -> dict[str, NDArray[Any]]:
    """What verbs that meet object modes give on the frames of ``b``."""
    O, P, psi = case.O.copy(), case.P.copy(), case.psi[b.index].copy()
    gave = {"exit_waves": np.array(do.exit_waves(O, P, b)), "reflect": np.array(do.reflect(psi, O, P, b, 2, -1))}
    gave["to_detector"] = np.array(do.to_detector(do.exit_waves(O, P, b), b))
    gave["to_sample"] = np.array(do.to_sample(psi.copy(), b))
    A = do.to_detector(do.exit_waves(O, P, b), b)
    gave["likelihood residual"] = np.asarray((do.zero() + do.likelihood_step(A, b, "poisson")).read())
    gave["likelihood step"] = np.array(do.to_sample(A, b))
    gave["step_sums"] = do.step_sums(psi, do.exit_waves(case.dO, P, b), do.exit_waves(O, case.dP, b), b)
    weights = np.exp(1j * np.arange(len(b)))
    num, den = do.sums(O)
    do.spread(num, psi, weights, P, b)
    do.finish()
    gave |= {"spread": num.copy(), "gather": do.gather(psi, O, P, b)}
    num, den = do.sums(O)
    do.object_sums(num, den, psi, P, b)
    probe_num, probe_den = do.sums(P)
    do.probe_sums(probe_num, probe_den, psi, O, b)
    do.finish()
    gave |= {"object num": num, "object den": den, "probe num": probe_num, "probe den": probe_den}
    for _ in range(2):
        patches, d = do.cut(O, b), do.reflect(psi, O, P, b, -1, 1)
        do.object_step(O, P, d, b, 0.3, 0.5)
        do.probe_step(P, patches, d, b, 0.3, 0.5)
    do.finish()
    return gave | {"stepped object": O, "stepped probe": P}


@pytest.mark.parametrize("geometry", [FAR, NEAR], ids=["far", "near"])
@pytest.mark.parametrize("threads", [1, 2])
def test_processors_agree_with_the_reference(geometry: Geometry, threads: int) -> None:
    case = Case()
    for b in (case.b, case.one()):
        expected = results(ReferenceVerbs(geometry), case, b)
        for name, value in results(CpuVerbs(geometry, threads, "scipy"), case, b).items():
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(value, expected[name], atol=2e-5 * scale, err_msg=f"{name} of {len(b)} frames")


def moved(X: NDArray[Any], rest: NDArray[Any]) -> NDArray[Any]:
    """X (y, x), its content moved by ``rest`` (yx) px."""
    y, x = (np.fft.fftfreq(size) for size in X.shape)
    return np.asarray(np.fft.ifft2(np.fft.fft2(X) * np.exp(-2j * np.pi * (y[:, None] * rest[0] + x[None] * rest[1]))))


@pytest.mark.parametrize("geometry", [FAR, NEAR], ids=["far", "near"])
def test_waves_are_those_of_probe_mode_object_mode_and_sub_step(geometry: Geometry) -> None:
    case, do = Case(), ReferenceVerbs(geometry, np.complex128)
    O, P = case.O.astype(np.complex128), case.P.astype(np.complex128)
    w = do.exit_waves(O, P, case.b)
    still = do.to_detector(w.copy(), replace(case.b, rests=0 * case.b.rests))
    A = do.to_detector(w.copy(), case.b)
    for m, k, s in np.ndindex(2, 3, 2):
        n = (m * 3 + k) * 2 + s
        for j in range(4):
            y, x = case.b.corners[j, s]
            plain = moved(P[m], case.b.rests[j, s]) * O[k, y : y + 24, x : x + 18] / np.sqrt(2)
            np.testing.assert_allclose(w[j, n], plain)
            back = moved(still[j, n], -case.b.rests[j, s]) if geometry.near_field else still[j, n]
            np.testing.assert_allclose(A[j, n], back, atol=1e-10)


@pytest.mark.parametrize("geometry", [FAR, NEAR], ids=["far", "near"])
@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_sums_and_transforms_are_adjoints(implementation: str, geometry: Geometry) -> None:
    case, do = Case(), ReferenceVerbs(geometry) if implementation == "reference" else CpuVerbs(geometry, 2, "scipy")
    other = case.psi[:, ::-1].copy()
    num, den = do.sums(case.O)
    do.object_sums(num, den, case.psi, case.P, case.b)
    probe_num, probe_den = do.sums(case.P)
    do.probe_sums(probe_num, probe_den, case.psi, case.O, case.b)
    do.finish()
    waves = np.array(do.exit_waves(case.dO, case.P, case.b)), np.array(do.exit_waves(case.O, case.dP, case.b))
    np.testing.assert_allclose(np.vdot(case.dO, num), np.vdot(waves[0], case.psi), rtol=1e-4)
    np.testing.assert_allclose(np.vdot(case.dP, probe_num), np.vdot(waves[1], case.psi), rtol=1e-4)
    there, back = np.array(do.to_detector(case.psi.copy(), case.b)), np.array(do.to_sample(other.copy(), case.b))
    scale = 1 if geometry.near_field else 24 * 18
    np.testing.assert_allclose(np.vdot(other, there), scale * np.vdot(back, case.psi), rtol=1e-4)
