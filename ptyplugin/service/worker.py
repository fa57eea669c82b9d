"""One rank of a job: ``mpiexec -n R python -m ptyplugin.service.worker SOCKET``, started by ptyplugin.service.mpiexec."""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from ptyplugin.model import Cancelled, PtypluginError, Site, SolverError
from ptyplugin.service.solving import Task, in_one_sentence, solve_function, solve_to_file
from ptyplugin.service.tied import tie_to_parent
from ptyplugin.service.wire import Message, Wire, failure_fields, progress_fields
from ptyplugin.solvers.ranks import MpiRanks, RankFailed


class Parent:
    """The daemon, as a rank sees it. When it is gone, this process ends at once, whatever it is doing."""

    def __init__(self, address: str) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        self._wire = Wire(connection)
        self._jobs: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._cancel, self._leave = threading.Event(), threading.Event()
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    def send(self, kind: str, **fields: Any) -> None:
        """Tell it something."""
        self._wire.send(kind, **fields)

    def job(self) -> Message:
        """Wait for the job."""
        return self._jobs.get()

    def cancelled(self) -> bool:
        """Whether it asked to stop."""
        return self._cancel.is_set()

    def wait_for_leave(self) -> None:
        """Wait until all ranks have said how it went: who left earlier would have MPI end the others."""
        self._leave.wait()

    def _listen(self) -> None:
        while (messages := self._wire.receive()) is not None:
            for message in messages:
                if message["kind"] == "job":
                    self._jobs.put(message)
                elif message["kind"] == "cancel":
                    self._cancel.set()
                else:
                    self._leave.set()
                    return
        os._exit(1)


def main(address: str) -> None:
    """Say hello, solve the job, say how it went, leave with the others."""
    tie_to_parent(os.getppid())
    # Importing it starts MPI.
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    parent = Parent(address)
    parent.send("hello", rank=comm.rank, size=comm.size, pid=os.getpid())
    order = parent.job()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=f"%(asctime)s rank {comm.rank} %(levelname)s %(name)s: %(message)s")
    _answer(parent, comm, order)
    parent.wait_for_leave()


def _answer(parent: Parent, comm: Any, order: Message) -> None:
    task = Task(Path(order["folder"]), Site.model_validate(order["site"]))
    try:
        with in_one_sentence(task, sys.stderr):
            _check_size(comm, order["ranks"])
            result = solve_to_file(
                task,
                solve_function(order["solve"]),
                MpiRanks(comm),
                lambda progress: parent.send("progress", **progress_fields(progress)),
                parent.cancelled,
            )
    except Cancelled:
        parent.send("cancelled")
    except PtypluginError as error:
        # An echo is the other ranks' failure, heard of here.
        parent.send("failed", **failure_fields(error), echo=isinstance(error, RankFailed))
    else:
        parent.send("done", result=None if result is None else str(result))


def _check_size(comm: Any, expected: int) -> None:
    if comm.size != expected:
        raise SolverError(
            f"MPI made a group of {comm.size} where {expected} ranks were started: mpiexec and the MPI library do not fit together. "
            "Reinstall mpi4py and mpich in one environment, and unset MPI4PY_LIBMPI and MPI4PY_MPIABI."
        )


if __name__ == "__main__":
    main(sys.argv[1])
