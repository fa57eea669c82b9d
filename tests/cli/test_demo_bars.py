"""The bars of the demo."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
from rich.console import Console
from rich.progress import Progress as Bars

import ptyplugin.service.operations
from ptyplugin.cli import demo_walk
from ptyplugin.model import Progress, Site


class FakeDaemon:
    """Tells of a live job with two frames, and two iterations of each of two jobs, when it is stopped."""

    def __init__(self, site: Site, on_progress: Callable[[Progress], None]) -> None:
        self.tell = on_progress

    def __enter__(self) -> FakeDaemon:
        return self

    def __exit__(self, *_: object) -> None: ...

    def run(self) -> None: ...

    def stop(self) -> None:
        self.tell(Progress("live", "DM", 70, 30, 0.1, {}, frames=2))
        for job in ("first", "second"):
            for iteration in (1, 2):
                self.tell(Progress(job, "DM", iteration, 2, 0.1, {}))


def test_bars_stand_in_the_order_of_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    beside: list[object] = []

    def operations(*given: object) -> AbstractContextManager[None]:
        beside.extend(given)
        return nullcontext()

    monkeypatch.setattr(ptyplugin.service, "Daemon", FakeDaemon)
    monkeypatch.setattr(ptyplugin.service.operations, "Operations", operations)
    bars = Bars(console=Console(file=io.StringIO()))
    board = demo_walk._Board(bars)
    board.frames = 3
    with demo_walk._daemon(Site(), board), board.working("scan", "scan", total=3) as tell:
        tell(3)
    # Live images go into the catalog as at a beamline, and nobody is notified, whatever is set for its service.
    assert isinstance(beside[1], FakeDaemon)
    assert beside[-1] == {}
    reconstruction = ("reconstruction", 2, 2)
    assert [(task.description, task.completed, task.total) for task in bars.tasks] == [
        ("scan", 3, 3),
        ("live image", 2, 3),
        reconstruction,
        reconstruction,
    ]
