"""What there is to compute on a GPU with: the driver and its cards, CuPy and its libraries. Asked without CuPy as far as that goes."""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: What the driver's library is called.
LIBCUDA = "libcuda.so.1"
#: Where the system tells of the driver's kernel module, and of all cards in the machine.
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_PCI = Path("/sys/bus/pci/devices")
#: PCI's numbers for NVIDIA, and for what draws or computes.
_NVIDIA, _DISPLAY = "0x10de", "0x03"
#: Packages that bring CuPy, and the CUDA they are built for; 0: whatever is there.
PACKAGES = {"cupy-cuda13x": 13, "cupy-cuda12x": 12, "cupy-cuda11x": 11, "cupy": 0}
#: Attributes of a device in CUDA's driver API (cuda.h, CUdevice_attribute).
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
#: Errors of cuInit that say more than their name (cuda.h, CUresult).
_ADVICE = {
    100: "no card is visible to this process (CUDA_VISIBLE_DEVICES, container)",
    802: "the machine's fabric manager is not ready",
    803: "the driver's library and its kernel module are of different versions: restart the machine after an update",
    804: "the driver's compatibility library does not fit this card",
}


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU.

    number: as CUDA counts those that this process may see, from 0 on
    uuid: the card's own, whatever the process may see
    capability: compute capability; memory_bytes: of the card; peers: numbers of cards whose memory it reaches itself
    """

    number: int
    name: str
    uuid: str
    memory_bytes: int
    capability: tuple[int, int]
    peers: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"GPU {self.number}, {self.name}"


@dataclass(frozen=True, slots=True)
class Driver:
    """What the driver says. ``cuda``: the newest version it serves, (0, 0) if unknown; ``trouble``: why there are no cards."""

    version: str = ""
    cuda: tuple[int, int] = (0, 0)
    cards: tuple[Card, ...] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Cupy:
    """What there is of CuPy.

    packages: those installed that bring it, with their versions
    cuda: what it is built for; 0 if unknown
    versions, troubles: of "cupy", "nvrtc", "cufft", "nccl": what is there, or why it cannot be loaded
    """

    packages: Mapping[str, str] = field(default_factory=dict)
    cuda: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    troubles: Mapping[str, str] = field(default_factory=dict)


def ask_driver(library: str = LIBCUDA) -> Driver:
    """The cards, by CUDA's driver API alone."""
    version = _version_of(_KERNEL_MODULE)
    try:
        api = ctypes.CDLL(library)
    except OSError:
        return Driver(version, trouble=_why_no_library(version, library))
    cuda = _number(api.cuDriverGetVersion)
    known = (cuda // 1000, cuda % 1000 // 10)
    error = api.cuInit(0)
    count = 0 if error else _number(api.cuDeviceGetCount)
    if not count:
        return Driver(version, known, trouble=_why_no_cards(api, error or 100))
    return Driver(version, known, tuple(_card(api, number, count) for number in range(count)))


def installed_cupy() -> Cupy:
    """The packages that bring CuPy. Nothing is imported."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Cupy(packages, max((PACKAGES[name] for name in packages), default=0))


def ask_cupy() -> Cupy:
    """What of CuPy can be loaded; imports it."""
    there = installed_cupy()
    versions: dict[str, str] = {}
    troubles: dict[str, str] = {}
    for name, ask in _LIBRARIES.items():
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                versions[name] = ask()
            except Exception as error:
                troubles[name] = _shortly(error, warned)
        if "cupy" in troubles:
            return Cupy(there.packages, there.cuda, versions, troubles)
    return Cupy(there.packages, there.cuda or _built_for(), versions, troubles)


def _cupy_version() -> str:
    return str(importlib.import_module("cupy").__version__)


def _nvrtc_version() -> str:
    return ".".join(map(str, importlib.import_module("cupy_backends.cuda.libs.nvrtc").getVersion()))


def _cufft_version() -> str:
    return _dotted(importlib.import_module("cupy.cuda.cufft").getVersion())


def _nccl_version() -> str:
    nccl = importlib.import_module("cupy.cuda.nccl")
    if not nccl.available:
        raise ImportError("libnccl.so.2 was not found")
    number = nccl.get_version()
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


_LIBRARIES: dict[str, Callable[[], str]] = {
    "cupy": _cupy_version,
    "nvrtc": _nvrtc_version,
    "cufft": _cufft_version,
    "nccl": _nccl_version,
}


def _built_for() -> int:
    return int(importlib.import_module("cupy").cuda.runtime.runtimeGetVersion()) // 1000


def _dotted(number: int) -> str:
    return f"{number // 1000}.{number // 100 % 10}.{number % 100}"


def _shortly(error: Exception, warned: list[warnings.WarningMessage]) -> str:
    """One line: what was raised, or what was only warned of before."""
    reasons = [match[1] for each in warned if (match := re.search(r"Reason: \w+ \((.*)\)", str(each.message)))]
    text = reasons[0] if reasons else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _number(function: Any, *args: Any) -> int:
    """What an API function writes into its first argument; 0 where it refuses."""
    answer = ctypes.c_int()
    return 0 if function(ctypes.byref(answer), *args) else answer.value


def _card(api: Any, number: int, count: int) -> Card:
    device, size, name, uuid = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256), ctypes.create_string_buffer(16)
    api.cuDeviceGet(ctypes.byref(device), number)
    api.cuDeviceGetName(name, len(name), device)
    api.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    # Since CUDA 11.4: of a slice of a card where it is cut into slices (MIG).
    getattr(api, "cuDeviceGetUuid_v2", api.cuDeviceGetUuid)(uuid, device)
    capability = (
        _number(api.cuDeviceGetAttribute, _CAPABILITY_MAJOR, device),
        _number(api.cuDeviceGetAttribute, _CAPABILITY_MINOR, device),
    )
    peers = tuple(other for other in range(count) if other != number and _reaches(api, device, other))
    return Card(number, name.value.decode(errors="replace"), _uuid_text(uuid.raw), size.value, capability, peers)


def _reaches(api: Any, device: ctypes.c_int, other: int) -> bool:
    peer = ctypes.c_int()
    return not api.cuDeviceGet(ctypes.byref(peer), other) and bool(_number(api.cuDeviceCanAccessPeer, device, peer))


def _uuid_text(raw: bytes) -> str:
    digits = raw.hex()
    return "-".join(digits[start:stop] for start, stop in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))


def _version_of(path: Path) -> str:
    """The driver's version as its kernel module tells it; nothing where there is none."""
    try:
        found = re.search(r"\b\d{3}(?:\.\d+)+\b", path.read_text(errors="replace"))
    except OSError:
        return ""
    return found[0] if found else ""


def _why_no_library(version: str, library: str) -> str:
    if version:
        return f"the NVIDIA driver {version} is there, but {library} was not found (a container has to be started with its GPUs)"
    if _has_nvidia_card():
        return f"there is an NVIDIA card, but no driver for it ({library} was not found): install the driver"
    return "there is no NVIDIA card or driver"


def _has_nvidia_card() -> bool:
    return any(_text(card / "vendor") == _NVIDIA and _text(card / "class").startswith(_DISPLAY) for card in _PCI.glob("*"))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _why_no_cards(api: Any, error: int) -> str:
    name = ctypes.c_char_p()
    api.cuGetErrorName(error, ctypes.byref(name))
    said = name.value.decode() if name.value else f"error {error}"
    advice = _ADVICE.get(error, "restart the machine, or ask who runs it")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"the NVIDIA driver gives no card, {said}: {advice}" + (f"; CUDA_VISIBLE_DEVICES is {visible!r}" if visible is not None else "")


@functools.cache
def drivers_cards() -> Driver:
    """``ask_driver``, once in a process: what CUDA lets a process see does not change."""
    return ask_driver()


@functools.cache
def loaded_cupy() -> Cupy:
    """``ask_cupy``, once in a process."""
    return ask_cupy()
