"""What the service says: one line for each thing, in the format that was asked for, and no secret in any of it."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ptyplugin
from ptyplugin.jobs import open_read_only, submit
from ptyplugin.jobs.where import read_where
from ptyplugin.model import Site
from ptyplugin.service.logs import set_up_logs

SECRET, TOKEN = "hush-hush-key-17", "token-of-sixteen-characters"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    root, stream = logging.getLogger(), io.StringIO()
    before, level = list(root.handlers), root.level
    monkeypatch.setenv("TILED_API_KEY", SECRET)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def test_json_lines_have_fields_and_no_secrets(said: io.StringIO) -> None:
    set_up_logs("json", said)
    log = logging.getLogger("ptyplugin.test")
    log.info("job %s is\nsolved", "k", extra={"fields": {"job": "k", "scan_id": 7, "sentence": f"it said {SECRET}"}})
    try:
        raise ValueError(f"with {SECRET}")
    except ValueError:
        log.exception("no good: %s", SECRET)
    first, second = (json.loads(line) for line in said.getvalue().splitlines())
    assert (first["job"], first["scan_id"], first["level"], first["version"]) == ("k", 7, "info", ptyplugin.__version__)
    assert (first["message"], first["sentence"]) == ("job k is\nsolved", "it said ***")
    assert "ValueError: with ***" in second["traceback"]
    assert SECRET not in said.getvalue()


def test_libraries_do_not_say_with_how_many_threads_they_start(said: io.StringIO) -> None:
    set_up_logs("text", said)
    logging.getLogger("numexpr.utils").info("NumExpr defaulting to 2 threads.")
    assert said.getvalue() == ""


def test_text_lines_have_no_secrets(said: io.StringIO) -> None:
    set_up_logs("text", said)
    logging.getLogger("ptyplugin.test").warning("GET http://h/?api_key=abcdef and %s", SECRET)
    assert said.getvalue().rstrip().endswith("WARNING ptyplugin.test: GET http://h/?api_key=*** and ***")


@pytest.mark.system
def test_a_run_of_the_service_tells_each_transition_and_no_secret(tmp_path: Path, make_job, until) -> None:
    """A whole run, with a catalog that refuses the key, a token and addresses with words: none of them in anything that is written."""
    file, log = tmp_path / "site.toml", tmp_path / "serve.log"
    file.write_text(
        f'home = "{tmp_path}/home"\nhttp_port = 0\n'
        f'tiled_uri = "http://127.0.0.1:1/?api_key={SECRET}"\n[[source]]\nkind = "http"\nport = 0\n'
    )
    site = Site(home=tmp_path / "home")
    key = submit(site, make_job().model_copy(update={"notes": []}))
    environment = {
        **os.environ,
        "TILED_API_KEY": SECRET,
        "PTYPLUGIN_TOKEN": TOKEN,
        "PTYPLUGIN_NOTIFY": f"json://me:{SECRET}x@127.0.0.1:1/",
    }
    command = [sys.executable, "-c", "from ptyplugin.cli import main; main()", "serve", "--site", str(file), "--log-format", "json"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=environment)
        try:
            until(lambda: read_where(site), 60.0)
            with open_read_only(site.ledger) as view:
                until(lambda: view.list(state="failed"), 90.0)
            until(lambda: "json://... does not take" in log.read_text(), 30.0)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    states = [line["state"] for line in lines if line.get("job") == key and "state" in line]
    assert states == ["queued", "running", "failed"]
    assert all(line["run_uid"] == "run-1" and line["scan_id"] == 7 for line in lines if "state" in line and line.get("job") == key)
    time.sleep(0.1)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path != file]
    assert len(written) > 3
    for path in written:
        content = path.read_bytes()
        assert SECRET.encode() not in content, path
        assert TOKEN.encode() not in content, path
