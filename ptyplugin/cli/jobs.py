"""ptyplugin jobs: what became of the jobs that were handed over. Works with and without a running daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ptyplugin.cli.job_finding import AsJson, Key, SiteFile, entry_of, key_meant, open_ledger
from ptyplugin.cli.job_logs import logs
from ptyplugin.cli.job_orders import cancel, retry
from ptyplugin.cli.job_watch import watch
from ptyplugin.cli.screen import answer, show_table, stderr
from ptyplugin.cli.sentences import one_sentence

if TYPE_CHECKING:
    from rich.text import Text

    from ptyplugin.jobs import Entry, JobProgress, Transition

app = typer.Typer(help="What became of the jobs that were handed over.", no_args_is_help=True, rich_markup_mode="rich")

_STATE = Literal["queued", "running", "solved", "published", "failed", "cancelled"]
_HEADS = ("arrived", "job", "scan", "run", "state", "frames", "recipe")
#: What is shown in --json only, or in a form of its own.
_FOR_PROGRAMS = (
    *("number", "device", "needed_bytes", "starts", "checkpoint", "not_before_s", "lease_until_s", "arrived_s", "changed_s"),
    *("progress", "history"),
)
_COLOURS = {"queued": "yellow", "running": "cyan", "solved": "blue", "published": "green", "failed": "red", "cancelled": "dim"}


def list_jobs(
    state: Annotated[_STATE | None, typer.Option(help="Only those in this state.", show_default=False)] = None,
    scan_id: Annotated[int | None, typer.Option(help="Only those of this scan.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest ones.")] = 50,
    site: SiteFile = None,
    as_json: AsJson = False,
) -> None:
    """List jobs in the order of their arrival.

    Examples:
        ptyplugin jobs list --state failed
        ptyplugin jobs list --scan-id 1742 --json

    Below a job that failed or has to wait stands why; a long recipe is whole
    in --json.
    """
    from ptyplugin.jobs.records import record_of
    from ptyplugin.model import load_site

    with open_ledger(load_site(site)) as ledger:
        found = ledger.list(state=state, scan_id=scan_id, limit=limit)
    if as_json:
        answer([record_of(entry) for entry in found])
    elif found:
        show_table(_HEADS, [_row(entry) for entry in found])
    else:
        stderr().print("no jobs found.")


def show_job(key: Key, site: SiteFile = None, as_json: AsJson = False) -> None:
    """Show one job and what happened to it.

    Examples:
        ptyplugin jobs show 0123456789abcdef
        ptyplugin jobs show 1742                          by scan id

    The keys stand in ptyplugin jobs list.
    """
    from ptyplugin.jobs import read_progress
    from ptyplugin.jobs.records import shown
    from ptyplugin.model import load_site

    where = load_site(site)
    entry = entry_of(where, key_meant(where, key))
    with open_ledger(where) as ledger:
        history, progress = ledger.history(entry.key), read_progress(where.jobs / entry.key) if entry.state == "running" else None
    said = shown(entry, history, progress, _outcome(entry))
    if as_json:
        answer(said)
        return
    for name, value in said.items():
        if value not in (None, [], "") and name not in _FOR_PROGRAMS:
            typer.echo(f"{name:<14} {'; '.join(value) if isinstance(value, list) else f'{value:.4g}' if name == 'error' else value}")
    if progress:
        typer.echo(f"{'progress':<14} {_how_far(progress)}")
    for one in history:
        typer.echo(_line(one))


def _outcome(entry: Entry) -> dict[str, Any]:
    if entry.result is None:
        return {}
    # Reading results is slow to start.
    from ptyplugin.io.outcome import outcome_of

    return outcome_of(entry.result)


def _how_far(progress: JobProgress) -> str:
    errors = "".join(f", {name} {value:.4g}" for name, value in progress.errors.items())
    return f"{progress.stage}, iteration {progress.iteration} of {progress.iterations}{errors}, about {progress.left_s:.0f} s left"


def _line(one: Transition) -> str:
    from ptyplugin.jobs.records import time_of

    return f"{time_of(one.at_s)[:19].replace('T', ' ')}  {one.state:<10} {one.sentence or ''}".rstrip()


def _row(entry: Entry) -> tuple[list[str | Text], str | None]:
    from rich.text import Text

    from ptyplugin.jobs.records import time_of

    done = f" {entry.fraction_done:.0%}" if entry.state == "running" else ""
    cells: list[str | Text] = [
        time_of(entry.arrived_s)[:16].replace("T", " "),
        entry.key,
        "-" if entry.scan_id is None else str(entry.scan_id),
        (entry.run_uid or "-")[:8],
        Text(entry.state + done, _COLOURS[entry.state]),
        "-" if entry.frames is None else str(entry.frames),
        entry.recipe or "",
    ]
    return cells, entry.sentence if entry.state in ("failed", "queued") else None


app.command("list")(one_sentence(list_jobs))
app.command("show")(one_sentence(show_job))
app.command("watch")(one_sentence(watch))
app.command("logs")(one_sentence(logs))
app.command("cancel")(one_sentence(cancel))
app.command("retry")(one_sentence(retry))
