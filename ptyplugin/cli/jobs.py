"""ptyplugin jobs: what became of the jobs that were handed over. Works with and without a running daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ptyplugin.cli.job_finding import (
    STANDS_STILL,
    AsJson,
    Key,
    SiteFile,
    entry_of,
    held_up,
    is_served,
    key_meant,
    not_published,
    open_ledger,
    silence,
)
from ptyplugin.cli.job_logs import logs
from ptyplugin.cli.job_orders import cancel, retry
from ptyplugin.cli.job_watch import watch
from ptyplugin.cli.screen import answer, in_brief, recipe_in_brief, show_table, stderr, when, wrapped
from ptyplugin.cli.sentences import one_sentence

if TYPE_CHECKING:
    from rich.text import Text

    from ptyplugin.cli.service_view import ServiceView
    from ptyplugin.jobs import Entry, JobProgress, LedgerView, Transition
    from ptyplugin.model import Site

app = typer.Typer(help="What became of the jobs that were handed over.", no_args_is_help=True, rich_markup_mode="rich")

_STATE = Literal["queued", "running", "solved", "published", "failed", "cancelled"]
_HEADS = ("arrived", "job", "scan", "run", "image", "state", "frames", "recipe")
#: What is shown in --json only, or in a form of its own.
_FOR_PROGRAMS = (
    *("number", "device", "needed_bytes", "starts", "checkpoint", "not_before_s", "lease_until_s", "arrived_s", "changed_s"),
    *("fraction_done", "progress", "history"),
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

    Below a job that failed or has to wait stands why: for another try, for the
    catalog, for a daemon. Keys and uids are short, and a recipe is without its
    options (…); --json has all of them.
    """
    from ptyplugin.jobs.records import record_of
    from ptyplugin.model import load_site

    where = load_site(site)
    with open_ledger(where) as ledger:
        found, is_told = ledger.list(state=state, scan_id=scan_id, limit=limit), is_served(ledger, where)
        why = held_up(ledger) if any(entry.state == "queued" for entry in found) and not as_json else None
    if as_json:
        answer([record_of(entry) for entry in found])
        return
    if found:
        show_table(_HEADS, [_row(entry, where, is_told) for entry in found])
    else:
        stderr().print("no jobs found.")
    if why := why if is_told else silence(where):
        stderr().print(why, soft_wrap=True, markup=False)


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
        is_told, held = is_served(ledger, where), held_up(ledger) if entry.state == "queued" else None
        other = _other_finals(ledger, entry)
    said = shown(entry, history, progress, _outcome(entry))
    if as_json:
        answer(said)
        return
    _print_fields(
        {name: value for name, value in said.items() if value not in (None, [], "") and name not in _FOR_PROGRAMS}
        | {"sentence": _why(entry, where, is_told) or entry.sentence or held}
        | ({"progress": _how_far(progress)} if progress else {})
        | ({"others": f"the same scan was reconstructed by {', '.join(other)} too: its number means the newest."} if other else {})
    )
    for one in history:
        for line in _lines(one, entry):
            typer.echo(line)


def _other_finals(ledger: LedgerView | ServiceView, entry: Entry) -> list[str]:
    """The other final jobs of the same scan, by key and state."""
    if entry.scan_id is None or entry.run_uid is None or entry.purpose != "final":
        return []
    here = (entry.run_uid, entry.source, entry.purpose)
    found = ledger.list(scan_id=entry.scan_id)
    return [f"{one.key} ({one.state})" for one in found if (one.run_uid, one.source, one.purpose) == here and one.key != entry.key]


def _print_fields(fields: dict[str, Any]) -> None:
    """One line each, for lists one for each part; all begin in the same column."""
    width = max(map(len, fields)) + 1
    for name, value in fields.items():
        parts = value if isinstance(value, list) else [] if value is None else [f"{value:.4g}" if name == "error" else value]
        # A recipe, or a path, is copied from here: the terminal wraps it without putting anything in.
        lines = parts if name in ("recipe", "result") else [line for part in parts for line in wrapped(str(part), width + 1)]
        for number, line in enumerate(lines):
            typer.echo(f"{'' if number else name:<{width}} {line}")


def _why(entry: Entry, site: Site, is_told: bool) -> str | None:
    """Why a job is where it is, in one sentence, if there is something to say."""
    if entry.state == "running" and not is_told:
        return STANDS_STILL
    return not_published(entry, site) or (entry.sentence if entry.state in ("failed", "queued") else None)


def _outcome(entry: Entry) -> dict[str, Any]:
    if entry.result is None:
        return {}
    # Reading results is slow to start.
    from ptyplugin.io.outcome import outcome_of

    return outcome_of(entry.result)


def _how_far(progress: JobProgress) -> str:
    errors = "".join(f", {name} {value:.4g}" for name, value in progress.errors.items())
    if progress.frames:
        return f"{progress.stage}, {progress.frames} frames, iteration {progress.iteration}{errors}, for as long as the scan goes on"
    return f"{progress.stage}, iteration {progress.iteration} of {progress.iterations}{errors}, about {progress.left_s:.0f} s left"


def _lines(one: Transition, entry: Entry) -> list[str]:
    from ptyplugin.jobs.records import time_of

    other = f" (ptyplugin {one.version})" if one.version not in (None, entry.version) else ""
    begin = f"{time_of(one.at_s)[:19].replace('T', ' ')}  {one.state:<10} "
    first, *more = wrapped(f"{one.sentence or ''}{other}", len(begin))
    return [f"{begin}{first}".rstrip(), *(f"{'':<{len(begin)}}{line}" for line in more)]


def _row(entry: Entry, site: Site, is_told: bool) -> tuple[list[str | Text], str | None]:
    from rich.text import Text

    done = f" {entry.fraction_done:.0%}" if entry.state == "running" and entry.purpose != "live" else ""
    cells: list[str | Text] = [
        when(entry.arrived_s),
        in_brief(entry.key),
        "-" if entry.scan_id is None else str(entry.scan_id),
        in_brief(entry.run_uid),
        entry.purpose or "-",
        Text(entry.state + done, _COLOURS[entry.state]),
        "-" if entry.frames is None else str(entry.frames),
        recipe_in_brief(entry.recipe),
    ]
    return cells, _why(entry, site, is_told)


app.command("list")(one_sentence(list_jobs))
app.command("show")(one_sentence(show_job))
app.command("watch")(one_sentence(watch))
app.command("logs")(one_sentence(logs))
app.command("cancel")(one_sentence(cancel))
app.command("retry")(one_sentence(retry))
