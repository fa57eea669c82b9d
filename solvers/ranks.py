"""Ranks: the two parallel words, and how one rank's exception becomes a clean failure of all.

Every collective call begins with a vote of a few bytes. A rank that fails calls ``fail`` once, which answers the vote that the
others are in or will come to; then all of them stop with the sentence of the one that failed. So nobody waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model import PtypluginError, SolverError
from ptyplugin.solvers.verbs import DeviceScalar

_Made = TypeVar("_Made")
_Term = TypeVar("_Term", NDArray[np.float64], NDArray[Any], DeviceScalar)

_TEXT_BYTES = 600
#: Of a rank that has no rows: minus the first, and the last + 1.
_NO_ROWS = (np.iinfo(np.int64).min, 0)

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
        self._add, self._max, self._in_place, self._shared = MPI.SUM, MPI.MAX, MPI.IN_PLACE, MPI.COMM_TYPE_SHARED
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
        return bool(self._all_well(cancel)[1])

    def fail(self, sentence: str) -> None:
        self._ballot(failed=True, cancel=False)
        self._texts(sentence)

    def rows_of_all(self, rows: slice) -> slice:
        """From the first to the last row of any rank, none where none has any. All ranks call it together.

        Raises:
            RankFailed: another rank has failed.
        """
        low, high = self._all_well(rows=(-rows.start, rows.stop) if rows.stop > rows.start else _NO_ROWS)[2:]
        return slice(-low, high) if high else slice(0, 0)

    def on_this_machine(self) -> tuple[int, int]:
        """Which of the ranks on this machine this one is, and how many they are. All ranks call it together.

        Raises:
            RankFailed: another rank has failed.
        """
        self._all_well()
        here = self._comm.Split_type(self._shared, self.rank)
        try:
            return here.Get_rank(), here.Get_size()
        finally:
            here.Free()

    def tell(self, text: str) -> list[str]:
        """The texts of all ranks, of at most 600 bytes each. All ranks call it together.

        Raises:
            RankFailed: another rank has failed.
        """
        self._all_well()
        return self._texts(text)

    def add(self, memory: Any) -> None:
        """An array, or whatever else mpi4py takes, <- its sum over ranks, in place: without a vote, for those who have just voted."""
        self._comm.Allreduce(self._in_place, memory, op=self._add)

    def _all_well(self, cancel: bool = False, rows: tuple[int, int] = _NO_ROWS) -> tuple[int, ...]:
        ballot = self._ballot(False, cancel, rows)
        if ballot[0]:
            said = self._texts("")
            raise RankFailed(" ".join(f"Rank {rank}: {text}" for rank, text in enumerate(said) if text))
        return ballot

    def _ballot(self, failed: bool, cancel: bool, rows: tuple[int, int] = _NO_ROWS) -> tuple[int, ...]:
        """Of each number, the largest of any rank."""
        ballot = np.array([failed, cancel, *rows], dtype=np.int64)
        self._comm.Allreduce(self._in_place, ballot, op=self._max)
        return tuple(ballot.tolist())

    def _texts(self, text: str) -> list[str]:
        mine = np.frombuffer(text.encode()[:_TEXT_BYTES].ljust(_TEXT_BYTES, b"\0"), dtype=np.uint8)
        theirs = np.empty((self.size, _TEXT_BYTES), dtype=np.uint8)
        self._comm.Allgather(mine, theirs)
        return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in theirs]


def agreed(ranks: Ranks, work: Callable[[], _Made], kind: type[PtypluginError], *others: type[PtypluginError]) -> _Made:
    """What ``work`` gives, which talks to no other rank. All ranks call it together, and can go on together whatever is raised.

    Raises:
        ``kind``, or one of ``others``: this rank's work could not be done.
        ``kind``: that of another rank could not; the message is the sentence of the first.
    """
    made: _Made | None = None
    trouble: PtypluginError | None = None
    try:
        made = work()
    except PtypluginError as error:
        trouble = error
    if not ranks.largest(int(trouble is not None)):
        return made  # type: ignore[return-value]
    text = _first_of_all(ranks, str(trouble or ""))
    if trouble is not None and isinstance(trouble, (kind, *others)):
        raise trouble
    raise kind(text) from trouble


def _first_of_all(ranks: Ranks, text: str) -> str:
    """The text of the first rank that has one. All ranks call it together."""
    texts = np.zeros((ranks.size, _TEXT_BYTES), dtype=np.int32)
    mine = text.encode()[:_TEXT_BYTES]
    texts[ranks.rank, : len(mine)] = np.frombuffer(mine, dtype=np.uint8)
    texts = ranks.sum(texts)
    first = int(texts.any(axis=1).argmax())
    said = texts[first].astype(np.uint8).tobytes().rstrip(b"\0").decode(errors="ignore")
    return f"Rank {first}: {said}" if ranks.size > 1 else said


@contextmanager
def failing_together(ranks: Ranks, alike: type[PtypluginError] = RankFailed) -> Iterator[None]:
    """Within it, an exception on this rank makes all other ranks raise RankFailed at their next collective call.

    alike: exceptions that all ranks raise at the same time: nobody has to be told
    """
    try:
        yield
    except (RankFailed, alike):
        raise
    except BaseException as error:
        ranks.fail(str(error) or type(error).__name__)
        raise
