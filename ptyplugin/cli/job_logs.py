"""ptyplugin jobs logs: what the ranks of a job have said."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from ptyplugin.cli.job_finding import AsJson, Key, SiteFile, key_meant, open_ledger
from ptyplugin.cli.screen import answer

if TYPE_CHECKING:
    from ptyplugin.model import Site

#: How often a log that is followed is looked at, seconds; bytes that are read at a time.
LOOK_S, _CHUNK = 0.3, 1 << 16


def logs(
    key: Key,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on while the job waits or runs; Ctrl-C ends it.")] = False,
    site: SiteFile = None,
    as_json: AsJson = False,
) -> None:
    """Print a job's log: what its ranks said, and the traceback of what nobody expected.

    Examples:
        ptyplugin jobs logs 0123456789abcdef
        ptyplugin jobs logs 1742 --follow

    Why a job failed stands in one sentence in ptyplugin jobs show; all starts
    of a job are in one log.
    """
    from ptyplugin.jobs import LOG_FILE
    from ptyplugin.model import JobError, load_site

    if follow and as_json:
        raise typer.BadParameter("--follow and --json exclude each other: ptyplugin jobs watch --json follows all jobs.")
    where = load_site(site)
    full_key = key_meant(where, key)
    path = where.jobs / full_key / LOG_FILE
    if not follow and not path.exists():
        raise JobError(f"job {full_key} has no log in {path.parent}: it was not started yet, or its folder was removed.")
    if as_json:
        answer({"key": full_key, "path": str(path), "text": path.read_text(encoding="utf-8", errors="replace")})
        return
    try:
        _print(path, where, full_key, follow)
    except KeyboardInterrupt:
        raise typer.Exit from None


def _print(path: Path, site: Site, key: str, follow: bool) -> None:
    while follow and not path.exists() and _may_go_on(site, key):
        time.sleep(LOOK_S)
    if not path.exists():
        return
    with path.open("rb") as log:
        _pour(log)
        # Asked before the last look, so that nothing of its end is missed.
        while follow and (goes_on := _may_go_on(site, key)) | _pour(log):
            if goes_on:
                time.sleep(LOOK_S)


def _pour(log: BinaryIO) -> bool:
    poured = False
    while chunk := log.read(_CHUNK):
        typer.echo(chunk.decode(errors="replace"), nl=False)
        poured = True
    return poured


def _may_go_on(site: Site, key: str) -> bool:
    from ptyplugin.model import JobError, LedgerError

    try:
        with open_ledger(site) as ledger:
            return ledger.show(key).state in ("queued", "running")
    except (JobError, LedgerError):
        return True  # it waits in the inbox still
