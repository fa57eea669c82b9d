"""cancel, retry, logs and watch, with and without a daemon."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from at_work import until
from rich.console import Console
from typer.testing import CliRunner, Result

from ptyplugin.cli import job_orders, jobs
from ptyplugin.cli.app import app
from ptyplugin.cli.job_finding import not_published
from ptyplugin.cli.job_watch import Board, _seen, board, record
from ptyplugin.jobs import Inbox, Ledger, Order, ProgressFile, give, open_read_only, submit
from ptyplugin.model import FrameBlock, GeometryNumbers, Hdf5Source, Job, JobError, Progress, Refusal, RunSource, Site, load_site
from ptyplugin.service import Daemon, Launcher, Wish
from ptyplugin.service.operations import Operations
from ptyplugin.service.solving import Task
from ptyplugin.service.sources import Sources


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["jobs", *(str(word) for word in words)])


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    file = tmp_path / "site.toml"
    file.write_text(f'home = "{tmp_path}/home"\nhttp_port = 0\n')
    return file


@pytest.fixture
def site(site_file: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("PTYPLUGIN_SITE", str(site_file))
    monkeypatch.setattr(job_orders, "PATIENCE_S", 20.0)
    return load_site(site_file)


def make_job(scan_id: int) -> Job:
    return Job(
        beamline="sim",
        source=RunSource(run_uid=f"a1b2c3d{scan_id}-0000", key="detector", scan_id=scan_id),
        geometry=GeometryNumbers(energy_ev=8000, distance_m=2, pixel_m=75e-6, shape=(128, 128)),
        recipe="DM(20)",
        frames=[FrameBlock(source=Hdf5Source(uri="file://localhost/a.h5", dataset="/entry/data/data"), ranges=[(0, 3)])],
        frame_ids=[(0, 3)],
        positions_m=[[(0.0, 0.0)], [(0.0, 1e-6)], [(1e-6, 0.0)]],
    )


class Scripted(Launcher):
    """A launcher whose job iterates until it is cancelled, or fails; it writes a log."""

    def __init__(self, fails: bool = False) -> None:
        self._fails = fails

    def run(self, task: Task, on_progress: Callable[[Progress], None], wish: Callable[[], Wish]) -> Path:
        from ptyplugin.model import Cancelled

        with task.log.open("a") as log:
            log.write("the ranks have begun\n")
        if self._fails:
            raise JobError("the frames are gone.")
        iteration = 0
        while not wish():
            iteration += 1
            on_progress(Progress(task.folder.name, "DM", min(iteration, 20), 20, 0.01 * iteration, {"error": 1 / iteration}))
            time.sleep(0.01)
        raise Cancelled("it was asked for.")


@contextmanager
def daemon(site: Site, fails: bool = False) -> Iterator[Daemon]:
    with Daemon(site, Scripted(fails)) as working:
        thread = threading.Thread(target=working.run)
        thread.start()
        try:
            yield working
        finally:
            working.stop()
            thread.join(20)


def becomes(site: Site, key: str, state: str) -> None:
    def is_there() -> bool:
        with open_read_only(site.ledger) as view:
            return [entry.state for entry in view.list() if entry.key == key] == [state]

    until(is_there, what=f"{key} did not become {state}")


def says(path: Path, text: str) -> bool:
    return path.exists() and text in path.read_text(errors="replace")


def said(result: Result) -> str:
    return " ".join((result.stdout + result.stderr).split())


def test_cancel_and_retry_with_a_daemon(site: Site) -> None:
    first, second = submit(site, make_job(1)), submit(site, make_job(2))
    with daemon(site):
        becomes(site, first, "running")
        waits = run("cancel", second[:8])
        assert (waits.exit_code, waits.stdout) == (0, f"job {second} is cancelled.\n"), waits.output
        runs = run("cancel", 1, "--json")
        assert json.loads(runs.stdout) == [
            {
                "key": first,
                "order": "cancel",
                "done": True,
                "refused": False,
                "state": "cancelled",
                "sentence": f"job {first} is cancelled.",
            }
        ]
        for key, name, state in ((first, first, "running"), (second, "a1b2c3d2", "queued")):
            again = run("retry", name)
            assert again.exit_code == 0, again.output
            assert f"job {key} is" in said(again)
            becomes(site, key, state)


def test_orders_without_a_daemon_wait_for_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_orders, "PATIENCE_S", 0.0)
    key = submit(site, make_job(1))
    given = run("cancel", key[:5])
    assert given.exit_code == 0, given.output
    assert "is left to the daemon, which does it when it runs (ptyplugin serve)" in said(given)
    assert "waits in the inbox: no daemon has taken it in yet" in said(run("retry", key))
    shown = run("show", key[:5])
    assert shown.exit_code == 1
    assert f"job {key} waits in the inbox: no daemon has taken it in yet" in said(shown)
    assert len(Inbox(site.inbox).waiting()) == 2
    with daemon(site):
        becomes(site, key, "cancelled")


def test_orders_that_make_no_sense_are_sentences(site: Site) -> None:
    key = submit(site, make_job(1))
    refusal = submit(site, Refusal(beamline="sim", source=RunSource(run_uid="run-9", key="d", scan_id=9), reason="no frames."))
    torn = "0" * 16
    with Ledger(site.ledger) as ledger:
        ledger.put_unreadable(torn, "it was torn.")
    with daemon(site, fails=True):
        becomes(site, key, "failed")
        no = run("cancel", key)
        assert (no.exit_code, no.stdout) == (1, "")
        assert f"job {key} is failed: only one that is queued or running can be cancelled." in said(no)
        assert "is a run that was refused: there is no job to cancel" in said(run("cancel", "9"))
        # What can be done is done; what cannot is said.
        both = run("retry", torn, key, "--json")
        assert both.exit_code == 1
        assert [(one["key"], one["refused"]) for one in json.loads(both.stdout)] == [(torn, True), (key, False)]
        assert "run run-9 is read again, where a source of the service has a profile" in said(run("retry", refusal))
    unknown = run("cancel", key, "nothing")
    assert unknown.exit_code == 1
    assert "there is no job nothing" in said(unknown)
    assert not Inbox(site.inbox).waiting(), "with a typing mistake nothing is done"


def test_show_takes_what_a_person_says(site: Site) -> None:
    with Ledger(site.ledger) as ledger:
        for number in (1, 2):
            ledger.put(make_job(number))
    key = make_job(1).key
    for text in (key, key[:6], "1", "a1b2c3d1"):
        assert json.loads(run("show", text, "--json").stdout)["key"] == key
    several = run("show", "a1b2c3d")
    assert several.exit_code == 1
    assert "a1b2c3d may mean 2 jobs" in said(several)
    assert "others" not in said(run("show", 1))
    again = make_job(1).model_copy(update={"recipe": "DM(7)"})
    with Ledger(site.ledger) as ledger:
        ledger.put(again)
    shown = " ".join(said(run("show", 1)).split())
    assert f"key {again.key}" in shown
    assert f"others the same scan was reconstructed by {key} (queued) too: its number means the newest." in shown
    assert f"reconstructed by {again.key} (queued) too" in " ".join(said(run("show", key)).split())


def test_show_and_list_tell_how_far_a_job_is_and_why_it_waits(site: Site) -> None:
    with Ledger(site.ledger) as ledger:
        ledger.put(make_job(1))
        entry = ledger.claim(60.0)
        assert entry is not None
        folder = site.jobs / entry.key
        folder.mkdir(parents=True)
        ProgressFile(folder)(Progress(entry.key, "DM", 5, 20, 2.0, {"error": 0.25, "held_out_error": float("nan")}))
        shown = said(run("show", 1))
        assert "progress DM, iteration 5 of 20, error 0.25, about 30 s left" in shown
        assert json.loads(run("show", 1, "--json").stdout)["progress"]["errors"] == {"error": 0.25}
        ledger.requeue(entry, "the disk is full.", wait_s=600.0, count_try=False)
    assert "the disk is full." in said(run("list"))
    assert json.loads(run("show", 1, "--json").stdout)["progress"] is None


def test_list_and_show_say_that_no_daemon_runs(site: Site) -> None:
    with Ledger(site.ledger) as ledger:
        ledger.put(make_job(1))
        ledger.claim(60.0)
    submit(site, make_job(2))
    listed = run("list")
    assert "no daemon runs: it goes on when one is started (ptyplugin serve)." in listed.stdout
    assert listed.stderr.strip() == "no daemon runs (ptyplugin serve): this is what was noted last; 1 more wait in the inbox."
    assert "no daemon runs: it goes on when one is started (ptyplugin serve)." in run("show", 1).stdout
    with daemon(site) as working, Sources(site) as sources, Operations(site, working, sources):
        becomes(site, make_job(2).key, "running")
        until(lambda: says(site.home / "service.json", "port"))
        assert "no daemon" not in said(run("list")) + said(run("show", 2))


def test_why_no_job_can_begin_is_said_with_those_that_wait(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = "Slurm job 42 of its ranks waits in the queue (PENDING, Resources)"
    monkeypatch.setattr(Scripted, "waits", waits)
    monkeypatch.setattr(Scripted, "look", lambda _: False)
    submit(site, make_job(1))
    with daemon(site) as working, Sources(site) as sources, Operations(site, working, sources):
        becomes(site, make_job(1).key, "queued")
        until(lambda: says(site.home / "service.json", "port"))
        assert f"no job can begin now: {waits}." in said(run("list"))
        assert f"sentence no job can begin now: {waits}." in said(run("show", 1))
        assert record(seen := _seen(site))["held_up"] == f"no job can begin now: {waits}."
        assert drawn(seen)[1] == f"no job can begin now: {waits}."
        monkeypatch.setattr(Scripted, "waits", "")
        assert "no job can begin" not in said(run("list")) + said(run("show", 1))
        assert record(_seen(site))["held_up"] is None


def test_a_result_that_waits_for_the_catalog_says_so(site: Site, site_file: Path) -> None:
    with Ledger(site.ledger) as ledger:
        for number in (1, 2):
            ledger.put(make_job(number))
            entry = ledger.claim(60.0)
            assert entry is not None
            ledger.solved(entry, site.results / f"{number}.h5")
        ledger.not_published_yet(ledger.show(make_job(1).key), "the catalog does not answer.")
    assert "not in the catalog yet: the catalog does not answer." in run("list").stdout
    assert "not in the catalog yet: the catalog does not answer." in run("show", 1).stdout
    assert "not in the catalog" not in run("show", 2).stdout, "this site has no catalog"
    with site_file.open("a") as file:
        file.write('tiled_uri = "http://127.0.0.1:9"\n')
    assert "not in the catalog yet." in run("show", 2).stdout


def test_an_image_from_on_the_way_does_not_say_that_the_catalog_waits_for_it(site: Site) -> None:
    entry = SimpleNamespace(state="solved", sentence=None, purpose="live")
    site = site.model_copy(update={"tiled_uri": "http://127.0.0.1:9"})
    assert "only if no final image" in str(not_published(entry, site))  # type: ignore[arg-type]


def test_the_fields_of_show_begin_in_one_column(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    jobs._print_fields({"key": "k", "verdict_reasons": ["one.", "two."], "error": 0.123456, "sentence": None})
    assert capsys.readouterr().out.splitlines() == [
        "key              k",
        "verdict_reasons  one.",
        "                 two.",
        "error            0.1235",
    ]


def test_logs(site: Site) -> None:
    key = submit(site, make_job(1))
    none = run("logs", key)
    assert none.exit_code == 1
    assert f"job {key} has no log" in said(none)
    with daemon(site):
        becomes(site, key, "running")
        followed: list[Result] = []
        thread = threading.Thread(target=lambda: followed.append(run("logs", key, "--follow")))
        thread.start()
        until(lambda: says(site.jobs / key / "log.txt", "begun"))
        with (site.jobs / key / "log.txt").open("ab") as log:
            log.write(b"\xff a line that came later\n")
        give(site, Order(order="cancel", job=key))
        thread.join(20)
    assert followed[0].exit_code == 0, followed[0].output
    begun, later, end = followed[0].stdout.splitlines()
    assert (begun, later) == ("the ranks have begun", "\ufffd a line that came later")
    assert "start 1 was put down" in end
    assert run("logs", key).stdout == followed[0].stdout
    answer = json.loads(run("logs", 1, "--json").stdout)
    assert (answer["key"], answer["text"]) == (key, followed[0].stdout)
    assert run("logs", 1, "--json", "--follow").exit_code == 2


def entries(site: Site) -> Board:
    from ptyplugin.cli.job_watch import _look

    with open_read_only(site.ledger) as view:
        return _look(site, view)


def drawn(seen: Board, width: int = 110) -> list[str]:
    screen = io.StringIO()
    Console(file=screen, width=width, color_system=None).print(board(seen))
    return screen.getvalue().splitlines()


def test_the_board_of_watch(site: Site) -> None:
    with Ledger(site.ledger) as ledger:
        for number in (1, 2, 3, 4):
            ledger.put(make_job(number))
        first, second = ledger.claim(60.0), ledger.claim(60.0)
        assert first is not None
        assert second is not None
        for entry in (first, second):
            (site.jobs / entry.key).mkdir(parents=True)
        ProgressFile(site.jobs / first.key)(Progress(first.key, "DM", 5, 20, 60.0, {"error": 0.25}))
        waiting = ledger.list(state="queued")[0]
        ledger.failed(waiting, "the frames [of this scan] are gone: " + "look for them. " * 20)
        assert drawn(entries(site))[1].split()[0] == "job", "whoever holds the ledger is a daemon"
    seen = entries(site)
    lines = drawn(seen)
    assert lines[0] == "1 queued, 2 running, 1 failed"
    assert lines.pop(1) == "no daemon runs (ptyplugin serve): this is what was noted last."
    assert lines[1].split() == ["job", "scan", "run", "stage", "iteration", "error", "left"]
    assert lines[2].split()[:5] == [first.key[:8], "1", "a1b2c3d1", "DM", "5/20"]
    assert lines[2].split()[-3:] == ["0.25", "15", "min"]
    assert lines[3].split()[:4] == [second.key[:8], "2", "a1b2c3d2", "begins"]
    assert "failed" in lines[5]
    assert "the frames [of this scan] are gone" in lines[5]
    assert len(lines) == 6, "each job has one line"
    assert max(len(line) for line in lines) <= 110
    told: dict[str, Any] = record(seen)
    assert (told["counts"], told["daemon"]) == ({"queued": 1, "running": 2, "failed": 1}, False)
    assert [one["progress"] and one["progress"]["iteration"] for one in told["running"]] == [5, None]


def test_a_live_job_has_frames_and_no_end(site: Site) -> None:
    with Ledger(site.ledger) as ledger:
        ledger.put(live := make_job(5).model_copy(update={"purpose": "live"}))
        assert ledger.claim(60.0) is not None
        (site.jobs / live.key).mkdir(parents=True)
        ProgressFile(site.jobs / live.key)(Progress(live.key, "DM", 67, 30, 60.0, {"error": 0.25}, frames=192))
        # In one line, in a narrow terminal too.
        line = drawn(entries(site), 80)[2]
        assert "67, 192 frames" in line
        assert line.split()[-2:] == ["0.25", "live"]
        assert "live   running" in run("list").stdout
        assert "DM, 192 frames, iteration 67, error 0.25, for as long as the scan goes on" in run("show", live.key).stdout


def test_an_empty_board(site: Site) -> None:
    with Ledger(site.ledger):
        assert drawn(entries(site)) == ["no jobs yet"]
    assert drawn(entries(site)) == ["no jobs yet", "no daemon runs (ptyplugin serve): this is what was noted last."]


def test_watch_needs_a_terminal_or_json(site: Site) -> None:
    piped = run("watch")
    assert piped.exit_code == 2
    assert "for programs there is --json" in said(piped)


@pytest.mark.system
def test_watch_lives_until_ctrl_c(site: Site, site_file: Path) -> None:
    """In a real terminal: the table changes while it is looked at, and Ctrl-C ends it without a word."""
    with Ledger(site.ledger) as ledger:
        ledger.put(make_job(1))
        shown, begin, process = b"", time.monotonic(), None
        controller, terminal = pty.openpty()
        command = [sys.executable, "-c", "from ptyplugin.cli import main; main()", "jobs", "watch", "--site", str(site_file)]
        try:
            process = subprocess.Popen(
                command, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "100", "TERM": "xterm"}
            )
            for wanted, change in ((b"1 queued", lambda: ledger.claim(60.0)), (b"1 running", lambda: None)):
                while wanted not in shown:
                    assert time.monotonic() - begin < 60, shown
                    shown += os.read(controller, 4096)
                change()
            process.send_signal(signal.SIGINT)
            _, complaint = process.communicate(timeout=30)
        finally:
            os.close(terminal)
            os.close(controller)
            if process is not None and process.poll() is None:
                process.kill()
    assert (process.returncode, complaint) == (0, b"")


@pytest.mark.system
def test_watch_for_programs_says_each_change(site: Site, site_file: Path) -> None:
    with Ledger(site.ledger) as ledger:
        ledger.put(make_job(1))
        command = [sys.executable, "-c", "from ptyplugin.cli import main; main()", "jobs", "watch", "--json", "--site", str(site_file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert json.loads(process.stdout.readline())["counts"] == {"queued": 1}
                ledger.claim(60.0)
                assert json.loads(process.stdout.readline())["counts"] == {"running": 1}
            finally:
                process.send_signal(signal.SIGINT)
                _, complaint = process.communicate(timeout=30)
    assert (process.returncode, complaint) == (0, "")
