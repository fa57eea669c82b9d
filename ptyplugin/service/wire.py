"""What a daemon and its ranks say to each other: JSON lines over one socket per rank, beside MPI and not through it.

rank -> daemon: hello (token, rank, size, pid), ready; of the job with a number: progress, and one of done (result),
failed (sentence, echo, error), cancelled
daemon -> rank: warm (cards), job (number, folder, site, solve, cards), ask (number, wish), leave
A closed socket means that the other one is gone. A rank shows by the token that it is one that the daemon has started.
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
#: Bytes that are read at a time, and that a message may have.
_CHUNK, _LIMIT = 1 << 16, 1 << 24


class Wire:
    """One end of a connection. ``receive`` gives the messages that have come, or None when the other end is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

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
        except ConnectionError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:
            return None
        return messages if len(self._rest) <= _LIMIT and all(isinstance(message, dict) for message in messages) else None

    def close(self) -> None:
        """Close this end."""
        self._connection.close()


def progress_fields(progress: Progress) -> Message:
    """A Progress as a message; snapshots stay with the rank."""
    return {
        "job": progress.job,
        "stage": progress.stage,
        "iteration": progress.iteration,
        "iterations": progress.iterations,
        "seconds": progress.seconds,
        "errors": progress.errors,
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
