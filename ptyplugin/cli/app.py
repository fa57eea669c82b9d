"""The commands and what their help says."""

from __future__ import annotations

from typing import Annotated

import typer

import ptyplugin
from ptyplugin.cli.demo import demo
from ptyplugin.cli.doctor import doctor
from ptyplugin.cli.jobs import app as jobs
from ptyplugin.cli.notify import app as notify
from ptyplugin.cli.reconstruct import reconstruct
from ptyplugin.cli.results import results
from ptyplugin.cli.sentences import one_sentence
from ptyplugin.cli.serve import serve
from ptyplugin.cli.sim import app as sim

EXIT_CODES = "[bold]Exit codes[/bold]: 0 fine; 1 it failed, one sentence on stderr says why; 2 wrong usage; 130 stopped by Ctrl-C."

_HELP = """The ptychographic image in the catalog, while the scan runs and after it.

A first try, and one with a file of your own:

    ptyplugin demo
    ptyplugin reconstruct scan.cxi --probe-modes 2 --png scan.png

A beamline of your own to play with, in IPython:

    ptyplugin sim session

What works on this machine, and what to do about the rest:

    ptyplugin doctor

With a catalog and a daemon, where PTYPLUGIN_SITE names the site's TOML file:

    ptyplugin serve                  solve what is handed over, publish it
    ptyplugin jobs list              what became of it
    ptyplugin results --scan-id 17   what is in the catalog
"""

app = typer.Typer(
    help=_HELP,
    epilog=EXIT_CODES,
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ptyplugin {ptyplugin.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version and end.")] = False,
) -> None: ...


app.command("demo", epilog=EXIT_CODES)(one_sentence(demo))
app.command("doctor", epilog=EXIT_CODES)(one_sentence(doctor))
app.command("reconstruct", epilog=EXIT_CODES, no_args_is_help=True)(one_sentence(reconstruct))
app.command("results", epilog=EXIT_CODES)(one_sentence(results))
app.command("serve", epilog=EXIT_CODES)(one_sentence(serve))
app.add_typer(jobs, name="jobs", epilog=EXIT_CODES)
app.add_typer(notify, name="notify", epilog=EXIT_CODES)
app.add_typer(sim, name="sim", epilog=EXIT_CODES)
