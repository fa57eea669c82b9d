"""The service's own HTTP app where no source of kind ``http`` brings one: the same server, at the loopback, and nothing is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ptyplugin.model import HttpSubmit, Site
from ptyplugin.service.sources.http_submit import HttpSource

LOOPBACK = "127.0.0.1"


class LoopbackApp(HttpSource):
    """Answers GET at the loopback, at the site's ``http_port``."""

    def __init__(self, site: Site) -> None:
        self._begin(HttpSubmit(kind="http", host=LOOPBACK, port=site.http_port), "http_port")

    def answer(self, path: str, headers: Mapping[str, str], read: Callable[[int], bytes]) -> tuple[int, dict[str, Any]]:
        """See HttpSource."""
        return 405, {"error": "nothing is taken here: add a source of kind 'http' to the site file, or hand jobs over through the inbox."}
