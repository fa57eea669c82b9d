"""What a daemon and its ranks say to each other: JSON lines over one socket per rank, beside MPI and not through it.

daemon -> rank: challenge (nonce), and after its hello: welcome (proof), warm (cards), job (number, folder, site, solve, cards),
ask (number, wish), leave
rank -> daemon: hello (proof, nonce, rank, size, pid), ready; of the job with a number: progress, and one of done (result),
failed (sentence, echo, error), cancelled
A closed socket means that the other one is gone. Each shows the other by a proof that it knows the token of the group (handshake.py).
"""

from __future__ import annotations

import json
import socket
from typing import Any

from ptyplugin.model import CatalogAway, CatalogError, DeviceBusy, DeviceError, DiskError, Progress, PtypluginError, SolverError
from ptyplugin.solvers.verbs.cuda.device import DeviceLost

Message = dict[str, Any]

_KINDS: tuple[type[PtypluginError], ...] = (CatalogAway, CatalogError, DeviceBusy, DeviceError, DeviceLost, DiskError)
#: Errors that stay what they are on the way; all others arrive as a SolverError.
_ERRORS: dict[str, type[PtypluginError]] = {kind.__name__: kind for kind in _KINDS}

#: Environment variable in which a rank gets its token.
TOKEN_VARIABLE = "PTYPLUGIN_GROUP_TOKEN"
#: Bytes that are read at a time, and that a message may have; from anybody who calls, and else.
_CHUNK, STRANGERS_LIMIT, _LIMIT = 1 << 16, 1 << 12, 1 << 24
#: Over a network, one that has not answered for so long is gone: seconds until it is asked, between questions, and how many of them.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
#: The same for one that does not confirm what was sent (while there is such, it is not asked), milliseconds.
_UNCONFIRMED_MS = 60_000


class Wire:
    """One end of a connection. ``receive`` gives the messages that have come, or None when the other end is gone.

    limit: bytes that a message from the other end may have
    """

    def __init__(self, connection: socket.socket, limit: int = _LIMIT) -> None:
        self._connection = connection
        self._rest = b""
        self._limit = limit
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNCONFIRMED_MS)

    def trust(self) -> None:
        """The other end is known: take large messages from it, and wait for them as long as it takes."""
        self._limit = _LIMIT
        self._connection.settimeout(None)

    def fileno(self) -> int:
        """For selectors."""
        return self._connection.fileno()

    def send(self, kind: str, **fields: Any) -> None:
        """Send a message.

        Raises:
            OSError: the other end is gone.
        """
        self._connection.sendall(json.dumps({"kind": kind, **fields}).encode() + b"\n")

    def receive(self) -> list[Message] | None:
        """Wait for what comes next: whole messages, perhaps none yet; None when the other end is gone, or talks nonsense."""
        try:
            data = self._connection.recv(_CHUNK)
        except OSError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            return None
        is_short = all(len(line) <= self._limit for line in (*lines, self._rest))
        return messages if is_short and all(isinstance(message, dict) for message in messages) else None

    def close(self) -> None:
        """Close this end."""
        self._connection.close()


def progress_fields(progress: Progress) -> Message:
    """A Progress as a message."""
    return {
        "job": progress.job,
        "stage": progress.stage,
        "iteration": progress.iteration,
        "iterations": progress.iterations,
        "seconds": progress.seconds,
        "errors": progress.errors,
        "frames": progress.frames,
        "snapshot": progress.snapshot,
    }


def progress_of(message: Message) -> Progress:
    """The Progress in a message."""
    return Progress(**{name: value for name, value in message.items() if name not in ("kind", "number")})


def failure_fields(error: PtypluginError) -> Message:
    """An error as a message."""
    return {"sentence": str(error), "error": type(error).__name__}


def error_of(message: Message) -> PtypluginError:
    """The error in a message."""
    return _ERRORS.get(message["error"], SolverError)(message["sentence"])
