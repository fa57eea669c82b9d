"""The service as a process of its own, as a beamline runs it; its site, and waiting for what it does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ptyplugin.model import Site, SlotNumbers, load_site
from ptyplugin.model.own_python import own_python
from ptyplugin.service.tied import tied_to_us

_START_S, _END_S = 120.0, 40.0
#: Clients and servers of EPICS stay on this machine.
LOOPBACK = {
    "EPICS_CA_ADDR_LIST": "127.0.0.1",
    "EPICS_CA_AUTO_ADDR_LIST": "NO",
    "EPICS_PVA_ADDR_LIST": "127.0.0.1",
    "EPICS_PVA_AUTO_ADDR_LIST": "NO",
}
_Answer = TypeVar("_Answer")


def site_file(folder: Path, lines: str = "", tables: str = "") -> Path:
    """Write the site that lies in ``folder``, without a GPU and without web pages: further lines of its head, and tables."""
    file = folder / "site.toml"
    head = f'home = "{folder}/home"\nhttp_port = 0\ndevice = "cpu"\n'
    file.write_text(f"{head}{lines}\n{tables}\n", encoding="utf-8")
    return file


@contextmanager
def home() -> Iterator[Site]:
    """A site of two ranks in a folder of its own, for a daemon in this process; gone with the block."""
    with tempfile.TemporaryDirectory(prefix="ptyplugin-bench-") as name:
        folder = Path(name)
        yield Site(home=folder, slot=[SlotNumbers(ranks=2)], data_roots=[folder], device="cpu")


def until(look: Callable[[], _Answer], what: str, within_s: float = 120.0, every_s: float = 0.02) -> _Answer:
    """Look again and again until there is an answer, which is returned.

    Raises:
        TimeoutError: there was none in time; it says what was waited for.
    """
    end_s = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > end_s:
            raise TimeoutError(f"{what}: not within {within_s:g} s")
        time.sleep(every_s)
    return found


@contextmanager
def serving(
    file: Path, folder: Path, words: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """``ptyplugin serve`` at the site of ``file``, from when it takes jobs; its log is ``folder/serve.log``.

    words: further ones of its command line; environment: beside that of this process

    Raises:
        RuntimeError: it ended before; with the end of its log.
        TimeoutError: it does not take jobs in time.
    """
    log_file, begun = folder / "serve.log", load_site(file).home / "service.json"
    with log_file.open("wb") as log:
        command = [*tied_to_us(), *own_python("ptyplugin", "serve", "--site", file, *words)]
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **(environment or {})})
    try:
        until(lambda: begun.exists() or process.poll() is not None, f"the service takes jobs ({log_file})", _START_S, 0.1)
        if process.poll() is not None:
            raise RuntimeError(f"the service ended: {log_file.read_text(errors='replace')[-3000:]}")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        process.kill()
        process.wait()


def screens(prefix: str) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Images over EPICS on ports that are free: words and variables for ``serving``, and variables for a client over PV Access."""
    tcp, udp, channel, repeater = _free_ports(4)
    said = {
        "EPICS_PVAS_SERVER_PORT": tcp,
        "EPICS_PVAS_BROADCAST_PORT": udp,
        "EPICS_CAS_SERVER_PORT": channel,
        "EPICS_CA_SERVER_PORT": channel,
        "EPICS_CAS_BEACON_PORT": repeater,
        "EPICS_CA_REPEATER_PORT": repeater,
    }
    client = {"EPICS_PVA_SERVER_PORT": tcp, "EPICS_PVA_BROADCAST_PORT": udp}
    return ["--epics", prefix], said, {**LOOPBACK, **client}


def _free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in sockets]
