"""Run by test_device_ranks.py under mpiexec: each rank has a device that is the CPU. What it finds it writes into a folder.

usage: device_ranks_run.py FOLDER sums|all
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fake_cards import UNIQUE_ID, FakeNccl, fake_link
from mpi4py import MPI
from numpy.typing import NDArray
from shim import HostDevice

from ptyplugin.model import Geometry, MemoryFrames, PtypluginError, Recipe, Scan
from ptyplugin.solvers import MpiRanks, OneRank, Ranks, Solver, device_ranks, transports
from ptyplugin.solvers.device_ranks import DeviceRanks, transport_for
from ptyplugin.solvers.transports import Lane, Link, Nccl, OnDevice, PinnedLane, Staged, Transport
from ptyplugin.solvers.verbs.cuda.device import DeviceLost
from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs

COMM = MPI.COMM_WORLD
RANKS, UUID = MpiRanks(COMM), f"card {COMM.rank}"
#: The last one has no frames.
ROWS, COLUMNS, WINDOWS = 40, 30, [(3, 22), (15, 33), (0, 0)]
RECIPES = (
    "DM(10)",
    'AP(10, synchronise=5, background="smooth", intensities="fitted", positions="gradient")',
    "RAAR(10, overlap_rounds=2)",
    "ML(10)",
    "LSQML(5)",
    "ePIE(4, batch=3)",
)


class Breaking(HostDevice):
    """A device that is lost in the middle of its work."""

    left = 100

    def do(self, name: str, work: Callable[[], None]) -> None:
        self.left -= 1
        if self.left < 0:
            raise DeviceLost("the GPU fell off the bus.")
        super().do(name, work)


def chosen() -> dict[str, str]:
    """Which transport is taken, by what there is."""
    there = {
        "no card": None,
        "no NCCL": fake_link(None, UUID),
        "NCCL on one rank": fake_link(FakeNccl(COMM) if COMM.rank else None, UUID),
        "NCCL": fake_link(FakeNccl(COMM), UUID),
        "one card for all": fake_link(FakeNccl(COMM), "card"),
        "no network": fake_link(FakeNccl(COMM, network=False), UUID),
        "NCCL that does not start": fake_link(FakeNccl(COMM, refuses=(1,)), UUID),
        "NCCL that does not add": fake_link(FakeNccl(COMM, adds=False), UUID),
    }
    return {name: transport_for(RANKS, HostDevice(), link).name for name, link in there.items()}


def terms(rank: int) -> dict[str, NDArray[Any]]:
    """What a rank has to add."""
    random = np.random.default_rng(rank)
    num, den = np.zeros((2, ROWS, COLUMNS), np.complex64), np.zeros((ROWS, COLUMNS), np.float32)
    rows = slice(*WINDOWS[rank])
    num[:, rows] = random.standard_normal(num[:, rows].shape) + 1j * random.standard_normal(num[:, rows].shape)
    den[rows] = random.uniform(size=den[rows].shape)
    return {"num": num, "den": den, "part": random.standard_normal((5, 9, 7)), "host": random.standard_normal(3)}


def summed(transport: Transport, device: HostDevice) -> dict[str, float]:
    """How far sums over ranks are from what they should be."""
    ranks, mine = DeviceRanks(RANKS, transport), terms(COMM.rank)
    buffer = device.zeros(5 * ROWS * COLUMNS, np.float32)
    num = buffer[: 4 * ROWS * COLUMNS].view(np.complex64).reshape((2, ROWS, COLUMNS))
    den = buffer[4 * ROWS * COLUMNS :].reshape((ROWS, COLUMNS))
    device.fill(num, mine["num"])
    device.fill(den, mine["den"])
    part = device.put(mine["part"])
    ranks.sum_canvas(num, den, (slice(*WINDOWS[COMM.rank]), slice(0, COLUMNS)))  # type: ignore[arg-type]
    ranks.sum(part[1:4, 2:8])  # type: ignore[type-var]
    ranks.sum(device.zeros((0, 4), np.complex64))  # type: ignore[type-var]
    got = {"num": device.get(num), "den": device.get(den), "part": device.get(part), "host": ranks.sum(mine["host"].copy())}
    whole = {name: sum(terms(rank)[name] for rank in range(COMM.size)) for name in got}
    whole["part"], middle = mine["part"].copy(), whole["part"][1:4, 2:8]
    whole["part"][1:4, 2:8] = middle
    return {name: float(np.abs(got[name] - whole[name]).max()) for name in got}


def sums() -> dict[str, Any]:
    """All sums by every transport, and which sums NCCL was asked for."""
    transports._BAND_BYTES = 1000
    device, nccl = HostDevice(), FakeNccl(COMM)
    link = fake_link(nccl, UUID)
    every = {
        "plain": Staged(RANKS, device, lambda: Lane(device)),
        "pinned": Staged(RANKS, device, lambda: PinnedLane(device, link.cuda)),
        "MPI": OnDevice(RANKS, device),
        "NCCL": Nccl(RANKS, link, UNIQUE_ID),
    }
    return {"differences": {name: summed(transport, device) for name, transport in every.items()}, "calls": nccl.calls}


def solved(folder: Path, recipe: str, device: HostDevice, ranks: Ranks, link: Link | None = None) -> dict[str, NDArray[Any]]:
    """Object, probe and error, on rank 0."""
    device_ranks.link_of = lambda device: link
    with np.load(folder / "experiment.npz") as z:
        counts, positions, probe = z["counts"], z["positions_m"], z["probe"]
        geometry = Geometry(float(z["energy_ev"]), float(z["distance_m"]), float(z["pixel_m"]), counts.shape[1:])
    frames, scan = MemoryFrames(counts), Scan(positions, np.arange(len(positions)))
    how: dict[str, Any] = {"start_probe": probe, "ranks": ranks, "verbs": lambda g: CudaVerbs(g, device), "held_out": 0}
    solver = Solver(frames, scan, geometry, Recipe.parse(recipe), **how)
    for _ in solver:
        pass
    result = solver.result()
    return {} if result is None else {"object": result.object, "probe": result.probe, "error": np.array(result.quality["error"])}


def broken(folder: Path, nccl: FakeNccl | None) -> list[Any]:
    """What this rank says when the device of the last one is lost, and the end of what NCCL was asked for."""
    device = Breaking() if COMM.rank == COMM.size - 1 else HostDevice()
    try:
        solved(folder, "LSQML(10)", device, RANKS, None if nccl is None else fake_link(nccl, UUID))
    except PtypluginError as error:
        return [f"{type(error).__name__}: {error}", *(nccl.calls[-1:] if nccl else [])]
    return []


def solutions(folder: Path) -> dict[str, NDArray[Any]]:
    """Of every recipe by one rank, shared out, and by all; by name."""
    transports._BAND_BYTES = 1 << 14
    images = {f"one {recipe}": solved(folder, recipe, HostDevice(), OneRank()) for recipe in RECIPES[COMM.rank :: COMM.size]}
    images |= {f"all {recipe}": solved(folder, recipe, HostDevice(), RANKS) for recipe in RECIPES}
    images["NCCL"] = solved(folder, "DM(10)", HostDevice(), RANKS, fake_link(FakeNccl(COMM), UUID))
    return {f"{name} {what}": array for name, found in images.items() for what, array in found.items()}


def main(folder: Path, what: str) -> None:
    said = sums()
    if what == "all":
        np.savez(folder / f"images_{COMM.rank}.npz", **solutions(folder))
        said |= {"chosen": chosen(), "broken": [broken(folder, nccl) for nccl in (None, FakeNccl(COMM))]}
    (folder / f"said_{COMM.rank}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
