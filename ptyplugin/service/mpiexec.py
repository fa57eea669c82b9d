"""Jobs on MPI ranks: a fresh ``mpiexec -n R`` per job, watched from outside MPI, so that a crash of a rank is only a crash of a job."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ptyplugin.model import Cancelled, DiskError, Progress, RanksCrashed, SolverError
from ptyplugin.service import tied
from ptyplugin.service.processes import Process, forget, kill, remember
from ptyplugin.service.solving import SOLVE_JOB, Task, disk_is_in_trouble
from ptyplugin.service.wire import Message, Wire, error_of, progress_of

#: How long the loop sleeps when no rank says anything, seconds.
_TICK_S = 0.05


@dataclass(frozen=True, slots=True)
class Patience:
    """How long what is waited for, in seconds.

    start: until the next rank has said hello; silence: without a word of progress before a job counts as hanging
    grace: for the other ranks to come home after one failed, or all after a cancel; leave: for MPI to end in good order
    """

    start_s: float = 120.0
    silence_s: float = 1800.0
    grace_s: float = 2.0
    leave_s: float = 5.0


class Mpiexec:
    """Solves on ``ranks`` MPI ranks of this machine; without a number on as many as the job, else the site, says."""

    def __init__(self, ranks: int | None = None, *, solve: str = SOLVE_JOB, patience: Patience | None = None) -> None:
        self._ranks, self._solve, self._patience = ranks, solve, patience or Patience()

    def run(self, task: Task, on_progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> Path:
        """See Launcher."""
        ranks = self._ranks or task.job().resources.ranks or task.site.ranks
        group = _Group(task, ranks, self._solve, self._patience)
        try:
            group.start()
            group.follow(on_progress, cancelled)
            return group.result()
        finally:
            group.end()


@dataclass(slots=True)
class _Rank:
    wire: Wire
    number: int | None = None
    process: Process | None = None
    outcome: Message | None = None


class _Group:
    """The processes of one job."""

    def __init__(self, task: Task, size: int, solve: str, patience: Patience) -> None:
        self._task, self._size, self._solve, self._patience = task, size, solve, patience
        self._folder: Path | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._selector = selectors.DefaultSelector()
        self._ranks: list[_Rank] = []
        self._gone: list[_Rank] = []
        self._mpiexec: subprocess.Popen[bytes] | None = None
        self._heard = time.monotonic()
        self._deadline: float | None = None
        self._cancelled = False

    def start(self) -> None:
        """Start the ranks.

        Raises:
            SolverError: there is no mpiexec.
            DiskError: there is no room for its log or temporary files.
            RanksCrashed: it cannot be started now (no memory).
        """
        mpiexec = Path(sys.executable).parent / "mpiexec"
        if not mpiexec.exists():
            raise SolverError(f"there is no {mpiexec}: install mpich with pip in the environment of this Python.")
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="ptyplugin-"))
            address = str(self._folder / "s")
            self._listener.bind(address)
            self._listener.listen(self._size)
            self._selector.register(self._listener, selectors.EVENT_READ)
            with self._task.log.open("ab") as log:
                self._mpiexec = subprocess.Popen(
                    self._command(mpiexec, address),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=self._environment(),
                )
        except OSError as error:
            kind = DiskError if disk_is_in_trouble(error) else RanksCrashed
            raise kind(f"the {self._size} ranks of the solver cannot be started ({error}).") from error

    def follow(self, on_progress: Callable[[Progress], None], cancelled: Callable[[], bool]) -> None:
        """Until every rank has said how it went, one has gone without a word, or patience is at its end."""
        while not self._over():
            for key, _ in self._selector.select(_TICK_S):
                self._hear(key.data, on_progress)
            if not self._cancelled and cancelled():
                self._cancelled = True
                self._be_quick()
                self._tell("cancel")

    def result(self) -> Path:
        """The result file.

        Raises:
            Cancelled, RanksCrashed, CatalogError, DiskError, SolverError: there is none.
        """
        outcomes = [rank.outcome for rank in self._ranks if rank.outcome]
        kinds = [outcome["kind"] for outcome in outcomes]
        if kinds == ["done"] * self._size:
            return self._task.result
        if "failed" in kinds:
            first = min((outcome for outcome in outcomes if outcome["kind"] == "failed"), key=lambda failure: bool(failure["echo"]))
            raise error_of(first)
        if self._cancelled or "cancelled" in kinds:
            raise Cancelled("the job was cancelled.")
        raise self._why_not()

    def end(self) -> None:
        """Let the ranks leave in good order if all are home, and kill what is left in any case."""
        if self._mpiexec is not None:
            if self._all_home():
                self._tell("leave")
                with suppress(subprocess.TimeoutExpired):
                    self._mpiexec.wait(self._patience.leave_s)
            with suppress(ProcessLookupError):
                os.killpg(self._mpiexec.pid, signal.SIGKILL)
            self._mpiexec.wait()
            kill(rank.process for rank in self._ranks if rank.process)
            forget(self._task.folder)
        self._selector.close()
        self._listener.close()
        for rank in self._ranks:
            rank.wire.close()
        self._remove_address()

    def _command(self, mpiexec: Path, address: str) -> list[str]:
        # -launcher fork -rmk user: on this machine, even inside somebody's Slurm allocation.
        ranks = ["-launcher", "fork", "-rmk", "user", "-prepend-rank", "-n", str(self._size)]
        return [
            *(sys.executable, "-I", "-S", tied.__file__, str(os.getpid())),
            *(str(mpiexec), *ranks, sys.executable, "-P", "-u", "-m", "ptyplugin.service.worker", address),
        ]

    def _environment(self) -> dict[str, str]:
        threads = str(max(1, (os.cpu_count() or 1) // self._size))
        return {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, **os.environ}

    def _hear(self, rank: _Rank | None, on_progress: Callable[[Progress], None]) -> None:
        if rank is None:
            wire = Wire(self._listener.accept()[0])
            self._ranks.append(_Rank(wire))
            self._selector.register(wire, selectors.EVENT_READ, self._ranks[-1])
            return
        messages = rank.wire.receive()
        if messages is None:
            self._gone.append(rank)
            self._selector.unregister(rank.wire)
            return
        self._heard = time.monotonic()
        for message in messages:
            if message["kind"] == "progress":
                on_progress(progress_of(message))
            elif message["kind"] == "hello":
                self._greet(rank, message)
            else:
                rank.outcome = message
                if message["kind"] != "done":
                    self._be_quick()

    def _greet(self, rank: _Rank, hello: Message) -> None:
        rank.number, rank.process = hello["rank"], Process.running(hello["pid"])
        known = [each.process for each in self._ranks if each.process]
        if len(known) == self._size and self._mpiexec is not None:
            starter = Process.running(self._mpiexec.pid)
            remember(self._task.folder, [*known, starter] if starter else known)
            # All are connected: a daemon that is killed from now on leaves no temporary folder behind.
            self._remove_address()
            site = self._task.site.model_dump(mode="json")
            self._tell("job", folder=str(self._task.folder), site=site, solve=self._solve, ranks=self._size)

    def _remove_address(self) -> None:
        # Somebody who tidies up temporary files may have been here before; that is no failure of the job.
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _tell(self, kind: str, **fields: object) -> None:
        for rank in self._ranks:
            # One that is gone is heard of by its closed socket.
            with suppress(OSError):
                rank.wire.send(kind, **fields)

    def _be_quick(self) -> None:
        self._deadline = self._deadline or time.monotonic() + self._patience.grace_s

    def _all_home(self) -> bool:
        return len(self._ranks) == self._size and all(rank.outcome for rank in self._ranks)

    def _over(self) -> bool:
        now = time.monotonic()
        ended = self._mpiexec is None or self._mpiexec.poll() is not None
        return (
            self._all_home()
            or bool(self._gone)
            or (ended and not self._selector.select(0))
            or (self._deadline is not None and now > self._deadline)
            or now - self._heard > (self._patience.start_s if self._is_starting() else self._patience.silence_s)
        )

    def _is_starting(self) -> bool:
        return sum(rank.process is not None for rank in self._ranks) < self._size

    def _why_not(self) -> SolverError:
        log = f"its log is {self._task.log}"
        if self._gone and self._gone[0].number is not None:
            return RanksCrashed(f"rank {self._gone[0].number} of {self._size} was killed or crashed; {log}.")
        if self._is_starting() or (self._mpiexec is not None and self._mpiexec.poll() is not None):
            return RanksCrashed(f"the {self._size} ranks of the solver did not start or ended at once; {log}.")
        return SolverError(f"the solver said nothing for {self._patience.silence_s:g} s and was ended; {log}.")
