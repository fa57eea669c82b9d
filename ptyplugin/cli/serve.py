"""ptyplugin serve: the daemon in the foreground, for systemd and for a terminal."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer


def serve(
    site_file: Annotated[
        Path | None,
        typer.Option(
            "--site",
            "--config",
            help="The site's TOML file: folders, data_roots, catalog, slots, sources.",
            show_default="what PTYPLUGIN_SITE names",
        ),
    ] = None,
) -> None:
    """Solve what is handed over and publish it, until SIGTERM or Ctrl-C.

    Jobs that are accepted are never lost: stop and start it at any time. The
    catalog's key comes from TILED_API_KEY.

    Example:
        ptyplugin serve --site /etc/ptyplugin/site.toml
    """
    from ptyplugin.model import load_site
    from ptyplugin.service import Daemon
    from ptyplugin.service.sources import Sources

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    site = load_site(site_file)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Daemon(site) as daemon, Sources(site, stop) as sources:
        typer.echo(f"serving: inbox {site.inbox}, results {site.results}, catalog {site.tiled_uri or 'none'}", err=True)
        for state in sources.states():
            typer.echo(f"source: {state.name}", err=True)
        daemon.run(stop)
    typer.echo("stopped.", err=True)
