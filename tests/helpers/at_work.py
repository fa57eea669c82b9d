"""What works in a thread while a test looks on, what became of a job, and waiting that ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ptyplugin.jobs import open_read_only
from ptyplugin.model import JobError, LedgerError, Site


@contextmanager
def at_work(run: Callable[[threading.Event], object], *wake: Callable[[], object], within_s: float = 35.0) -> Iterator[None]:
    """``run(stop)``, of a daemon or a source, in a thread of its own; told to stop at the end of the block, and over then.

    wake: what has to be called besides, so that it looks up
    """
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        for each in wake:
            each()
        thread.join(within_s)
    assert not thread.is_alive(), f"told to stop, it has not ended within {within_s} s"


def until(condition: Callable[[], object], within_s: float = 100.0, what: str = "it did not come") -> None:
    """Wait for a condition; what: the sentence if it does not come."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"{what}: waited for {within_s:g} s"
        time.sleep(0.01)


def state_of(site: Site, key: str) -> str | None:
    """The state of a job in the ledger's file; None while the daemon has not come so far."""
    try:
        with open_read_only(site.ledger) as view:
            return view.show(key).state
    except (LedgerError, JobError):
        return None
