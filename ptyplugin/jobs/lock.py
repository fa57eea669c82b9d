"""One daemon a ledger: a lock that the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

from ptyplugin.jobs.durable import make_folder
from ptyplugin.model import LedgerError

#: How long after a first try, seconds, a lock is tried once more: somebody may just have looked whether it is held.
_AGAIN_S = 0.05


class Lock:
    """Holds ``<ledger>.lock`` until closed or until the process ends.

    Raises:
        LedgerError: another process holds it; the message names it.
    """

    def __init__(self, ledger: Path) -> None:
        path = _path(ledger)
        try:
            make_folder(path.parent)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LedgerError(f"{path} cannot be written ({error.strerror}): check the site's home.") from error
        try:
            if not _taken(self._handle, fcntl.LOCK_EX):
                time.sleep(_AGAIN_S)
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


def is_held(ledger: Path) -> bool:
    """Whether a process on this host has the ledger, so far as this one may look."""
    try:
        handle = os.open(_path(ledger), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _taken(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def _path(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".lock")


def _taken(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
