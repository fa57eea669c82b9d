"""A warm group: MPI ranks that are started once and do one job after the other, watched from outside MPI, so that a crash of a rank is only
a crash of a job. Control goes over one socket per rank, data over MPI. Decision record 0009 tells why.
"""

from __future__ import annotations

import logging
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ptyplugin.model import Cancelled, DiskError, Progress, RanksAway, RanksCrashed, TimeIsUp
from ptyplugin.service.accepting import waited_out
from ptyplugin.service.complaints import Complaints
from ptyplugin.service.engines import STRANGERS, Engine
from ptyplugin.service.handshake import Challenge, answer
from ptyplugin.service.solving import Task, Wish, disk_is_in_trouble
from ptyplugin.service.wire import STRANGERS_LIMIT, Message, Wire, error_of, progress_of

_log = logging.getLogger(__name__)

#: How long the loop sleeps when no rank says anything, seconds.
_TICK_S = 0.05


@dataclass(frozen=True, slots=True)
class Patience:
    """How long what is waited for, in seconds.

    start: until the next rank has said hello; warm: for all to warm up, before they are given jobs all the same
    silence: without a word of progress before a job counts as hanging
    grace: for the other ranks to come home after one failed
    wish: for all to come home once they were asked to, from a long iteration or from writing; leave: for MPI to end in good order
    """

    start_s: float = 120.0
    warm_s: float = 300.0
    silence_s: float = 1800.0
    grace_s: float = 2.0
    wish_s: float = 20.0
    leave_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Work:
    """What a group is to do: the job, the name of the function that solves it, and how long that may take."""

    task: Task
    solve: str
    on_progress: Callable[[Progress], None]
    wish: Callable[[], Wish]
    limit_s: float | None = None
    keeps_cards: bool = False


@dataclass(slots=True)
class _Rank:
    wire: Wire
    challenge: Challenge = field(default_factory=Challenge)
    number: int | None = None
    is_ready: bool = False
    outcome: Message | None = None


@dataclass(slots=True)
class _Going:
    """A job that the ranks have been told of."""

    work: Work
    begun: float = field(default_factory=time.monotonic)
    asked: Wish = Wish.GO_ON
    is_late: bool = False
    deadline: float = float("inf")


class Group:
    """The ranks. Who has one calls ``end`` whatever happens; after a job that did not come home, that has been done.

    engine: brings them to life
    """

    def __init__(self, engine: Engine, patience: Patience) -> None:
        self._engine, self._patience, self._size = engine, patience, engine.size
        self._listener: socket.socket | None = None
        self._selector, self._complaints = selectors.DefaultSelector(), Complaints(_log)
        self._strangers: list[_Rank] = []
        self._ranks: list[_Rank] = []
        self._gone: list[_Rank] = []
        self._heard = time.monotonic()
        self._going: _Going | None = None
        self._number = 0
        self._trouble = ""
        self._told_to_warm_up: float | None = None
        self._is_over = False

    @property
    def jobs(self) -> int:
        """How many it was given."""
        return self._number

    @property
    def is_there(self) -> bool:
        """Whether all ranks are."""
        return len(self._ranks) == self._size

    @property
    def is_warm(self) -> bool:
        """Whether all ranks are there, and have warmed up."""
        return self.is_there and all(rank.is_ready for rank in self._ranks)

    @property
    def is_warming(self) -> bool:
        """Whether the ranks are about to be warm: a job would have to wait for that."""
        told = self._told_to_warm_up
        return told is not None and not self.is_warm and time.monotonic() - told < self._patience.warm_s

    @property
    def is_over(self) -> bool:
        """Whether it has been ended."""
        return self._is_over

    @property
    def waits(self) -> str:
        """Why nothing is to be expected of its ranks soon, though nothing is wrong; empty if that is not so."""
        return self._engine.waits

    @property
    def ends_soon(self) -> str:
        """Why its ranks should do no more than make a checkpoint; empty if they need not hurry."""
        return self._engine.ends_soon

    def start(self) -> None:
        """Start the ranks; they come by and by.

        Raises:
            DiskError: there is no room for its log or temporary files.
            RanksAway: the ranks cannot be started now.
        """
        try:
            self._listener = self._engine.start()
        except OSError as error:
            kind = DiskError if disk_is_in_trouble(error) else RanksAway
            raise kind(f"the {self._size} ranks of the solver cannot be started ({error}).") from error
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._heard = time.monotonic()

    def look(self) -> None:
        """Between jobs: hear what the ranks have said.

        Raises:
            RanksAway: the group is of no use any more, for this reason.
        """
        self._listen(0.0)
        self._check_start()

    def warm_up(self, keeps_cards: bool) -> None:
        """Have the ranks do once what their first job would have to wait for; it can be given to them meanwhile."""
        if self.is_there and self._told_to_warm_up is None:
            self._told_to_warm_up = time.monotonic()
            self._tell("warm", cards=keeps_cards)

    def run(self, work: Work) -> Path:
        """Have the ranks do a job; the path of its result.

        Raises:
            RanksAway: they did not come to begin with it.
            Cancelled, TimeIsUp, RanksCrashed, CatalogError, DeviceError, DeviceLost, DiskError, SolverError: there is none.
        """
        self._wait_for_all(work)
        self._number += 1
        for rank in self._ranks:
            rank.outcome = None
        self._going = going = _Going(work)
        self._heard = time.monotonic()
        site = work.task.site.model_dump(mode="json")
        said = {"folder": str(work.task.folder), "site": site, "solve": work.solve, "cards": work.keeps_cards}
        self._tell("job", number=self._number, **said)
        try:
            self._follow(going)
            return self._result(going)
        finally:
            if not self._all_home():
                self.end()
            self._going = None

    def end(self) -> None:
        """Let the ranks leave in good order if they have nothing to do, and end what is left in any case."""
        if self._is_over:
            return
        if self.is_there and self._all_home() and not self._is_broken():
            self._tell("leave")
            self._engine.let_leave(self._patience.leave_s)
        self._is_over = True
        for rank in (*self._ranks, *self._strangers):
            rank.wire.close()
        self._selector.close()
        if self._listener is not None:
            self._listener.close()
        self._engine.end()

    def _wait_for_all(self, work: Work) -> None:
        self.look()
        while not self.is_there:
            if work.wish().ends:
                raise Cancelled("the job was cancelled before it began.")
            self._listen(_TICK_S)
            self._check_start()

    def _check_start(self) -> None:
        if self.waits:
            self._heard = time.monotonic()
        if self._is_broken() or (not self.is_there and time.monotonic() - self._heard > self._patience.start_s):
            sentence = self._trouble or self._why_broken("")
            self.end()
            raise RanksAway(sentence)

    def _follow(self, going: _Going) -> None:
        """Until every rank has said how it went, one has gone without a word, or patience is at its end."""
        while not self._all_home() and not self._is_broken():
            self._listen(_TICK_S)
            now = time.monotonic()
            if self.waits:
                self._heard = now
            if now > going.deadline or now - self._heard > self._patience.silence_s:
                return
            wish, limit_s = going.work.wish(), going.work.limit_s
            if limit_s is not None and now - going.begun > limit_s and not going.is_late:
                going.is_late = True
            wish = max(wish, Wish.STOP) if going.is_late else wish
            if wish > going.asked:
                going.asked = wish
                if wish.ends:
                    going.deadline = min(going.deadline, now + self._patience.wish_s)
                self._tell("ask", number=self._number, wish=int(wish))

    def _result(self, going: _Going) -> Path:
        outcomes = [rank.outcome for rank in self._ranks if rank.outcome]
        kinds = [outcome["kind"] for outcome in outcomes]
        if kinds == ["done"] * self._size:
            return going.work.task.result
        if "failed" in kinds:
            raise error_of(min((outcome for outcome in outcomes if outcome["kind"] == "failed"), key=lambda failure: bool(failure["echo"])))
        if self._told_to_warm_up is not None and not self.is_warm and not going.work.wish().ends:
            raise RanksAway("the ranks of the solver did not get warm, and did not come to begin with the job.")
        if going.is_late and not going.work.wish().ends:
            raise TimeIsUp(
                f"the job took longer than the {going.work.limit_s:g} s that its slot allows (time_limit_s in the site file): give it more "
                "ranks, fewer iterations or more time, then retry it; it goes on from its last checkpoint."
            )
        if going.asked.ends or "cancelled" in kinds:
            raise Cancelled("the job was cancelled.")
        log = f"; its log is {going.work.task.log}"
        if self._is_broken():
            raise RanksCrashed(self._why_broken(log))
        raise TimeIsUp(f"the solver said nothing for {self._patience.silence_s:g} s and was ended{log}.")

    def _listen(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                self._answer_the_door()
            # Not one that was sent away a moment ago.
            elif key.data in self._strangers or key.data in self._ranks:
                self._hear(key.data)

    def _answer_the_door(self) -> None:
        if self._listener is None:
            return
        try:
            connection = self._listener.accept()[0]
        except OSError as error:
            if not isinstance(error, ConnectionError) and not waited_out(error, self._complaints):
                raise
            return
        with suppress(ConnectionError):
            rank = _Rank(Wire(connection, STRANGERS_LIMIT))
            self._selector.register(rank.wire, selectors.EVENT_READ, rank)
            self._strangers.append(rank)
            if len(self._strangers) > self._size + STRANGERS:
                self._send_away(self._strangers[0])
            rank.wire.send("challenge", **rank.challenge.fields)

    def _send_away(self, rank: _Rank) -> None:
        self._selector.unregister(rank.wire)
        rank.wire.close()
        if rank in self._strangers:
            self._strangers.remove(rank)
        else:
            self._gone.append(rank)

    def _hear(self, rank: _Rank) -> None:
        messages = rank.wire.receive()
        if messages is None or (rank.number is None and messages and not self._is_ours(rank, messages[0])):
            self._send_away(rank)
            return
        for message in messages:
            if rank.number is None:
                self._greet(rank, message)
            elif message["kind"] == "ready":
                rank.is_ready = True
            elif self._going is not None and message["number"] == self._number:
                self._note(rank, message, self._going)
        if rank.number is not None:
            self._heard = time.monotonic()

    def _note(self, rank: _Rank, message: Message, going: _Going) -> None:
        if message["kind"] == "progress":
            going.work.on_progress(progress_of(message))
            return
        rank.outcome = message
        if message["kind"] == "failed":
            going.deadline = min(going.deadline, time.monotonic() + self._patience.grace_s)
        elif message["kind"] == "cancelled":
            going.deadline = min(going.deadline, time.monotonic() + self._patience.wish_s)

    def _is_ours(self, rank: _Rank, hello: Message) -> bool:
        if hello.get("kind") == "hello" and rank.challenge.is_met_by(self._engine.token, "rank", hello):
            return True
        self._complaints.say("somebody who is no rank of this group has called it, and is not heard")
        return False

    def _greet(self, rank: _Rank, hello: Message) -> None:
        rank.number = hello["rank"]
        rank.wire.trust()
        self._strangers.remove(rank)
        self._ranks.append(rank)
        with suppress(OSError):
            rank.wire.send("welcome", **answer(self._engine.token, "daemon", hello))
        self._engine.met(hello["pid"])
        if hello["size"] != self._size:
            self._trouble = f"MPI made a group of {hello['size']} where {self._size} ranks were started: {self._engine.mismatch}"
        if self.is_there and self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            for stranger in list(self._strangers):
                self._send_away(stranger)

    def _tell(self, kind: str, **fields: object) -> None:
        for rank in self._ranks:
            # One that is gone is heard of by its closed socket.
            with suppress(OSError):
                rank.wire.send(kind, **fields)

    def _all_home(self) -> bool:
        return self._going is None or all(rank.outcome for rank in self._ranks)

    def _is_broken(self) -> bool:
        if self._is_over or self._gone or self._trouble:
            return True
        return self._engine.is_over and not self._selector.select(0)

    def _why_broken(self, log: str) -> str:
        if self._gone and not self._engine.was_killed:
            return f"rank {self._gone[0].number} of {self._size} was killed or crashed{log}."
        return self._engine.why_over(self.is_there, log)
