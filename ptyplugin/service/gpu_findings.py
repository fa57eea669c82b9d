"""What the doctor says about GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ptyplugin.api.card_lock import CardLock
from ptyplugin.model import DeviceError, SolverError
from ptyplugin.service.findings import Finding, State, in_gb, self_tested
from ptyplugin.solvers.devices import Devices, mending, open_card, why_not
from ptyplugin.solvers.driver import Card
from ptyplugin.solvers.selftest import difference, speed_of
from ptyplugin.solvers.verbs.choice import verbs_on
from ptyplugin.solvers.verbs.cuda.device import Device

#: What CUDA 13 has given up: Volta (V100) and older.
_TURING = (7, 5)
_LIBRARIES = {"nvrtc": "NVRTC", "cufft": "cuFFT", "nccl": "NCCL"}


def cards_found(devices: Devices, asked: bool) -> Iterator[Finding]:
    """Driver, cards, CuPy and its libraries. ``asked``: whether a GPU has to be usable."""
    lacking: State = "wrong" if asked else "missing"
    driver, trouble = devices.driver, why_not(devices)
    if not driver.cards:
        yield Finding("GPU", lacking, driver.trouble, "" if not asked else "use a machine with one, or --device cpu")
    else:
        served = ".".join(map(str, driver.cuda))
        yield Finding("driver", "ok", f"NVIDIA {driver.version or 'of unknown version'}, serves CUDA {served}")
    for card in driver.cards:
        yield _card(card, devices, lacking)
    if len(driver.cards) > 1:
        yield _peers(driver.cards)
    yield from _cupy(devices, lacking)
    if driver.cards and trouble:
        why, _, todo = trouble.rpartition(": ")
        yield Finding("GPU", lacking, f"cannot be used: {why}", todo)


def _card(card: Card, devices: Devices, lacking: State) -> Finding:
    capability = ".".join(map(str, card.capability))
    said = f"{card.name}, {in_gb(card.memory_bytes)}, compute capability {capability}"
    if card.capability < _TURING and devices.cupy.cuda != 12:
        said += ": CUDA 13 serves cards from 7.5 on, this one (Volta, as V100, or older) needs CUDA 12"
        return Finding(f"GPU {card.number}", lacking, said, "pip install 'ptyplugin[gpu-cuda12]' in an environment without gpu-cuda13")
    return Finding(f"GPU {card.number}", "ok", said)


def _peers(cards: tuple[Card, ...]) -> Finding:
    pairs = [(card.number, peer) for card in cards for peer in card.peers]
    if len(pairs) == len(cards) * (len(cards) - 1):
        return Finding("peer access", "ok", f"all {len(cards)} cards reach each other's memory")
    said = ", ".join(f"{one} to {other}" for one, other in pairs) or "none"
    return Finding("peer access", "missing", f"not all cards reach each other's memory ({said}): sums over ranks are slower")


def _cupy(devices: Devices, lacking: State) -> Iterator[Finding]:
    cupy, cards = devices.cupy, devices.driver.cards
    mend = mending(devices) if cards else f"with a GPU: {mending(devices)}"
    if "cupy" in cupy.troubles:
        said = f"cannot be imported: {cupy.troubles['cupy']}" if cupy.packages else "is not installed"
        yield Finding("CuPy", lacking if cards or lacking == "wrong" else "not needed", f"CuPy {said}", mend)
        return
    packages = ", ".join(f"{name} {version}" for name, version in cupy.packages.items())
    yield Finding("CuPy", "ok", f"{packages or cupy.versions['cupy']}, built for CUDA {cupy.cuda or 'of unknown version'}")
    for name, said in _LIBRARIES.items():
        if name in cupy.versions:
            yield Finding(said, "ok", cupy.versions[name])
        else:
            # Without NCCL, sums over ranks go through the host's memory.
            yield Finding(said, "missing" if name == "nccl" else lacking, cupy.troubles.get(name, "not found"), mend)


def self_test_of_cards(devices: Devices, opens: Callable[[int], Device] = open_card) -> Iterator[Finding]:
    """Copies, transforms and a small difference map beside the reference, on each card that is free."""
    for card in devices.usable:
        lock = CardLock(wait_s=0)
        try:
            holder = lock.take(card)
            if holder:
                yield Finding(f"GPU {card.number} self-test", "missing", f"left out: the card is in use by {holder}", "wait, or stop it")
            else:
                yield _tested(card, opens)
        except (SolverError, DeviceError) as error:
            yield Finding(
                f"GPU {card.number} self-test", "wrong", str(error), "see whether nvidia-smi shows the card, or restart the machine"
            )
        finally:
            lock.release()


def _tested(card: Card, opens: Callable[[int], Device]) -> Finding:
    device = opens(card.number)
    speed, apart = speed_of(device), difference(verbs_on(device))
    free, total = device.memory()
    return self_tested(f"GPU {card.number}", speed, apart, "it", f"; {in_gb(free)} of {in_gb(total)} are free")
