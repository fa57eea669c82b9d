"""Engines: what brings the ranks of a group to life, tells whether they are still to be expected, and ends them."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ptyplugin.model import RanksAway
from ptyplugin.model.own_python import own_python
from ptyplugin.service.processes import Process, forget, kill, make_temporary, remember, remove_temporary
from ptyplugin.service.tied import tied_to_us
from ptyplugin.service.wire import TOKEN_VARIABLE

_log = logging.getLogger(__name__)

#: In the group's folder: what its ranks say while they have no job, and what becomes too long of it (bytes).
GROUP_LOG, _LONG_LOG = "log.txt", 1 << 20
#: Connections that may wait to be heard beside those of the ranks.
STRANGERS = 8


class Engine(ABC):
    """Starts the ranks of one group, once. All its methods are called by the same thread, ``end`` by whoever made it, whatever happens.

    size: how many ranks
    folder: keeps their log
    token: the ranks and the daemon know each other by it
    """

    #: What may be wrong, and what to do, where MPI made a group of another size.
    mismatch: str

    def __init__(self, size: int, folder: Path) -> None:
        self.size, self.folder = size, folder
        self.token = secrets.token_hex(16)

    @abstractmethod
    def start(self) -> socket.socket:
        """Have the ranks started; they come by and by. Where they call; whoever asked closes it.

        Raises:
            RanksAway: they cannot be.
            OSError: the system does not allow it.
        """
        ...

    @abstractmethod
    def met(self, pid: int) -> None:
        """A rank has called; ``pid`` is its number on its own machine."""
        ...

    @property
    def waits(self) -> str:
        """Why nothing is to be expected of the ranks soon, though nothing is wrong; empty if that is not so."""
        return ""

    @property
    def ends_soon(self) -> str:
        """Why the ranks should do no more than make a checkpoint; empty if they need not hurry."""
        return ""

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether no rank can come any more, and those that came are gone or going."""
        ...

    @property
    def was_killed(self) -> bool:
        """Whether what keeps the ranks was killed: they went with it, and it is none of them that failed."""
        return False

    @abstractmethod
    def why_over(self, were_there: bool, log: str) -> str:
        """The sentence for that. were_there: whether all ranks had called; log: "; its log is ..." of the job that they did, or nothing"""
        ...

    @abstractmethod
    def let_leave(self, within_s: float) -> None:
        """Wait for ranks that were told to leave."""
        ...

    @abstractmethod
    def end(self) -> None:
        """End what is left of them. Nobody hears them any more."""
        ...

    def fresh_log(self) -> Path:
        """The log, emptied if it has become long."""
        log = self.folder / GROUP_LOG
        if log.exists() and log.stat().st_size > _LONG_LOG:
            log.write_bytes(b"")
        return log


class LocalEngine(Engine):
    """One ``mpiexec`` on this machine, whose ranks call at a socket that only this user sees. ``environment``: of the ranks."""

    mismatch = (
        "mpiexec and the MPI library do not fit together. Reinstall mpi4py and mpich in one environment, and unset MPI4PY_LIBMPI and "
        "MPI4PY_MPIABI."
    )

    def __init__(self, size: int, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(size, folder)
        self._environment = {**environment, TOKEN_VARIABLE: self.token}
        self._address: Path | None = None
        self._mpiexec: subprocess.Popen[bytes] | None = None
        self._ranks: list[Process | None] = []

    def start(self) -> socket.socket:
        """See Engine."""
        mpiexec = Path(sys.executable).parent / "mpiexec"
        if not mpiexec.exists():
            raise RanksAway(f"there is no {mpiexec}: install mpich with pip in the environment of this Python.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._address = make_temporary(self.folder, "ptyplugin-")
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(self._address / "s"))
            listener.listen(self.size + STRANGERS)
            with self.fresh_log().open("ab") as said:
                self._mpiexec = subprocess.Popen(
                    self._command(mpiexec, self._address / "s"),
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                    env=self._environment,
                )
        except BaseException:
            listener.close()
            raise
        return listener

    def met(self, pid: int) -> None:
        """See Engine."""
        self._ranks.append(Process.running(pid))
        if len(self._ranks) < self.size or self._mpiexec is None:
            return
        try:
            remember(self.folder, [process for process in (*self._ranks, Process.running(self._mpiexec.pid)) if process])
        except OSError as error:
            _log.warning("%s cannot be written (%s): if the daemon is killed, see that its ranks are gone", self.folder, error.strerror)
        self._remove_address()

    @property
    def is_over(self) -> bool:
        """See Engine."""
        return self._mpiexec is None or self._mpiexec.poll() is not None

    @property
    def was_killed(self) -> bool:
        """See Engine."""
        # When a rank fails, mpiexec ends by itself, with a code.
        return self._mpiexec is not None and (self._mpiexec.poll() or 0) < 0

    def why_over(self, were_there: bool, log: str) -> str:
        """See Engine."""
        own = f"; the log is {self.folder / GROUP_LOG}"
        if were_there:
            return f"mpiexec, which keeps the {self.size} ranks of the solver, was killed or crashed{log or own}."
        return f"the {self.size} ranks of the solver did not start or ended at once{own}."

    def let_leave(self, within_s: float) -> None:
        """See Engine."""
        if self._mpiexec is not None:
            with suppress(subprocess.TimeoutExpired):
                self._mpiexec.wait(within_s)

    def end(self) -> None:
        """See Engine."""
        if self._mpiexec is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._mpiexec.pid, signal.SIGKILL)
            self._mpiexec.wait()
            kill(process for process in self._ranks if process)
            forget(self.folder)
            self._mpiexec = None
        self._remove_address()

    def _command(self, mpiexec: Path, address: Path) -> list[str]:
        # -launcher fork -rmk user: on this machine, even inside somebody's Slurm allocation.
        ranks = ["-launcher", "fork", "-rmk", "user", "-n", str(self.size)]
        return [*tied_to_us(), str(mpiexec), *ranks, *own_python("ptyplugin.service.worker", address)]

    def _remove_address(self) -> None:
        if self._address is not None:
            remove_temporary(self.folder)
            self._address = None
