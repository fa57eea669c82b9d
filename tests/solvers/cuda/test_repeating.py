"""Sweeps that are recorded: whose recording is asked for, and what happens where a card cannot record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from frames_on_device import KINDS, Frames, mine
from shim import HostDevice
from test_cuda_sweeps import cuda, solved

from ptyplugin.solvers.batches import Batches, in_blocks
from ptyplugin.solvers.verbs import DeviceScalar
from ptyplugin.solvers.verbs.cuda.device import DeviceMemoryError
from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs


class Refusing(HostDevice):
    """A card that cannot record: nothing of what it was asked for meanwhile is done."""

    refusals, _deaf = 0, False

    def record(self, run: Callable[[], Any]) -> None:  # type: ignore[override]
        self.refusals, self._deaf = self.refusals + 1, True
        try:
            run()
        except DeviceMemoryError:
            pass
        finally:
            self._deaf = False

    def do(self, name: str, work: Callable[[], None]) -> None:
        if not self._deaf:
            super().do(name, work)


class Short(Refusing):
    """And that has no memory left as soon as a batch has been measured, in the midst of a chain of verbs."""

    def empty(self, shape: Any, dtype: Any) -> Any:
        if self._deaf and np.dtype(dtype) == np.float64:
            raise DeviceMemoryError("it is full")
        return super().empty(shape, dtype)


@pytest.mark.parametrize("kind", [Refusing, Short])
@pytest.mark.parametrize("recipe", ["DM(4)", "mPIE(5, batch=5)", 'LSQML(6, positions="gradient", positions_from=2)'])
def test_a_sweep_that_cannot_be_recorded_is_done_as_it_is_asked_for(
    simulate: Callable[..., Any], recipe: str, kind: type[Refusing], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its own order and positions, and with nothing left of what was not done."""
    monkeypatch.setattr("ptyplugin.solvers.verbs.cuda.scalars._SLOTS", 8)
    e, device = simulate(side=24, grid=(4, 4)), kind()
    one, other = solved(e, recipe, cuda(device)), solved(e, recipe, cuda(HostDevice(), records=False))
    np.testing.assert_array_equal(one.object, other.object)
    np.testing.assert_array_equal(one.probe, other.probe)
    assert 0 < device.refusals < 3


class Counted:
    """A sweep that adds one to an array, and counts how often it was asked for."""

    def __init__(self, do: CudaVerbs) -> None:
        self.do, self.asked, self.array = do, 0, do.zeros((8,), np.complex64)
        self.one = do.array(np.ones(8, np.complex64))

    def __call__(self) -> DeviceScalar:
        self.asked += 1
        self.do._combine(self.array, 1.0, self.one, 1.0)
        return self.do.zero()


def batches_of(do: CudaVerbs) -> Batches:
    return in_blocks(do.hold(Frames(KINDS[0]).frames), 2, 5)


def test_a_sweep_is_asked_for_twice_and_then_done_again() -> None:
    do = mine(KINDS[0])
    batches, sweep = batches_of(do), Counted(do)
    for _ in range(5):
        do.repeat("key", batches, sweep)
    assert sweep.asked == 2
    np.testing.assert_array_equal(do.host(sweep.array), np.full(8, 5))


def test_frames_that_lie_where_others_lay_have_recordings_of_their_own() -> None:
    do = mine(KINDS[0])
    sweep = Counted(do)
    for _ in range(8):  # memory that one has left is the next one's
        do.repeat("key", batches_of(do), sweep)
    assert sweep.asked == 8


def test_recordings_do_not_keep_counts_that_are_held_anew() -> None:
    do = mine(KINDS[0])
    batches, sweep = batches_of(do), Counted(do)
    for _ in range(3):
        do.repeat("key", batches, sweep)
    in_use: list[int] = []
    for _ in range(3):
        batches = batches_of(do)
        do.repeat("key", batches, sweep)
        in_use.append(do.device.in_use)  # type: ignore[attr-defined]
    assert len(set(in_use)) == 1


def test_what_is_held_shares_the_room_for_counts() -> None:
    do, frames = mine(KINDS[0]), Frames(KINDS[0]).frames
    do.counts_bytes = 7 * 2 * 64 * 64
    resident = [do._placing.store_of(do.hold(frames)).resident for _ in range(3)]
    assert [0 if each is None else len(each) for each in resident] == [5, 2, 0]


def test_a_batch_is_no_longer_than_a_grid() -> None:
    do = mine(KINDS[0])
    do.batch_bytes = 2**34
    assert do.batch_frames((8, 8), 1) == 65535


def test_light_that_was_away_comes_back_to_where_it_was() -> None:
    """What is recorded looks for it there."""
    do, frames = mine(KINDS[1]), Frames(KINDS[1]).frames
    held = do.hold(frames)
    tables = do._placing.tables_of(held)
    there = tables.intensities.data.ptr, tables.background.data.ptr
    for background, intensities in ((None, None), (frames.background, frames.intensities)):
        tables = do._placing.tables_of(type(held)(*(getattr(held, name) for name in held.__slots__[:5]), background, intensities))
    assert (tables.intensities.data.ptr, tables.background.data.ptr) == there
    np.testing.assert_array_equal(do.host(tables.intensities), frames.intensities)


def test_a_weight_is_a_number_of_any_kind() -> None:
    do = mine(KINDS[0])
    X = do.array(np.full((1, 4, 4), 2j, np.complex64))
    num, den = do.sums(X)
    do.weigh(num, den, X, np.int64(3))
    np.testing.assert_array_equal(do.host(num), np.full((1, 4, 4), 6j))
    np.testing.assert_array_equal(do.host(den), np.full((4, 4), 3))


def test_nothing_is_left_of_a_recording_that_was_interrupted() -> None:
    do, frames = mine(KINDS[1]), Frames(KINDS[1])
    held = do.hold(frames.frames)
    P, batches = do.array(frames.P), in_blocks(held, 5, 5)
    b = next(iter(batches))
    expected = do.host(do.exit_waves(do.array(frames.O), P, b))
    device: Any = do.device

    def interrupted() -> DeviceScalar:
        device.do = lambda name, work: None
        do._moved(P, b)
        raise KeyboardInterrupt

    do.repeat("key", batches, do.zero)
    with pytest.raises(KeyboardInterrupt):
        do.repeat("key", batches, interrupted)
    del device.do
    np.testing.assert_array_equal(do.host(do.exit_waves(do.array(frames.O), P, b)), expected)
