"""The doctor: what this installation has, what of it works, and what to do about the rest. It changes nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ptyplugin
from ptyplugin.model import CatalogError, DeviceName, PtypluginError, Site, SiteError
from ptyplugin.service.findings import Finding, in_gb, self_tested
from ptyplugin.service.gpu_findings import cards_found, self_test_of_cards
from ptyplugin.service.hello import greet
from ptyplugin.service.slots import crowding, places_of
from ptyplugin.service.slurm_findings import slurm_found
from ptyplugin.solvers.devices import Devices
from ptyplugin.solvers.driver import ask_cupy, drivers_cards
from ptyplugin.solvers.memory import memory_of_machine
from ptyplugin.solvers.selftest import difference, speed_of_cpu
from ptyplugin.solvers.verbs.cpu_fft import best_fft

_PACKAGES = ("numpy", "scipy", "numba", "h5py", "tiled", "mpi4py", "mpich")
#: Bytes of a shared folder of memory below which MPI's ranks may not start, as containers often have it.
_LITTLE_SHARED = 32_000_000
_SHARED_MEMORY = Path("/dev/shm")
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def _client(site: Site) -> Any:
    from ptyplugin.api.connections import client_of

    return client_of(site)


def _missing(client: Any) -> list[str]:
    from ptyplugin.catalog import scopes_missing

    return scopes_missing(client)


def _devices() -> Devices:
    return Devices(drivers_cards(), ask_cupy())


@dataclass(frozen=True, slots=True)
class Means:
    """How the doctor looks: at devices, at MPI (starts 2 ranks), at the catalog, at the processor (reference and speed)."""

    devices: Callable[[], Devices] = _devices
    greet: Callable[[int], str] = greet
    client: Callable[[Site], Any] = _client
    cpu_test: Callable[[], Finding] | None = None
    cards_test: Callable[[Devices], Iterator[Finding]] = self_test_of_cards
    missing: Callable[[Any], list[str]] = _missing


def examine(site: Site | None, device: DeviceName = "auto", means: Means | None = None) -> Iterator[Finding]:
    """All findings, each as soon as it is known.

    site: looked at if somebody named one
    device: "gpu" makes it wrong that there is none; "cpu" leaves GPUs alone
    """
    means = means or Means()
    yield from (_versions(), _processor(), _memory())
    devices = means.devices() if device != "cpu" else None
    if devices:
        yield from cards_found(devices, device == "gpu")
    yield from (_fft(), _mpi(means.greet))
    if site:
        yield from _folders(site)
        yield _slots(site)
        yield from slurm_found(site)
        yield from _catalog(site, means)
    else:
        yield Finding("site", "missing", "no site file is named: its folders and Tiled were not looked at", "--site FILE or PTYPLUGIN_SITE")
    yield (means.cpu_test or self_test_of_cpu)()
    if devices:
        yield from means.cards_test(devices)


def _versions() -> Finding:
    there = [f"{name} {version}" for name in _PACKAGES if (version := _version(name))]
    lacking = [name for name in _PACKAGES if not _version(name)]
    said = f"ptyplugin {ptyplugin.__version__}, Python {platform.python_version()} ({sys.platform}), {', '.join(there)}"
    if lacking:
        return Finding("versions", "wrong", f"{said}; not there: {', '.join(lacking)}", "pip install ptyplugin, in this environment")
    return Finding("versions", "ok", said)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _processor() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _cpu_limit()
    said = f"{_processor_name()}, {cores} core(s) for this process"
    if limit < cores:
        todo = "give the container or service more, or set OMP_NUM_THREADS and start fewer ranks"
        return Finding("processor", "wrong", f"{said}, but time of only {limit:g} of them (control group)", todo)
    return Finding("processor", "ok", said)


def _processor_name() -> str:
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _cpu_limit() -> float:
    """Cores' worth of time that a control group gives."""
    quota, _, period = _text(_CPU_LIMIT).strip().partition(" ")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else float("inf")


def _memory() -> Finding:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    said = f"{in_gb(memory_of_machine())} for processes here, of {in_gb(machine)} in the machine"
    addresses = resource.getrlimit(resource.RLIMIT_AS)[0]
    if addresses != resource.RLIM_INFINITY:
        said += f"; {in_gb(addresses)} of addresses per process (ulimit -v)"
    shared = os.statvfs(_SHARED_MEMORY) if _SHARED_MEMORY.is_dir() else None
    free = shared.f_bavail * shared.f_frsize if shared else 0
    said += f"; {in_gb(free)} in {_SHARED_MEMORY}"
    if free < _LITTLE_SHARED:
        return Finding("memory", "wrong", said, f"make {_SHARED_MEMORY} larger (a container: --shm-size=1g): MPI's ranks talk through it")
    return Finding("memory", "ok", said)


def _fft() -> Finding:
    if best_fft() == "pyfftw":
        return Finding("FFT", "ok", f"pyFFTW {_version('pyfftw')}")
    return Finding("FFT", "missing", "SciPy's; pyFFTW is about twice as fast", "pip install 'ptyplugin[fast]'")


def _mpi(greeting: Callable[[int], str]) -> Finding:
    todo = "reinstall mpi4py and mpich in this environment: pip install --force-reinstall mpi4py mpich"
    try:
        library = greeting(2)
    except PtypluginError as error:
        return Finding("MPI", "wrong", str(error), todo)
    except OSError as error:
        return Finding("MPI", "wrong", f"its ranks cannot be started ({error})", "make room and the right to write in the temporary folder")
    return Finding("MPI", "ok", f"{library}: 2 ranks started and found each other")


def _folders(site: Site) -> Iterator[Finding]:
    shared = [("shared", site.shared_dir)] if site.shared_dir else []
    for about, folder in (("home", site.home), ("inbox", site.inbox), *shared, ("results", site.results)):
        trouble = _cannot_write(folder)
        todo = f"give this user the right to write there, or set another in the site file ({about})"
        yield Finding(about, "wrong", f"{folder} {trouble}", todo) if trouble else Finding(about, "ok", f"{folder} can be written")
    for root in site.data_roots:
        if os.access(root, os.R_OK | os.X_OK) and root.is_dir():
            yield Finding("data root", "ok", f"{root} can be read")
        else:
            yield Finding("data root", "wrong", f"{root} is no folder that can be read", "mount it, or correct data_roots in the site file")
    if not site.data_roots:
        yield Finding("data root", "missing", "none: no detector file of a run may be read", "name them in data_roots in the site file")


def _slots(site: Site) -> Finding:
    try:
        places = places_of(site)
    except SiteError as error:
        return Finding("slots", "wrong", str(error), "correct [[slot]] in the site file")
    if said := crowding(places):
        why, _, todo = said.partition(": ")
        return Finding("slots", "warning", why, todo.rstrip("."))
    return Finding("slots", "ok", ", ".join(f"{place.ranks} rank(s){' with GPU' if place.gpus else ''}" for place in places))


def _cannot_write(folder: Path) -> str:
    """Why nothing can be written there; nothing if it can, or once the folder is made, which who needs it does."""
    there = next((above for above in (folder, *folder.parents) if above.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            return ""
    except OSError as error:
        return f"cannot be written ({error.strerror})" if there == folder else f"cannot be made in {there} ({error.strerror})"


def _catalog(site: Site, means: Means) -> Iterator[Finding]:
    if site.tiled_uri is None:
        yield Finding("Tiled", "missing", "no catalog is named: results stay as files", "set tiled_uri in the site file to publish them")
        return
    place = _without_secrets(site.tiled_uri)
    key = "with the key in TILED_API_KEY" if os.environ.get("TILED_API_KEY") else "without a key (TILED_API_KEY is not set)"
    try:
        client = means.client(site)
        list(client.keys().head(1))
        missing = ", ".join(means.missing(client))
    except CatalogError as error:
        yield Finding("Tiled", "wrong", str(error), "start the server, or correct tiled_uri in the site file or TILED_API_KEY")
        return
    todo = "reading is enough for a session; the service needs a key as in docs/how-to/look-after-the-service.md"
    finding = Finding("Tiled", "missing", f"the key in TILED_API_KEY does not allow {missing}", todo)
    yield finding if missing else Finding("Tiled", "ok", f"{place} answers, {key}")


def _without_secrets(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def self_test_of_cpu() -> Finding:
    """Copies, transforms and a small difference map beside the reference, in a few seconds; longer when kernels are compiled."""
    return self_tested("CPU", speed_of_cpu(), difference("cpu"), "one thread", f" ({best_fft()})")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
