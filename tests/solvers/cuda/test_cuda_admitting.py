"""Frames that are admitted while a device computes: recordings, tables and counts are renewed; nothing is lost when memory is short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from portions import first_of, grown, solver_of
from shim import HostDevice
from test_cuda_sweeps import agree, cuda, rough

from ptyplugin.solvers.verbs.cuda.device import DeviceMemoryError


class Counted(HostDevice):
    """A device that counts what it records and how often that is done again."""

    recorded = repeated = 0

    def record(self, run: Callable[[], Any]) -> Any:
        made = super().record(run)
        self.recorded += 1
        if made is None:
            return None
        replay, given = made

        def again() -> Any:
            self.repeated += 1
            return replay()

        return again, given


def pair(e: Any, recipe: str, verbs: Any, **how: Any) -> tuple[Any, Any]:
    """Grown by ``verbs``, and by the reference."""
    how |= {"fft": None, "start_probe": rough(e.probe)}
    return grown(e, recipe, 3, 3, verbs=verbs, **how), grown(e, recipe, 3, 3, verbs="reference", **how)


@pytest.mark.parametrize(
    ("recipe", "what", "how"),
    [
        ("DM(6)", {}, {}),
        ("RAAR(6)", {"modes": 2}, {"probe_modes": 2, "object_modes": 2}),
        ("AP(6)", {"near_field": True, "photons": 1e6}, {}),
        ("mPIE(5, batch=6)", {}, {}),
        ("ML(4)", {}, {}),
        ('LSQML(4, positions="gradient", positions_from=2)', {"substeps": 2}, {}),
    ],
)
def test_a_device_admits_as_the_reference_does(
    simulate: Callable[..., Any], recipe: str, what: dict[str, Any], how: dict[str, Any]
) -> None:
    agree(*pair(simulate(side=24, grid=(4, 4), **what), recipe, cuda(Counted()), **how))


@pytest.mark.parametrize("settings", [{"counts_bytes": 0, "batch_bytes": 24 * 24 * 8 * 4}, {"counts_bytes": 24 * 24 * 2 * 9}])
def test_counts_that_come_from_the_host_are_those_of_all_frames(
    simulate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, settings: dict[str, int]
) -> None:
    monkeypatch.setattr("ptyplugin.solvers.solver.Solver._fit_the_card", lambda self: None)
    agree(*pair(simulate(side=24, grid=(4, 4)), "DM(4)", cuda(HostDevice(), **settings)))


def test_sweeps_are_recorded_anew(simulate: Callable[..., Any]) -> None:
    e, device = simulate(side=24, grid=(5, 5)), Counted()
    solver = solver_of(e, "DM(9)", 15, verbs=cuda(device), fft=None)
    for _ in range(5):
        next(solver)
    before = device.recorded, device.repeated
    assert before[1] > 0
    solver.admit(*first_of(e, 25))
    for _ in range(4):
        next(solver)
    assert device.recorded == before[0] + 1
    assert device.repeated > before[1]


def test_stored_waves_in_half_precision_stay(simulate: Callable[..., Any]) -> None:
    e = simulate(side=24, grid=(5, 5))

    def half(geometry: Any) -> Any:
        verbs = cuda(HostDevice())(geometry)
        verbs.half_waves = True
        return verbs

    solver = solver_of(e, "DM(6)", 15, verbs=half, fft=None, held_out=0)
    for _ in range(3):
        next(solver)
    do, state = solver._verbs, solver._there().state
    before = do.host(state.waves)
    solver.admit(*first_of(e, 25))
    after = do.host(solver._there().state.waves)
    np.testing.assert_array_equal(after[:15], before)
    assert (np.abs(after[15:]).max(axis=(1, 2, 3)) > 0).all()


class Short(HostDevice):
    """A device on which waves of all frames do not fit, some times."""

    frames, refusals = 16, 0

    def zeros(self, shape: Any, dtype: Any) -> Any:
        if shape[0] == self.frames and len(shape) == 4 and self.refusals:
            self.refusals -= 1
            raise DeviceMemoryError("it is full")
        return super().zeros(shape, dtype)


@pytest.fixture(scope="module")
def small(simulate: Callable[..., Any]) -> tuple[Any, float]:
    """An experiment, and the error when all of it is there at once."""
    e = simulate(side=24, grid=(4, 4))
    return e, grown(e, "DM(10)", 1, verbs="reference", fft=None, held_out=0).result().quality["error"]


@pytest.mark.parametrize("refusals", [1, 2, 3], ids=["beside the old ones", "at all", "in a stage that begins"])
def test_where_waves_do_not_fit_they_are_made_anew(small: tuple[Any, float], refusals: int) -> None:
    (e, error), device = small, Short()
    solver = solver_of(e, "DM(10)", 10, verbs=cuda(device), fft=None, held_out=0)
    for _ in range(3):
        next(solver)
    device.refusals = refusals
    solver.admit(*first_of(e, 16))
    for _ in solver:
        pass
    assert device.refusals == 0
    made = solver.result()
    assert made is not None
    assert made.quality["error"] < 1.05 * error
    assert any("it was begun again" in note for note in made.provenance["notes"]) == (refusals == 3)
