"""Which device computes: a GPU where one can be used, or one line why not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ptyplugin.model import DeviceBusy, DeviceError, DeviceName, SolverError
from ptyplugin.solvers.driver import Card, Cupy, Driver, drivers_cards, installed_cupy, loaded_cupy
from ptyplugin.solvers.ranks import MpiRanks, Ranks
from ptyplugin.solvers.verbs.cuda.device import Device

_LOG = logging.getLogger(__name__)

#: The oldest cards that CUDA 13 serves (Turing), and that CUDA 12 does (Maxwell): compute capability.
_OLDEST = {13: (7, 5), 12: (5, 0)}
#: Without these of CuPy's libraries there is no GPU; NCCL only makes several cards quicker.
_NEEDED = {"cupy": "CuPy", "nvrtc": "NVRTC, CUDA's compiler,", "cufft": "cuFFT"}


@dataclass(frozen=True, slots=True)
class Devices:
    """What there is: the driver with its cards, and CuPy. ``cupy`` is only what is installed where there are no cards."""

    driver: Driver
    cupy: Cupy

    @property
    def usable(self) -> tuple[Card, ...]:
        """The cards that this installation can use."""
        if why_not(self):
            return ()
        return tuple(card for card in self.driver.cards if _fits(card, self.cupy.cuda))


def look() -> Devices:
    """What there is on this machine, for this process. CuPy is imported only where there are cards."""
    driver = drivers_cards()
    return Devices(driver, loaded_cupy() if driver.cards else installed_cupy())


def why_not(devices: Devices) -> str:
    """Why there is no usable GPU and what would mend it, in one line; nothing where there is one."""
    driver, cupy = devices.driver, devices.cupy
    if not driver.cards:
        return driver.trouble
    mend = mending(devices)
    if not mend:
        served = ".".join(map(str, driver.cuda))
        return f"{driver.cards[0]} needs a newer driver: {driver.version or 'this one'} serves CUDA {served}, CUDA 12 is the least"
    if len(cupy.packages) > 1:
        return f"several packages bring CuPy ({', '.join(sorted(cupy.packages))}): pip uninstall them all, then {mend}"
    if "cupy" in cupy.troubles:
        there = ", ".join(f"{name} {version}" for name, version in cupy.packages.items())
        return f"{there} cannot be imported ({cupy.troubles['cupy']}): {mend}" if there else f"CuPy is not installed: {mend}"
    if cupy.cuda > driver.cuda[0]:
        return f"CuPy is built for CUDA {cupy.cuda}, the driver {driver.version} serves CUDA {driver.cuda[0]}: {_instead(cupy)}{mend}"
    if not any(_fits(card, cupy.cuda) for card in driver.cards):
        old = driver.cards[0]
        capability = ".".join(map(str, old.capability))
        return f"{old} (compute capability {capability}) is too old for CuPy's CUDA {cupy.cuda}: {_instead(cupy)}{mend}"
    missing = [said for name, said in _NEEDED.items() if name in cupy.troubles]
    return f"{' and '.join(missing)} {'were' if missing[1:] else 'was'} not found: {mend}" if missing else ""


def refusal(devices: Devices, why: str = "") -> str:
    """What is said where a GPU was asked for: ``why`` none can be used, or all that is missing, and what to do."""
    why = why or why_not(devices)
    nor = "" if devices.driver.cards or devices.cupy.packages else f"; nor is CuPy installed: {mending(devices)}"
    return f"a GPU was asked for, and there is none to be used: {why}{nor}; or use device cpu."


def mending(devices: Devices) -> str:
    """The line that installs what these cards need; nothing if their driver serves no CUDA that we know of."""
    served = devices.driver.cuda[0] if devices.driver.cards else 13
    newest = max((card.capability for card in devices.driver.cards), default=_OLDEST[13])
    cuda = next((cuda for cuda, oldest in _OLDEST.items() if cuda <= served and newest >= oldest), 0)
    return f"pip install 'ptyplugin[gpu-cuda{cuda}]'" if cuda else ""


def _instead(cupy: Cupy) -> str:
    return "".join(f"pip uninstall {name}, then " for name in cupy.packages)


def _fits(card: Card, cuda: int) -> bool:
    return card.capability >= _OLDEST.get(cuda, (0, 0))


@dataclass(frozen=True, slots=True)
class Choice:
    """What one rank computes on.

    card, device: its GPU; None: the processor
    sharing: ranks of this job that use this card together
    why: why it is the processor, where a GPU was not refused
    is_held: whether it is the processor because other processes have the cards
    slower: what would make several cards quicker, in a sentence
    """

    card: Card | None = None
    device: Device | None = None
    sharing: int = 1
    why: str = ""
    is_held: bool = False
    slower: str = ""

    def __str__(self) -> str:
        return str(self.card) if self.card else f"CPU ({self.why})" if self.why else "CPU"


#: Takes the first card that is free for this process; None if none is, and who has them, in words.
Take = Callable[[Sequence[Card]], tuple[Card | None, str]]
Open = Callable[[int], Device]


def open_card(number: int) -> Device:
    """The card with this number, as the device that verbs compute on. The only door to CuPy.

    Raises:
        SolverError: it cannot be used.
    """
    from ptyplugin.solvers.verbs.cuda.device import open_device

    return open_device(number)


def choose(wish: DeviceName, ranks: Ranks, take: Take, opens: Open = open_card, find: Callable[[], Devices] = look) -> Choice:
    """What this rank computes on: all ranks on GPUs, or none. All ranks call it together.

    take: takes one of some cards for this process; opens: makes the Device of the card with a number

    Raises:
        DeviceBusy: a GPU was asked for, and other processes have them all.
        DeviceError: a GPU was asked for, and there is none that can be used; the message names what is missing.
    """
    if wish == "cpu":
        return Choice()
    place, devices = _place(ranks), find()
    mine = _mine(ranks, place, take, opens, devices)
    if wish == "gpu" and not mine.card:
        raise (DeviceBusy if mine.is_held else DeviceError)(refusal(devices, mine.why))
    if ranks.largest(int(mine.card is None)):
        whys = ranks.tell(mine.why) if isinstance(ranks, MpiRanks) else []
        others = (f"rank {rank} has no GPU: {why}" for rank, why in enumerate(whys) if why)
        mine = Choice(why=mine.why or next(others, "another rank has no GPU"))
    _LOG.info("computing on %s", mine)
    return mine


def _mine(ranks: Ranks, at: tuple[int, int], take: Take, opens: Open, devices: Devices) -> Choice:
    cards = devices.usable
    if not cards:
        return Choice(why=why_not(devices))
    place, here = at
    # One rank alone takes the first card that is free; of several, each has its own, by turns if there are fewer cards than ranks.
    left, troubles = list(cards) if ranks.size == 1 else [cards[place % len(cards)]], list[str]()
    while left:
        try:
            # The first of the ranks that share a card takes it for all of them.
            card, held = take(left) if place < len(cards) else (left[0], "")
        except DeviceError as error:
            return Choice(why="; ".join([*troubles, str(error).rstrip(".")]))
        if card is None:
            return Choice(why="; ".join([*troubles, held]), is_held=True)
        try:
            return Choice(card, opens(card.number), -(-here // len(cards)), slower=_slower(devices, ranks, len(cards)))
        except (DeviceError, SolverError) as error:
            troubles.append(f"{card} cannot be used ({str(error).rstrip('.')})")
            left.remove(card)
    return Choice(why="; ".join(troubles))


def _slower(devices: Devices, ranks: Ranks, cards: int) -> str:
    if min(ranks.size, cards) == 1 or "nccl" not in devices.cupy.troubles:
        return ""
    return f"NCCL was not found, so sums over ranks go through the host's memory: {mending(devices)} brings it."


def _place(ranks: Ranks) -> tuple[int, int]:
    """Which of the ranks on this machine this is, and how many they are; if nobody knows, all are here. All ranks call it together."""
    return ranks.on_this_machine() if isinstance(ranks, MpiRanks) else (ranks.rank, ranks.size)
