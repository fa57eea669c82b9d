"""Where nothing can move on the screen, long work says now and then how far it is."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest
from at_work import until
from rich.console import Console
from rich.progress import Progress as Bars

from ptyplugin.cli import screen
from ptyplugin.cli.demo_walk import _Board
from ptyplugin.model import Progress


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What a redirected stderr has got so far."""
    file = io.StringIO()
    console = Console(file=file, highlight=False, width=200)
    monkeypatch.setattr(screen, "stderr", lambda: console)
    monkeypatch.setattr(screen, "PULSE_S", 0.01)
    return lambda: file.getvalue().splitlines()


def test_work_without_steps(lines: Callable[[], list[str]]) -> None:
    with screen.busy("opening [a] scan"):
        until(lambda: len(lines()) > 1)
    assert all(line == "opening [a] scan ... 0 s" for line in lines())
    said = len(lines())
    time.sleep(0.05)
    assert len(lines()) == said, "it goes on after the work"


def test_iterations(lines: Callable[[], list[str]]) -> None:
    with screen.iteration_bar(40) as step:
        until(lambda: "reading 0/40 ... 0 s" in lines())
        step(Progress("k", "DM", 7, 40, 1.0, {"error": 0.25}))
        until(lambda: "DM 7/40 error 0.25 ... 0 s" in lines())


def test_programs_hear_nothing(lines: Callable[[], list[str]]) -> None:
    with screen.busy("looking", quiet=True), screen.iteration_bar(40, quiet=True):
        time.sleep(0.05)
    assert lines() == []


def test_the_demo(lines: Callable[[], list[str]]) -> None:
    board = _Board(Bars(console=Console(file=io.StringIO())))
    assert board.how_far() == "waiting for the result in the catalog"
    with screen.pulse(board.how_far), board.working("scan", "scan", total=200) as tell, board.working("starting", "started"):
        tell(70)
        until(lambda: "scan 70/200, starting ... 0 s" in lines())
