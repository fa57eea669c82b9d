"""Sums into an object by patches: the same as by copies, whatever the number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from ptyplugin.model import Geometry
from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs import cpu_patches
from ptyplugin.solvers.verbs.cpu import CpuVerbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

SHAPE = (12, 10)


def batch(frames: int, substeps: int, rests: float, spread: int) -> Batch:
    rng = np.random.default_rng(frames)
    corners = rng.integers(0, spread, (frames, substeps, 2)).astype(np.int32)
    some = (rests * rng.uniform(-0.5, 0.5, corners.shape)).astype(np.float32)
    return Batch(slice(0, frames), corners, some, np.zeros((frames, *SHAPE), np.uint16), np.ones(SHAPE, bool))


@pytest.mark.parametrize("rests", [0.0, 1.0])
@pytest.mark.parametrize(("modes", "object_modes", "substeps"), [(1, 1, 1), (2, 1, 3), (2, 2, 1)])
def test_patches_give_what_copies_give(modes: int, object_modes: int, substeps: int, rests: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, b = np.random.default_rng(1), batch(7, substeps, rests, 40)

    def random(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)

    O, P, psi = random(object_modes, 60, 55), random(modes, *SHAPE), random(7, modes * substeps * object_modes, *SHAPE)  # noqa: E741
    geometry = Geometry(8000.0, 1.0, 75e-6, SHAPE)
    judge = ReferenceVerbs(geometry, np.complex64)
    expected = judge.sums(O)
    judge.object_sums(*expected, psi, P, b)

    def sums(threads: int) -> list[np.ndarray]:
        do = CpuVerbs(geometry, threads)
        gave = do.sums(O)
        do.object_sums(*gave, psi, P, b)
        do.finish()
        return list(gave)

    assert cpu_patches.are_cheaper(b, 2)
    two, three = sums(2), sums(3)
    monkeypatch.setattr(cpu_patches, "are_cheaper", lambda b, threads: False)
    for by_two, by_three, by_copies, judged in zip(two, three, sums(2), expected, strict=True):
        np.testing.assert_array_equal(by_two, by_three)
        for gave in (by_two, by_copies):
            np.testing.assert_allclose(gave, judged, rtol=0, atol=1e-5 * np.abs(judged).max())


def test_several_sums_of_one_batch_do_not_disturb_each_other() -> None:
    b, rng = batch(7, 1, 0, 40), np.random.default_rng(1)
    psi = [rng.standard_normal((7, 1, *SHAPE)).astype(np.complex64) for _ in range(2)]
    P = np.ones((1, *SHAPE), np.complex64)
    do = CpuVerbs(Geometry(8000.0, 1.0, 75e-6, SHAPE), 2)
    together = [do.sums(np.empty((1, 60, 55), np.complex64)) for _ in psi]
    alone = [do.sums(num) for num, _ in together]
    for waves, gave in zip(psi, together, strict=True):
        do.object_sums(*gave, waves, P, b)
    do.finish()
    for waves, gave, expected in zip(psi, together, alone, strict=True):
        do.object_sums(*expected, waves, P, b)
        do.finish()
        np.testing.assert_array_equal(gave[0], expected[0])


def test_patches_are_for_small_batches_on_large_objects_and_several_threads() -> None:
    assert cpu_patches.are_cheaper(batch(20, 1, 0, 300), 2)
    assert not cpu_patches.are_cheaper(batch(20, 1, 0, 300), 1), "one thread needs no copies"
    assert not cpu_patches.are_cheaper(batch(200, 1, 0, 3), 2), "all frames on one place are a small copy"
    assert not cpu_patches.are_cheaper(batch(1, 1, 0, 3), 2), "one frame is for one thread"
