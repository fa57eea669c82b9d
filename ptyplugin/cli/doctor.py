"""ptyplugin doctor: what works here, and what to do about the rest."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ptyplugin.cli.screen import answer, busy, stdout

if TYPE_CHECKING:
    from ptyplugin.service.findings import Finding

_COLOURS = {"ok": "green", "not needed": "dim", "missing": "yellow", "warning": "yellow", "wrong": "bold red"}
#: Columns of the first two words.
_WIDTHS = (10, 17)


def doctor(
    site_file: Annotated[
        Path | None,
        typer.Option("--site", help="Also look at this installation's folders and catalog.", show_default="what PTYPLUGIN_SITE names"),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "gpu"], typer.Option(help="gpu: it is an error if none can be used; cpu: GPUs are left alone.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Say what works on this machine, and what to do about the rest.

    Versions, processor, memory, GPUs with CuPy and its libraries, MPI (two
    ranks are started), folders and catalog of the site, and some seconds of
    self-test with measured speeds. Nothing is changed. The exit code is 1 if
    something that is needed, or was asked for, does not work.

    Examples:
        ptyplugin doctor
        ptyplugin doctor --device gpu --site /etc/ptyplugin/site.toml
        ptyplugin doctor --json
    """
    import os

    from ptyplugin.model import load_site
    from ptyplugin.model.site import SITE_VARIABLE
    from ptyplugin.service.doctor import examine

    site = load_site(site_file) if site_file or os.environ.get(SITE_VARIABLE) else None
    found, findings = [], examine(site, device)
    while True:
        with busy("looking", as_json):
            finding = next(findings, None)
        if finding is None:
            break
        found.append(finding)
        if not as_json:
            _show(finding)
    wrong = [finding.about for finding in found if finding.state == "wrong"]
    if as_json:
        answer({"ok": not wrong, "findings": [asdict(finding) for finding in found]})
    elif wrong:
        typer.echo(f"Not well: {', '.join(wrong)}.")
    else:
        typer.echo("All that was asked for works.")
    if wrong:
        raise typer.Exit(1)


def _show(finding: Finding) -> None:
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 1))
    for width in _WIDTHS:
        line.add_column(width=width, no_wrap=True)
    line.add_column(overflow="fold")
    line.add_row(Text(finding.state, _COLOURS[finding.state]), Text(finding.about, "bold"), Text(finding.said))
    if finding.todo:
        line.add_row("", Text("to do", "dim"), Text(finding.todo))
    with stdout().capture() as drawn:
        stdout().print(line)
    typer.echo("\n".join(part.rstrip() for part in drawn.get().splitlines()))
