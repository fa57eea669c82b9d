"""Three kernels with an FFT in shared memory, on the CPU, against the reference in double precision: sizes, waves, and what beams bring."""
# ruff: noqa: E741 -- O is the object in every paper

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from frames_on_device import Frames, Kind, Results, Side, agree, judge
from numpy.typing import NDArray
from shim import HostDevice

from ptyplugin.solvers.batches import Batch
from ptyplugin.solvers.verbs.cuda.fused import FusedFft, plan_for, twiddles
from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs

#: Of the largest number of an array.
TOLERANCE = 1e-6


def difference_map(side: Side, case: Frames, b: Batch) -> Results:
    psi, O, P = side.of(case.psi[:2]), side.of(case.O), side.of(case.P)
    A = side.do.to_detector(side.do.reflect(psi, O, P, b, 2, -1), b)
    residual = side.do.onto_modulus(A, b, 0.1)
    side.do.advance(psi, side.do.to_sample(A, b), O, P, b, 0.9, 0.8, -0.7)
    return {"psi": side.host(psi), "residual": residual.read()}


def pie(side: Side, case: Frames, b: Batch) -> Results:
    O, P = side.of(case.O), side.of(case.P)
    A = side.do.to_detector(side.do.exit_waves(O, P, b), b)
    residual = side.do.onto_modulus(A, b, 0)
    d = side.do.reflect(side.do.to_sample(A, b), O, P, b, -1, 1)
    return {"d": side.host(d), "residual": residual.read()}


def likelihoods(side: Side, case: Frames, b: Batch) -> Results:
    O, P, found = side.of(case.O), side.of(case.P), {}
    for noise in ("gaussian", "poisson"):
        A = side.do.to_detector(side.do.exit_waves(O, P, b), b)
        residual = side.do.likelihood_step(A, b, noise)
        found |= {f"{noise} step": side.host(side.do.to_sample(A, b)), f"{noise} residual": residual.read()}
    for noise in ("amplitude", "gaussian", "poisson"):
        A = side.do.to_detector(side.do.exit_waves(O, P, b), b)
        likelihood, residual = side.do.likelihood_gradient(A, b, noise)
        found |= {f"{noise} gradient": side.host(side.do.to_sample(A, b)), f"{noise} sums": [likelihood.read(), residual.read()]}
    return found


def compared(kind: Kind, results: Any, device: HostDevice, frames: Any = (3, 1)) -> Results:
    """What the kernels gave for two frames, after it was compared with the reference."""
    case = Frames(kind)
    mine, of_judge = Side(CudaVerbs(kind.geometry, device), case.frames), Side(judge(kind), case.frames)
    given, expected = (results(side, case, side.some(list(frames))) for side in (mine, of_judge))
    for name, value in given.items():
        agree(value, expected[name], TOLERANCE, name)
    chains = 5 if results is likelihoods else 1
    assert device.launches["fused_columns"] == chains, "this was to be done by the three kernels"
    assert device.launches["fft"] == bool(kind.rests), "but for the transform of a probe that moves"
    found: Results = given
    return found


@pytest.mark.parametrize(
    "kind",
    [
        Kind((64, 64), 2),
        Kind((100, 100), rests=False),
        Kind((128, 128), 3, rests=False),
        Kind((192, 192), beam=True, rests=False),
        Kind((200, 200), 2, counts=np.float32, rests=False),
        Kind((256, 256), rests=False),
        Kind((30, 100), 3, 2, 2, beam=True),
        Kind((512, 24), 2),
    ],
    ids=lambda kind: f"{kind.shape[0]}x{kind.shape[1]}, {kind.modes}",
)
def test_a_difference_map_agrees_with_the_reference(kind: Kind, device: HostDevice) -> None:
    compared(kind, difference_map, device)


@pytest.mark.parametrize("results", [difference_map, pie, likelihoods])
@pytest.mark.parametrize("held", ["registers", "shared memory", "memory"])
def test_every_chain_agrees_wherever_spectra_wait(results: Any, held: str) -> None:
    """Sides are no multiples of the columns and rows of a block."""
    kind = Kind((25, 27), 1 if held == "registers" else 3, beam=True, counts=np.float32 if results is pie else np.uint16)
    shared_bytes = 2048 + 8 * 25 + (1 if held == "memory" else 20) * 8 * 25 * 8
    plan = plan_for(kind.shape, kind.modes, shared_bytes)
    assert plan is not None
    assert plan.held == ("registers", "shared memory", "memory").index(held)
    compared(kind, results, HostDevice(shared_bytes=shared_bytes))


@pytest.mark.parametrize("kind", [Kind((128, 128), 3, rests=False), Kind((30, 100), 3, 2, 2, beam=True)], ids=["square", "rectangle"])
def test_threads_in_reverse_order_give_the_same_bits(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a barrier would be missing."""
    forward = compared(kind, difference_map, HostDevice())
    monkeypatch.setenv("SHIM_REVERSED", "1")
    backward = compared(kind, difference_map, HostDevice())
    for name, value in forward.items():
        np.testing.assert_array_equal(value, backward[name], err_msg=name)


def random(*shape: int) -> NDArray[np.complex64]:
    rng = np.random.default_rng(shape)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


@pytest.mark.parametrize("side", [19 * 4, 21, 22, 26, 34, 49, 31 * 3, 29 * 23, 500, 1000])
def test_lines_of_any_factors_are_transformed(side: int, device: HostDevice) -> None:
    """Primes up to 31 are butterflies, in two passes or three."""
    plan = plan_for((16, side), 1, 227 * 1024)
    assert plan is not None
    w = random(1, 1, 16, side)
    rows = device.put(w)
    FusedFft(device, plan).rows(rows, None, 0.0, rows, 1.0)
    expected = np.fft.fft(w.astype(np.complex128))
    agree(device.get(rows), expected, TOLERANCE, "rows")


def test_many_frames_share_what_a_block_reads_of_the_probe(device: HostDevice) -> None:
    """Frames of a block, the last of them fewer."""
    plan = plan_for((16, 16), 1, 227 * 1024)
    assert plan is not None
    w = random(8195, 1, 16, 16)
    rows = device.put(w)
    FusedFft(device, plan).rows(rows, None, 0.0, rows, 1.0)
    agree(device.get(rows), np.fft.fft(w.astype(np.complex128)), TOLERANCE, "rows")


@pytest.mark.parametrize("shape", [(37, 64), (64, 37), (1026, 64), (64, 2048), (17 * 61, 20), (11, 16)])
def test_what_is_not_covered_is_left_to_others(shape: tuple[int, int]) -> None:
    assert plan_for(shape, 1, 227 * 1024) is None


@pytest.mark.parametrize("limit_kib", [64, 99, 163, 227])
@pytest.mark.parametrize("side", [16, 64, 100, 128, 192, 200, 256, 300, 384, 512, 600, 768, 1000, 1024])
def test_a_plan_fits_into_every_card(side: int, limit_kib: int) -> None:
    for waves in (1, 2, 3, 5, 12):
        plan = plan_for((side, side), waves, limit_kib * 1024)
        assert plan is not None
        moving = plan.columns.column_bytes + 8 * side
        assert max(plan.column_bytes, plan.rows.row_bytes, moving) + 1024 <= limit_kib * 1024
        assert plan.columns.lines >= 4, "shorter segments than memory moves"
        for lines in (plan.rows, plan.columns):
            assert np.prod(lines.radices) == side
            assert lines.threads % 32 == 0
            assert lines.threads <= 512


def test_twiddle_factors_turn_a_butterfly_by_what_was_transformed_before() -> None:
    table = twiddles((4, 3, 2))
    assert table.shape == (2 * 4 + 1 * 12,)
    np.testing.assert_allclose(table[1 * 4 + 3], np.exp(-2j * np.pi * 2 * 3 / 12), rtol=1e-6)
    np.testing.assert_allclose(table[8 + 5], np.exp(-2j * np.pi * 5 / 24), rtol=1e-6)
