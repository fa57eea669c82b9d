"""The verbs for GPUs that are about each frame alone, and about whole arrays, against the reference; on the CPU."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from frames_on_device import CASES, KINDS, Frames, Kind, Side, compare, mine
from shim import HostDevice

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cuda import frames as cuda_frames


def results(side: Side, case: Frames, b: Batch) -> dict[str, Any]:
    do, O, P = side.do, side.of(case.O), side.of(case.P)
    rng = np.random.default_rng(len(b))
    weights = rng.standard_normal(len(b)) + 1j * rng.standard_normal(len(b))
    psi, num = side.of(case.psi[b.index]), side.of(case.dO)
    gave = {"gather": do.gather(psi, O, P, b), "frame_powers": do.frame_powers(psi, b)}
    do.spread(num, psi, weights, P, b)
    do.frame_phases(psi, weights / np.abs(weights), b)
    gave |= {"spread": side.host(num), "frame_phases": side.host(psi)}
    gave["model_counts"] = np.array(do.model_counts(side.detected(O, P, b), b))
    gave["frame_residuals"] = do.frame_residuals(side.detected(O, P, b), b)
    back = do.to_sample(side.detected(O, P, b), b)  # which is owed a factor
    gave |= {"gather of waves": do.gather(back, O, P, b), "powers of waves": do.frame_powers(back, b)}
    do.frame_phases(back, weights, b)
    return gave | {"phases of waves": side.host(back), "model_counts of waves": np.array(do.model_counts(back, b))}


@pytest.mark.parametrize(("kind", "order"), CASES)
def test_every_verb_on_frames_agrees_with_the_reference(kind: Kind, order: str) -> None:
    compare(kind, order, results, 5e-6)


def test_numbers_of_frames_are_of_float64_on_the_host() -> None:
    kind = KINDS[1]
    case = Frames(kind)
    side = Side(mine(kind), case.frames)
    gave = results(side, case, side.some(slice(0, 5)))
    assert {name: gave[name].dtype.name for name in ("gather", "frame_powers", "frame_residuals")} == {
        "gather": "complex128",
        "frame_powers": "float64",
        "frame_residuals": "float64",
    }


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_found_wherever_it_lies(spoilt: float) -> None:
    do = mine(Kind((8, 8)))
    sound, last = np.ones((3, 70, 333), np.complex64), np.ones((1, 9, 7), np.complex64)
    last.imag[0, 8, 6] = spoilt
    assert do.all_finite(do.array(sound), do.array(sound[0].real))
    assert not do.all_finite(do.array(sound), do.array(last))
    assert not do.all_finite(do.array(last), do.array(sound))
    assert do.all_finite(do.array(last)[:, :8])
    assert not do.all_finite(do.array(last)[:, 2:, 3:])
    assert do.all_finite(do.zeros((0, 1, 8, 8), np.complex64))


@pytest.mark.parametrize("shift", [(2, -3), (0, 5), (-21, 40), (20, 16)])
@pytest.mark.parametrize("shape", [(2, 20, 16), (7, 3, 20, 16), (0, 1, 20, 16)])
def test_arrays_are_rolled_as_numpy_rolls_them(shape: tuple[int, ...], shift: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    device = HostDevice()
    do = type(mine(KINDS[0]))(KINDS[0].geometry, device)
    host = np.arange(np.prod(shape), dtype=np.float32).reshape(shape).astype(np.complex64)
    X = do.array(host)
    monkeypatch.setattr(cuda_frames, "_ROLLED_BYTES", 5 * 20 * 16 * 8)
    before = device.most_in_use
    do.roll(X, shift)
    np.testing.assert_array_equal(do.host(X), np.roll(host, shift, axis=(-2, -1)))
    assert device.most_in_use - before <= 5 * 20 * 16 * 8
