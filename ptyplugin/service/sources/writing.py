"""Between a connection and a disk: what came is written by a thread of its own, and what waits for that has a bound in bytes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self


class WrittenBehind:
    """Does things in their order, in a thread of its own; a context manager, which ends when all is done.

    most_bytes: how much may wait before ``is_full``
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._bytes, self._ends = 0, False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="ptyplugin-written-behind", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def is_full(self) -> bool:
        """Whether nothing should be put before something is done."""
        return self._bytes >= self._most_bytes

    def put(self, size: int, work: Callable[[], None]) -> None:
        """Have this done, which holds so many bytes.

        Raises:
            whatever was raised by what was done: nothing is done after that.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            self._waiting.append((size, work))
            self._bytes += size
            self._changed.notify_all()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Whether there is room within that time; what was raised is raised, as by ``put``."""
        with self._changed:
            self._changed.wait_for(lambda: not self.is_full or self._error is not None, timeout_s)
            if self._error is not None:
                raise self._error
            return not self.is_full

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ends)
                if not self._waiting:
                    return
                size, work = self._waiting.popleft()
            try:
                work()
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._waiting.clear()
                    self._changed.notify_all()
                return
            with self._changed:
                self._bytes -= size
                self._changed.notify_all()
