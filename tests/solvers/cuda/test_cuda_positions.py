"""The verbs for GPUs about positions, against the reference; on the CPU."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from frames_on_device import BATCHES, CASES, Frames, Kind, Results, Side, agree, compare, judge, mine
from scipy import ndimage

from ptyplugin.solvers.batches import Batch


def results(side: Side, case: Frames, b: Batch) -> Results:
    do, O, P = side.do, side.of(case.O), side.of(case.P)
    along = do.derivatives(O)
    gave: Results = {f"derivative {axis}": side.host(X) for axis, X in zip("yx", along, strict=True)}
    A, Ay, Ax = (side.detected(X, P, b) for X in (O, *along))
    gave |= products(do.position_gradient(A, Ay, Ax, b), "waves on the detector")
    A, Ay, Ax = (do.to_sample(side.detected(X, P, b), b) for X in (O, *along))  # which are owed a factor
    gave |= products(do.position_gradient(A, Ay, Ax, b), "waves")
    shifts = np.random.default_rng(1).uniform(-4, 4, (len(b), case.waves, 2))
    for name, psi in (("array", side.of(case.psi[b.index])), ("waves", do.to_sample(side.detected(O, P, b), b))):
        do.move_waves(psi, shifts, b)
        gave[f"move_waves of {name}"] = side.host(psi)
    return gave


def products(sums: Any, of: str) -> Results:
    """The squares, and what lies between them in units of their roots: it may be about 0."""
    yy, xx, yx, yr, xr, rr = sums.T
    between = np.stack([yx / np.sqrt(yy * xx), yr / np.sqrt(yy * rr), xr / np.sqrt(xx * rr), np.ones(len(sums))])
    return {f"squares of {of}": sums[:, [0, 1, 5]], f"products of {of}": between}


@pytest.mark.parametrize(("kind", "order"), CASES)
def test_every_verb_agrees_with_the_reference(kind: Kind, order: str) -> None:
    compare(kind, order, results, 1e-5)


SMOOTH = [
    (Kind((36, 30), rests=False), "0"),
    (Kind((36, 30), 2, 1, 3), "0"),
    (Kind((32, 40), 2, 2, 1), "1"),
    (Kind((30, 34), 1, 2, 2, near_field=True), "0"),
]


def smooth(kind: Kind) -> tuple[Frames, Any, Any]:
    """Frames, and a smooth object and beam that they might be of: 12 px larger on every side, and not everywhere as clear."""
    rng, case = np.random.default_rng(5), Frames(kind)

    def waves(shape: tuple[int, int], width: float) -> Any:
        phase = ndimage.gaussian_filter(rng.standard_normal(shape), width)
        return np.exp((1j + 0.3) * phase / phase.std()).astype(np.complex64)

    y, x = (np.arange(size) - size / 2 for size in kind.shape)
    beam = np.exp(-((y[:, None] ** 2 + x[None] ** 2) / 90)).astype(np.float32)
    O = np.stack([waves((kind.shape[0] + 34, kind.shape[1] + 32), 2.0) for _ in range(kind.object_modes)])
    return case, O, np.stack([30 * beam * waves(kind.shape, 3.0) for _ in range(kind.modes)])


@pytest.mark.parametrize(("kind", "order"), SMOOTH)
def test_correlation_finds_what_the_reference_finds(kind: Kind, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIM_REVERSED", order)
    case, O, P = smooth(kind)
    frames = replace(case.frames, corners=case.frames.corners + np.int32(12))
    away = np.array([[3, -5], [0, 1], [-2, 2], [7, 0], [-1, -1]])
    there = replace(frames, corners=frames.corners + away[:, None].astype(np.int32))
    for numbers in BATCHES:
        found = []
        for do in (mine(kind), judge(kind)):
            side, other = (Side(do, each) for each in (frames, there))
            b = side.some(numbers)
            psi = do.exit_waves(side.of(O), side.of(P), other.some(numbers))
            # The transform and back: waves that are owed a factor.
            waves = do.to_sample(do.to_detector(psi, b), b) if not kind.near_field else psi
            found.append([do.correlate(waves, side.of(O), side.of(P), b, reach) for reach in (4.0, 8.5)])
        for given, expected in zip(*found, strict=True):
            assert given.shape == (len(b), 2)
            np.testing.assert_allclose(given, expected, atol=2e-3)
        chosen = away[numbers]
        np.testing.assert_allclose(found[0][1], chosen, atol=0.3)  # of what lies beyond the frame, nothing is known
        assert np.abs(found[0][0]).max(initial=0) <= 4


def test_waves_are_moved_by_whole_pixels_as_numpy_rolls_them() -> None:
    kind = Kind((24, 21), 2)
    case = Frames(kind)
    side = Side(mine(kind), case.frames)
    psi = side.of(case.psi)
    side.do.move_waves(psi, np.broadcast_to([2.0, -3.0], (5, 2, 2)), side.some(slice(0, 5)))
    np.testing.assert_allclose(side.host(psi), np.roll(case.psi, (2, -3), (-2, -1)), atol=1e-5)


def test_a_probe_is_moved_anew_for_frames_elsewhere() -> None:
    kind = Kind((8, 10), 2)
    case = Frames(kind)
    side, reference = Side(mine(kind), case.frames), Side(judge(kind), case.frames)
    X, Y = ((each.of(case.O), each.of(case.P)) for each in (side, reference))
    alone = replace(side.some(slice(0, 5)), counts=case.frames.counts, frames=None)
    for number in range(40):  # batches of their own, one after the other, that may lie where another one has been
        rests = np.random.default_rng(number).uniform(-0.5, 0.5, (5, 1, 2)).astype(np.float32)
        there = replace(alone, rests=rests)
        given, expected = side.host(side.do.exit_waves(*X, there)), reference.host(reference.do.exit_waves(*Y, there))
        agree(given, expected, 1e-5, f"batch {number}")
