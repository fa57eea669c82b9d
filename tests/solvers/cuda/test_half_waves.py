"""Stored waves in half precision, on the CPU: what it costs a reconstruction, and that every verb knows them."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from frames_on_device import Frames, Kind, Side, agree
from shim import HostDevice

from ptyplugin.model import DeviceError, Geometry, Recipe
from ptyplugin.solvers.solver import Solver
from ptyplugin.solvers.verbs.choice import verbs_on
from ptyplugin.solvers.verbs.cuda.half import HalfWaves
from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs

#: What rounding to 11 bits may change, of the largest number of an array.
ROUNDING = 2**-11


def half(geometry: Geometry, fused: bool = True, device: HostDevice | None = None) -> CudaVerbs:
    verbs = CudaVerbs(geometry, device or HostDevice(), fused)
    verbs.half_waves = True
    return verbs


def solved(e: Any, recipe: str, verbs: Any, **how: Any) -> Solver:
    """From a rough probe: a smooth one leaves pixels of the first waves dark, and there the phase is rounding."""
    rng = np.random.default_rng(0)
    rough = e.probe * (1 + 0.3 * (rng.standard_normal(e.probe.shape) + 1j * rng.standard_normal(e.probe.shape)))
    solver = Solver(e.frames, e.scan, e.geometry, Recipe.parse(recipe), verbs=verbs, start_probe=rough, **how)
    for _ in solver:
        pass
    return solver


@pytest.mark.parametrize(
    ("recipe", "what", "how", "fused"),
    [
        ("DM(20)", {}, {}, True),
        ("RAAR(10)", {"modes": 2}, {"probe_modes": 2}, False),
        ('DM(8, synchronise=4, positions="correlation", positions_from=2, centre_probe=2)', {}, {}, True),
        ("AP(6, synchronise=3)", {"near_field": True, "photons": 1e6}, {}, True),
    ],
    ids=["DM", "RAAR by S1", "refined", "near field"],
)
def test_a_reconstruction_is_as_good(
    simulate: Callable[..., Any], recipe: str, what: dict[str, Any], how: dict[str, Any], fused: bool
) -> None:
    e = simulate(side=24, grid=(5, 5), **what)
    mine, judge = (solved(e, recipe, make, **how).result() for make in (lambda geometry: half(geometry, fused), "reference"))
    assert mine is not None
    assert judge is not None
    assert mine.quality["error"] == pytest.approx(judge.quality["error"], rel=0.01)
    assert mine.verdict.word == judge.verdict.word


def test_they_take_half_the_memory(simulate: Callable[..., Any]) -> None:
    e, most = simulate(side=24, grid=(8, 8)), []
    for make in (half, CudaVerbs):
        device = HostDevice()
        solved(e, "DM(3)", lambda geometry, make=make, device=device: make(geometry, device=device), held_out=0.0)
        most.append(device.most_in_use)
    assert most[1] - most[0] == 64 * 24 * 24 * 4


def test_every_verb_knows_them() -> None:
    kind = Kind((20, 26), 2, 2, 2)
    case = Frames(kind)
    mine, judge = Side(half(kind.geometry), case.frames), Side(CudaVerbs(kind.geometry, HostDevice()), case.frames)
    rounded = case.psi.view(np.float32).astype(np.float16).astype(np.float32).view(np.complex64)
    found = []
    for side, psi in ((mine, mine.do.array(case.psi)), (judge, judge.do.array(rounded))):
        b, O, P = side.some(slice(0, 5)), side.of(case.O), side.of(case.P)
        results = {"powers": side.do.frame_powers(psi, b), "products": side.do.gather(psi, O, P, b), "finite": side.do.all_finite(psi)}
        results["shifts"] = side.do.correlate(psi, O, P, b, 1.5)
        for name, sums, of in (("object", side.do.object_sums, P), ("probe", side.do.probe_sums, O)):
            num, den = side.do.sums(O if name == "object" else P)
            sums(num, den, psi, of, b)
            results[name] = side.host(num)
        side.do.frame_phases(psi, np.exp(1j * np.arange(5)), b)
        side.do.move_waves(psi, np.full((5, 8, 2), 0.3, np.float32), b)
        side.do.roll(psi, (3, -2))
        results["psi"] = side.host(psi)
        side.do.advance(psi, side.do.exit_waves(O, P, b), O, P, b, 0.5, 0.5, 1)
        results["stepped"] = side.host(psi)
        found.append(results)
    assert isinstance(psi, HalfWaves) is False
    for name, value in found[0].items():
        agree(value, found[1][name], 3 * ROUNDING if name in ("psi", "stepped") else 2e-6, name)


def test_what_is_too_large_for_them_is_not_finite() -> None:
    do = half(Kind((16, 16)).geometry)
    psi = np.full((2, 1, 16, 16), 3 + 4j, np.complex64)
    assert do.all_finite(do.array(psi))
    psi[1, 0, 3, 3] = 1e5
    assert not do.all_finite(do.array(psi))


def test_to_the_host_and_back_keeps_their_bits() -> None:
    do = half(Kind((16, 16)).geometry)
    psi = np.random.default_rng(0).standard_normal((2, 1, 16, 16)).astype(np.complex64)
    once = do.host(do.array(psi))
    assert once.dtype == np.complex64
    assert np.abs(once - psi).max() <= ROUNDING * np.abs(psi).max()
    np.testing.assert_array_equal(do.host(do.array(once)), once)


def test_a_solver_stores_them_if_asked_to(simulate: Callable[..., Any]) -> None:
    e = simulate(side=24, grid=(8, 8))
    plans = [solver_on(e, verbs_on(HostDevice(), half)).plan().card for half in (True, False)]
    assert plans[0] is not None
    assert plans[1] is not None
    assert 2 * plans[0].waves_bytes == plans[1].waves_bytes > 0


def solver_on(e: Any, verbs: Any) -> Solver:
    return Solver(e.frames, e.scan, e.geometry, Recipe.parse("DM(3)"), verbs=verbs)


def test_they_are_for_gpus(simulate: Callable[..., Any]) -> None:
    e = simulate(side=24, grid=(8, 8))
    with pytest.raises(DeviceError, match="on a GPU only, not on CPU"):
        Solver(e.frames, e.scan, e.geometry, Recipe.parse("DM(3)"), precision="half", device="cpu")
