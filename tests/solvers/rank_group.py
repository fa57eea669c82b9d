"""MPI ranks that are started once and solve what test after test asks for; as a script, one of them.

usage, under mpiexec: rank_group.py FOLDER PARENT_PID NUMBER_OF_THE_FIRST_ORDER
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import FramesError, Geometry, MemoryFrames, PtypluginError, Recipe, Scan
from ptyplugin.solvers import MpiRanks, OneRank, Ranks, Solver, solve

_WITHIN_S, _LOOK_EVERY_S = 100.0, 0.01


@dataclass(frozen=True)
class Order:
    """What ranks are to solve. ``failure``, on the last rank: "frames", "in the loop" or "cancel"."""

    recipe: str
    precision: str = "single"
    object_modes: int = 1
    failure: str = ""
    waves_fit: bool = True


@dataclass(frozen=True)
class Outcome:
    """What came of an order: arrays of the result, or what each rank said in place of one; and what was logged."""

    arrays: dict[str, NDArray[Any]]
    failures: list[str]
    log: str


class Failing(MemoryFrames):
    """Frames that one rank cannot read."""

    def read(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        raise FramesError("frame 7 cannot be read: the file is truncated.")


class RankGroup:
    """``size`` ranks, each a process (one is this process). They solve one order after the other, until this process ends."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size, self._numbers = folder, size, count()
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, experiment: Any, probe: NDArray[Any] | None, recipe: str, **how: Any) -> Outcome:
        """Solve; without a ``probe``, one is found from the data. The keywords are those of ``Order``."""
        place, order = self.folder / str(next(self._numbers)), Order(recipe, **how)
        place.mkdir()
        g = experiment.geometry
        arrays = {} if probe is None else {"probe": probe}
        arrays |= {"counts": experiment.frames.counts, "positions_m": experiment.scan.positions_m}
        np.savez(place / "experiment.npz", numbers=[g.energy_ev, g.distance_m, g.pixel_m], **arrays)
        log = self._ask(place, order) if self.size > 1 else ""
        if self.size == 1:
            answer(place, order, OneRank())
        result = place / "result.npz"
        failures = [path.read_text() for path in sorted(place.glob("failure_*.txt"))]
        if not result.exists():
            return Outcome({}, failures, log)
        with np.load(result) as found:
            return Outcome(dict(found), failures, log)

    def _ask(self, place: Path, order: Order) -> str:
        log = self.folder / "log"
        if self._process is None:
            self._process = self._started(place.name, log)
        before = log.stat().st_size
        (place / "new").write_text(json.dumps(asdict(order)))
        (place / "new").rename(place / "order.json")
        end_s = time.monotonic() + _WITHIN_S
        # Behind all else that each rank said.
        while log.read_bytes().count(_answered(place)) < self.size:
            if self._process.poll() is not None or time.monotonic() > end_s:
                self.close()
                raise AssertionError(f"{order}: no answer. {log.read_bytes()[before:].decode()}")
            time.sleep(_LOOK_EVERY_S)
        return log.read_bytes()[before:].decode()

    def _started(self, first: str, log: Path) -> subprocess.Popen[bytes]:
        mpiexec = [str(Path(sys.executable).with_name("mpiexec")), "-n", str(self.size)]
        command = [*mpiexec, sys.executable, __file__, str(self.folder), str(os.getpid()), first]
        with log.open("ab") as said:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    def close(self) -> None:
        """End the processes, if there are any."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None


def _answered(place: Path) -> bytes:
    return f"answered {place.name}\n".encode()


def answer(place: Path, order: Order, ranks: Ranks) -> None:
    """Solve what lies in a folder, on all ranks; rank 0 writes the result, or each the sentence of its error."""
    with np.load(place / "experiment.npz") as z:
        counts, positions, probe = z["counts"], z["positions_m"], z.get("probe")
        geometry = Geometry(*(float(number) for number in z["numbers"]), counts.shape[1:])
    fails = order.failure if ranks.rank == ranks.size - 1 else ""
    frames = Failing(counts) if fails == "frames" else MemoryFrames(counts)
    scan, recipe, memory_bytes = Scan(positions, np.arange(len(positions))), Recipe.parse(order.recipe), None
    if not order.waves_fit:
        memory_bytes = Solver(frames, scan, geometry, recipe, ranks=ranks).plan().needed_bytes - 1
        assert Solver(frames, scan, geometry, recipe, ranks=ranks, memory_bytes=memory_bytes).plan().recomputes_waves
    calls = count(1)

    def cancelled() -> bool:
        third = next(calls) == 3
        if third and fails == "in the loop":
            raise ValueError("a bug on this rank")
        return third and fails == "cancel"

    how: Any = {"start_probe": probe, "precision": order.precision, "memory_bytes": memory_bytes, "object_modes": order.object_modes}
    try:
        result = solve(frames, scan, geometry, recipe=recipe, ranks=ranks, cancelled=cancelled, **how)
    except (PtypluginError, ValueError) as error:
        (place / f"failure_{ranks.rank}.txt").write_text(f"{type(error).__name__}: {error}")
        return
    assert (result is None) == (ranks.rank > 0)
    if result is not None:
        error = result.quality["error"]
        np.savez(place / "result.npz", object=result.object, probe=result.probe, positions_px=result.positions_px, error=error)


def main(folder: Path, parent: Path, first: int) -> None:
    """Answer orders as they come, without waiting for each other by busy polling, as long as there is somebody who gives them."""
    from mpi4py import MPI

    for number in count(first):
        place = folder / str(number)
        while not (place / "order.json").exists():
            if not parent.exists():
                return
            time.sleep(_LOOK_EVERY_S)
        # Of its own: what an order that failed left behind is nothing to the next.
        comm = MPI.COMM_WORLD.Dup()
        answer(place, Order(**json.loads((place / "order.json").read_text())), MpiRanks(comm))
        comm.Free()
        os.write(2, _answered(place))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path("/proc") / sys.argv[2], int(sys.argv[3]))
