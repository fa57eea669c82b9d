"""What a script imports: open a scan, reconstruct it, find results.

::

    from ptyplugin.api import open_scan, reconstruct, results

    scan = open_scan("scan.cxi")
    image = reconstruct(scan, "DM(100) + ePIE(50)", probe_modes=2)
    results("a1b2c3d4-...")[0].plot()
"""

from __future__ import annotations

from ptyplugin.api.finding import results
from ptyplugin.api.following import LiveFigure, live
from ptyplugin.api.making import make_job
from ptyplugin.api.opening import OpenScan, folder_of, open_scan, write_parts
from ptyplugin.api.resolution import half_sets, resolution
from ptyplugin.api.ring_correlation import ring_correlation
from ptyplugin.api.solving import JobSolver, OnProgress, check_device, reconstruct, solve_job, solver

__all__ = [
    "JobSolver",
    "LiveFigure",
    "OnProgress",
    "OpenScan",
    "check_device",
    "folder_of",
    "half_sets",
    "live",
    "make_job",
    "open_scan",
    "reconstruct",
    "resolution",
    "results",
    "ring_correlation",
    "solve_job",
    "solver",
    "write_parts",
]
