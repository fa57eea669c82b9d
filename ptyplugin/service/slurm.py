"""Slurm's commands, as far as the service needs them: sbatch, squeue, scancel, scontrol. No accounting is needed.

Jobs are known by their names, which are the service's own: slurmctld may forget a job when it is killed, and give its number to another.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ptyplugin.model import RanksAway

#: How long a command may take, seconds.
_COMMAND_S = 10.0
#: How long a job that is about to end is watched, to learn how, and how often, seconds.
_COMPLETING_S, _LOOK_S = 3.0, 0.1
#: Of squeue: number, state, reason, seconds left, nodes, name. Names come last: another job's may hold anything.
_FORMAT = "%i|%T|%r|%L|%N|%j"
#: In the environment: what has the commands show, cancel or take other jobs than they are told to.
_HABITS, _CLUSTERS = ("SQUEUE_", "SCANCEL_"), "_CLUSTERS"
_STRANGE_TIMES = ("UNLIMITED", "NOT_SET", "INVALID", "")
#: Of a job that ended: fields of scontrol, and what they say when there is nothing to say.
_TOLD, _NOTHING = ("JobState", "Reason", "ExitCode"), ("None", "0:0")


@dataclass(frozen=True, slots=True)
class Listed:
    """A job as squeue shows it. left_s: until its time limit; infinite if nobody knows."""

    number: str
    state: str
    reason: str
    left_s: float
    nodes: str
    name: str

    @property
    def waits(self) -> bool:
        """Whether it has not begun."""
        return self.state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED")


class Slurm:
    """The commands. Each raises RanksAway, with a sentence, if it is not there, does not answer, or refuses."""

    def submit(self, options: Sequence[str], script: str, environment: Mapping[str, str]) -> str:
        """Submit a batch script; the number of the job."""
        said = self._answer(["sbatch", "--parsable", *options], script, environment).strip()
        # In its last line: a site may have more to say.
        number = said.rpartition("\n")[2].partition(";")[0]
        if not number.isdecimal():
            raise RanksAway(f"sbatch answers {said!r}, which is no number of a job.")
        return number

    def would_take(self, options: Sequence[str], script: str, environment: Mapping[str, str]) -> None:
        """Ask whether it could be submitted."""
        self._answer(["sbatch", "--test-only", *options], script, environment)

    def listed(self, beginning: str) -> list[Listed]:
        """This user's jobs whose names begin like this, that wait, run or are about to end."""
        # --all: also of partitions that a site hides.
        said = self._answer(["squeue", "-h", "--all", "-u", str(os.getuid()), "-o", _FORMAT])
        lines = [line.split("|", 5) for line in said.splitlines()]
        return [
            Listed(number, state, reason, seconds(left), nodes, name.strip())
            for number, state, reason, left, nodes, name in (line for line in lines if len(line) == 6)
            if name.startswith(beginning)
        ]

    def cancel(self, name: str) -> None:
        """Cancel this user's jobs of this name; none is well too."""
        self._answer(["scancel", "-u", str(os.getuid()), f"--name={name}"])

    def ending(self, number: str, name: str) -> str:
        """How the job ended, as far as slurmctld remembers: "TIMEOUT", "FAILED (NonZeroExitCode, 1:0)"; empty if it does not."""
        end = time.monotonic() + _COMPLETING_S
        while (how := self._shown(number, name)).startswith("COMPLETING") and time.monotonic() < end:
            time.sleep(_LOOK_S)
        return "" if how.startswith(("PENDING", "RUNNING", "COMPLETING")) else how

    def _shown(self, number: str, name: str) -> str:
        try:
            said = self._answer(["scontrol", "-o", "show", "job", number])
        except RanksAway:
            return ""
        fields = dict(field.partition("=")[::2] for field in said.split())
        if fields.get("JobName") != name:
            return ""
        state, *more = (fields.get(field, "") for field in _TOLD)
        more = [word for word in more if word and word not in _NOTHING]
        return f"{state} ({', '.join(more)})" if more else state

    def _answer(self, command: Sequence[str], given: str = "", environment: Mapping[str, str] = os.environ) -> str:
        try:
            done = subprocess.run(
                command,
                input=given,
                env={name: value for name, value in environment.items() if not (name.startswith(_HABITS) or name.endswith(_CLUSTERS))},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_COMMAND_S,
            )
        except subprocess.TimeoutExpired as error:
            raise RanksAway(f"{command[0]} did not answer within {_COMMAND_S:g} s: see with `sinfo` whether Slurm is well.") from error
        except FileNotFoundError as error:
            raise RanksAway(
                f"{command[0]} was not found: install Slurm's commands on this machine, or put their folder into PATH."
            ) from error
        except OSError as error:
            raise RanksAway(f"{command[0]} cannot be started ({error.strerror}).") from error
        if done.returncode != 0:
            reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise RanksAway(f"Slurm refuses: {reason}.")
        return done.stdout


def seconds(left: str) -> float:
    """Seconds in Slurm's ``days-hours:minutes:seconds``, from the right as much as there is; infinite for anything else."""
    if left in _STRANGE_TIMES:
        return float("inf")
    days, _, rest = left.rpartition("-")
    parts = [days or "0", *["0"] * (2 - rest.count(":")), *rest.split(":")]
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        return float("inf")
    return float(sum(int(part) * unit for part, unit in zip(parts, (86400, 3600, 60, 1), strict=True)))
