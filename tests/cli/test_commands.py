"""The other commands, and what all of them share."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import ptyplugin
from ptyplugin.api import make_job, open_scan
from ptyplugin.cli.app import app
from ptyplugin.cli.screen import recipe_in_brief, show_table, when
from ptyplugin.jobs import Intake, Ledger, submit
from ptyplugin.jobs.inbox import Inbox
from ptyplugin.model import Refusal, RunSource, Site, load_site

_ORDERS = [("jobs", "watch"), ("jobs", "logs"), ("jobs", "cancel"), ("jobs", "retry")]


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_version() -> None:
    assert run("--version").stdout == f"ptyplugin {ptyplugin.__version__}\n"


@pytest.mark.parametrize(
    "words", [(), ("doctor",), ("reconstruct",), ("results",), ("serve",), ("jobs",), ("jobs", "list"), ("jobs", "show"), *_ORDERS]
)
def test_help_teaches(words: tuple[str, ...]) -> None:
    said = run(*words, "--help").stdout
    assert "Usage: ptyplugin" in said or "Usage: " in said
    assert words == ("jobs",) or "ptyplugin " in said.split("Usage", 1)[1].split("\n", 1)[1]


def test_help_tells_the_exit_codes() -> None:
    assert "0 fine; 1 it failed" in " ".join(run("--help").stdout.split())


def test_help_is_light() -> None:
    """No library of the trade is imported for the help: it comes at once."""
    code = (
        "import sys, typer.testing, ptyplugin.cli.app as cli\n"
        "result = typer.testing.CliRunner().invoke(cli.app, ['reconstruct', '--help'])\n"
        "assert result.exit_code == 0\n"
        "heavy = {'numpy', 'scipy', 'h5py', 'matplotlib', 'tiled', 'mpi4py', 'bluesky'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_installed_command() -> None:
    command = Path(sys.executable).parent / "ptyplugin"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"ptyplugin {ptyplugin.__version__}\n"


def site_of(folder: Path, data: Path = Path("/nowhere")) -> tuple[Site, Path]:
    file = folder / "site.toml"
    file.write_text(f'home = "{folder}/home"\nresults_dir = "{folder}/results"\ndata_roots = ["{data}"]\n')
    return load_site(file), file


def refused(site: Site, reason: str = "the scan has 0 frames [with] a position.") -> str:
    """A job that failed before it began, in the ledger."""
    source = RunSource(run_uid="a1b2c3d4-0000", key="detector", scan_id=17)
    key = submit(site, Refusal(beamline="sim", source=source, reason=reason))
    with Ledger(site.ledger) as ledger:
        intake = Intake(Inbox(site.inbox), ledger, site.jobs)
        for item in Inbox(site.inbox).waiting():
            intake.take_in(item)
    return key


def test_jobs(tmp_path: Path) -> None:
    site, file = site_of(tmp_path)
    key = refused(site)
    table = run("jobs", "list", "--site", file)
    assert table.exit_code == 0, table.output
    assert {key[:8], "17", "a1b2c3d4", "failed"} <= set(table.stdout.split())
    listed = json.loads(run("jobs", "list", "--site", file, "--state", "failed", "--scan-id", 17, "--json").stdout)
    assert [(one["key"], one["state"], one["sentence"]) for one in listed] == [(key, "failed", "the scan has 0 frames [with] a position.")]
    assert json.loads(run("jobs", "list", "--site", file, "--state", "published", "--json").stdout) == []
    shown = run("jobs", "show", key, "--site", file)
    assert "the scan has 0 frames [with] a position." in shown.stdout
    record = json.loads(run("jobs", "show", key, "--site", file, "--json").stdout)
    assert record["history"][-1]["state"] == "failed"


def test_a_table_in_a_narrow_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is one line; why a job failed stands below it, in full and as wide as the terminal."""
    site, file = site_of(tmp_path)
    key = refused(site, "the frames and the positions of this scan do not belong together: " + "look at the plan again. " * 3)
    screen = io.StringIO()
    monkeypatch.setattr("ptyplugin.cli.screen.stdout", lambda: Console(file=screen, width=80, force_terminal=True, color_system=None))
    assert run("jobs", "list", "--site", file).exit_code == 0
    head, row, *reason = screen.getvalue().splitlines()
    assert head.split() == ["arrived", "job", "scan", "run", "image", "state", "frames", "recipe"]
    assert row.split()[2:] == [key[:8], "17", "a1b2c3d4", "final", "failed", "-"]
    assert len(reason) == 2
    assert all(line.startswith("    ") and len(line) <= 80 for line in reason)
    shown = run("jobs", "show", key, "--site", file).stdout.splitlines()
    assert max(len(line) for line in shown) <= 80
    first = next(number for number, line in enumerate(shown) if line.startswith("sentence"))
    assert shown[first + 1].startswith(" " * shown[first].index("the frames"))


def test_what_tables_make_short() -> None:
    long = 'LSQML(40, momentum=0.9, positions="gradient") + (DM(2) + ePIE(5)) * 2'
    assert recipe_in_brief(long) == "LSQML(40…) + DM(2) + ePIE(5) + DM(2) + ePIE(5)"
    assert [recipe_in_brief(text) for text in ("what is no recipe", None)] == ["what is no recipe", ""]
    now = datetime.now()
    assert when(now.timestamp()) == f"{now:%m-%d %H:%M}"
    assert when(datetime(2001, 2, 3, 4, 5).timestamp()) == "2001-02-03"


def test_results_say_what_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, file = site_of(tmp_path)

    def node(scan_id: int, **others: Any) -> SimpleNamespace:
        metadata = {
            "job": f"{scan_id:016x}",
            "time": time.time(),
            "scan_uid": f"run-{scan_id}-and-more",
            "scan_id": scan_id,
            "beamline": "hxn",
        }
        metadata |= {"purpose": "final", "state": "published", "recipe": "DM(20)", "quality": {"error": 0.0123}, "verdict": "good"}
        return SimpleNamespace(metadata=metadata | others, uri="http://127.0.0.1/node")

    runs, failed = ({"quality": {}, "verdict": None, "state": state} for state in ("live", "failed"))
    found = [node(4, purpose="live", **runs), node(3, **failed), node(2, purpose="live"), node(1)]
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("ptyplugin.api.results", lambda **query: asked.append(query) or found)
    table = run("results", "--site", file, "--live", "--limit", 4)
    assert (asked[0]["live"], asked[0]["limit"]) == (True, 4)
    head, *rows = [" ".join(line.split()) for line in table.stdout.splitlines()]
    assert head == "time scan run image error verdict job recipe"
    assert [row.split(maxsplit=2)[2] for row in rows] == [
        "4 run-4-an live, runs - - 00000000 DM(20)",
        "3 run-3-an final, failed - - 00000000 DM(20)",
        "2 run-2-an live 0.0123 good 00000000 DM(20)",
        "1 run-1-an final 0.0123 good 00000000 DM(20)",
    ]
    found.append(node(0, beamline="csx"))
    assert run("results", "--site", file).stdout.split()[0] == "beamline"
    assert asked[1]["live"] is False


def test_a_long_last_column_is_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(["17", "DM(60) + ePIE(20) + ePIE(10, object_step=0.1)"], None), (["1742", "DM(5)"], None)]
    monkeypatch.setattr("ptyplugin.cli.screen.stdout", lambda: Console(width=20))
    show_table(("scan", "recipe"), rows)
    assert capsys.readouterr().out == "scan  recipe\n17    DM(60) + ePIE…\n1742  DM(5)\n"


def test_examples_stand_out_in_the_help() -> None:
    for words in [("demo",), ("reconstruct",), ("results",), ("serve",), ("jobs", "list"), ("jobs", "show"), *_ORDERS]:
        lines = run(*words, "--help").stdout.splitlines()
        examples = [line for line in lines if line.strip().startswith("ptyplugin ")]
        assert examples, words
        assert all(line.startswith("     ptyplugin ") for line in examples), words


def test_jobs_that_are_not_there(tmp_path: Path) -> None:
    site, file = site_of(tmp_path)
    none = run("jobs", "list", "--site", file)
    assert (none.exit_code, none.stdout) == (1, "")
    assert "there is no ledger" in none.stderr
    refused(site)
    unknown = run("jobs", "show", "0" * 16, "--site", file)
    assert unknown.exit_code == 1
    assert "there is no job 0000000000000000" in unknown.stderr
    nothing = run("jobs", "list", "--site", file, "--state", "queued")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr.splitlines()[0]) == (0, "", "no jobs found.")


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 90
    while not path.exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.system
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_serve(small_cxi: Path, tmp_path: Path, stop: signal.Signals) -> None:
    """A job that was handed over before anybody served is solved; the daemon ends when it is told to."""
    site, file = site_of(tmp_path, small_cxi.parent)
    parts = make_job(open_scan(small_cxi), "ePIE(2)")
    key = submit(site, parts.job, parts.arrays)
    command = [sys.executable, "-c", "from ptyplugin.cli import main; main()", "serve", "--config", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        try:
            wait_for(site.results / f"{key}.h5", process)
        finally:
            process.send_signal(stop)
            said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert f"serving: inbox {site.inbox}" in said[1]
    assert "Traceback" not in said[1]
    record = json.loads(run("jobs", "show", key, "--site", file, "--json").stdout)
    assert (record["state"], record["result"]) == ("solved", str(site.results / f"{key}.h5"))


def test_serve_twice(tmp_path: Path) -> None:
    site, file = site_of(tmp_path)
    with Ledger(site.ledger):
        second = run("serve", "--site", file)
    assert second.exit_code == 1
    assert second.stderr.startswith("ptyplugin: ")
