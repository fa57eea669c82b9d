"""The verbs of likelihoods and line searches for processors against the reference."""
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

NOISES = ("amplitude", "gaussian", "poisson")


def random(rng: np.random.Generator, *shape: int) -> NDArray[np.complex64]:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


class Case:
    """5 frames with rests, two of them in opposite corners of the object, a sixth of their pixels masked; direction of a step."""

    def __init__(self, shape: tuple[int, int], modes: int, object_modes: int, substeps: int, kind: Any, beam: bool) -> None:
        rng = np.random.default_rng(shape[0])
        self.O, self.P = random(rng, object_modes, shape[0] + 9, shape[1] + 7), 3 * random(rng, modes, *shape)
        self.s = random(rng, *self.O.shape), random(rng, *self.P.shape)
        corners = rng.integers((0, 0), (10, 8), (5, substeps, 2)).astype(np.int32)
        corners[0], corners[-1] = 0, (9, 7)
        rests = rng.uniform(-0.5, 0.5, corners.shape).astype(np.float32)
        good, counts = rng.random(shape) > 1 / 6, rng.poisson(3 * rng.gamma(0.3, 50, (5, *shape))).astype(kind)
        counts[:, ~good] = 60_000
        background = rng.random(shape).astype(np.float32) if beam else None
        intensities = rng.uniform(0.8, 1.2, 5).astype(np.float32) if beam else None
        self.b = Batch(slice(0, 5), corners, rests, counts, good, background, intensities)
        self.psi = random(rng, 5, modes * substeps * object_modes, *shape)

    def some(self, frames: slice) -> Batch:
        b = self.b
        intensities = None if b.intensities is None else b.intensities[frames]
        return Batch(frames, b.corners[frames], b.rests[frames], b.counts[frames], b.good, b.background, intensities)


def results(do: Any, case: Case, b: Batch) -> dict[str, Any]:
    """What each verb gives, by its name. The step's lengths reach from a small one to one that turns the model over."""
    O, P, gave = case.O.copy(), case.P.copy(), {}
    for noise in NOISES:
        A = do.to_detector(do.exit_waves(O, P, b), b)
        likelihood, residual = do.likelihood_gradient(A, b, noise)
        gave[f"{noise} gradient"] = np.array(do.to_sample(A, b))
        gave[f"{noise} likelihood"], gave[f"{noise} residual"] = likelihood.read(), residual.read()
        A = case.psi[b.index].copy()
        do.likelihood_gradient(A, b, noise)
        do.finish()
        gave[f"{noise} gradient of an array"] = A
        sums, line = do.line_sums(), do.line()
        for length in (1.0, 1e-3):
            line[0] = length
            A, ddA = (do.to_detector(do.exit_waves(*pair, b), b) for pair in ((O, P), case.s))
            dA = do.to_detector(do.reflect(do.exit_waves(case.s[0], P, b), O, case.s[1], b, 1, 1), b)
            do.line_likelihoods(sums, A, dA, ddA, b, noise, line)
        do.finish()
        gave |= {f"{noise} at length {number}": value for number, value in enumerate(sums[0])}
    return gave


@pytest.mark.parametrize("near_field", [False, True], ids=["far", "near"])
@pytest.mark.parametrize(
    ("shape", "modes", "object_modes", "substeps", "threads", "kind", "beam"),
    [
        ((64, 64), 1, 1, 1, 1, np.uint16, False),
        ((64, 48), 3, 2, 2, 2, np.uint16, True),
        ((100, 100), 2, 1, 1, 2, np.float32, False),
        ((65, 81), 1, 1, 1, 2, np.uint16, True),
        ((128, 128), 1, 1, 1, 1, np.uint16, False),
    ],
)
def test_every_verb_on_frames_agrees_with_the_reference(
    shape: tuple[int, int], modes: int, object_modes: int, substeps: int, threads: int, kind: Any, beam: bool, near_field: bool
) -> None:
    case = Case(shape, modes, object_modes, substeps, kind, beam)
    geometry = Geometry(8000.0, 1.0, 75e-6, shape, focus_distance_m=5e-3 if near_field else None)
    mine, judge = CpuVerbs(geometry, threads), ReferenceVerbs(geometry)
    for b in (case.b, case.some(slice(2, 3))):
        expected = results(judge, case, b)
        for name, value in results(mine, case, b).items():
            scale = np.abs(expected[name]).max()
            if "at length" in name:  # gains: sums of what lies on both sides of 0
                scale += expected[name.split()[0] + " likelihood"]
            tolerance = 1e-3 if name == "poisson gradient" else 3e-5  # which multiplies the rounding of dark pixels by counts / model
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=tolerance * scale, err_msg=f"{name} of {len(b)} frames")


def test_every_verb_on_objects_and_probes_agrees_with_the_reference() -> None:
    geometry = Geometry(8000.0, 1.0, 75e-6, (20, 16))
    found = []
    for do in (CpuVerbs(geometry), ReferenceVerbs(geometry)):
        rng = np.random.default_rng(3)
        X, kept, s, z, g, before = ((random(rng, 2, 30, 26), random(rng, 1, 20, 16)) for _ in range(6))
        light, line, sums = rng.random((30, 26)).astype(np.float32), do.line(), np.array([[50, -1, -4, -7, -9, 8, np.inf]])
        do.conjugate(line, s, z, g, before)
        do.conjugate(line, s, z, tuple(3 * x for x in z), before)
        do.line_step(line, X, kept, s, sums)
        lengths = line.copy()
        do.keep_lower(line, do.zero(), X, kept, g, before)
        gave = do.roughness(g[0], light, X[0], 0.3).read()
        do.line_roughness(sums, light, X[0], s[0], 0.3, line)
        do.smooth(z[0], 1.5)
        found.append([*X, *kept, *s, *z, *g, *before, lengths, line, np.array(gave), sums[:, :-1]])
    for mine, expected in zip(*found, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-5 * np.abs(expected[np.isfinite(expected)]).max())


def test_an_empty_batch_adds_nothing_and_darkness_stays_dark() -> None:
    geometry = Geometry(8000.0, 1.0, 75e-6, (12, 10))
    case = Case((12, 10), 1, 1, 1, np.uint16, False)
    for do in (CpuVerbs(geometry), ReferenceVerbs(geometry)):
        for noise in NOISES:
            none, sums = case.some(slice(5, 5)), do.line_sums()
            w = [do.exit_waves(case.O, case.P, none) for _ in range(3)]
            assert [each.read() for each in do.likelihood_gradient(w[0], none, noise)] == [0, 0]
            do.line_likelihoods(sums, *w, none, noise, do.line())
            do.finish()
            assert not sums.any()
            dark = [np.zeros_like(case.psi) for _ in range(3)]
            do.line_likelihoods(sums, *dark, case.b, noise, do.line())
            assert np.isfinite(do.likelihood_gradient(dark[0], case.b, noise)[0].read())
            assert not dark[0].any()
            assert np.isfinite(sums).all()
            assert not sums[0, 1:].any()


def test_what_is_not_finite_is_seen() -> None:
    geometry = Geometry(8000.0, 1.0, 75e-6, (20, 16))
    case = Case((20, 16), 2, 1, 1, np.uint16, False)
    case.P[0, 3, 3] = np.nan
    for do in (CpuVerbs(geometry), ReferenceVerbs(geometry)):
        for noise in NOISES:
            likelihood, residual = do.likelihood_gradient(do.to_detector(do.exit_waves(case.O, case.P, case.b), case.b), case.b, noise)
            assert np.isnan(likelihood.read())
            assert np.isnan(residual.read())
