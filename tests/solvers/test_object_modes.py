"""Object modes: states of the sample that add incoherently."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import Geometry, MemoryFrames, Recipe, SolverError
from ptyplugin.solvers import Solver, solve
from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.modes import orthogonal_object
from ptyplugin.solvers.state import start_object
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


def two_states(e: Any) -> tuple[MemoryFrames, NDArray[np.complex128]]:
    """Frames of ``e`` while its domains switch: 60 % of the exposure in one state, 40 % in the other; and both states, weighted."""
    rows, columns = np.indices(e.object.shape)
    domain = np.sin(rows / 4 + columns / 9) > 0.3
    states = np.stack([np.sqrt(0.6) * e.object * np.exp(0.7j * domain), np.sqrt(0.4) * e.object * np.exp(-0.7j * domain)])
    patches = np.stack([states[:, y : y + 32, x : x + 32] for y, x in e.corners])
    counts = (np.abs(np.fft.fftshift(np.fft.fft2(e.probe[0] * patches), axes=(-2, -1))) ** 2).sum(axis=1) / 32**2
    return MemoryFrames(np.random.default_rng(5).poisson(counts).astype(np.uint16)), states


def light_on(e: Any) -> NDArray[np.float64]:
    """(y, x): how much light fell on each pixel of the sample."""
    light = np.zeros(e.object.shape)
    for y, x in e.corners:
        light[y : y + 32, x : x + 32] += np.abs(e.probe[0]) ** 2
    return light


@pytest.mark.parametrize("recipe", ["DM(60)", "LSQML(60)", "ePIE(60)", "mPIE(60)", "RAAR(60) + AP(20)", "ML(60)"])
def test_a_sample_of_two_states_is_explained_by_two_modes(experiment: Any, recipe: str) -> None:
    frames, states = two_states(experiment)
    k = np.arange(32) - 16
    wrong = experiment.probe * np.exp(0.005j * (k[:, None] ** 2 + k[None, :] ** 2))
    how = {"recipe": Recipe.parse(recipe), "start_probe": wrong}
    one, two = (solve(frames, experiment.scan, experiment.geometry, object_modes=modes, **how) for modes in (1, 2))
    assert one is not None
    assert two is not None
    assert two.object.shape == (2, *one.object.shape[1:])
    assert two.quality["error"] < 0.6 * one.quality["error"]
    assert "object_mode_1_share" not in one.quality
    truth = orthogonal_object(states, light_on(experiment))
    assert replace(experiment, object=truth[0]).phase_rms(two.object[0], two.positions_px) < 0.1
    expected = np.array([0.9, 0.1])
    shares = np.array([two.quality[f"object_mode_{number}_share"] for number in (1, 2)])
    np.testing.assert_allclose(shares, expected, atol=0.03)


def test_ordered_modes_mean_the_same_frames_and_are_orthogonal_in_the_light() -> None:
    rng = np.random.default_rng(8)
    modes, light = random(rng, 3, 20, 22), rng.random((20, 22)).astype(np.float32)
    ordered = orthogonal_object(modes, light)
    assert ordered.dtype == np.complex64
    for y, x in ((3, 4), (11, 7)):
        np.testing.assert_allclose(
            (ordered[:, y, x].conj() * ordered[:, 5, 5]).sum(), (modes[:, y, x].conj() * modes[:, 5, 5]).sum(), rtol=1e-4
        )
    gram = np.einsum("kyx,lyx->kl", ordered.conj(), light * ordered)
    powers = np.diag(gram).real
    assert (np.diff(powers) < 0).all()
    assert np.abs(gram - np.diag(powers)).max() < 1e-5 * powers[0]


def test_the_start_is_the_same_on_every_rank_and_one_mode_is_what_it_was() -> None:
    first, again = (start_object((30, 28), np.complex64, 3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[:1], start_object((30, 28), np.complex64))
    np.testing.assert_array_equal(first[0], 1)
    assert np.abs(first[1]).std() > 0.1 * np.abs(first[1]).mean()
    assert np.abs(np.vdot(first[1], first[2])) < 0.2 * np.linalg.norm(first[1]) * np.linalg.norm(first[2])


def test_powers_of_probe_modes_are_told(simulate: Any) -> None:
    e = simulate(modes=2)
    result = solve(e.frames, e.scan, e.geometry, recipe=Recipe.parse("DM(30)"), probe_modes=2, object_modes=2)
    assert result is not None
    powers = (np.abs(result.probe) ** 2).sum(axis=(1, 2))
    for what, count in (("probe", 2), ("object", 2)):
        shares = [result.quality[f"{what}_mode_{number}_share"] for number in range(1, count + 1)]
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)
    assert result.quality["probe_mode_2_share"] == pytest.approx(powers[1] / powers.sum(), rel=1e-4)
    assert result.provenance["object_modes"] == 2


def test_the_near_field_knows_states_of_the_sample_and_sub_steps(simulate: Any) -> None:
    e = simulate(near_field=True, photons=1e6, substeps=2, grid=(5, 5))
    for recipe in ("DM(5)", "LSQML(5)", "ePIE(5)"):
        results = [
            solve(
                e.frames,
                e.scan,
                e.geometry,
                recipe=Recipe.parse(recipe),
                start_probe=e.probe,
                object_modes=2,
                verbs=verbs,
                precision="single",
            )
            for verbs in ("cpu", "reference")
        ]
        errors = [result.quality["error"] for result in results if result is not None]
        assert errors[0] == pytest.approx(errors[1], rel=1e-3)


def test_the_plan_counts_object_modes_and_fewer_than_one_is_told(experiment: Any) -> None:
    how: Any = (experiment.frames, experiment.scan, experiment.geometry, Recipe.parse("DM(1)"))
    one, three = (Solver(*how, probe_modes=2, object_modes=modes).plan() for modes in (1, 3))
    assert (one.waves, three.waves) == (2, 6)
    assert three.waves_bytes == 3 * one.waves_bytes
    assert three.canvas_bytes == 3 * one.canvas_bytes
    with pytest.raises(SolverError, match="object_modes = 0: give 1 or more"):
        Solver(*how, object_modes=0)


@pytest.mark.system
def test_ranks_agree_on_states_of_the_sample(experiment: Any, ranks_of: Any) -> None:
    both = replace(experiment, frames=two_states(experiment)[0])
    one, two = (ranks_of(size)(both, experiment.probe, "DM(5) + LSQML(25)", object_modes=2).arrays for size in (1, 2))
    assert two["object"].shape == one["object"].shape
    assert two["error"] < 1.3 * one["error"]
    for mode, other in zip(two["object"], one["object"], strict=True):
        assert np.abs(np.vdot(mode, other)) > 0.9 * np.linalg.norm(mode) * np.linalg.norm(other)
