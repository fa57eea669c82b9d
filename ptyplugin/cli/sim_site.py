"""A catalog and a site of their own, in one folder: what demo and simulated session run on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptyplugin.model import Site

#: What stays for the reader of the folder.
SITE_FILE = "site.toml"
#: What is said while the ranks get warm; how often they are asked, and how long at the most, seconds.
WARMING = "warming up the solver (first time: 30 s)"
_ASK_S, _PATIENCE_S = 0.1, 300.0


@contextmanager
def own_site(folder: Path, ranks: int) -> Iterator[Site]:
    """A Tiled server with its catalog in ``folder``, and a site there whose TOML names it; both end with the block, the files stay.

    The server's key is in the environment meanwhile, as everywhere.

    Raises:
        JobError: the folder cannot be made.
        CatalogError: the server does not start.
    """
    from ptyplugin.catalog import LocalServer
    from ptyplugin.model import JobError, Site

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"the folder {folder} cannot be made ({error.strerror}): choose another one.") from error
    with LocalServer(folder / "catalog", readable=[folder / "data", folder / "results"]) as server:
        site = Site(
            home=folder / "home",
            results_dir=folder / "results",
            data_roots=[folder / "data"],
            tiled_uri=server.uri,
            ranks=ranks,
            http_port=0,
        )
        _write(site, folder, f'tiled_uri = "{server.uri}"')
        try:
            with variables(TILED_API_KEY=server.api_key):
                yield site
        finally:
            ended = "# The server has ended; serve its catalog again as catalog/config.yml says, then name it here:"
            _write(site, folder, f'{ended}\n# tiled_uri = "http://127.0.0.1:8000"')


def why_cold(look: Callable[[], tuple[bool, str]]) -> str:
    """Wait for the solver, which is compiled the first time; why it is not warm after all, in one sentence, or nothing.

    look: whether it is warm, and what keeps it from that, if anything does
    """
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        is_warm, trouble = look()
        if is_warm or trouble:
            return trouble
        time.sleep(_ASK_S)
    return f"the solver is not warm after {_PATIENCE_S:g} s: this goes on without, and the first image may be late."


@contextmanager
def variables(**values: str) -> Iterator[None]:
    """Environment variables of this process and its children, meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        _restore(before)


def _restore(before: Mapping[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _write(site: Site, folder: Path, catalog: str) -> None:
    lines = [f'home = "{site.home}"', f'results_dir = "{site.results}"', f'data_roots = ["{folder / "data"}"]', f"ranks = {site.ranks}"]
    (folder / SITE_FILE).write_text("\n".join([*lines, "http_port = 0", catalog, ""]), encoding="utf-8")
