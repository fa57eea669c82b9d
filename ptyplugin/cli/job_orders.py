"""ptyplugin jobs cancel and retry: orders to the daemon, which carries them out at once or when it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from ptyplugin.cli.job_finding import AsJson, Keys, SiteFile, key_meant, open_ledger
from ptyplugin.cli.screen import answer, busy
from ptyplugin.cli.sentences import FAILED, say

if TYPE_CHECKING:
    from ptyplugin.jobs import Entry, Order
    from ptyplugin.model import Site

#: How long the command waits to see its orders carried out, and how often it looks, seconds.
PATIENCE_S, _LOOK_S = 5.0, 0.05


def cancel(keys: Keys, site: SiteFile = None, as_json: AsJson = False) -> None:
    """Cancel jobs: one that waits is not done, one that runs stops after its present iteration.

    Examples:
        ptyplugin jobs cancel 0123456789abcdef
        ptyplugin jobs cancel 1742 1743                   by scan id

    Works without a running daemon too: the next one does it before it starts
    anything. A job that is solved stays; ptyplugin jobs retry brings a
    cancelled one back.
    """
    _carry_out("cancel", keys, site, as_json)


def retry(keys: Keys, site: SiteFile = None, as_json: AsJson = False) -> None:
    """Have jobs that failed or were cancelled done again.

    Examples:
        ptyplugin jobs retry 0123456789abcdef
        ptyplugin jobs retry 0123 4567                    as much of each key as it takes

    It is the same job, with the same key: first mend what its sentence says
    (ptyplugin jobs show); of a run that was refused, the documents are read
    again. After the site file was corrected, start the service again. Jobs wait by themselves for a full disk or a catalog
    that is away, and need no retry.
    """
    _carry_out("retry", keys, site, as_json)


@dataclass(slots=True)
class _Given:
    """An order on its way: the job before it, the item in the inbox, and why it cannot be."""

    key: str
    before: Entry | None
    item: Path | None = None
    refused: str | None = None

    @property
    def done(self) -> bool:
        return self.item is not None and not self.item.exists()


def _carry_out(order: Literal["cancel", "retry"], texts: Sequence[str], site_file: Path | None, as_json: bool) -> None:
    from ptyplugin.jobs import Order
    from ptyplugin.model import load_site

    site = load_site(site_file)
    keys = dict.fromkeys(key_meant(site, text) for text in texts)
    orders = [_give(site, Order(order=order, job=key)) for key in keys]
    with busy("waiting for the daemon", as_json):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and any(given.item and not given.done for given in orders):
            time.sleep(_LOOK_S)
    reports = [_report(site, order, given) for given in orders]
    if as_json:
        answer(reports)
    else:
        for report in reports:
            say(report["sentence"]) if report["refused"] else typer.echo(report["sentence"])
    if any(report["refused"] for report in reports):
        raise typer.Exit(FAILED)


def _give(site: Site, order: Order) -> _Given:
    from ptyplugin.jobs import check_order, give
    from ptyplugin.model import JobError

    given = _Given(order.job, _entry(site, order.job))
    try:
        if given.before:
            check_order(order, given.before)
        elif order.order == "retry":
            raise JobError(f"job {order.job} waits in the inbox: no daemon has taken it in yet (ptyplugin serve).")
        given.item = give(site, order)
    except JobError as error:
        given.refused = str(error)
    return given


def _entry(site: Site, key: str) -> Entry | None:
    from ptyplugin.model import JobError, LedgerError

    try:
        with open_ledger(site) as ledger:
            return ledger.show(key)
    except (JobError, LedgerError):
        return None  # it waits in the inbox still


def _report(site: Site, order: Literal["cancel", "retry"], given: _Given) -> dict[str, Any]:
    now, refused = _entry(site, given.key), given.refused
    state = now.state if now else None
    if refused:
        sentence = refused
    elif not given.done:
        running = order == "cancel" and state == "running"
        waits = "stops after its present iteration" if running else "is left to the daemon, which does it when it runs (ptyplugin serve)"
        sentence = f"job {given.key}: the order to {order} it {waits}." if not running else f"job {given.key} {waits}."
    elif order == "retry" and now and now.kind == "refusal":
        sentence = (
            f"run {now.run_uid} is read again, where a source of the service has a profile for it: ptyplugin jobs list shows its new job."
        )
    elif (order == "cancel" and state != "cancelled") or (order == "retry" and now == given.before):
        sentence = refused = f"job {given.key} is {state}: it was too late to {order} it."
    else:
        sentence = f"job {given.key} is {state}{' again' if order == 'retry' else ''}."
    return {"key": given.key, "order": order, "done": given.done, "refused": bool(refused), "state": state, "sentence": sentence}
