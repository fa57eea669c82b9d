"""What a slot asks of Slurm: plain data that becomes options of ``sbatch``; nothing in it is run by a shell."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

#: Options of sbatch that the service gives itself.
_OWN = (
    *("account", "array", "chdir", "comment", "cpus-per-task", "error", "export", "get-user-env", "gpus-per-node", "input", "job-name"),
    *("no-requeue", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "parsable", "partition", "requeue", "test-only", "time"),
    *("wait", "wrap"),
)

_WORD = re.compile(r"[A-Za-z0-9_.,+-]+")
_TIME = re.compile(r"(\d+-)?\d+(:\d\d){0,2}")
_OPTION = re.compile(r"--[a-z][a-z-]*(=[^\n\0]*)?")


def _word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError("write one word, of letters, digits and any of _.,+-")
    return text


_Word = Annotated[str, AfterValidator(_word)]


class SlurmNumbers(BaseModel):
    """The allocation that a slot's ranks live in, and how they reach the daemon."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: _Word | None = Field(None, description="of the cluster; its default if absent")
    account: _Word | None = Field(None, description="on which the time is booked")
    nodes: PositiveInt = Field(1, description="nodes of the allocation")
    most_nodes: PositiveInt | None = Field(None, description="up to so many, where a job needs their memory; ``nodes`` if absent")
    ranks_per_node: PositiveInt = Field(1, description="MPI ranks on each node")
    cpus_per_rank: PositiveInt = Field(1, description="cores of each rank")
    gpus_per_node: NonNegativeInt = Field(0, description="GPUs of each node; 0: it computes on the processors")
    memory_gb_per_node: PositiveFloat = Field(description="memory of a node into which jobs should fit; of its GPUs where it has some")
    time: str | None = Field(None, description="time limit, as sbatch has it: 08:00:00, 2-00; the partition's if absent")
    mpi: _Word = Field("pmi2", description="srun's --mpi")
    jobs_per_pilot: PositiveInt = Field(1000, description="jobs after which the allocation is given back; 1: one for each reconstruction")
    python: str | None = Field(None, description="the interpreter on the nodes; the same path as the daemon's if absent")
    host: _Word = Field("127.0.0.1", description="the daemon's address, as the nodes reach it; it listens there and nowhere else")
    port: int = Field(0, ge=0, le=65535, description="port of the daemon for this slot; 0: any that is free")
    options: list[str] = Field(default=[], description='more of sbatch, e.g. ["--qos=beamline", "--constraint=h100"]')

    @field_validator("time")
    @classmethod
    def _is_a_time(cls, time: str | None) -> str | None:
        if time is not None and not _TIME.fullmatch(time):
            raise ValueError("write a time such as 08:00:00 or 2-00 (days-hours)")
        return time

    @field_validator("options")
    @classmethod
    def _are_options(cls, options: list[str]) -> list[str]:
        for option in options:
            if not _OPTION.fullmatch(option):
                raise ValueError(f"{option!r} is no option: write each as --name=value")
            name = option[2:].partition("=")[0]
            # sbatch takes beginnings for the whole.
            if any(own.startswith(name) for own in _OWN):
                raise ValueError(f"--{name} is given by the service itself, from the keys of this table")
            if name == "clusters":
                raise ValueError("the service sees one cluster: have SLURM_CONF in its environment name that one's configuration")
        return options

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, host: str) -> str:
        if host == "0.0.0.0":
            raise ValueError("write the one address, or name, of this machine that the nodes reach")
        return host

    @model_validator(mode="after")
    def _fits_together(self) -> SlurmNumbers:
        if self.most_nodes is not None and (self.jobs_per_pilot != 1 or self.most_nodes < self.nodes):
            raise ValueError("most_nodes is for jobs_per_pilot = 1, and not less than nodes: an allocation that stays has one size")
        return self

    def memory_bytes(self, nodes: int) -> int:
        """Of so many nodes together."""
        return int(nodes * self.memory_gb_per_node * 1e9)

    def nodes_for(self, needed_bytes: int) -> int:
        """So many that this fits into them, as far as the site allows."""
        wanted = -(-needed_bytes // self.memory_bytes(1))
        return max(self.nodes, min(wanted, self.most_nodes or self.nodes))
