"""ptyplugin serve: the daemon in the foreground, for systemd and for a terminal."""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

_log = logging.getLogger(__name__)


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
    log_format: Annotated[Literal["text", "json"], typer.Option(help="Lines on stderr: for people, or one JSON object each.")] = "text",
    epics: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="Serve the job that runs as EPICS process variables, e.g. BL1:Ptycho:", show_default=False),
    ] = None,
) -> None:
    """Solve what is handed over and publish it, until SIGTERM or Ctrl-C.

    Jobs that are accepted are never lost: stop and start it at any time. The
    catalog's key comes from TILED_API_KEY. How it is: /healthz, /metrics and
    /jobs at http://127.0.0.1:8770 (http_port of the site file).

    Examples:
        ptyplugin serve --site /etc/ptyplugin/site.toml
        ptyplugin serve --epics BL1:Ptycho:               images and progress for Phoebus
    """
    from ptyplugin.model import load_site
    from ptyplugin.service import Daemon
    from ptyplugin.service.epics.screens import Epics
    from ptyplugin.service.logs import set_up_logs
    from ptyplugin.service.operations import Operations
    from ptyplugin.service.slots import crowding
    from ptyplugin.service.sources import Sources

    set_up_logs(log_format)
    site = load_site(site_file)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Daemon(site) as daemon, Sources(site, stop) as sources, Operations(site, daemon, sources), ExitStack() as more:
        if epics is not None:
            more.enter_context(Epics(site, daemon, epics, log_format))
        if crowded := crowding([slot.place for slot in daemon.slots]):
            _log.warning("%s", crowded)
        _log.info("serving: inbox %s, results %s, catalog %s", site.inbox, site.results, site.tiled_uri or "none")
        for state in sources.states():
            _log.info("source: %s", state.name)
        daemon.run(stop)
    _log.info("stopped.")
