"""The slots of a site: which ranks and GPUs each has, how much fits into it, and which jobs go there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ptyplugin.model import DeviceName, Site, SiteError, SlotNumbers, SlurmNumbers
from ptyplugin.solvers.devices import Devices
from ptyplugin.solvers.driver import Card, drivers_cards, installed_cupy
from ptyplugin.solvers.memory import memory_of_machine

#: Share of memory that is left to others.
_RESERVE = 0.1
_WISHES: tuple[DeviceName, ...] = ("auto", "cpu", "gpu")


@dataclass(frozen=True, slots=True)
class Place:
    """What a slot has.

    name: "1", "2", ... as the site file has them
    ranks: MPI ranks; beside: those of all other slots on this machine together
    gpus: as CUDA_VISIBLE_DEVICES names them; none: it computes on the processor
    memory_bytes: into which a job should fit: of its GPUs, else its share of the machine's
    takes: the jobs that want to be computed on one of these
    site: as jobs in this slot see it
    limit_s: how long a job may take, seconds
    slurm: what its ranks' allocation is to be; None: they run on this machine
    """

    name: str
    ranks: int
    beside: int
    gpus: tuple[str, ...]
    memory_bytes: int
    takes: tuple[DeviceName, ...]
    site: Site
    limit_s: float | None = None
    slurm: SlurmNumbers | None = None


def places_of(site: Site, devices: Devices | None = None, environment: Mapping[str, str] = os.environ) -> list[Place]:
    """The slots of the site file; without any, one with the site's ranks, on the first GPU if there is one that can be used.

    Raises:
        SiteError: a GPU is named that is not there.
    """
    devices = devices or Devices(drivers_cards(), installed_cupy())
    wanted = site.slot or [SlotNumbers(gpus=_first_gpu(site, devices), ranks=site.ranks)]
    ranks = [0 if slot.slurm else slot.ranks or max(1, len(slot.gpus)) for slot in wanted]
    kinds: list[Literal["cpu", "gpu"]] = ["gpu" if slot.gpus or (slot.slurm and slot.slurm.gpus_per_node) else "cpu" for slot in wanted]
    host_bytes = site.memory_gb * 1e9 if site.memory_gb else (1 - _RESERVE) * memory_of_machine()
    places = []
    for number, slot in enumerate(wanted):
        takes = tuple(wish for wish in _WISHES if _goes_to(wish, site, kinds) in (kinds[number], None))
        if slot.slurm:
            places.append(_place_under_slurm(str(number + 1), slot.slurm, takes, site, slot.time_limit_s))
            continue
        # What a site says is said of each job; what the machine has is shared by all that run at the same time.
        share_bytes = host_bytes if site.memory_gb else host_bytes * ranks[number] / sum(ranks)
        cards = [_card(devices, gpu, number) for gpu in slot.gpus]
        places.append(
            Place(
                name=str(number + 1),
                ranks=ranks[number],
                beside=sum(ranks) - ranks[number],
                gpus=tuple(_visible(card, environment) for card in cards),
                memory_bytes=int((1 - _RESERVE) * sum(card.memory_bytes for card in cards)) if cards else int(share_bytes),
                takes=takes,
                site=site if len(wanted) == 1 else site.model_copy(update={"memory_gb": share_bytes / 1e9}),
                limit_s=slot.time_limit_s,
            )
        )
    return places


def crowding(places: Sequence[Place]) -> str | None:
    """One sentence if more ranks would share the processor than it has cores for."""
    ranks = sum(place.ranks for place in places if not (place.gpus or place.slurm))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if ranks <= cores:
        return None
    return (
        f"{ranks} ranks share the {cores} core(s) that this process may use, and slow each other down: set ranks so that all slots without "
        f"GPUs together have at most {cores}."
    )


def _place_under_slurm(name: str, asked: SlurmNumbers, takes: tuple[DeviceName, ...], site: Site, limit_s: float | None) -> Place:
    nodes = asked.most_nodes or asked.nodes
    return Place(name, nodes * asked.ranks_per_node, 0, (), asked.memory_bytes(nodes), takes, site, limit_s, asked)


def _first_gpu(site: Site, devices: Devices) -> list[int]:
    # CuPy is only looked for: to import it is for the ranks.
    return [card.number for card in devices.usable[:1]] if devices.cupy.packages and site.device != "cpu" else []


def _card(devices: Devices, number: int, slot: int) -> Card:
    found = next((card for card in devices.driver.cards if card.number == number), None)
    if found is None:
        there = ", ".join(map(str, devices.driver.cards)) or devices.driver.trouble
        raise SiteError(f"slot {slot + 1} of the site file wants GPU {number}, which is not there: {there}. `ptyplugin doctor` shows them.")
    return found


def _visible(card: Card, environment: Mapping[str, str]) -> str:
    """What CUDA_VISIBLE_DEVICES calls the card: as it is called for this process, else by its own number."""
    ours = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return ours[card.number] if card.number < len(ours) else f"GPU-{card.uuid}"


def _goes_to(wish: DeviceName, site: Site, kinds: Sequence[Literal["cpu", "gpu"]]) -> Literal["cpu", "gpu"] | None:
    """On what kind of slot such a job is computed; None: on any, for there is none of that kind."""
    wish = site.device if wish == "auto" else wish
    kind: Literal["cpu", "gpu"] = ("gpu" if "gpu" in kinds else "cpu") if wish == "auto" else wish
    return kind if kind in kinds else None
