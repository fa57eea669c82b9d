"""The process that puts results into the catalog: ``python -m ptyplugin.catalog.apart``.

It reads lines of JSON from standard input, the site and then what is to be published, and answers each of the latter with one line. It ends
with its input, or with the daemon.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ptyplugin.catalog.connection import connect, warm_up
from ptyplugin.catalog.publishing import publish
from ptyplugin.model import PtypluginError, Site

_log = logging.getLogger(__name__)

#: Dask imports them where they are installed, for arrays that no result has: 75 MB, 0.3 s.
_NOT_NEEDED = ("cupy", "sparse")


class CatalogPublish:
    """Publishes into the site's catalog; connects when first needed, and anew after an error."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._client: Any = None
        self._folders: dict[str, Any] = {}

    def __call__(self, result: Path, key: str) -> None:
        """See Publish.

        Raises:
            CatalogError: the catalog is away or refuses.
            FileFormatError: the result file is damaged.
        """
        try:
            # Whether a container is true is a request: how many nodes it has.
            self._client = connect(self._site) if self._client is None else self._client
            publish(self._client, self._site, result, key, self._folders)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.context.close()
            self._client = None
            self._folders = {}


class Kept(logging.Handler):
    """Keeps what is logged for the daemon, which says it in its own way."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[tuple[int, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See Handler."""
        try:
            self.lines.append((record.levelno, record.name, record.getMessage()))
        except Exception:
            # What a library says wrongly costs no result.
            self.handleError(record)


def answer_all(orders: Iterable[str], put: Callable[[Path, str], object], answer: Callable[[str], object], said: Kept) -> None:
    """Publish what each line of ``orders`` names; ``answer`` hears what went wrong, and what was said."""
    for line in orders:
        order, error = json.loads(line), None
        try:
            put(Path(order["result"]), order["key"])
        except PtypluginError as trouble:
            error = str(trouble)
        except Exception as trouble:
            # A catalog can fail in ways that nobody has seen yet.
            _log.debug("publishing %s failed", order["key"], exc_info=True)
            error = f"publishing ended with {type(trouble).__name__}: {' '.join(str(trouble).split()).rstrip('.')}."
        lines, said.lines = said.lines, []
        answer(json.dumps({"error": error, "log": lines}) + "\n")


def main() -> None:
    """Serve the daemon at the other ends of standard input and output."""
    said = Kept()
    logging.basicConfig(level=logging.INFO, handlers=[said])
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # What libraries print is no answer.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        put = CatalogPublish(Site.model_validate_json(sys.stdin.readline()))
        # As if they were not installed.
        sys.modules.update(dict.fromkeys(_NOT_NEEDED))  # type: ignore[arg-type]
        # Seconds, while there is nothing to do.
        warm_up()

        def answer(line: str) -> None:
            answers.write(line)
            answers.flush()

        answer_all(sys.stdin, put, answer, said)
        put.close()


if __name__ == "__main__":
    main()
