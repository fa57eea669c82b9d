"""What a person sees: answers on stdout; bars, warnings and errors on stderr, bars only where that is a terminal."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ptyplugin.model import Progress


#: Columns of a table that goes into a pipe.
_WIDE = 500


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


@contextmanager
def busy(doing: str, quiet: bool = False) -> Iterator[None]:
    """Something moves on the terminal while work without steps is done."""
    if quiet or not stderr().is_terminal:
        yield
        return
    with stderr().status(f"{doing} ..."):
        yield


@contextmanager
def iteration_bar(iterations: int, quiet: bool = False) -> Iterator[Callable[[Progress], None]]:
    """A bar over all iterations; gives what is to be called after each."""
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
    hidden = quiet or not stderr().is_terminal
    with bars.Progress(*columns, console=stderr(), transient=True, disable=hidden) as bar:
        task = bar.add_task("reading", total=iterations, error="")

        def step(progress: Progress) -> None:
            bar.update(task, description=progress.stage, completed=progress.iteration)
            if "error" in progress.errors:
                held_out = progress.errors.get("held_out_error")
                unseen = "" if held_out is None else f", held out {held_out:.4g}"
                bar.update(task, error=f"error {progress.errors['error']:.4g}{unseen}")

        yield step
