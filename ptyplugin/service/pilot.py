"""A pilot: one job of Slurm's in which the ranks of a group live, and from where they call the daemon over the network."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shlex
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from ptyplugin.model import RanksAway
from ptyplugin.model.own_python import own_python
from ptyplugin.model.redaction import is_secret
from ptyplugin.model.slurm import SlurmNumbers
from ptyplugin.service.engines import GROUP_LOG, STRANGERS, Engine
from ptyplugin.service.slurm import Listed, Slurm

_log = logging.getLogger(__name__)

#: In the slot's folder: the beginning of the names of its pilots, which tells them from those of other daemons.
_NAME_FILE = "slurm-name"
_OUR_NAME = re.compile(r"ptyplugin-[0-9a-f]{8}")
#: Seconds between two looks at the queue: the first, and the longest, before the ranks are there and while they are.
_FIRST_S, _LONGEST_S, _THERE_S = 0.25, 15.0, 60.0
#: How long before its time limit a pilot makes way for the next: seconds at most, and share of the time that it was given.
_MARGIN_S, _MARGIN = 120.0, 0.1
#: How long a cancelled pilot is watched on its way out of the queue, and how often, seconds.
_GONE_S, _LOOK_S = 5.0, 0.1
#: Ends of a job that its ranks did not bring about.
_KILLED = ("CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "DEADLINE", "OUT_OF_MEMORY")
#: Of the daemon's environment, what the ranks need though it is a secret: frames may come through the catalog.
_NEEDED_SECRETS = ("TILED_API_KEY",)
#: What MPICH's UCX has slurmstepd hand around may be longer than the 1024 bytes of a line that it reads (decision record 0012).
_SHORT_LINES = ("MPIR_CVAR_CH4_NETMOD", "ofi")


class Pilot(Engine):
    """The engine of a group under Slurm.

    asked: what its allocation is to be; nodes: of how many
    folder: keeps its token and its log; shared with the nodes
    """

    def __init__(self, asked: SlurmNumbers, nodes: int, folder: Path, slurm: Slurm | None = None) -> None:
        super().__init__(nodes * asked.ranks_per_node, folder)
        self.mismatch = (
            f"srun --mpi={asked.mpi} and the MPI library of the ranks do not fit together. `srun --mpi=list` shows what there is; name it "
            "as mpi in [slot.slurm] of the site file."
        )
        self._asked, self._nodes, self._slurm = asked, nodes, slurm or Slurm()
        self._uid = secrets.token_hex(4)
        self._token_file = folder / f"token.{self._uid}"
        self._name, self._number = "", ""
        self._watch: _Watch | None = None
        self._met = 0

    def start(self) -> socket.socket:
        """See Engine."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ours = own_name(self.folder)
        # Those of an earlier daemon, and those of which nobody can say whether they were submitted.
        for left in self._slurm.listed(ours):
            _log.info("Slurm job %s is left over and cancelled", left.number)
            self._slurm.cancel(left.name)
        for token in self.folder.glob("token.*"):
            token.unlink(missing_ok=True)
        self._name = f"{ours}-{self._uid}"
        listener = socket.create_server((self._asked.host, self._asked.port), backlog=self.size + STRANGERS)
        try:
            with os.fdopen(os.open(self._token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(self.token)
            asked = options(self._asked, self._nodes, self._name, self.fresh_log())
            self._number = self._slurm.submit(asked, self._script(listener.getsockname()[1]), environment_of_ranks(self._asked))
        except BaseException:
            listener.close()
            raise
        _log.info("Slurm job %s was submitted: %d rank(s) on %d node(s)", self._number, self.size, self._nodes)
        self._watch = _Watch(self._slurm, self._name)
        self._watch.start()
        return listener

    def met(self, pid: int) -> None:
        """See Engine."""
        self._met += 1
        if self._met == self.size and self._watch:
            self._remove_token()
            self._watch.look_when_it_ends()

    @property
    def waits(self) -> str:
        """See Engine."""
        return f"Slurm job {self._number} of its ranks waits{self._watch.waits}" if self._watch and self._watch.waits else ""

    @property
    def ends_soon(self) -> str:
        """See Engine."""
        if self._watch is None or time.monotonic() < self._watch.enough_at:
            return ""
        return f"Slurm job {self._number}, in which the ranks of the solver live, is near its time limit"

    @property
    def is_over(self) -> bool:
        """See Engine. Ranks that are there are believed more than slurmctld: it may have forgotten them, and they work."""
        return self._met < self.size and self._watch is not None and self._watch.is_over

    @property
    def was_killed(self) -> bool:
        """See Engine."""
        return self._slurm.ending(self._number, self._name).startswith(_KILLED)

    def why_over(self, were_there: bool, log: str) -> str:
        """See Engine."""
        how = self._slurm.ending(self._number, self._name)
        if were_there:
            return f"Slurm job {self._number}, in which the {self.size} rank(s) of the solver lived, has ended ({how}){log}."
        if self.is_over:
            said = f"ended before its {self.size} rank(s) called the daemon{f': {how}' if how else ''}"
        else:
            said = f"runs, but {self._met} of its {self.size} rank(s) called the daemon at {self._asked.host} in time"
        return (
            f"Slurm job {self._number} {said}; the log is {self.folder / GROUP_LOG}, and if it is empty, the nodes may not see that folder "
            "(shared_dir in the site file)."
        )

    def let_leave(self, within_s: float) -> None:
        """See Engine."""
        self._wait_until_gone(within_s)

    def end(self) -> None:
        """See Engine."""
        if self._watch:
            self._watch.end()
        self._remove_token()
        # Also one of which nobody can say whether it was submitted.
        if self._name:
            try:
                self._slurm.cancel(self._name)
                self._wait_until_gone(_GONE_S)
            except RanksAway as error:
                _log.warning("Slurm job %s cannot be cancelled now (%s): it ends by itself, for nobody hears it", self._name, error)

    def _remove_token(self) -> None:
        try:
            self._token_file.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s cannot be removed now (%s): that is done before the next pilot is submitted", self._token_file, error.strerror)

    def _wait_until_gone(self, within_s: float) -> None:
        end = time.monotonic() + within_s
        with suppress(RanksAway):
            while self._slurm.listed(self._name) and time.monotonic() < end:
                time.sleep(_LOOK_S)

    def _script(self, port: int) -> str:
        ranks = [f"--nodes={self._nodes}", f"--ntasks={self.size}", f"--cpus-per-task={self._asked.cpus_per_rank}"]
        worker = own_python("ptyplugin.service.worker", f"{self._asked.host}:{port}", self._token_file, python=self._asked.python)
        words = ["srun", "--kill-on-bad-exit=1", f"--mpi={self._asked.mpi}", *ranks, *worker]
        return f"#!/bin/sh\nexec {shlex.join(words)}\n"


def own_name(folder: Path) -> str:
    """The beginning of the names of the pilots of the slot with this folder: made once, and the same for all daemons after this one."""
    file = folder / _NAME_FILE
    written = file.read_text(errors="replace") if file.exists() else ""
    if _OUR_NAME.fullmatch(written):
        return written
    # Never a name cut short by a full disk: others' jobs begin like that, and all that begin like it are cancelled.
    name, temporary = f"ptyplugin-{secrets.token_hex(4)}", file.with_suffix(".tmp")
    temporary.write_text(name)
    temporary.replace(file)
    return name


def options(asked: SlurmNumbers, nodes: int, name: str, log: Path) -> list[str]:
    """Of sbatch."""
    own = {"partition": asked.partition, "account": asked.account, "time": asked.time, "gpus-per-node": asked.gpus_per_node or None}
    return [
        *(f"--job-name={name}", f"--comment={name}", f"--nodes={nodes}", f"--ntasks-per-node={asked.ranks_per_node}"),
        *(f"--cpus-per-task={asked.cpus_per_rank}", *(f"--{option}={value}" for option, value in own.items() if value is not None)),
        # sbatch reads % as the beginning of a pattern.
        *(f"--output={str(log).replace('%', '%%')}", "--open-mode=append", f"--chdir={log.parent}", "--export=ALL", "--no-requeue"),
        *asked.options,
    ]


def environment_of_ranks(asked: SlurmNumbers) -> dict[str, str]:
    """What sbatch hands on: this process's environment without its secrets, and without the allocation in which it may run itself."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if (not is_secret(name) or name in _NEEDED_SECRETS) and (not name.startswith("SLURM_") or name == "SLURM_CONF")
    }
    threads = str(asked.cpus_per_rank)
    kept |= {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    if asked.mpi == "pmi2":
        kept.setdefault(*_SHORT_LINES)
    if asked.gpus_per_node:
        kept.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        kept["CUDA_VISIBLE_DEVICES"] = ""
    return kept


class _Watch(threading.Thread):
    """Looks at the queue, so that nobody who solves has to wait for slurmctld.

    waits: how the job waits, or is suspended, in words; empty if it runs
    is_over: whether it waits and runs no more
    enough_at: when its ranks should begin no more work, by the monotonic clock
    """

    def __init__(self, slurm: Slurm, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.waits, self.is_over, self.enough_at = " in the queue", False, float("inf")
        self._slurm, self._job = slurm, name
        self._news = threading.Event()
        self._has_ranks = self._is_ended = False
        self._margin_s: float | None = None

    def look_when_it_ends(self) -> None:
        """Its ranks are there."""
        self._has_ranks, self.waits = True, ""
        self._news.set()

    def end(self) -> None:
        """Look no more."""
        self._is_ended = True
        self._news.set()

    def run(self) -> None:
        wait_s = _FIRST_S
        while not self._is_ended:
            try:
                self._see(self._slurm.listed(self._job))
            except RanksAway as error:
                if not self._has_ranks:
                    self.waits = f", as far as anybody knows: {error}"
            self._news.wait(_THERE_S if self._has_ranks else wait_s)
            self._news.clear()
            wait_s = min(2 * wait_s, _LONGEST_S)

    def _see(self, found: list[Listed]) -> None:
        if not found or found[0].state == "COMPLETING":
            self.is_over, self.waits = True, ""
            return
        job = found[0]
        # Of one whose ranks are there, all else is old news.
        waits = job.state == "SUSPENDED" if self._has_ranks else job.waits
        self.waits = f" in the queue ({job.state}, {job.reason})" if waits else ""
        if self._has_ranks:
            if self._margin_s is None:
                _log.info("the ranks of Slurm job %s are there, on %s", job.number, job.nodes)
                self._margin_s = min(_MARGIN_S, _MARGIN * job.left_s)
            self.enough_at = time.monotonic() + job.left_s - self._margin_s
