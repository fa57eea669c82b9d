"""A GPU beside the CPU at the sizes that are used, by both schemes, over few iterations and over many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from on_host import OnHost
from test_cuda_sweeps import cuda, solved
from verb_cases import EPS, Case, distance, geometry_of, verb_results

from ptyplugin.solvers.verbs.cuda.device import Device
from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs

pytestmark = pytest.mark.gpu


def agree(one: Any, other: Any, tolerance: float) -> None:
    for mine, judge in ((one.object, other.object), (one.probe, other.probe)):
        assert np.linalg.norm(mine - judge) <= tolerance * np.linalg.norm(judge)


@pytest.mark.parametrize("fused", [False, True], ids=["S1", "S3"])
@pytest.mark.parametrize(
    ("shape", "modes", "kind"),
    [
        ((64, 64), 3, np.uint16),
        ((100, 100), 2, np.float32),
        ((128, 128), 1, np.uint16),
        ((192, 128), 1, np.uint16),
        ((200, 200), 2, np.uint16),
        ((256, 256), 1, np.uint16),
        ((256, 256), 5, np.uint16),
        ((512, 512), 1, np.uint16),
    ],
)
def test_verbs_agree_with_the_reference_at_every_size(device: Device, shape: tuple[int, int], modes: int, kind: Any, fused: bool) -> None:
    case, geometry = Case(shape, modes, 1, 1, kind), geometry_of(shape, False)
    expected = verb_results(ReferenceVerbs(geometry), case, case.b, geometry)
    for name, (value, terms) in verb_results(OnHost(CudaVerbs(geometry, device, fused)), case, case.b, geometry).items():
        assert distance(value, expected[name][0]) <= 16 * EPS * np.sqrt(terms), name


@pytest.mark.parametrize("recipe", ["DM(10)", "RAAR(10)", "AP(10)", "LSQML(10)", "ML(10)", "ePIE(10)", "mPIE(10, batch=6)"])
def test_both_schemes_agree_after_ten_iterations(simulate: Callable[..., Any], device: Device, recipe: str) -> None:
    e = simulate(side=64, grid=(5, 5), step=8.0, photons=1e6)
    agree(*(solved(e, recipe, cuda(device, fused=fused)) for fused in (True, False)), 1e-4)


@pytest.mark.parametrize("recipe", ["DM(10)", "LSQML(10)", "ePIE(10)"])
def test_gpu_and_cpu_agree_after_ten_iterations(simulate: Callable[..., Any], device: Device, recipe: str) -> None:
    e = simulate(side=64, grid=(5, 5), step=8.0, photons=1e6)
    agree(solved(e, recipe, cuda(device)), solved(e, recipe, "cpu"), 1e-4)


@pytest.mark.parametrize("recipe", ["DM(100)", "RAAR(100)"])
def test_gpu_and_cpu_agree_in_quality_after_a_hundred_iterations(
    simulate: Callable[..., Any], phase_difference: Callable[..., float], device: Device, recipe: str
) -> None:
    """By then a difference map has made much of every rounding: images are as good, and the same to what noise leaves open."""
    e = simulate()
    mine, judge = (solved(e, recipe, verbs) for verbs in (cuda(device), "cpu"))
    errors = [one.result().quality["error"] for one in (mine, judge)]
    assert errors[0] == pytest.approx(errors[1], rel=0.01)
    middle = np.s_[0, 16:-16, 16:-16]
    assert phase_difference(mine.object[middle], judge.object[middle]) <= 0.01


def test_a_sweep_beyond_the_memory_that_counts_may_take_gives_the_same_bits(simulate: Callable[..., Any], device: Device) -> None:
    e = simulate(side=64, grid=(8, 8))
    frame = 64 * 64
    block = {"batch_bytes": 8 * 8 * frame}
    mine, judge = (solved(e, "DM(6)", cuda(device, **block, **more)) for more in ({"counts_bytes": 20 * 2 * frame}, {}))
    np.testing.assert_array_equal(mine.object, judge.object)
    np.testing.assert_array_equal(mine.probe, judge.probe)
