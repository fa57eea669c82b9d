"""One daemon a ledger: a lock that the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from ptyplugin.jobs.durable import make_folder
from ptyplugin.model import LedgerError


class Lock:
    """Holds ``<ledger>.lock`` until closed or until the process ends.

    Raises:
        LedgerError: another process holds it; the message names it.
    """

    def __init__(self, ledger: Path) -> None:
        path = ledger.with_name(ledger.name + ".lock")
        try:
            make_folder(path.parent)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LedgerError(f"{path} cannot be written ({error.strerror}): check the site's home.") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._handle, 200).decode(errors="replace").strip() or "unknown"
            os.close(self._handle)
            raise LedgerError(f"the ledger {ledger} is in use by another daemon ({holder}): stop it first, or set another home.") from error
        os.ftruncate(self._handle, 0)
        os.write(self._handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def close(self) -> None:
        """Let go of the lock. The file stays: removing it would let two daemons lock two files of one name."""
        os.close(self._handle)
