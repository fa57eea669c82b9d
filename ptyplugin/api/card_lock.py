"""One job a card: a lock that the system lets go of when its process ends, however it ends. Processes of all users see it."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ptyplugin.model import DeviceError
from ptyplugin.solvers.driver import Card

_LOG = logging.getLogger(__name__)

#: Where the locks lie: one file per card, by its own number. Not under TMPDIR, which may differ from process to process.
FOLDER = Path("/tmp/ptyplugin-gpus")
#: How long a card that somebody else has is waited for, and how often it is looked at, seconds.
WAIT_S, LOOK_S = 10.0, 0.2
#: Bytes of what a lock says about its holder.
_SAID = 200


@dataclass(slots=True)
class _Held:
    handle: int
    users: int


#: What this process holds: it may use its card as often as it likes.
_held: dict[str, _Held] = {}
_guard = threading.Lock()


class CardLock:
    """Cards that belong to one user of this process until ``release``. Several in one process share a card.

    wait_s: how long one that somebody else has is waited for, seconds; WAIT_S if None
    """

    def __init__(self, wait_s: float | None = None) -> None:
        self._wait_s, self._cards = WAIT_S if wait_s is None else wait_s, list[str]()

    def take(self, card: Card) -> str:
        """Take a card; who has it after ``wait_s`` seconds, in words, or nothing if it is ours now.

        Raises:
            DeviceError: locks cannot be written.
        """
        end = time.monotonic() + self._wait_s
        said = ""
        while holder := _take(card.uuid):
            if time.monotonic() > end:
                return holder
            if holder != said:
                said = holder
                _LOG.info("%s is in use by %s; waiting up to %g s", card, holder, self._wait_s)
            time.sleep(LOOK_S)
        self._cards.append(card.uuid)
        return ""

    def release(self) -> None:
        """Let go of what was taken; nothing the second time."""
        while self._cards:
            _release(self._cards.pop())


def _take(uuid: str) -> str:
    with _guard:
        if uuid in _held:
            _held[uuid].users += 1
            return ""
        try:
            handle = _opened(FOLDER / f"{uuid}.lock")
        except OSError as error:
            raise DeviceError(f"{FOLDER}/{uuid}.lock cannot be written ({error.strerror}): remove it, or use device cpu.") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(handle, _SAID).decode(errors="replace").strip()
            os.close(handle)
            return holder or "another process"
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        _held[uuid] = _Held(handle, 1)
        return ""


def _release(uuid: str) -> None:
    with _guard:
        _held[uuid].users -= 1
        if not _held[uuid].users:
            os.close(_held.pop(uuid).handle)


def _opened(path: Path) -> int:
    """The file, for anybody to open and lock. It is never removed: that would let two processes lock two files of one name.

    Another user's file in such a folder is opened without O_CREAT, as Linux wants it (protected_regular), and never through a link.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    with suppress(FileExistsError):
        path.parent.mkdir()
        path.parent.chmod(0o1777)
    try:
        handle = os.open(path, flags | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return os.open(path, flags)
    os.fchmod(handle, 0o666)
    return handle
