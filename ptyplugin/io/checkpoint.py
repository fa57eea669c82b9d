"""Checkpoint files: one per rank and iteration, whole or absent; a set counts only when all ranks have theirs."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from numpy.lib.format import read_array, write_array

from ptyplugin.io.durable import to_disk

if TYPE_CHECKING:
    from ptyplugin.solvers import Checkpoint, Ranks

_LOG = logging.getLogger(__name__)

#: Changes when older checkpoints cannot be read any more.
_FORMAT = 1
_NUMBERS = "numbers.json"
_NAMES = "checkpoint.*.npz"
#: Writing may take this share of the time.
_SHARE = 0.05


class Checkpoints:
    """The checkpoint files of one reconstruction in a folder that all ranks see; all ranks call each method together.

    A file that cannot be written or read is told in the log, and nothing else happens: checkpoints only save time.

    Args:
        folder: where the files lie; nobody else's checkpoints.
        ranks: those of the reconstruction.
        every_s: seconds from one checkpoint to the next; more, where writing takes long.
    """

    def __init__(self, folder: Path, ranks: Ranks, every_s: float = 20.0) -> None:
        self._folder, self._ranks, self._every_s = folder, ranks, every_s
        self._due = time.monotonic() + every_s

    def are_due(self) -> bool:
        """Whether it is time for the next; rank 0 decides."""
        return bool(self._ranks.largest(int(self._ranks.rank == 0 and time.monotonic() >= self._due)))

    def write(self, checkpoint: Checkpoint) -> None:
        """Write this rank's file. Once all ranks have written theirs, the one before is removed; if one could not, this one."""
        begun = time.monotonic()
        try:
            _write(self._path(checkpoint.iteration), checkpoint)
            failed = False
        except OSError as error:
            _LOG.warning("no checkpoint after iteration %d: %s", checkpoint.iteration, error.strerror or error)
            failed = True
        written = not self._ranks.largest(int(failed))
        self._remove([other for other in self._iterations() if (other == checkpoint.iteration) != written])
        ended = time.monotonic()
        self._due = ended + max(self._every_s, (ended - begun) * (1 / _SHARE - 1))

    def newest(self, refuses: Callable[[Checkpoint], str]) -> Checkpoint | None:
        """This rank's checkpoint of the newest iteration that all ranks can go on from; None if there is none.

        Those of later iterations are removed: they must not become a set with files of the start that goes on from here.

        refuses: gives the reason why this reconstruction cannot go on from a checkpoint, or nothing
        """
        below = sys.maxsize
        while True:
            mine = self._newest(below, refuses)
            iteration = mine.iteration if mine else 0
            latest, earliest = self._ranks.largest(iteration), -self._ranks.largest(-iteration)
            if latest == earliest:
                self._remove([other for other in self._iterations() if other > iteration])
                return mine
            below = earliest + 1

    def _newest(self, below: int, refuses: Callable[[Checkpoint], str]) -> Checkpoint | None:
        for iteration in sorted(self._iterations(), reverse=True):
            if iteration < below:
                found = _read(self._path(iteration))
                refusal = found if isinstance(found, str) else refuses(found)
                if not isinstance(found, str) and not refusal:
                    return found
                _LOG.warning("the checkpoint after iteration %d is of no use: %s", iteration, refusal)
        return None

    def _iterations(self) -> list[int]:
        """Of this rank's files."""
        names = [path.name.split(".") for path in self._folder.glob(f"checkpoint.*.{self._ranks.rank}.npz")]
        return [int(name[1]) for name in names if name[1].isdecimal()]

    def _path(self, iteration: int) -> Path:
        return self._folder / f"checkpoint.{iteration}.{self._ranks.rank}.npz"

    def _remove(self, iterations: list[int]) -> None:
        """This rank's files of these iterations."""
        for iteration in iterations:
            try:
                self._path(iteration).unlink(missing_ok=True)
            except OSError as error:
                _LOG.warning("the checkpoint after iteration %d cannot be removed: %s", iteration, error.strerror or error)


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a folder, of whatever ranks: the reconstruction has ended."""
    for path in [*folder.glob(_NAMES), *folder.glob(f".{_NAMES}.part")]:
        path.unlink(missing_ok=True)


def newest_iteration(folder: Path) -> int:
    """After which the newest checkpoint was made of which all ranks have their files in ``folder``; 0 if there is none."""
    ranks: dict[int, int] = {}
    for path in folder.glob(_NAMES):
        iteration = path.name.split(".")[1]
        if iteration.isdecimal():
            ranks[int(iteration)] = ranks.get(int(iteration), 0) + 1
    return max((iteration for iteration, count in ranks.items() if count == max(ranks.values())), default=0)


def _write(path: Path, checkpoint: Checkpoint) -> None:
    """To a temporary name, to the disk, then renamed."""
    temporary = path.with_name(f".{path.name}.part")
    numbers = {"format": _FORMAT, "iteration": checkpoint.iteration, "task": checkpoint.task, "numbers": checkpoint.numbers}
    try:
        with temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as content:
                content.writestr(_NUMBERS, json.dumps(numbers))
                for name, array in checkpoint.arrays.items():
                    with content.open(f"{name}.npy", "w", force_zip64=True) as member:
                        write_array(member, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> Checkpoint | str:
    """The checkpoint, or why there is none. Damage shows in the checksums of the file's parts."""
    # Who only reads frames or positions, in a session, does not load the solvers.
    from ptyplugin.solvers import Checkpoint

    try:
        with zipfile.ZipFile(path) as content:
            numbers = json.loads(content.read(_NUMBERS))
            if numbers["format"] != _FORMAT:
                return f"{path} is of another version of ptyplugin."
            arrays = {}
            for name in content.namelist():
                if name != _NUMBERS:
                    with content.open(name) as member:
                        arrays[name.removesuffix(".npy")] = read_array(member, allow_pickle=False)
        return Checkpoint(numbers["iteration"], numbers["task"], arrays, numbers["numbers"])
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        return f"{path} is damaged ({' '.join(str(error).split())})."
