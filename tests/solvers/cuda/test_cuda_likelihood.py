"""The verbs for GPUs of likelihoods and line searches, against the reference; on the CPU."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from frames_on_device import CASES, KINDS, Frames, Kind, Results, Side, agree, compare, judge, mine
from verb_cases import random

from ptyplugin.solvers.batches import Batch

NOISES = ("amplitude", "gaussian", "poisson")


def put_line(do: Any, line: Any, place: int, number: float) -> None:
    """line[place] <- number"""
    seen = do.host(line).copy()
    seen[place] = number
    do.put(line, seen)


def results(side: Side, case: Frames, b: Batch) -> Results:
    """The lengths of steps reach from a small one to one that turns the model over."""
    do, O, P, dO, dP = side.do, *map(side.of, (case.O, case.P, case.dO, case.dP))
    gave: Results = {}
    for noise in NOISES:
        A = side.detected(O, P, b)
        likelihood, residual = do.likelihood_gradient(A, b, noise)
        chi = do.to_sample(A, b)
        gave |= {f"{noise} gradient": side.host(chi), f"{noise} numbers": [likelihood.read(), residual.read()]}
        A = side.of(case.psi[b.index])
        do.likelihood_gradient(A, b, noise)
        gave[f"{noise} gradient of an array"] = side.host(A)
        for length in (1.0, 1e-3):
            sums, line = do.line_sums(), do.line()
            put_line(do, line, 0, length)
            for _ in range(2):
                A, ddA = side.detected(O, P, b), side.detected(dO, dP, b)
                dA = do.to_detector(do.reflect(do.exit_waves(dO, P, b), O, dP, b, 1, 1), b)
                do.line_likelihoods(sums, A, dA, ddA, b, noise, line)
            ((before, *gains),) = side.host(sums)
            gave |= {f"{noise} before {length}": before, f"{noise} after {length}": np.array(gains) + before}
            gave |= {f"{noise} {number} gain": gain for number, gain in enumerate(gains)}
    return gave


@pytest.mark.parametrize(("kind", "order"), CASES)
def test_every_verb_on_frames_agrees_with_the_reference(kind: Kind, order: str) -> None:
    # Dark pixels have gradients that are the rounding of the model times counts / model; gains have terms on both sides of 0.
    compare(kind, order, results, 2e-5, gradient=1e-3, gain=2e-3)


def whole_arrays(side: Side) -> list[Any]:
    """What each verb on objects and probes gives, one after the other."""
    do, rng = side.do, np.random.default_rng(3)
    X, kept, s, z, g, before = ((side.of(random(rng, 2, 30, 26)), side.of(random(rng, 1, 20, 16))) for _ in range(6))
    light, line, sums = side.of(rng.random((30, 26))), do.line(), do.line_sums()
    do.put(sums, np.array([[50.0, -1, -4, -7, -9, 8, np.inf]]))
    gave: list[Any] = []
    for turn in range(3):  # the first goes along the steepest direction alone, and so does the last, which leads uphill
        g = tuple(side.of(side.host(x) + random(rng, *x.shape)) for x in g)
        z = tuple(side.of((0.5 if turn < 2 else -0.1) * side.host(x) + 0.2 * random(rng, *x.shape)) for x in g)
        do.conjugate(line, s, z, g, before)
        gave += [side.host(line), *map(side.host, (*s, *before))]
    assert side.host(line)[2] != 0
    do.inward(s[0], X[0], 1.2)
    do.line_step(line, X, kept, s, sums)
    gave += [side.host(line), *map(side.host, (*X, *kept, *s))]
    do.keep_lower(line, do.zero(), X, kept, g, before)
    gave += [side.host(line), *map(side.host, (*X, *g))]
    do.put(sums, np.zeros((1, 7)))
    gave.append((do.zero() + do.roughness(g[0], light, X[0], 0.3)).read())
    do.line_roughness(sums, light, X[0], s[0], 0.3, line)
    do.smooth(z[0], 1.5)
    return [*gave, *map(side.host, (g[0], z[0])), *side.host(sums)[0]]


@pytest.mark.parametrize("order", ["0", "1"])
def test_every_verb_on_objects_and_probes_agrees_with_the_reference(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIM_REVERSED", order)
    kind = Kind((20, 16))
    given, expected = (whole_arrays(Side(do(kind), Frames(kind).frames)) for do in (mine, judge))
    assert len(given) == len(expected)
    for number, value in enumerate(given):
        agree(value, expected[number], 5e-6, f"number {number}")


def test_a_step_that_is_not_better_is_taken_back_once_in_a_row() -> None:
    kind = Kind((20, 16))
    case = Frames(kind)
    side = Side(mine(kind), case.frames)
    do, b = side.do, side.some(slice(0, 5))
    X, kept, g, before = ((side.of(case.O + shift), side.of(case.P + shift)) for shift in range(4))
    likelihood = do.likelihood_gradient(side.of(case.psi), b, "amplitude")[0]
    line = do.line()
    do.keep_lower(line, likelihood, X, kept, g, before)
    np.testing.assert_array_equal(do.host(X[0]), case.O)
    put_line(do, line, 1, likelihood.read() / 2)
    do.keep_lower(line, likelihood, X, kept, g, before)
    for now, there in zip((*X, *g), (*kept, *before), strict=True):
        np.testing.assert_array_equal(do.host(now), do.host(there))
    do.put(X[0], 0)
    do.keep_lower(line, likelihood, X, kept, g, before)
    assert not do.host(X[0]).any()


def test_a_step_and_a_direction_without_a_length_leave_everything_but_what_is_kept() -> None:
    kind = Kind((20, 16))
    case = Frames(kind)
    side = Side(mine(kind), case.frames)
    do, sums, line = side.do, side.do.line_sums(), side.do.line()
    X, kept, s, z, g, before = ((side.of(case.O + shift), side.of(case.P + shift)) for shift in range(6))
    do.put(s[0], np.nan)
    do.conjugate(line, s, z, g, before)  # the first one is the steepest, whatever has been there
    np.testing.assert_array_equal(do.host(s[0]), do.host(z[0]))
    do.line_step(line, X, kept, s, sums)  # nothing is gained
    for x, there, host in zip(X, kept, (case.O, case.P), strict=True):
        np.testing.assert_array_equal(do.host(x), host)
        np.testing.assert_array_equal(do.host(there), host)


def test_probes_that_were_changed_move_anew() -> None:
    kind = Kind((20, 16))
    case = Frames(kind)
    side = Side(mine(kind), case.frames)
    do, b = side.do, side.some(slice(0, 5))
    O, P, kept, s = side.of(case.O), side.of(case.P), side.of(case.P), side.of(case.dP)
    other, across = tuple(side.of(case.dO) for _ in range(3)), side.of(case.P + case.dP)
    sums, line = do.line_sums(), do.line()
    do.put(sums, np.array([[50.0, -1, -4, -7, -9, 8, 9]]))
    high = do.likelihood_gradient(side.of(case.psi), b, "amplitude")[0]
    for change in (
        lambda: do.line_step(line, (other[0], P), (other[1], kept), (other[2], s), sums),
        lambda: do.keep_lower(do.array(np.zeros(5)), high, (other[0], P), (other[1], kept), other[:2], other[:2]),
        lambda: do.conjugate(line, (other[0], P), (other[1], s), (other[2], s), (other[1], kept)),
        lambda: do.inward(P, across, 1e-3),
        lambda: do.smooth(P, 1.0),
        lambda: do.roll(P, (1, 2)),
    ):
        do.exit_waves(O, P, b)
        before = do.host(P)
        change()
        assert np.abs(do.host(P) - before).max() > 0
        anew = do.exit_waves(O, do.array(do.host(P)), b)
        np.testing.assert_array_equal(do.host(do.exit_waves(O, P, b)), do.host(anew))


def test_darkness_stays_dark() -> None:
    kind = KINDS[1]._replace(beam=False)
    case = Frames(kind)
    side = Side(mine(kind), case.frames)
    do, b, sums = side.do, side.some(slice(0, 5)), side.do.line_sums()
    for noise in NOISES:
        dark = [do.zeros(case.psi.shape, np.complex64) for _ in range(3)]
        do.line_likelihoods(sums, *dark, b, noise, do.line())
        assert np.isfinite(do.likelihood_gradient(dark[0], b, noise)[0].read())
        assert not do.host(dark[0]).any()
        assert np.isfinite(do.host(sums)).all()
        assert not do.host(sums)[0, 1:].any()


def test_a_model_may_vanish_along_a_line() -> None:
    kind = KINDS[1]._replace(beam=False)
    case = Frames(kind)
    side = Side(mine(kind), case.frames)
    sums, line = side.do.line_sums(), side.do.line()
    put_line(side.do, line, 0, 1.0)
    for noise in NOISES:
        waves = [side.of(factor * case.psi) for factor in (1, -1.3, 0.3)]  # rounding makes some counts negative
        side.do.line_likelihoods(sums, *waves, side.some(slice(0, 5)), noise, line)
        assert np.isfinite(side.host(sums)).all()


@pytest.mark.parametrize("spoilt", range(3))
def test_what_is_not_finite_is_seen(spoilt: int) -> None:
    kind = Kind((20, 16), 2)
    case = Frames(kind)
    side = Side(mine(kind), case.frames)
    do, b = side.do, side.some(slice(0, 5))
    waves = [case.psi.copy() for _ in range(3)]
    waves[spoilt][3, 1, np.nonzero(b.good)[0][7], np.nonzero(b.good)[1][7]] = np.nan
    for noise in NOISES:
        sums = do.line_sums()
        do.line_likelihoods(sums, *map(side.of, waves), b, noise, do.line())
        assert np.isnan(do.host(sums)[0, 1:]).all()
        assert np.isnan(do.host(sums)[0, 0]) == (spoilt == 0)
        if spoilt == 0:
            assert all(np.isnan(each.read()) for each in do.likelihood_gradient(side.of(waves[0]), b, noise))
