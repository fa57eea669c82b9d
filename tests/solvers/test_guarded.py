"""Nobody but the verbs looks into their arrays: whole reconstructions with arrays that refuse it, which change no bit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from guarded import Elsewhere, GuardedVerbs, Refused
from numpy.typing import NDArray

from ptyplugin.model import Recipe, Reconstruction
from ptyplugin.solvers import Checkpoint, OneRank, Solver
from ptyplugin.solvers.batches import RankFrames, in_blocks
from ptyplugin.solvers.verbs import DeviceScalar
from ptyplugin.solvers.verbs.cpu import CpuVerbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

#: Every algorithm, and all that is refined.
RECIPES = [
    "DM(4, overlap_rounds=2)",
    "DM(4, synchronise=2)",
    "RAAR(3)",
    "AP(3)",
    "ePIE(3)",
    "rPIE(2, batch=3)",
    "mPIE(4, batch=2, slow_from=3)",
    "LSQML(4)",
    'LSQML(3, noise="poisson", batches="compact", probe_from=2)',
    "ML(3)",
    'ML(3, noise="poisson", smooth_gradient=2, regularise=0.1, probe_from=2)',
    'ePIE(3, positions="gradient", positions_from=1)',
    'LSQML(3, positions="correlation", positions_from=1)',
    'DM(3, positions="trials", positions_from=1)',
    'ML(3, positions="gradient", positions_from=1)',
    'DM(6, background="smooth", intensities="fitted")',
    'LSQML(6, background="constant")',
    "mPIE(4, batch=5, probe_support=0.8, centre_probe=1, slow_from=9)",
    "DM(4, centre_probe=2)",
    "ML(3, centre_probe=1)",
    'LSQML(3, probe="fixed")',
    'DM(2, probe="fixed") + AP(2) + ePIE(2)',
]


@pytest.fixture(scope="module")
def scan(simulate: Callable[..., Any]) -> Any:
    """56 frames, of which some are held out; its start probe stands off the middle."""
    made = simulate(side=24, grid=(8, 7), step=3.0)
    return dataclasses.replace(made, probe=np.roll(made.probe, 2, axis=-1))


def solver_of(scan: Any, recipe: str, verbs: Any, **how: Any) -> Solver:
    return Solver(scan.frames, scan.scan, scan.geometry, Recipe.parse(recipe), verbs=verbs, **({"start_probe": scan.probe} | how))


def done(solver: Solver) -> Reconstruction:
    for _ in solver:
        pass
    result = solver.result()
    assert result is not None
    np.testing.assert_array_equal(solver.probe, result.probe)
    return result


def assert_same(guarded: Reconstruction, plain: Reconstruction) -> None:
    for name in ("object", "probe", "positions_px", "mask", "background", "intensities"):
        np.testing.assert_array_equal(getattr(guarded, name), getattr(plain, name))
    assert guarded.quality == plain.quality
    assert [event.errors for event in guarded.progress] == [event.errors for event in plain.progress]
    assert guarded.verdict == plain.verdict


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_result_is_that_of_the_reference_to_the_last_bit(scan: Any, recipe: str) -> None:
    assert_same(done(solver_of(scan, recipe, GuardedVerbs)), done(solver_of(scan, recipe, "reference")))


@pytest.mark.parametrize(
    "recipe", ["DM(3, synchronise=2)", "LSQML(2)", "ML(2)", 'rPIE(2, batch=4, positions="correlation", positions_from=1)']
)
def test_with_modes_of_the_probe_and_of_the_object(scan: Any, recipe: str) -> None:
    modes = {"probe_modes": 2, "object_modes": 2}
    assert_same(done(solver_of(scan, recipe, GuardedVerbs, **modes)), done(solver_of(scan, recipe, "reference", **modes)))


@pytest.mark.parametrize("recipe", ["DM(3)", 'LSQML(3, positions="gradient", positions_from=1)', "ePIE(2)"])
def test_in_the_near_field(simulate: Callable[..., Any], recipe: str) -> None:
    near = simulate(side=24, grid=(8, 7), step=3.0, near_field=True)
    assert_same(done(solver_of(near, recipe, GuardedVerbs)), done(solver_of(near, recipe, "reference")))


def test_a_start_is_found_before_frames_are_held(scan: Any) -> None:
    assert done(solver_of(scan, "DM(2)", GuardedVerbs, start_probe=None)).quality["error"] < 1


class Alike(OneRank):
    """Two ranks, of which the other has and says always the same."""

    size = 2

    def sum(self, term: Any) -> Any:
        array = term.array if isinstance(term, DeviceScalar) else term.inside if isinstance(term, Elsewhere) else term
        np.add(array, array, out=array)
        return term

    def sum_canvas(self, num: Any, den: Any, window: Any) -> Any:
        return self.sum(num), self.sum(den)


@pytest.mark.parametrize("recipe", ["DM(2)", "mPIE(3)", "LSQML(2)", "ePIE(3, centre_probe=2)"])
def test_on_several_ranks(scan: Any, recipe: str) -> None:
    guarded, plain = (done(solver_of(scan, recipe, verbs, ranks=Alike())) for verbs in (GuardedVerbs, "reference"))
    assert_same(guarded, plain)


@pytest.mark.parametrize(
    ("recipe", "after"),
    [
        ("DM(4)", 2),
        ("mPIE(3)", 2),
        ("ML(4)", 2),
        ('LSQML(6, positions="gradient", positions_from=1, background="smooth")', 5),
    ],
)
def test_a_checkpoint_is_of_the_host_and_brings_everything_back(scan: Any, recipe: str, after: int) -> None:
    first, second = (solver_of(scan, recipe, GuardedVerbs) for _ in range(2))
    for progress in first:
        if progress.iteration == after:
            break
    taken = first.checkpoint()
    assert all(isinstance(array, np.ndarray) for array in taken.arrays.values())
    task, numbers = (json.loads(json.dumps(part)) for part in (taken.task, taken.numbers))
    second.resume(Checkpoint(taken.iteration, task, {name: array.copy() for name, array in taken.arrays.items()}, numbers))
    plain = done(solver_of(scan, recipe, "reference"))
    resumed = done(second)
    np.testing.assert_array_equal(resumed.object, plain.object)
    np.testing.assert_array_equal(resumed.probe, plain.probe)
    assert [event.errors for event in resumed.progress] == [event.errors for event in plain.progress]


def test_a_stage_that_runs_away_begins_again(scan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, done_so_far = ReferenceVerbs.clip_modulus, [0]

    def spoiling(self: ReferenceVerbs, X: NDArray[Any], largest: float) -> None:
        """In the second iteration of the second stage."""
        clip(self, X, largest)
        done_so_far[0] += 1
        if done_so_far[0] == 4:
            X[0, 9, 9] = np.nan

    monkeypatch.setattr(ReferenceVerbs, "clip_modulus", spoiling)
    results = []
    for verbs in (GuardedVerbs, "reference"):
        done_so_far[0] = 0
        results.append(done(solver_of(scan, "LSQML(2) + mPIE(3)", verbs)))
    assert "diverged" in "".join(results[0].verdict.reasons)
    assert_same(*results)


@pytest.mark.parametrize(
    ("recipe", "keys", "sweeps"),
    [
        ("DM(5, probe_from=3)", 2, 5),
        ("DM(5, synchronise=2)", 2, 3),
        ("RAAR(2) + AP(2)", 4, 4),
        ("ePIE(3)", 1, 3),
        ("mPIE(5, slow_from=3)", 1, 5),
        ("LSQML(3)", 1, 3),
        ("ML(3)", 0, 0),
        ('LSQML(4, positions="gradient", positions_from=1)', 1, 4),
        ("ePIE(3, centre_probe=1)", 1, 3),
    ],
)
def test_sweeps_of_one_phase_are_one(scan: Any, recipe: str, keys: int, sweeps: int) -> None:
    made: list[GuardedVerbs] = []
    for _ in solver_of(scan, recipe, lambda geometry: made.append(GuardedVerbs(geometry)) or made[0]):
        pass
    assert (len(set(made[0].repeated)), len(made[0].repeated)) == (keys, sweeps)


def test_frames_are_held_once_and_those_held_out_for_themselves(scan: Any) -> None:
    made: list[GuardedVerbs] = []
    done(
        solver_of(
            scan, 'DM(3, positions="gradient", positions_from=1) + ePIE(1)', lambda geometry: made.append(GuardedVerbs(geometry)) or made[0]
        )
    )
    assert [len(frames) for frames in made[0].held] == [54, 2]
    assert all(isinstance(frames.counts, np.ndarray) for frames in made[0].held)


USES: list[Callable[[Any], Any]] = [
    np.asarray,
    np.abs,
    np.sum,
    float,
    bool,
    list,
    lambda X: X + 1,
    lambda X: np.ones((2, 3)) * X,
    lambda X: X == X,
    lambda X: X < 1,
    lambda X: 1 in X,
    lambda X: X[np.array([0, 1])],
    lambda X: X[0, 0],
    lambda X: X.__setitem__(..., 0),
    lambda X: X.real,
]


@pytest.mark.parametrize("use", USES)
def test_the_guard_refuses(use: Callable[[Any], Any]) -> None:
    with pytest.raises((Refused, AttributeError)):
        use(Elsewhere(np.ones((2, 3))))


def test_the_guard_lets_shapes_slices_and_copies_pass() -> None:
    X = Elsewhere(np.arange(6.0).reshape(2, 3))
    assert (len(X), X.shape, X.dtype, X.size, X.ndim, X.nbytes) == (2, (2, 3), np.float64, 6, 2, 48)
    X[1:, ::2].inside[...] = 9
    assert X.inside.tolist() == [[0, 1, 2], [9, 4, 9]]
    copy = X.reshape(3, 2).copy()
    copy.inside[...] = 0
    assert X.inside.sum() > 0


def test_the_guard_refuses_sweeps_that_are_not_what_they_say(scan: Any) -> None:
    do, frames = GuardedVerbs(scan.geometry), _some_frames(scan)
    X = do.zeros((1, 24, 24), np.complex64)
    held = in_blocks(do.hold(frames), 10, len(frames))
    with pytest.raises(Refused, match="not held"):
        do.repeat("key", in_blocks(frames, 10, len(frames)), do.zero)
    with pytest.raises(Refused, match="looks at numbers"):
        do.repeat("key", held, lambda: do.host(X))
    with pytest.raises(Refused, match="looks at numbers"):
        do.repeat("key", held, lambda: do.zero().read())
    with pytest.raises(Refused, match="looks at numbers"):
        do.repeat("key", held, lambda: next(iter(held)).host_counts)
    b = next(iter(held))
    with pytest.raises(Refused, match="lies elsewhere"):
        do.exit_waves(X, X, dataclasses.replace(b, corners=b.corners + 1))

    def clipped(largest: float) -> Callable[[], DeviceScalar]:
        def sweep() -> DeviceScalar:
            do.clip_modulus(X, largest)
            total: DeviceScalar = do.zero()
            return total

        return sweep

    for _ in range(3):
        do.repeat("clip", held, clipped(1.0))
    with pytest.raises(Refused, match="another sweep"):
        do.repeat("clip", held, clipped(2.0))


def _some_frames(scan: Any) -> Any:
    counts: NDArray[Any] = np.ones((20, 24, 24), np.uint16)
    corners = np.zeros((20, 1, 2), np.int32)
    return RankFrames(np.arange(20), corners, corners.astype(np.float32), counts, np.ones((24, 24), bool))


@pytest.mark.parametrize("make", [ReferenceVerbs, CpuVerbs, GuardedVerbs])
def test_words_about_arrays(scan: Any, make: Callable[..., Any]) -> None:
    do, there = make(scan.geometry), np.arange(24.0).reshape(1, 2, 3, 4).astype(np.complex64)
    X = do.array(there.copy())
    assert X.dtype == np.complex64
    do.roll(X, (1, -2))
    np.testing.assert_array_equal(do.host(X), np.roll(there, (1, -2), (-2, -1)))
    do.put(X, there)
    np.testing.assert_array_equal(do.host(X), there)
    do.put(X[:, 1], do.array(there[:, 0].copy()))
    np.testing.assert_array_equal(do.host(X)[0, 1], there[0, 0])
    do.put(X, 3)
    assert (do.host(X) == 3).all()
    zeros = do.zeros((2, 3), np.float32)
    assert (zeros.dtype, do.host(zeros).tolist()) == (np.float32, [[0, 0, 0], [0, 0, 0]])
    assert do.all_finite(X, zeros)
    for spoiled in (np.nan, np.inf):
        do.put(X[0, 0, 0], spoiled)
        assert not do.all_finite(zeros, X)
