"""What the commands about jobs share: their options, and finding the job that a person means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ptyplugin.cli.service_view import ServiceView
    from ptyplugin.jobs import Entry, LedgerView
    from ptyplugin.model import Site

SiteFile = Annotated[Path | None, typer.Option("--site", help="TOML file of this installation.", show_default="what PTYPLUGIN_SITE names")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Key = Annotated[str, typer.Argument(help="The job: its key or scan id, or the beginning of its key or of its run's uid.")]
Keys = Annotated[list[str], typer.Argument(help="The jobs: each one's key or scan id, or the beginning of its key or of its run's uid.")]


def open_ledger(site: Site) -> LedgerView | ServiceView:
    """The site's jobs: as the daemon tells them if one answers, else from its file."""
    from ptyplugin.cli.service_view import service_of
    from ptyplugin.jobs import open_read_only

    return service_of(site) or open_read_only(site.ledger)


#: What is said of a job that runs, as far as anybody knows, and of all jobs.
STANDS_STILL = "no daemon runs: it goes on when one is started (ptyplugin serve)."


def is_served(ledger: LedgerView | ServiceView, site: Site) -> bool:
    """Whether there is a daemon; else this is what one noted last."""
    from ptyplugin.jobs import LedgerView
    from ptyplugin.jobs.lock import is_held

    return not isinstance(ledger, LedgerView) or is_held(site.ledger)


def silence(site: Site) -> str:
    """What there is to say when no daemon runs."""
    from ptyplugin.jobs import waiting_keys
    from ptyplugin.model import SiteError

    try:
        waiting = len(set(waiting_keys(site)))
    except SiteError:
        waiting = 0
    more = f"; {waiting} more wait in the inbox" if waiting else ""
    return f"no daemon runs (ptyplugin serve): this is what was noted last{more}."


def held_up(ledger: LedgerView | ServiceView) -> str | None:
    """Why no job can begin now, though a daemon runs; None if one can, or if nobody tells."""
    from ptyplugin.jobs import LedgerView
    from ptyplugin.model import LedgerError

    if isinstance(ledger, LedgerView):
        return None
    try:
        slots = ledger.slots()
    except LedgerError:
        return None
    if not slots or not all(slot.get("held_up") or not (slot["ready"] or slot.get("job")) for slot in slots):
        return None
    return f"no job can begin now: {'; '.join(dict.fromkeys(str(slot['sentence']).rstrip('.') for slot in slots))}."


def not_published(entry: Entry, site: Site) -> str | None:
    """Why a result that is there is not in the catalog, if it is to go there."""
    if entry.state != "solved" or not (entry.sentence or site.tiled_uri):
        return None
    if entry.purpose == "live" and not entry.sentence:
        return "it goes into the catalog only if no final image of its run does."
    return f"not in the catalog yet{f': {entry.sentence}' if entry.sentence else '.'}"


def key_meant(site: Site, text: str) -> str:
    """The key of the job that a person means, in the ledger or still in the inbox.

    Raises:
        JobError: there is none, or there are several.
        LedgerError: there is no ledger, and no such job in the inbox.
    """
    from ptyplugin.jobs import may_begin_key, waiting_keys
    from ptyplugin.model import JobError, LedgerError

    try:
        with open_ledger(site) as ledger:
            return ledger.find(text).key
    except (JobError, LedgerError):
        waiting = {key for key in waiting_keys(site) if may_begin_key(text) and key.startswith(text)}
        if len(waiting) != 1:
            raise
        return waiting.pop()


def entry_of(site: Site, key: str) -> Entry:
    """What the ledger has on the job with this key, which ``key_meant`` gave.

    Raises:
        JobError: it waits in the inbox still.
    """
    from ptyplugin.model import JobError, LedgerError

    try:
        with open_ledger(site) as ledger:
            return ledger.show(key)
    except (JobError, LedgerError) as error:
        raise JobError(f"job {key} waits in the inbox: no daemon has taken it in yet (ptyplugin serve).") from error
