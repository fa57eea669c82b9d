"""ptyplugin notify: whether notifications arrive."""

from __future__ import annotations

import tempfile
from pathlib import Path

import typer

from ptyplugin.cli.job_finding import AsJson
from ptyplugin.cli.screen import answer
from ptyplugin.cli.sentences import FAILED, one_sentence, say

app = typer.Typer(help="Notifications about jobs that have ended.", no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def _notify() -> None: ...


def send_test(as_json: AsJson = False) -> None:
    """Send a notification with a picture to each address in PTYPLUGIN_NOTIFY, once.

    Example:
        PTYPLUGIN_NOTIFY=mailtos://me:word@example.org ptyplugin notify test

    Addresses are written as apprise does (https://github.com/caronc/apprise):
    mail, Slack, Teams, webhooks and a hundred more. They are secrets: give
    them to the service by its environment only.
    """
    from ptyplugin.model import SiteError
    from ptyplugin.model.redaction import NOTIFY_VARIABLE
    from ptyplugin.service.notifying import Notice, address_name, addresses_of, events_of, sender, was_taken

    addresses = addresses_of()
    if not addresses:
        raise SiteError(f"nobody is to be told: put addresses into {NOTIFY_VARIABLE}, written as ptyplugin notify test --help tells.")
    events_of()
    send = sender(addresses)
    with tempfile.TemporaryDirectory(prefix="ptyplugin-") as folder:
        notice = Notice("finished", "ptyplugin: a test", "Notifications arrive. This picture is a test too.", _picture(Path(folder)))
        reports = [{"address": address_name(address), "sent": was_taken(send, address, notice)} for address in addresses]
    if as_json:
        answer(reports)
    for report in () if as_json else reports:
        if report["sent"]:
            typer.echo(f"sent to {report['address']}")
        else:
            say(f"{report['address']} did not take it: check the address, and whether this machine may reach it.")
    if not all(report["sent"] for report in reports):
        raise typer.Exit(FAILED)


def _picture(folder: Path) -> Path:
    import numpy as np
    from matplotlib.image import imsave

    path = folder / "test.png"
    imsave(path, np.hypot(*np.mgrid[-32:32, -32:32]), cmap="viridis")
    return path


app.command("test")(one_sentence(send_test))
