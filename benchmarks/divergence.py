"""No algorithm's defaults diverge in 500 iterations: on part of a real scan on which undamped steps run away at the object's border."""

from __future__ import annotations

import numpy as np

from benchmarks.parallel import recipe_of
from benchmarks.problems import real
from benchmarks.real import RECIPES
from benchmarks.table import Table, verdict
from ptyplugin.api import open_scan
from ptyplugin.model import MemoryFrames, PtypluginError, Scan
from ptyplugin.solvers import Solver

_FRAMES, _ITERATIONS = 80, 500
#: The error at the end, by the smallest on the way.
_RISE = 1.1


def run(quick: bool) -> list[Table]:
    """Error after so many iterations, and how much larger than the smallest."""
    iterations = 10 if quick else _ITERATIONS
    title = f"{iterations} iterations with defaults: {_FRAMES} frames of the Velociprobe scan, 2 modes"
    table = Table(title, ["algorithm", "smallest error", "at iteration", "last error", "last / smallest", "limit", "verdict"])
    opened = open_scan(real("aps_velociprobe_siemens.cxi"))
    scan, probe = opened.scan, opened.start_probe
    assert probe is not None
    middle = scan.positions_m[:, 0].mean(axis=0)
    near = np.sort(np.argsort(np.hypot(*(scan.positions_m[:, 0] - middle).T))[:_FRAMES])
    with opened.frames() as frames:
        counts = MemoryFrames(frames.read(near))
    part = Scan(scan.positions_m[near], np.arange(len(near)))
    for name in RECIPES:
        recipe = recipe_of(name, iterations)
        if recipe is None:
            continue
        going = Solver(counts, part, opened.geometry, recipe, preparation=opened.preparation, start_probe=probe.modes, probe_modes=2)
        errors: dict[int, float] = {}
        try:
            for progress in going:
                if "error" in progress.errors:
                    errors[progress.iteration] = progress.errors["error"]
        except PtypluginError as error:
            table.add(name, *[None] * 4, f"MISSED: {error}", None)
            continue
        best = min(errors, key=lambda number: errors[number])
        last, found = errors[max(errors)], going.result()
        assert found is not None
        table.add(name, errors[best], best, last, last / errors[best], verdict(last / errors[best], _RISE), str(found.verdict))
    return [table]
