"""Snapshots: where they lie, and that another solver goes on from them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from portions import ORDERS, first_of, moved_by, solver_of

from ptyplugin.model import SolverError


def test_snapshots_know_where_they_lie(wide: Any) -> None:
    order = ORDERS["up"]
    solver = solver_of(wide, "DM(12)", 60, order, job_key="0123456789abcdef")
    with pytest.raises(SolverError, match="before the first iteration"):
        solver.snapshot()
    for _ in range(11):
        next(solver)
    pixel = np.asarray(wide.geometry.object_pixel_m)
    shots = [solver.snapshot()]
    solver.admit(*first_of(wide, 100, order))
    next(solver)
    shots.append(solver.snapshot())
    for shot in shots:
        assert shot.is_sound
        assert (shot.job, shot.stage, shot.pixel_m) == ("0123456789abcdef", "DM", wide.geometry.object_pixel_m)
        assert (shot.object.dtype, shot.probe.dtype, shot.probe.ndim) == (np.complex64, np.complex64, 3)
    assert [shot.frames for shot in shots] == [60, 100]
    assert [shot.iteration for shot in shots] == [11, 12]
    assert shots[0].errors.keys() == {"error", "held_out_error", "constraint_residual"}
    assert shots[1].errors.keys() == {"constraint_residual"}
    corner = (wide.scan.positions_m[order[0], 0] - shots[1].origin_m) / pixel
    np.testing.assert_allclose(corner, solver._there().way.frames.corners[0, 0], atol=1e-6)
    shift = np.rint((np.asarray(shots[0].origin_m) - shots[1].origin_m) / pixel).astype(int)
    assert shift[0] > 10
    y, x = solver._there().way.frames.corners[0, 0] - shift
    was, now = shots[0].object[y + 8 : y + 24, x + 8 : x + 24], shots[1].object[shift[0] + y :, shift[1] + x :][8:24, 8:24]
    assert np.linalg.norm(now - was) < 0.3 * np.linalg.norm(was)
    shots[1].object[...] = 0
    assert np.abs(solver.object).max() > 0.1


@pytest.mark.parametrize("verbs", ["cpu", "reference"])
def test_another_solver_goes_on_from_a_snapshot(wide: Any, verbs: Any) -> None:
    """With all frames that came meanwhile, and a lattice of its own: it begins as good as the first one was."""
    e = moved_by(wide, np.random.default_rng(2).uniform(-0.4, 0.4, (100, 2)))
    order = ORDERS["from the middle"]
    first = solver_of(e, "LSQML(20)", 70, order, held_out=0)
    for _ in first:
        pass
    shot = first.snapshot()
    how = {"start": shot, "start_probe": None, "held_out": 0, "verbs": verbs, "fft": None}
    again = solver_of(e, "ePIE(1, object_step=0, probe_step=0)", 70, order, **how)
    more = solver_of(e, "ePIE(1, object_step=0, probe_step=0)", 100, order, **how)
    for each in (again, more):
        next(each)
    assert again.result().quality["error"] == pytest.approx(first.result().quality["error"], rel=1e-3)
    assert more.object.shape[1] > again.object.shape[1]
    level = np.abs(more.object[0, :2, :2])
    assert level.max() - level.min() < 1e-5
    assert level.max() == pytest.approx(np.abs(shot.object).mean(), rel=0.2)
    with pytest.raises(SolverError, match=r"pixels of .* begin without it"):
        solver_of(e, "DM(2)", 70, order, start=dataclasses.replace(shot, pixel_m=(1e-9, 1e-9)))


def test_no_checkpoint_is_made_of_what_grew(wide: Any) -> None:
    solver = solver_of(wide, "DM(4)", 60)
    next(solver)
    kept = solver.checkpoint()
    solver.admit(*first_of(wide, 100))
    with pytest.raises(SolverError, match="take its snapshot"):
        solver.checkpoint()
    assert "its input is" in solver_of(wide, "DM(4)", 100).refuses(kept)
