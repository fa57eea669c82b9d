"""How much memory there is for the ranks of a job: what the machine has, or what somebody has set as a limit."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from ptyplugin.solvers.device_plan import Room
from ptyplugin.solvers.ranks import Ranks
from ptyplugin.solvers.verbs import Verbs
from ptyplugin.solvers.verbs.cuda.verbs import CudaVerbs

#: Share of it that is left to others.
_RESERVE = 0.1
#: Addresses that threads and compiled code take without using them (bytes): ``ulimit -v`` limits them too.
_UNUSED_ADDRESSES = 2**28
_CGROUPS = Path("/sys/fs/cgroup")
#: What limits count as none (bytes): cgroups of version 1 say "no limit" by a large number.
_NO_LIMIT = 2**60


def memory_of_rank(ranks: Ranks, wished_bytes: int | None = None) -> int:
    """Bytes that each rank may use, interpreter included; the same on all ranks, which call it together.

    wished_bytes: for all ranks together; else what this machine, its control group (container, service) or Slurm gives, less a reserve
    """
    mine = (int((1 - _RESERVE) * memory_of_machine()) if wished_bytes is None else wished_bytes) // ranks.size
    limit, now = resource.getrlimit(resource.RLIMIT_AS)[0], _address_space_now()
    if wished_bytes is None and limit != resource.RLIM_INFINITY:
        mine = min(mine, max(limit - now - _UNUSED_ADDRESSES, 0) + _resident_now())
    return -ranks.largest(-mine)


def room_on_card(verbs: Verbs, ranks: Ranks, sharing: int) -> Room | None:
    """What each rank may use of its card, which ``sharing`` ranks share; None if verbs compute on the host. All ranks call it together."""
    if not isinstance(verbs, CudaVerbs):
        return None
    free = -ranks.largest(-(verbs.device.memory()[0] // sharing))
    return Room(verbs.device.name, sharing, free, verbs.half_waves)


def memory_of_machine() -> int:
    """Bytes for all processes here: the least of what the machine has and of the limits that it knows of."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    slurm_mb = os.environ.get("SLURM_MEM_PER_NODE", "")
    slurm = [int(slurm_mb) * 2**20] if slurm_mb.isdecimal() and int(slurm_mb) else []
    return min([machine, *slurm, *_cgroup_limits()])


def _cgroup_limits() -> Iterator[int]:
    """Limits of this process's control groups and of those around them, versions 2 and 1."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            root, name = (_CGROUPS / "memory", "memory.limit_in_bytes") if controllers else (_CGROUPS, "memory.max")
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):
                text = _text(folder / name).strip() if folder.is_relative_to(root) else ""
                if text.isdecimal() and int(text) < _NO_LIMIT:
                    yield int(text)


def _address_space_now() -> int:
    """Bytes of addresses that this process has taken, which is what ``ulimit -v`` limits."""
    return _pages(0)


def _resident_now() -> int:
    """Bytes of memory that this process really uses."""
    return _pages(1)


def _pages(place: int) -> int:
    fields = _text(Path("/proc/self/statm")).split()
    return int(fields[place]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > place else 0


def _text(path: Path) -> str:
    """What a file of the system says; nothing where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
