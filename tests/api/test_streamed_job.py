"""A job whose counts stream: its file stays open as long as they are needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptyplugin.api import JobSolver, folder_of, make_job, open_scan, reconstruct
from ptyplugin.model import Site, SolverError
from ptyplugin.solvers import Solver


def test_frames_are_read_until_the_end_and_closed_then(small_cxi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = reconstruct(small_cxi, "LSQML(2)")
    plan = Solver._plan_of
    monkeypatch.setattr(Solver, "_plan_of", lambda self, recipe: replace(plan(self, recipe), streams=True))
    scan = open_scan(small_cxi)
    with folder_of(make_job(scan, "LSQML(2)")) as folder:
        going = JobSolver(make_job(scan, "LSQML(2)").job, folder, scan.site)
    with going:
        for _ in going:
            assert going._begun is not None
            assert going._begun.way.frames.are_stored
        streamed = going.result()
    assert streamed is not None
    # With pyFFTW plans may differ within a process.
    np.testing.assert_allclose(streamed.object, in_memory.object, atol=1e-4)
    with pytest.raises((ValueError, RuntimeError)):
        going._open_frames.read(np.arange(3))


def test_the_site_says_how_much_memory_a_job_may_use(small_cxi: Path) -> None:
    with pytest.raises(SolverError, match=r"36 frames of 48 x 48 px .* need about .* of memory, there are 200 MB"):
        reconstruct(open_scan(small_cxi, site=Site(memory_gb=0.2)), "ePIE(1)")
