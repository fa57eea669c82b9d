"""Ctrl-C, as a terminal sends it: to all processes in the foreground. One sentence, 130, no process and no folder left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SENTENCE = "ptyplugin: stopped by Ctrl-C.\n"


class Command:
    """A command in a session of its own, known by a mark in the environment of all its processes."""

    def __init__(self, folder: Path, *words: object) -> None:
        self.mark = uuid.uuid4().hex
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from ptyplugin.cli import main; main()", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "MARK": self.mark, "TMPDIR": str(self.temporary), "COLUMNS": "100"},
            start_new_session=True,
            cwd=folder,
        )

    def until(self, condition: Callable[[], object], within_s: float = 150.0) -> None:
        end = time.monotonic() + within_s
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)

    def ctrl_c(self) -> tuple[int, str, str]:
        os.killpg(self.process.pid, signal.SIGINT)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def processes(self) -> list[str]:
        """Those that still live, whatever session they are in."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (place / "environ").read_bytes():
                    found.append((place / "cmdline").read_text())
            except OSError:
                pass
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def command(*words: object) -> Command:
        started.append(Command(tmp_path, *words))
        return started[-1]

    yield command
    for one in started:
        one.close()


@pytest.mark.system
def test_while_the_command_is_still_being_imported(tmp_path: Path) -> None:
    """The modules of the trade take long to import: here one of them sends the signal itself."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from ptyplugin.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", SENTENCE)


@pytest.mark.system
@pytest.mark.parametrize("ranks", [1, 2])
def test_reconstruct(command: Callable[..., Command], small_cxi: Path, tmp_path: Path, ranks: int) -> None:
    running = command("reconstruct", small_cxi, "--recipe", "ePIE(1000000)", "--ranks", ranks, "--output", tmp_path / "result.h5")
    # With ranks, the processes are written down when all have come up.
    running.until(lambda: list(running.temporary.glob("ptyplugin-*/*/processes.json" if ranks > 1 else "ptyplugin-*")))
    assert running.ctrl_c() == (130, "", SENTENCE)
    assert not running.processes()
    assert not list(running.temporary.glob("ptyplugin-*"))
    assert not (tmp_path / "result.h5").exists()


@pytest.mark.system
def test_serve_with_a_second_ctrl_c(command: Callable[..., Command], tmp_path: Path) -> None:
    """A stop is no failure of a service: it ends in good order, and who is impatient does not disturb it."""
    (tmp_path / "site.toml").write_text(f'home = "{tmp_path}/home"\n')
    running = command("serve", "--config", tmp_path / "site.toml")
    running.until(lambda: (tmp_path / "home" / "ledger.sqlite.lock").exists())
    os.killpg(running.process.pid, signal.SIGINT)
    code, out, err = running.ctrl_c()
    assert (code, out) == (0, "")
    assert err.endswith("stopped.\n")
    assert "Traceback" not in err
    assert not running.processes()


@pytest.mark.system
@pytest.mark.parametrize("way", [["--in-process", "--frames", "5000"], ["--frames", "600"]], ids=["in process", "over EPICS"])
def test_demo_while_it_scans(command: Callable[..., Command], tmp_path: Path, way: list[str]) -> None:
    """The RunEngine takes Ctrl-C for a wish to pause; the demo ends all the same, with its server and its beamline."""
    pytest.importorskip("bluesky_tiled_plugins")
    running = command("demo", "--out", tmp_path / "out", *way)
    running.until(lambda: list((tmp_path / "out" / "data").glob("*.h5")))
    code, out, err = running.ctrl_c()
    assert (code, out) == (130, "")
    assert err.endswith(SENTENCE)
    assert "Traceback" not in err
    assert "RunEngine" not in err
    assert not running.processes()
    assert not list(running.temporary.glob("ptyplugin-*"))
