"""The local server: comes up, says why when it does not, keeps what it has, and leaves nothing running. A catalog that is away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tiled.config import parse_configs

from ptyplugin.catalog import LocalServer, connect, publish
from ptyplugin.model import CatalogError, Reconstruction, Site

pytestmark = pytest.mark.system


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def answering() -> Iterator[Callable[[int], str]]:
    """Something on a port that answers everything with one status; gives its address."""
    servers: list[HTTPServer] = []

    def start(status: int) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_catalog_outlives_its_server_and_a_server_not_its_parent(
    tmp_path: Path, make_result: Callable[..., tuple[Path, str, Reconstruction]]
) -> None:
    path, key, reconstruction = make_result("run-restart")
    script = f"""
import time
from pathlib import Path
from ptyplugin.catalog import LocalServer
server = LocalServer(Path({str(tmp_path)!r}), readable=[Path({str(path.parent)!r})]).start()
print(server.pid, server.uri, server.api_key, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, uri, api_key = parent.stdout.readline().split()
        site = Site(tiled_uri=uri)
        client = connect(site, api_key)
        publish(client, site, path, key)
        assert [(spec.name, spec.version) for spec in client["sim/raw"].specs] == [("CatalogOfBlueskyRuns", "3.0")]
        os.kill(parent.pid, signal.SIGKILL)
    wait_for_end(int(pid))
    assert_away_at_once(client, site, path, key, api_key)
    client.context.close()
    for file in (one for one in tmp_path.rglob("*") if one.is_file()):
        assert api_key.encode() not in file.read_bytes(), f"the key stands in {file}"
    with LocalServer(tmp_path, readable=[path.parent]) as again:
        client = connect(Site(tiled_uri=again.uri), again.api_key)
        node = client["sim/processed/ptyplugin", key]
        assert (node["object"].read() == reconstruction.object).all()
        client.context.close()
        last = again.pid
    assert last is not None
    assert not is_alive(last)


def wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 30
    while is_alive(pid):
        assert time.monotonic() < deadline, "the server is still running"
        time.sleep(0.05)


def assert_away_at_once(client: Any, site: Site, path: Path, key: str, api_key: str) -> None:
    begin = time.monotonic()
    with pytest.raises(CatalogError, match=r"the catalog at http://127\.0\.0\.1:\d+ does not answer .*refused.*: is it running\?"):
        publish(client, site, path, key)
    with pytest.raises(CatalogError, match="does not answer"):
        connect(site, api_key)
    # Tiled alone would try for 24 s, twice.
    assert time.monotonic() - begin < 10


def test_the_configuration_is_tileds_own_and_holds_no_secret(server: LocalServer) -> None:
    settings = parse_configs(server.config)
    assert settings.trees[0].args["uri"] == f"sqlite:///{server.folder}/catalog.db"
    assert settings.authentication.single_user_api_key is None


def test_a_port_in_use_is_said(tmp_path: Path, server: LocalServer) -> None:
    port = int(server.uri.rpartition(":")[2])
    second = LocalServer(tmp_path, port=port)
    with pytest.raises(CatalogError, match=rf"port {port} on 127\.0\.0\.1 cannot be used \(Address already in use\): choose another"):
        second.start()
    assert second.pid is None


def test_a_server_that_does_not_come_up_is_said_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'sqlite3.DatabaseError: file is not a database' >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    broken = LocalServer(tmp_path / "catalog")
    with pytest.raises(
        CatalogError, match=r"ended while starting \(exit code 3\)\. The end of .*server\.log: sqlite3\.DatabaseError: file is not"
    ):
        broken.start()
    assert broken.pid is None


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 600\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr("ptyplugin.catalog.server.START_S", 0.3)
    silent = LocalServer(tmp_path / "catalog")
    with pytest.raises(CatalogError, match=r"did not answer within 0 s\. The end of .*server\.log: \(empty\)"):
        silent.start()
    assert silent.pid is None


def test_no_catalog_named() -> None:
    with pytest.raises(CatalogError, match="no catalog is named: set tiled_uri in the site file"):
        connect(Site())


def test_an_address_that_is_none() -> None:
    with pytest.raises(CatalogError, match="'htps:/nowhere' is no address of a catalog"):
        connect(Site(tiled_uri="htps:/nowhere"))


def test_nobody_there(free_port: int) -> None:
    with pytest.raises(CatalogError, match=rf"the catalog at http://127\.0\.0\.1:{free_port} does not answer"):
        connect(Site(tiled_uri=f"http://127.0.0.1:{free_port}"))


def test_a_server_that_fails(answering: Callable[[int], str]) -> None:
    uri = answering(503)
    begin = time.monotonic()
    with pytest.raises(CatalogError, match=r"503"):
        connect(Site(tiled_uri=uri))
    assert time.monotonic() - begin < 10


def test_something_that_is_no_catalog(answering: Callable[[int], str]) -> None:
    with pytest.raises(CatalogError, match="cannot open http"):
        connect(Site(tiled_uri=answering(404)))
    with pytest.raises(CatalogError, match="is no Tiled server: check tiled_uri"):
        connect(Site(tiled_uri=answering(200)))


def test_no_secret_is_said(free_port: int, answering: Callable[[int], str]) -> None:
    for address in (
        f"http://me:secret@127.0.0.1:{free_port}?api_key=secret",
        f"{answering(404)}?api_key=secret",
        "x://me:secret@h?api_key=secret",
    ):
        with pytest.raises(CatalogError) as caught:
            connect(Site(tiled_uri=address))
        assert "secret" not in str(caught.value)


def test_no_key(site: Site) -> None:
    with pytest.raises(CatalogError, match=r"asks for a key: set TILED_API_KEY|refuses the key"):
        connect(site)


def test_a_wrong_key(site: Site) -> None:
    with pytest.raises(CatalogError, match=r"refuses the key\. Check TILED_API_KEY"):
        connect(site, "0000")
