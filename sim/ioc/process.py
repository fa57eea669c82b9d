"""The IOC as a child process of a test, a demo or a session."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ptyplugin.model.errors import DeviceError
from ptyplugin.model.own_python import own_python

_PATIENCE_S = 60.0
_LOG_FILE = "ioc.log"


@dataclass
class Ioc:
    """An IOC in a process of its own.

    environment: what its clients need, before they import any EPICS package
    prefix, port, folder, pid: of the IOC
    """

    environment: dict[str, str]
    prefix: str
    port: int
    folder: Path
    process: subprocess.Popen[str]
    command: list[str]

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.stop()

    def restart(self) -> None:
        """Start it again at the same ports, after ``kill`` or ``stop``."""
        self.process, _ = _started(self.command, self.folder)

    def stop(self) -> None:
        """End it, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_PATIENCE_S / 6)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def running(folder: Path, *, prefix: str = "SIM:", port: int = 0, faults: Iterable[str] = (), options: Iterable[str] = ()) -> Iterator[Ioc]:
    """Start an IOC on free ports at the loopback, wait until it is ready, and end it.

    folder: for its log and, until a client says otherwise, its frames
    options: further options of ``ptyplugin sim ioc``, for example ``["--imperfection", "jitter_m=2e-8"]``

    Raises:
        DeviceError: it does not start; the message has its own words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = own_python("ptyplugin", "sim", "ioc", "--json", "--with-parent", "--prefix", prefix, "--folder", folder)
    command += [word for fault in faults for word in ("--fault", fault)] + list(options)
    process, line = _started([*command, "--port", str(port)], folder)
    ioc = Ioc(line["environment"], prefix, line["port"], folder, process, [*command, "--port", str(line["port"])])
    try:
        yield ioc
    finally:
        ioc.stop()


def _started(command: list[str], folder: Path) -> tuple[subprocess.Popen[str], dict]:  # type: ignore[type-arg]
    log = folder / _LOG_FILE
    with log.open("a") as errors:
        # In a session of its own: a Ctrl-C at the terminal is for who measures here.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closed by the system when this process is gone, however it ended
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ.copy(),
            start_new_session=True,
        )
    assert process.stdout is not None
    text = _first_line(process.stdout, process)
    if text:
        return process, json.loads(text)
    process.kill()
    process.wait()
    process.stdout.close()
    if process.stdin is not None:
        process.stdin.close()
    words = log.read_text().strip().splitlines()
    raise DeviceError(f"the simulated beamline did not start: {words[-1] if words else 'it said nothing'} (see {log}).")


def _first_line(output: IO[str], process: subprocess.Popen[str]) -> str:
    end_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end_s and process.poll() is None:
        if select.select([output], [], [], 0.1)[0]:
            return output.readline()
    return ""
