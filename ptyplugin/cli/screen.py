"""What a person sees: answers on stdout; bars, warnings and errors on stderr, bars only where that is a terminal."""

from __future__ import annotations

import json
import logging
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ptyplugin.model import Progress


#: Columns of a table that goes into a pipe; the fewest of a text beside something else.
_WIDE, _NARROW = 500, 30
#: Characters of a key or uid in a table.
_BRIEF = 8
#: How often something is said of work that goes on where nothing can move on the screen, seconds.
PULSE_S = 15.0


@cache
def stderr() -> Console:
    """The one console on stderr: bars and lines do not tear each other."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@cache
def stdout() -> Console:
    """The console on stdout, for tables; into a pipe they are as wide as they are."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console


def show_warnings() -> None:
    """Warnings of ptyplugin go to stderr, one line each."""
    from rich.logging import RichHandler

    logger = logging.getLogger("ptyplugin")
    for old in [handler for handler in logger.handlers if isinstance(handler, RichHandler)]:
        logger.removeHandler(old)
    logger.addHandler(RichHandler(logging.WARNING, stderr(), show_time=False, show_path=False))


def answer(value: Any) -> None:
    """An answer for machines: JSON on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def when(seconds: float) -> str:
    """A local time for a column of a table, short: the year stands for the time of day where it is not this one."""
    at = datetime.fromtimestamp(seconds)
    return f"{at:%m-%d %H:%M}" if at.year == datetime.now().year else f"{at:%Y-%m-%d}"


def in_brief(key_or_uid: str | None) -> str:
    """As much of a job's key or a run's uid as people need: commands take it for the whole."""
    return (key_or_uid or "-")[:_BRIEF]


def recipe_in_brief(recipe: str | None) -> str:
    """The stages of a recipe with their iterations; … stands for options."""
    from ptyplugin.model import Recipe, RecipeError

    try:
        stages = Recipe.parse(recipe or "").stages
    except RecipeError:
        return recipe or ""
    return " + ".join(f"{stage.algorithm}({stage.iterations}{'…' if stage.options else ''})" for stage in stages)


def wrapped(text: str, indent: int) -> list[str]:
    """A text in lines that end where the terminal does, with so many columns left free; into a pipe it is one line."""
    if not stdout().is_terminal:
        return [text]
    return textwrap.wrap(text, max(stdout().width - indent, _NARROW), break_long_words=False, break_on_hyphens=False) or [""]


def show_table(heads: Sequence[str], rows: Sequence[tuple[Sequence[str | Text], str | None]]) -> None:
    """A table on stdout, one line for each row; only the last column is cut where the terminal ends.

    rows: the cells, and what is said about the row in full on lines of its own below it
    """
    from rich.padding import Padding
    from rich.text import Text

    lines: list[tuple[list[Text], str | None]] = [([Text(head, "bold") for head in heads], None)]
    lines += [([cell.copy() if isinstance(cell, Text) else Text(cell) for cell in cells], said) for cells, said in rows]
    widths = [max(cell.cell_len for cell in column) for column in zip(*(cells for cells, _ in lines), strict=True)]
    for cells, said in lines:
        for cell, width in zip(cells[:-1], widths[:-1], strict=True):
            cell.pad_right(width - cell.cell_len)
        stdout().print(Text("  ").join(cells), no_wrap=True, overflow="ellipsis")
        if said:
            stdout().print(Padding.indent(Text(said), 4))


def can_redraw() -> bool:
    """Whether bars on stderr can move."""
    return stderr().is_terminal and not stderr().is_dumb_terminal


@contextmanager
def pulse(how_far: Callable[[], str]) -> Iterator[None]:
    """Say now and then, a line each, how far the work inside is: a long one that is redirected is not taken for a dead one."""
    over, begun = threading.Event(), time.monotonic()

    def beat() -> None:
        while not over.wait(PULSE_S):
            stderr().print(f"{how_far()} ... {time.monotonic() - begun:.0f} s", soft_wrap=True, markup=False)

    thread = threading.Thread(target=beat, name="ptyplugin-pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def busy(doing: str, quiet: bool = False) -> Iterator[None]:
    """Something moves on the terminal, or is said now and then, while work without steps is done."""
    if quiet:
        yield
        return
    with stderr().status(f"{doing} ...") if can_redraw() else pulse(lambda: doing):
        yield


@contextmanager
def iteration_bar(iterations: int, quiet: bool = False) -> Iterator[Callable[[Progress], None]]:
    """A bar over all iterations, or a line now and then; gives what is to be called after each."""
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description:<8}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[error]}"),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
    )
    moves = can_redraw()
    with ExitStack() as stack:
        bar = stack.enter_context(bars.Progress(*columns, console=stderr(), transient=True, disable=quiet or not moves))
        task = bar.add_task("reading", total=iterations, error="")

        def how_far() -> str:
            now = bar.tasks[0]
            return " ".join(f"{now.description} {now.completed:.0f}/{iterations} {now.fields['error']}".split())

        if not (quiet or moves):
            stack.enter_context(pulse(how_far))

        def step(progress: Progress) -> None:
            bar.update(task, description=progress.stage, completed=progress.iteration)
            if "error" in progress.errors:
                held_out = progress.errors.get("held_out_error")
                unseen = "" if held_out is None else f", held out {held_out:.4g}"
                bar.update(task, error=f"error {progress.errors['error']:.4g}{unseen}")

        yield step
