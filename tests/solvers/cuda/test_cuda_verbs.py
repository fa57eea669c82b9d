"""The verbs for GPUs against the reference, on the CPU: each verb alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from on_host import OnHost
from shim import HostDevice, reversed_order
from verb_cases import EPS, Case, distance, geometry_of, verb_results

from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs
from ptyplugin.solvers.verbs.reference import ReferenceVerbs


@pytest.mark.parametrize("near_field", [False, True], ids=["far", "near"])
@pytest.mark.parametrize(
    ("shape", "modes", "object_modes", "substeps", "kind"),
    [
        ((32, 32), 1, 1, 1, np.uint16),
        ((32, 24), 3, 2, 2, np.uint16),
        ((40, 40), 2, 1, 1, np.float32),
        ((25, 27), 2, 2, 1, np.float32),
    ],
)
def test_every_verb_agrees_with_the_reference(
    shape: tuple[int, int], modes: int, object_modes: int, substeps: int, kind: Any, near_field: bool
) -> None:
    case, geometry = Case(shape, modes, object_modes, substeps, kind), geometry_of(shape, near_field)
    mine, judge = OnHost(CudaVerbs(geometry, HostDevice())), ReferenceVerbs(geometry)
    for b in (case.b, case.one(4)):
        expected = verb_results(judge, case, b, geometry)
        for name, (value, terms) in verb_results(mine, case, b, geometry).items():
            assert distance(value, expected[name][0]) <= 16 * EPS * np.sqrt(terms), f"{name} of {len(b)} frames"


@pytest.mark.parametrize("fused", [False, True], ids=["S1", "S3"])
@pytest.mark.parametrize("near_field", [False, True], ids=["far", "near"])
@pytest.mark.parametrize(("shape", "modes", "object_modes", "substeps"), [((32, 32), 2, 1, 1), ((24, 32), 1, 2, 2)])
def test_verbs_know_what_rounding_left_over(
    shape: tuple[int, int], modes: int, object_modes: int, substeps: int, near_field: bool, fused: bool
) -> None:
    """A moved probe has passed through two more transforms, in single precision in both."""
    case, geometry = Case(shape, modes, object_modes, substeps, np.uint16), geometry_of(shape, near_field)
    rests = np.random.default_rng(3).uniform(-0.5, 0.5, case.b.corners.shape).astype(np.float32)
    b = replace(case.b, rests=rests)
    mine, judge = OnHost(CudaVerbs(geometry, HostDevice(), fused)), ReferenceVerbs(geometry)
    expected = verb_results(judge, case, b, geometry)
    for name, (value, terms) in verb_results(mine, case, b, geometry).items():
        assert distance(value, expected[name][0]) <= 64 * EPS * np.sqrt(terms + 2 * np.log2(b.good.size)), name


def test_threads_in_reverse_order_give_the_same_bits() -> None:
    """Else a kernel would miss a barrier."""
    case, geometry = Case((32, 24), 2, 1, 2, np.uint16), geometry_of((32, 24), False)
    forward = verb_results(OnHost(CudaVerbs(geometry, HostDevice())), case, case.b, geometry)
    with reversed_order():
        backward = verb_results(OnHost(CudaVerbs(geometry, HostDevice())), case, case.b, geometry)
    for name, (value, _) in forward.items():
        np.testing.assert_array_equal(value, backward[name][0], err_msg=name)
