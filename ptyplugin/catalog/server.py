"""A real Tiled server for the demo and the tests: own process, SQLite catalog and files in one folder, one random key."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shlex
import socket
import subprocess
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from tiled.structures.core import Spec

from ptyplugin.catalog.connection import connect, ensure_container, plain
from ptyplugin.model import CatalogError, Site
from ptyplugin.model.own_python import own_python

logger = logging.getLogger(__name__)

#: A cold start takes 10 to 20 s on a quiet machine.
START_S = 180.0
STOP_S = 10.0

_CONFIG = """\
# A Tiled catalog in one folder. To serve it again, with a key of your own:
#   TILED_SINGLE_USER_API_KEY=secret tiled serve config {path} --port 8000
# and from Python: tiled.client.from_uri("http://127.0.0.1:8000", api_key="secret")
trees:
  - path: /
    tree: catalog
    args:
      uri: {catalog}
      writable_storage: {writable}
      readable_storage: {readable}
media_types:
  BlueskyRun:
    application/json-seq: "bluesky_tiled_plugins.exporters:json_seq_exporter"
routers:
  - "bluesky_tiled_plugins.routers.validator:router"
streaming_cache:
  uri: memory
uvicorn:
  host: 127.0.0.1
"""


class LocalServer:
    """A Tiled server on 127.0.0.1 whose catalog lies in ``folder``; the same folder gives the same catalog again.

    folder: holds config.yml (no secrets in it), catalog.db, data/, tables.duckdb and server.log
    readable: folders whose files the catalog may read by reference (detector files, result files)
    beamlines: each gets ``raw`` (a catalog of Bluesky runs) and ``processed/ptyplugin``, as the site names them
    port: 0 for a free one

    Use it as a context manager. The server ends with ``stop()``, and also when this process ends in any way.
    """

    def __init__(self, folder: Path, *, readable: Iterable[Path] = (), beamlines: Iterable[str] = ("sim",), port: int = 0) -> None:
        self.folder = folder.absolute()
        self.api_key = secrets.token_hex(16)
        self._readable = [path.absolute() for path in readable]
        self._beamlines = tuple(beamlines)
        self._wanted_port = port
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def config(self) -> Path:
        """Tiled's configuration, fit for ``tiled serve config``."""
        return self.folder / "config.yml"

    @property
    def log(self) -> Path:
        """What the server wrote."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start, wait until it answers, make the beamlines' containers.

        Raises:
            CatalogError: the port is in use, the server extra is not installed, or the server does not come up (with the end of its log).
        """
        if find_spec("uvicorn") is None or find_spec("bluesky_tiled_plugins") is None:
            raise CatalogError("a catalog server is not installed here: pip install 'ptyplugin[server]'.")
        self._write_config()
        with _bound_socket(self._wanted_port) as bound:
            self._port = bound.getsockname()[1]
            self._process = self._spawn(bound)
        try:
            self._wait(self._process)
            self._make_containers()
        except BaseException:
            self.stop()
            raise
        logger.info("catalog in %s served at %s by process %d", self.folder, self.uri, self._process.pid)
        return self

    def stop(self) -> None:
        """End the server's process; does nothing when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _write_config(self) -> None:
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        storage = [f"file://localhost{data}", f"duckdb:///{self.folder / 'tables.duckdb'}"]
        text = _CONFIG.format(
            path=shlex.quote(str(self.config)),
            catalog=json.dumps(f"sqlite:///{self._database}"),
            writable=json.dumps(storage),
            readable=json.dumps([str(path) for path in self._readable]),
        )
        self.config.write_text(text, encoding="utf-8")

    @property
    def _database(self) -> Path:
        return self.folder / "catalog.db"

    def _spawn(self, bound: socket.socket) -> subprocess.Popen[bytes]:
        # The site's own TILED_ variables must not configure this server.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TILED_")}
        environment["TILED_SINGLE_USER_API_KEY"] = self.api_key
        command = own_python("ptyplugin.catalog.serve", self.config, self._database, bound.fileno())
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C at the terminal is for the parent, which may still be publishing.
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[bound.fileno()],
                cwd=self.folder,
                start_new_session=True,
            )

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise CatalogError(f"the catalog server ended while starting (exit code {process.returncode}). {self._last_words()}")
            try:
                if httpx.get(f"{self.uri}/healthz", timeout=5.0, trust_env=False).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise CatalogError(f"the catalog server did not answer within {START_S:.0f} s. {self._last_words()}")

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
        return f"The end of {self.log}: " + (" | ".join(line.strip() for line in lines) or "(empty)")

    def _make_containers(self) -> None:
        site = Site(tiled_uri=self.uri)
        client = connect(site, self.api_key)
        try:
            for beamline in self._beamlines:
                runs = [Spec("CatalogOfBlueskyRuns", version="3.0")]
                ensure_container(plain(client), site.raw_path.format(beamline=beamline), runs)
                ensure_container(plain(client), site.processed_path.format(beamline=beamline))
        finally:
            client.context.close()


def _bound_socket(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
    except OSError as error:
        bound.close()
        raise CatalogError(f"port {port} on 127.0.0.1 cannot be used ({error.strerror}): choose another, or 0 for a free one.") from error
    return bound
