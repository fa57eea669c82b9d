"""One rank of a warm group, started by an engine: ``mpiexec -n R python -m ptyplugin.service.worker SOCKET``, or
``srun python -m ptyplugin.service.worker HOST:PORT FILE`` with the group's token in the file.
"""

from __future__ import annotations

import gc
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptyplugin.model import Cancelled, ErrorName, Progress, PtypluginError, Site
from ptyplugin.service.cards import Cards
from ptyplugin.service.handshake import Challenge, answer
from ptyplugin.service.logs import set_up_logs
from ptyplugin.service.solving import Task, Wish, in_one_sentence, solve_function, solve_to_file
from ptyplugin.service.tied import tie_to_parent
from ptyplugin.service.warming import warm_up
from ptyplugin.service.wire import TOKEN_VARIABLE, Message, Wire, failure_fields, progress_fields
from ptyplugin.solvers.ranks import MpiRanks, RankFailed, failing_together

_log = logging.getLogger(__name__)

#: How long the daemon may take to be reached, and to answer, seconds.
_CONNECT_S, _ANSWER_S = 30.0, 120.0
#: At most so often the daemon hears of an iteration, seconds.
PERIOD_S = 0.1
#: What was made by a job that took longer may be large and not free yet, seconds.
_LONG_S = 1.0


class Parent:
    """The daemon, as a rank sees it. When it is gone, this process ends at once, whatever it is doing.

    address: of its socket: a path, or ``host:port``
    token: of the group
    hello: what it is to know of this rank
    """

    def __init__(self, address: str, token: str, hello: Message) -> None:
        self._wire, self._unread = _connected(address), list[Message]()
        mine = Challenge()
        challenged = self._next()
        self.send("hello", **answer(token, "rank", challenged), **mine.fields, **hello)
        if not mine.is_met_by(token, "daemon", self._next()):
            _log.critical("who listens at %s is not the daemon that started this rank: nothing that it says is done", address)
            os._exit(1)
        self._wire.trust()
        self._orders: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._wish = (0, Wish.GO_ON)
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    def send(self, kind: str, **fields: Any) -> None:
        """Tell it something."""
        self._wire.send(kind, **fields)

    def order(self) -> Message:
        """Wait for what is to be done next."""
        return self._orders.get()

    def wish(self, number: int) -> Wish:
        """What it wants of the job with this number."""
        of, wish = self._wish
        return wish if of == number else Wish.GO_ON

    def _next(self) -> Message:
        while not self._unread:
            messages = self._wire.receive()
            if messages is None:
                os._exit(1)
            self._unread += messages
        return self._unread.pop(0)

    def _listen(self) -> None:
        while (message := self._next())["kind"] != "leave":
            if message["kind"] == "ask":
                self._wish = (message["number"], Wish(message["wish"]))
            else:
                self._orders.put(message)
        self._orders.put(message)


class Teller:
    """Tells the daemon of iterations, now and then, and of each snapshot at once; errors of those in between are not lost."""

    def __init__(self, parent: Parent, number: int) -> None:
        self._parent, self._number = parent, number
        self._errors: dict[ErrorName, float] = {}
        self._due = 0.0
        self._last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """An iteration is done."""
        self._errors.update(progress.errors)
        self._last = progress
        if progress.snapshot or time.monotonic() >= self._due:
            self.rest()

    def rest(self) -> None:
        """Tell what has not been told yet."""
        if self._last is not None:
            told = replace(self._last, errors=dict(self._errors))
            self._parent.send("progress", number=self._number, **progress_fields(told))
            self._last, self._due = None, time.monotonic() + PERIOD_S
            self._errors.clear()


def _connected(address: str) -> Wire:
    host, _, port = address.rpartition(":")
    try:
        if host and "/" not in host:
            connection = socket.create_connection((host, int(port)), _CONNECT_S)
            connection.settimeout(_ANSWER_S)
        else:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(address)
    except OSError as error:
        _log.critical("the daemon does not answer at %s (%s): this rank has nothing to do", address, error)
        os._exit(1)
    return Wire(connection)


def main(address: str, token_file: str | None = None) -> None:
    """Say hello; do what the daemon orders, one job after the other; leave with the others."""
    if token_file is None:
        # On the daemon's machine; elsewhere, the closed connection has to do.
        tie_to_parent(os.getppid())
    token = os.environ.pop(TOKEN_VARIABLE) if token_file is None else Path(token_file).read_text()
    # Importing it starts MPI.
    from mpi4py import MPI

    world, comm = MPI.COMM_WORLD, None
    set_up_logs(rank=world.rank)
    parent = Parent(address, token, {"rank": world.rank, "size": world.size, "pid": os.getpid()})
    here = world.Split_type(MPI.COMM_TYPE_SHARED, world.rank)
    cards = Cards(here.rank, here.size)
    while (order := parent.order())["kind"] != "leave":
        if order["kind"] == "warm":
            _warm(parent, world, cards if order["cards"] else None)
            continue
        # All ranks came home from the job before: nobody talks through its communicator any more.
        if comm is not None:
            comm.Free()
        comm = world.Dup()
        begun = time.monotonic()
        _answer(parent, comm, order, cards)
        if time.monotonic() - begun > _LONG_S:
            gc.collect()


def _warm(parent: Parent, world: Any, cards: Cards | None) -> None:
    comm = world.Dup()
    try:
        ranks = MpiRanks(comm)
        with failing_together(ranks):
            if cards:
                cards.hold()
        warm_up(ranks)
    except PtypluginError as error:
        _log.warning("the first job will be slow: %s", error)
    comm.Free()
    parent.send("ready")


def _answer(parent: Parent, comm: Any, order: Message, cards: Cards) -> None:
    number, task = order["number"], Task(Path(order["folder"]), Site.model_validate(order["site"]))
    tell = Teller(parent, number)
    try:
        with in_one_sentence(task, sys.stderr), _written_into(task.log):
            if order["cards"]:
                cards.hold()
            with in_one_sentence(task, sys.stderr):
                result = _solved(task, order["solve"], comm, tell, lambda: parent.wish(number))
    except Cancelled:
        parent.send("cancelled", number=number)
    except PtypluginError as error:
        # An echo is the other ranks' failure, heard of here.
        parent.send("failed", number=number, **failure_fields(error), echo=isinstance(error, RankFailed))
    else:
        tell.rest()
        parent.send("done", number=number, result=None if result is None else str(result))


def _solved(task: Task, solve: str, comm: Any, tell: Teller, wish: Callable[[], Wish]) -> Path | None:
    return solve_to_file(task, solve_function(solve), MpiRanks(comm), tell, wish)


@contextmanager
def _written_into(log: Path) -> Iterator[None]:
    """What this process says, libraries included, goes into the job's log."""
    own = [os.dup(number) for number in (1, 2)]
    try:
        with log.open("ab") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in zip((1, 2), own, strict=True):
            os.dup2(before, number)
            os.close(before)


if __name__ == "__main__":
    main(*sys.argv[1:])
