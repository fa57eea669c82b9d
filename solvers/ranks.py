"""Ranks: the two parallel words, and how one rank's exception becomes a clean failure of all.

Every collective call begins with a vote of 8 bytes. A rank that fails calls ``fail`` once, which answers the vote that the
others are in or will come to; then all of them stop with the sentence of the one that failed. So nobody waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import SolverError
from ptyplugin.solvers.verbs import DeviceScalar

_Term = TypeVar("_Term", NDArray[np.float64], NDArray[Any], DeviceScalar)

_SENTENCE_BYTES = 600

#: (rows, columns) of the object outside which a rank's sums are zero.
Window = tuple[slice, slice]


class RankFailed(SolverError):
    """Another rank failed; the message is that rank's sentence."""


class Ranks(Protocol):
    """How one rank talks to the others. ``rank`` 0 speaks to the world."""

    rank: int
    size: int

    def sum(self, term: _Term) -> _Term:
        """Sum over ranks of a small array or a DeviceScalar that every rank has; in place."""
        ...

    def sum_canvas(self, num: NDArray[Any], den: NDArray[Any], window: Window) -> tuple[NDArray[Any], NDArray[Any]]:
        """Sum of canvases (object mode, y, x) and (y, x); in place. Outside of ``window`` this rank's are zero."""
        ...

    def largest(self, value: int) -> int:
        """Largest of the ranks' numbers."""
        ...

    def vote(self, cancel: bool) -> bool:
        """Whether any rank wants to stop. Once per iteration.

        Raises:
            RankFailed: another rank has failed.
        """
        ...

    def fail(self, sentence: str) -> None:
        """Tell the others that this rank failed, once, and never talk to them again in this solve."""
        ...


class OneRank:
    """No parallel machine: every word gives back what it got."""

    rank = 0
    size = 1

    def sum(self, term: _Term) -> _Term:
        return term

    def sum_canvas(self, num: NDArray[Any], den: NDArray[Any], window: Window) -> tuple[NDArray[Any], NDArray[Any]]:
        return num, den

    def largest(self, value: int) -> int:
        return value

    def vote(self, cancel: bool) -> bool:
        return cancel

    def fail(self, sentence: str) -> None:
        """Nobody to tell."""


class AfterVerbs:
    """Ranks for a sweep: before they talk, ``finish`` does what the verbs have put off, so that what they sum is there."""

    def __init__(self, ranks: Ranks, finish: Callable[[], None]) -> None:
        self._ranks, self._finish = ranks, finish
        self.rank, self.size = ranks.rank, ranks.size

    def sum(self, term: _Term) -> _Term:
        self._finish()
        return self._ranks.sum(term)

    def sum_canvas(self, num: NDArray[Any], den: NDArray[Any], window: Window) -> tuple[NDArray[Any], NDArray[Any]]:
        self._finish()
        return self._ranks.sum_canvas(num, den, window)

    def largest(self, value: int) -> int:
        return self._ranks.largest(value)

    def vote(self, cancel: bool) -> bool:
        return self._ranks.vote(cancel)

    def fail(self, sentence: str) -> None:
        self._ranks.fail(sentence)


class MpiRanks:
    """The ranks of an mpi4py communicator (an intracommunicator of the caller, used by nobody else meanwhile)."""

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self._comm = comm
        self._add, self._max, self._in_place = MPI.SUM, MPI.MAX, MPI.IN_PLACE
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()

    def sum(self, term: _Term) -> _Term:
        self._all_well()
        self._comm.Allreduce(self._in_place, term.array if isinstance(term, DeviceScalar) else term, op=self._add)
        return term

    def sum_canvas(self, num: NDArray[Any], den: NDArray[Any], window: Window) -> tuple[NDArray[Any], NDArray[Any]]:
        self._all_well()
        self._comm.Allreduce(self._in_place, num, op=self._add)
        self._comm.Allreduce(self._in_place, den, op=self._add)
        return num, den

    def largest(self, value: int) -> int:
        self._all_well()
        numbers = np.array([value], dtype=np.int64)
        self._comm.Allreduce(self._in_place, numbers, op=self._max)
        return int(numbers[0])

    def vote(self, cancel: bool) -> bool:
        return self._all_well(cancel)

    def fail(self, sentence: str) -> None:
        self._ballot(failed=True, cancel=False)
        self._sentences(sentence)

    def _all_well(self, cancel: bool = False) -> bool:
        failed, cancelled = self._ballot(False, cancel)
        if failed:
            raise RankFailed(self._sentences(""))
        return cancelled

    def _ballot(self, failed: bool, cancel: bool) -> tuple[bool, bool]:
        ballot = np.array([failed, cancel], dtype=np.int32)
        self._comm.Allreduce(self._in_place, ballot, op=self._max)
        return bool(ballot[0]), bool(ballot[1])

    def _sentences(self, sentence: str) -> str:
        """Every rank's sentence, joined; all ranks call it together, after a ballot that said failed."""
        mine = np.frombuffer(sentence.encode()[:_SENTENCE_BYTES].ljust(_SENTENCE_BYTES, b"\0"), dtype=np.uint8)
        theirs = np.empty((self.size, _SENTENCE_BYTES), dtype=np.uint8)
        self._comm.Allgather(mine, theirs)
        texts = [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in theirs]
        return " ".join(f"Rank {rank}: {text}" for rank, text in enumerate(texts) if text)


@contextmanager
def failing_together(ranks: Ranks) -> Iterator[None]:
    """Within it, an exception on this rank makes all other ranks raise RankFailed at their next collective call."""
    try:
        yield
    except RankFailed:
        raise
    except BaseException as error:
        ranks.fail(str(error) or type(error).__name__)
        raise
