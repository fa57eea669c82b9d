"""What does not fit on a card is planned smaller, refused with its numbers, or begun again: it never dies of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from shim import HostDevice

from ptyplugin.model import Recipe, SolverError
from ptyplugin.solvers import Solver
from ptyplugin.solvers.device_plan import OnCard, Room, make_device_plan
from ptyplugin.solvers.selftest import made_up
from ptyplugin.solvers.verbs.choice import verbs_on
from ptyplugin.solvers.verbs.cuda.device import DeviceMemoryError

MB = 1_000_000
#: 10000 frames of 256 x 256 px, 5 modes, object 2000 x 2000 px: 1.31 GB of counts, 26.2 GB of waves.
LARGE = OnCard(10_000, 0, 131_072, 5 * 524_288, 32 * MB, True)


def planned(free_gb: float, work: OnCard = LARGE, batch_bytes: int = 2**26) -> Any:
    return make_device_plan(Room("a card", 1, int(free_gb * 1e9)), batch_bytes, work)


def test_everything_lies_on_a_card_with_room() -> None:
    plan = planned(140)
    assert (plan.counts_bytes, plan.coming_bytes, plan.batch_bytes) == (1_310_720_000, 0, 2**26)
    assert plan.waves_bytes == 26_214_400_000
    assert plan.needed_bytes <= plan.there_bytes == 126_000_000_000
    assert str(plan).startswith("each rank on a card: 28.")
    assert str(plan).endswith("counts on the card")


def test_batches_get_smaller_before_counts_leave_the_card() -> None:
    plan = planned(31.4)
    assert plan.coming_bytes == 0
    assert 2**22 <= plan.batch_bytes < 2**26
    assert plan.needed_bytes <= plan.there_bytes


def test_counts_that_do_not_fit_come_from_the_host_as_many_as_must() -> None:
    plan = planned(30.6)
    assert 0 < plan.counts_bytes < 1_310_720_000
    assert plan.coming_bytes > 0
    assert plan.needed_bytes <= plan.there_bytes
    assert "some counts come from the host's memory" in str(plan)


def test_waves_that_do_not_fit_are_refused_with_what_would() -> None:
    with pytest.raises(SolverError, match=r"26\.2 GB are waves that a stage of DM stores; LSQML, ML and ePIE store none, 2 times as many"):
        planned(16).check("DM")
    planned(16, replace(LARGE, keeps_waves=False)).check("LSQML")
    with pytest.raises(SolverError, match=r"14\.4 GB of a card: crop the frames"):
        planned(16, replace(LARGE, keeps_waves=False, object_bytes=2 * 10**9)).check("LSQML")
    with pytest.raises(SolverError, match=r"use smaller batches \(batch=\.\.\.\)"):
        planned(16, replace(LARGE, keeps_waves=False, fixed_frames=700)).check("LSQML")


def test_waves_that_need_not_be_stored_go_before_counts_do() -> None:
    work = replace(LARGE, keeps_waves="where they fit")
    assert planned(140, work) == planned(140)
    assert planned(31.4, work) == planned(31.4)
    plan = planned(30.6, work)
    assert (plan.waves_bytes, plan.counts_bytes, plan.coming_bytes, plan.batch_bytes) == (0, 1_310_720_000, 0, 2**26)
    assert plan.recomputes_waves
    least = planned(1.5, work)
    assert least.recomputes_waves
    assert least.coming_bytes > 0
    least.check("AP")


def solver_on(device: HostDevice, recipe: str, **how: Any) -> Solver:
    frames, scan, geometry, probe = made_up()
    return Solver(frames, scan, geometry, Recipe.parse(recipe), start_probe=probe, verbs=verbs_on(device), held_out=0, **how)


@pytest.fixture(scope="module")
def image() -> Any:
    """What a device with plenty of memory gives."""
    solver = solver_on(HostDevice(), "DM(3)")
    for _ in solver:
        pass
    return solver.object


@pytest.mark.parametrize("recipe", ["DM(1)", "LSQML(1)", "ePIE(1)", "ML(1)"])
def test_no_more_is_used_than_was_planned(recipe: str) -> None:
    device = HostDevice(2**28)
    solver = solver_on(device, recipe)
    card = solver.plan().card
    assert card is not None
    next(solver)
    assert card.needed_bytes / 4 < device.most_in_use < card.needed_bytes


def test_a_small_card_gets_counts_batch_by_batch(image: Any) -> None:
    device = HostDevice(1_850_000)
    solver = solver_on(device, "DM(3)")
    card = solver.plan().card
    assert card is not None
    assert card.coming_bytes > 0
    assert card.batch_bytes < 2**16
    assert "some counts come from the host's memory, batch by batch" in str(solver.plan())
    for _ in solver:
        pass
    assert np.abs(solver.object - image).max() < 1e-4
    assert solver.result().provenance["notes"] == []


def small_for_waves(recipe: str, **settings: Any) -> tuple[Solver, HostDevice]:
    """A solver on a card with a byte less than what is needed to store waves."""
    card = solver_on(HostDevice(2**28), recipe).plan().card
    assert card is not None
    assert card.waves_bytes
    device = HostDevice(int((card.needed_bytes - 1) / 0.9))
    return solver_on(device, recipe), device


def test_waves_that_do_not_fit_are_recomputed() -> None:
    solver, device = small_for_waves("AP(4, overlap_rounds=2)")
    plan = solver.plan()
    assert plan.recomputes_waves
    assert plan.card is not None
    assert (plan.card.waves_bytes, plan.card.coming_bytes) == (0, 0)
    assert "waves recomputed, since they do not fit" in str(plan)
    for _ in range(2):  # later sweeps are recorded, and here, unlike on a card, a recording uses no memory twice
        next(solver)
    assert device.most_in_use < plan.card.needed_bytes
    judge = solver_on(HostDevice(2**28), "AP(4, overlap_rounds=2)")
    for each in (solver, judge):
        for _ in each:
            pass
    assert np.linalg.norm(solver.object - judge.object) <= 1e-6 * np.linalg.norm(judge.object)
    assert device.launches["fused_rows"] > 4  # two more transforms for each time that waves are asked for


class Shrinking(HostDevice):
    """A card of which another process takes what is free once ``after`` kernels have run, until ``failures`` allocations have failed."""

    def __init__(self, after: int, failures: int = 1) -> None:
        super().__init__(2**28)
        self._after, self._failures = after, failures

    def empty(self, shape: Any, dtype: Any) -> Any:
        taken = self._failures and sum(self.launches.values()) >= self._after
        self._total = self.in_use if taken else 2**28
        try:
            return super().empty(shape, dtype)
        except DeviceMemoryError:
            self._failures -= 1
            raise


def test_a_stage_that_does_not_fit_after_all_is_begun_again_with_less(image: Any, caplog: pytest.LogCaptureFixture) -> None:
    device = Shrinking(after=30)
    solver = solver_on(device, "DM(3)")
    events = list(solver)
    assert [event.iteration for event in events] == [1, 1, 2, 3]
    assert np.abs(solver.object - image).max() < 1e-4
    (note,) = solver.result().provenance["notes"]
    assert note.startswith("DM did not fit on the card (")
    assert note.endswith("it was begun again: its counts come from the host's memory now, in smaller batches.")
    assert note in caplog.text
    assert solver._verbs.batch_bytes == 2**25


def test_waves_are_recomputed_where_they_do_not_fit_after_all() -> None:
    judge = solver_on(HostDevice(2**28), "AP(3)")
    solver = solver_on(Shrinking(after=30), "AP(3)")
    assert not solver.plan().recomputes_waves
    for each in (solver, judge):
        for _ in each:
            pass
    assert np.linalg.norm(solver.object - judge.object) <= 1e-5 * np.linalg.norm(judge.object)
    (note,) = solver.result().provenance["notes"]
    assert note.endswith("it was begun again: its waves are recomputed, its counts come from the host's memory now, in smaller batches.")
    assert solver._there().way.recomputes_waves


def test_what_does_not_fit_twice_is_an_error() -> None:
    solver = solver_on(Shrinking(after=30, failures=2), "DM(3)")
    with pytest.raises(DeviceMemoryError, match="do not fit into the 0 that are free"):
        list(solver)
