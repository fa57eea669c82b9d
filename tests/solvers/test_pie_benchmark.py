"""mPIE on the benchmark's simulated scan: 400 frames of 128 x 128 px, the start probe with a third too much defocus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bench_scripts import script

from ptyplugin.model import Geometry, MemoryFrames, Recipe, Scan
from ptyplugin.sim.metric import phase_rms
from ptyplugin.solvers import Solver


def test_mpie_needs_a_dozen_sweeps_and_goes_on_falling(shared: Path, tmp_path: Path) -> None:
    script(shared, "make_dataset").main("A", tmp_path / "A.npz")
    with np.load(tmp_path / "A.npz") as stored:
        data, corners, truth, probe = (stored[name] for name in ("data", "pos", "obj", "probe_init"))
    geometry = Geometry(8000.0, 3.0, 75e-6, (128, 128))
    corners = corners.astype(int)
    scan = Scan(corners[:, None] * np.asarray(geometry.object_pixel_m), np.arange(400))
    going = Solver(MemoryFrames(data.astype(np.uint16)), scan, geometry, Recipe.parse("mPIE(26)"), start_probe=probe)
    first, extent = scan.place(geometry).corners[:, 0].min(axis=0), np.ptp(corners, axis=0) + 128
    low = corners.min(axis=0)
    true = truth[low[0] : low[0] + extent[0], low[1] : low[1] + extent[1]]
    reached = {}
    for progress in going:
        if progress.iteration in (12, 26):
            seen = going.object[0, first[0] : first[0] + extent[0], first[1] : first[1] + extent[1]]
            reached[progress.iteration] = phase_rms(seen, true, corners - low, 128)
    assert reached[12] <= 0.056
    assert reached[26] <= 0.032
