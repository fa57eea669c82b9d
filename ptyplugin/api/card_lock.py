"""One job a card: a lock that the system lets go of when its process ends, however it ends. Processes of all users see it."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Sequence
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
#: Reentrant: a solver that is collected as garbage lets go of its card wherever its thread happens to be, here too.
_guard = threading.RLock()


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
        holders = self._take_one([card])[1]
        return holders[0] if holders else ""

    def take_free(self, cards: Sequence[Card]) -> tuple[Card | None, str]:
        """Take the first card that is free; after ``wait_s`` seconds without one: None, and who has which, in words.

        Raises:
            DeviceError: locks cannot be written.
        """
        taken, holders = self._take_one(cards)
        return taken, "; ".join(f"{card} is in use by {holder}" for card, holder in zip(cards, holders, strict=False))

    def _take_one(self, cards: Sequence[Card]) -> tuple[Card | None, list[str]]:
        """The card that is ours now, or who has each of them."""
        end = time.monotonic() + self._wait_s
        said = list[str]()
        while True:
            holders = list[str]()
            for card in cards:
                holder = _take(card.uuid)
                if not holder:
                    self._cards.append(card.uuid)
                    return card, []
                holders.append(holder)
            if time.monotonic() > end:
                return None, holders
            if holders != said:
                said = holders
                for card, holder in zip(cards, holders, strict=True):
                    _LOG.info("%s is in use by %s; waiting up to %g s", card, holder, self._wait_s)
            time.sleep(LOOK_S)

    def release(self) -> None:
        """Let go of what was taken; nothing the second time."""
        while self._cards:
            _release(self._cards.pop())


def _take(uuid: str) -> str:
    with _guard:
        if uuid in _held:
            _held[uuid].users += 1
            return ""
        path = FOLDER / f"{uuid}.lock"
        try:
            handle = _opened(path)
        except OSError as error:
            raise _cannot("written", path, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _said_in(handle)
            os.close(handle)
            return holder or "another process"
        except OSError as error:
            os.close(handle)
            raise _cannot("locked", path, error) from error
        _held[uuid] = _Held(handle, 1)
        with suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        return ""


def _cannot(what: str, path: Path, error: OSError) -> DeviceError:
    return DeviceError(f"{path} cannot be {what} ({error.strerror}): remove it, or use device cpu.")


def _said_in(handle: int) -> str:
    """What the holder has written, one line; anybody may write there, so nothing that a terminal obeys."""
    text = os.read(handle, _SAID).decode(errors="replace").partition("\n")[0]
    return "".join(letter for letter in text if letter.isprintable())


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
