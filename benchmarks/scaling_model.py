"""How much quicker several GPUs should be, on paper: ``python -m benchmarks.scaling_model``. Nothing here was measured.

An iteration of a difference map takes, on each of G ranks::

    t(G) = 1.4 N n^2 M b / (G B)  +  o 76 / B  +  4 v  +  c(G)
    c(G) = s 2 (G - 1) / G / L  +  2 (G - 1) l

N frames of n^2 pixels with M modes, b bytes per pixel and mode by S1 or S3 (benchmarks/gpu_bytes.py counts them), B the bandwidth of
the card's memory, 1.4 what is allowed beyond it; o pixels of the object, whose update every rank does for itself (76 bytes: sums,
quotient, clipping, power); v a vote of all ranks before each of four sums. s = 12 o bytes, 8 of the numerator and 4 of the denominator,
are summed over the ranks by a ring, each of whose links carries L bytes/s and takes l to begin. Through the memory of the host, L is what
all steps together, copies and MPI's sum, leave of it. The halo's sums are those where the windows of two ranks overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.gpu_problem import moved_bytes
from benchmarks.table import Table
from ptyplugin.solvers.batches import frames_of_rank

#: Bytes/s of an H200's memory, assumed; what is allowed beyond it; bytes per pixel of the object's update; s of a vote; votes.
BANDWIDTH, ALLOWED, UPDATE_BYTES, VOTE_S, VOTES = 4.3e12, 1.4, 76, 5e-6, 4
#: Bytes/s of a link of the ring, s until it begins, assumed.
LINKS = {"NCCL, NVLink": (300e9, 5e-6), "NCCL, PCIe 5": (20e9, 10e-6), "host's memory": (2.5e9, 20e-6)}
#: Bytes per pixel of the object that are summed: numerator and denominator.
SUMMED_BYTES = 12
GPUS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Case:
    """A scan on a square grid: frames on a side, pixels on a side of a frame, modes, pixels on a side of the object."""

    name: str
    frames: int
    side: int
    modes: int
    object: int


CASES = (
    Case("10000 x 200², 1 mode, object 2000²", 100, 200, 1, 2000),
    Case("10000 x 200², 5 modes, object 2000²", 100, 200, 5, 2000),
    Case("10000 x 256², 1 mode, object 2000²", 100, 256, 1, 2000),
    Case("40000 x 256², 1 mode, object 8000²", 200, 256, 1, 8000),
    Case("160000 x 256², 1 mode, object 20000²", 400, 256, 1, 20000),
)


def work_s(case: Case, scheme: str, gpus: int) -> float:
    """What a rank does for itself."""
    moved = case.frames**2 * case.side**2 * case.modes * moved_bytes(scheme, case.modes)
    return ALLOWED * moved / gpus / BANDWIDTH + case.object**2 * UPDATE_BYTES / BANDWIDTH


def sum_s(summed_bytes: float, link: str, gpus: int) -> float:
    """The sum over ranks of so many bytes, with the votes."""
    bandwidth, start = LINKS[link]
    return 0.0 if gpus == 1 else summed_bytes * 2 * (gpus - 1) / gpus / bandwidth + 2 * (gpus - 1) * start + VOTES * VOTE_S


def halo_share(case: Case, gpus: int) -> float:
    """Of the object's pixels, those of the rank with most of them that other ranks' windows have too, each as often as they do."""
    steps = np.linspace(0, case.object - case.side, case.frames)
    corners = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    mine = [corners[frames_of_rank(corners, rank, gpus)] for rank in range(gpus)]
    low, high = (np.array(edges) for edges in ([c.min(axis=0) for c in mine], [c.max(axis=0) + case.side for c in mine]))
    common = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    areas = np.maximum(common, 0).prod(axis=-1)
    np.fill_diagonal(areas, 0)
    return float(areas.sum(axis=1).max()) / case.object**2


def scaling() -> Table:
    """Milliseconds of an iteration, and how much quicker G GPUs are than one."""
    table = Table("Predicted: a difference map on several GPUs", ["scan", "scheme", "link", *(f"{gpus} GPU" for gpus in GPUS)])
    for case in CASES:
        for scheme in ("S1", "S3"):
            for link in LINKS:
                times = [work_s(case, scheme, gpus) + sum_s(case.object**2 * SUMMED_BYTES, link, gpus) for gpus in GPUS]
                cells = [f"{1e3 * time:.3g} ms" + (f", {times[0] / time:.1f}x" if time != times[0] else "") for time in times]
                table.add(case.name, scheme, link, *cells)
    table.notes = ["ms per iteration, and times quicker than one GPU. Predictions: nothing of this was measured."]
    return table


def halos() -> Table:
    """What a rank sends in an iteration: the all-reduce, and halos of windows."""
    table = Table(
        "Predicted: bytes that a rank sends", ["object", "GPUs", "all-reduce, MB", "halos, MB", "ratio", "saved by NVLink, PCIe, host, ms"]
    )
    for case in CASES[2:]:
        for gpus in GPUS[1:]:
            whole, halo = (case.object**2 * SUMMED_BYTES * share for share in (2 * (gpus - 1) / gpus, halo_share(case, gpus)))
            saved = ", ".join(f"{1e3 * (whole - halo) / bandwidth:.3g}" for bandwidth, _ in LINKS.values())
            table.add(f"{case.object}²", gpus, whole / 1e6, halo / 1e6, whole / halo, saved)
    return table


if __name__ == "__main__":
    import sys

    sys.stdout.write("\n".join(table.markdown() for table in (scaling(), halos())))
