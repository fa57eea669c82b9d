"""ptyplugin jobs watch: a table that lives."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from ptyplugin.cli.job_finding import AsJson, SiteFile, held_up, is_served, open_ledger, silence
from ptyplugin.cli.screen import in_brief, stdout

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ptyplugin.cli.service_view import ServiceView
    from ptyplugin.jobs import Entry, JobProgress, LedgerView
    from ptyplugin.model import Site

#: How often the ledger is looked at, seconds.
LOOK_S = 0.5
#: How many jobs are shown that do not run.
_LATELY = 6
#: Columns of a bar.
_BAR = 20
_HEADS = ("job", "scan", "run", "stage", "iteration", "", "error", "left")


@dataclass(frozen=True, slots=True)
class Board:
    """What there is to see at one moment: the jobs that run, those that came to something lately, and how many are in each state.

    silence: what is to be said when no daemon tells of them; held_up: why none of those that wait can begin now
    """

    running: tuple[tuple[Entry, JobProgress | None], ...]
    lately: tuple[Entry, ...]
    counts: dict[str, int]
    silence: str | None = None
    held_up: str | None = None


def watch(site: SiteFile = None, as_json: AsJson = False) -> None:
    """Watch the jobs that run: stage, iteration, error, time left. Ctrl-C ends it.

    Examples:
        ptyplugin jobs watch
        ptyplugin jobs watch --json | jq .running      one line whenever something changes

    It only looks: it needs no daemon and disturbs none.
    """
    from ptyplugin.model import load_site

    if not as_json and (not stdout().is_terminal or stdout().is_dumb_terminal):
        raise typer.BadParameter("a live table needs a terminal that can redraw it (TERM is not dumb); for programs there is --json.")
    where = load_site(site)
    try:
        _lines(where) if as_json else _table(where)
    except KeyboardInterrupt:
        raise typer.Exit from None


def _seen(site: Site) -> Board:
    from ptyplugin.jobs import open_read_only
    from ptyplugin.model import LedgerError

    try:
        with open_ledger(site) as ledger:
            return _look(site, ledger)
    except LedgerError:
        # The daemon may have ended between two questions.
        with open_read_only(site.ledger) as ledger:
            return _look(site, ledger)


def _look(site: Site, ledger: LedgerView | ServiceView) -> Board:
    from ptyplugin.jobs import read_progress

    running = tuple((entry, read_progress(site.jobs / entry.key)) for entry in ledger.list(state="running"))
    counts = ledger.counts()
    quiet, held = None if is_served(ledger, site) else silence(site), held_up(ledger) if counts.get("queued") else None
    return Board(running, tuple(ledger.lately(_LATELY)), counts, quiet, held)


def _table(site: Site) -> None:
    from rich.live import Live

    with Live(board(_seen(site)), console=stdout(), auto_refresh=False) as live:
        while True:
            live.update(board(_seen(site)), refresh=True)
            time.sleep(LOOK_S)


def _lines(site: Site) -> None:
    before = ""
    while True:
        line = json.dumps(record(_seen(site)), ensure_ascii=False)
        if line != before:
            typer.echo(before := line)
        time.sleep(LOOK_S)


def board(seen: Board) -> RenderableType:
    """The table."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Column, Table
    from rich.text import Text

    # Where there is no room, the bar is shorter.
    table = Table(*(Column(head, no_wrap=bool(head)) for head in _HEADS), box=None, header_style="bold", pad_edge=False)
    for entry, progress in seen.running:
        stage, iteration, done, error, left = _how_far(progress)
        bar = ProgressBar(1.0, done, width=_BAR)
        table.add_row(*(Text(name) for name in (*_names(entry), stage, iteration)), bar, Text(error), Text(left))
    lately = Table(box=None, show_header=False, pad_edge=False)
    for entry in seen.lately:
        lately.add_row(
            *(Text(name) for name in (*_names(entry), entry.purpose or "-", entry.state)),
            Text(entry.sentence or "", no_wrap=True, overflow="ellipsis"),
        )
    counts = ", ".join(f"{count} {state}" for state, count in seen.counts.items()) or "no jobs yet"
    parts: list[RenderableType] = [Text(counts, "dim")]
    parts += [Text(said, "yellow") for said in (seen.silence, seen.held_up) if said]
    parts += [table] if seen.running else []
    parts += [Text(), lately] if seen.lately else []
    return Group(*parts)


def _how_far(progress: JobProgress | None) -> tuple[str, str, float, str, str]:
    if progress is None:
        return "begins", "", 0.0, "", ""
    error = progress.errors.get("error")
    said = "" if error is None else f"{error:.4g}"
    if progress.frames:
        # A live job goes on for as long as its scan.
        return progress.stage, f"{progress.iteration}, {progress.frames} frames", 0.0, said, "live"
    iteration, done = f"{progress.iteration}/{progress.iterations}", progress.iteration / max(progress.iterations, 1)
    return progress.stage, iteration, done, said, _span(progress.left_s)


def record(seen: Board) -> dict[str, Any]:
    """The same for programs."""
    running = [
        {
            "key": entry.key,
            "scan_id": entry.scan_id,
            "run_uid": entry.run_uid,
            "progress": None if progress is None else progress.model_dump(mode="json"),
        }
        for entry, progress in seen.running
    ]
    lately = [
        {"key": entry.key, "scan_id": entry.scan_id, "run_uid": entry.run_uid, "state": entry.state, "sentence": entry.sentence}
        for entry in seen.lately
    ]
    return {"running": running, "lately": lately, "counts": seen.counts, "daemon": seen.silence is None, "held_up": seen.held_up}


def _names(entry: Entry) -> tuple[str, str, str]:
    return in_brief(entry.key), "-" if entry.scan_id is None else str(entry.scan_id), in_brief(entry.run_uid)


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
