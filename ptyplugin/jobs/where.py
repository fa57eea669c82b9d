"""Where a running daemon answers: a small file in the site's home, for the commands on the same machine."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

from ptyplugin.jobs.durable import make_folder
from ptyplugin.model import Site

_FILE = "service.json"


@dataclass(frozen=True, slots=True)
class Where:
    """An address that a daemon listens at."""

    host: str
    port: int


def write_where(site: Site, where: Where) -> None:
    """Say where this daemon answers.

    Raises:
        OSError: the file cannot be written.
    """
    make_folder(site.home)
    new = site.home / f".{_FILE}.new"
    new.write_text(json.dumps({"host": where.host, "port": where.port}), encoding="utf-8")
    new.replace(site.home / _FILE)


def read_where(site: Site) -> Where | None:
    """Where a daemon of this site answers, or answered until it was killed."""
    try:
        said = json.loads((site.home / _FILE).read_bytes())
        return Where(str(said["host"]), int(said["port"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget_where(site: Site) -> None:
    """This daemon answers no more."""
    with suppress(OSError):
        (site.home / _FILE).unlink(missing_ok=True)
