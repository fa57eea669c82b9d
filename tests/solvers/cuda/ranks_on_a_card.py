"""One of two ranks that share a card, for which the CPU stands: ``mpiexec -n 2 python ranks_on_a_card.py FILE.cxi LOCKS``."""

from __future__ import annotations

import sys
from pathlib import Path

from mpi4py import MPI

sys.path.insert(0, str(Path(__file__).parent))

from shim import HostDevice

from ptyplugin.api import JobSolver, card_lock, folder_of, make_job, open_scan
from ptyplugin.solvers import MpiRanks, devices
from ptyplugin.solvers.driver import Card, Cupy, Driver
from ptyplugin.solvers.verbs.cuda import device as cuda_device

card_lock.FOLDER = Path(sys.argv[2])
CARD = Card(0, "a card", "11111111-0000-0000-0000-000000000000", 2**30, (9, 0))
devices.drivers_cards = lambda: Driver("580.1", (13, 0), (CARD,))
devices.loaded_cupy = lambda: Cupy({"cupy-cuda13x": "14"}, 13, {"cupy": "14", "nvrtc": "13", "cufft": "12"}, {"nccl": "not there"})
cuda_device.open_device = lambda number: HostDevice(2**30)

scan = open_scan(sys.argv[1])
parts = make_job(scan, "DM(3)", device="gpu")
with folder_of(parts) as folder, JobSolver(parts.job, folder, scan.site, MpiRanks(MPI.COMM_WORLD)) as solver:
    for _ in solver:
        pass
    solver.result()
    card = solver.plan().card
    print(MPI.COMM_WORLD.rank, solver.device_used, card and card.sharing, len(card_lock._held), flush=True)
