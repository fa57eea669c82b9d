"""The service as a process of its own, as a beamline runs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_START_S, _END_S = 60.0, 40.0
#: Clients and servers of EPICS stay on this machine.
LOOPBACK = {
    "EPICS_CA_ADDR_LIST": "127.0.0.1",
    "EPICS_CA_AUTO_ADDR_LIST": "NO",
    "EPICS_PVA_ADDR_LIST": "127.0.0.1",
    "EPICS_PVA_AUTO_ADDR_LIST": "NO",
}


@contextmanager
def serving(
    file: Path, folder: Path, words: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """``ptyplugin serve`` at the site of ``file``, from when it takes jobs; its log is ``folder/serve.log``.

    words: further ones of its command line; environment: beside that of this process
    """
    with (folder / "serve.log").open("wb") as log:
        command = [sys.executable, "-m", "ptyplugin", "serve", "--site", str(file), *words]
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **(environment or {})})
    try:
        end = time.monotonic() + _START_S
        while not (folder / "home" / "service.json").exists() and time.monotonic() < end:
            time.sleep(0.1)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        process.kill()


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
