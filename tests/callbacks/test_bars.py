"""The bars of a session: scan and reconstruction side by side, and nothing where nobody can see them."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from ptyplugin.callbacks import ProgressBars
from ptyplugin.jobs import Ledger
from ptyplugin.jobs.progress import ProgressFile
from ptyplugin.model import FrameBlock, GeometryNumbers, Hdf5Source, Job, Progress, RunSource, Site


class Screen(io.StringIO):
    """A terminal that can be read."""

    def wait_for(self, text: str) -> None:
        """Until it was drawn."""
        until = time.monotonic() + 20
        while text not in self.getvalue():
            assert time.monotonic() < until, f"{text!r} never came: {self.getvalue()[-2000:]}"
            time.sleep(0.02)


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def bars(screen: Screen, tmp_path: Path) -> ProgressBars:
    return ProgressBars(
        Site(home=tmp_path), Console(file=screen, force_terminal=True, width=120, color_system=None, _environ={"TERM": "xterm"})
    )


def tell(bars: ProgressBars, points: int = 0) -> None:
    bars("start", {"uid": "run-1", "scan_id": 7, "num_points": 40})
    bars("descriptor", {"uid": "d", "run_start": "run-1", "name": "primary"})
    bars("descriptor", {"uid": "b", "run_start": "run-1", "name": "baseline"})
    bars("event", {"descriptor": "b", "seq_num": 39})
    for point in range(1, points + 1):
        bars("event", {"descriptor": "d", "seq_num": point})


def stop(bars: ProgressBars) -> None:
    bars("stop", {"run_start": "run-1"})


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("event", {"descriptor": "d", "seq_num": 12}),
        ("event_page", {"descriptor": "d", "seq_num": [11, 12]}),
        ("stream_datum", {"descriptor": "d", "seq_nums": {"start": 1, "stop": 13}}),
    ],
)
def test_points_are_counted_however_they_are_announced(bars: ProgressBars, screen: Screen, name: str, document: dict[str, object]) -> None:
    tell(bars)
    bars(name, document)
    screen.wait_for("12/40")
    stop(bars)


class Prompt:
    """IPython's, at which somebody types after the first look at it, until as many more. seen: what was drawn at each"""

    def __init__(self, screen: Screen, looks: int) -> None:
        self._screen, self._looks, self.seen = screen, looks, list[int]()

    @property
    def is_running(self) -> bool:
        self.seen.append(len(self._screen.getvalue()))
        return 1 < len(self.seen) <= 1 + self._looks


def test_nothing_is_drawn_over_the_prompt_of_a_paused_scan(bars: ProgressBars, screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = Prompt(screen, looks=3)
    shell = SimpleNamespace(pt_app=SimpleNamespace(app=prompt))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    tell(bars, points=9)
    screen.wait_for("9/40")
    until = time.monotonic() + 20
    while len(prompt.seen) < 5 and time.monotonic() < until:
        time.sleep(0.02)
    assert prompt.seen[2] == prompt.seen[3] == prompt.seen[4]
    bars("event", {"descriptor": "d", "seq_num": 12})
    screen.wait_for("12/40")
    stop(bars)


def test_the_reconstruction_has_a_bar_while_it_runs(bars: ProgressBars, screen: Screen, tmp_path: Path) -> None:
    site = Site(home=tmp_path)
    job = Job(
        beamline="sim",
        source=RunSource(run_uid="run-1", key="detector", scan_id=7),
        purpose="live",
        geometry=GeometryNumbers(energy_ev=8000, distance_m=2, pixel_m=75e-6, shape=(128, 128)),
        recipe="DM(20)",
        frames=[FrameBlock(source=Hdf5Source(uri="file://localhost/data/a.h5", dataset="/entry/data/data"), ranges=[(0, 3)])],
        frame_ids=[(0, 3)],
        positions_m=[[(0.0, 0.0)], [(0.0, 1e-6)], [(1e-6, 0.0)]],
    )
    with Ledger(site.ledger) as ledger:
        ledger.put(job)
        assert ledger.claim(60.0) is not None
        (site.jobs / job.key).mkdir(parents=True)
        ProgressFile(site.jobs / job.key)(Progress(job.key, "DM", 5, 20, 1.0, {"error": 0.0312}, frames=6))
        tell(bars, points=9)
        screen.wait_for("reconstruction: DM, error 0.0312")
        screen.wait_for("6/40")
        stop(bars)
        screen.wait_for("scan 7: 9 points, reconstruction: 6 frames, iteration 5, error 0.0312")


def test_a_broken_document_ends_no_more_than_the_bar_of_its_scan(bars: ProgressBars, screen: Screen) -> None:
    tell(bars)
    bars("event", {"descriptor": "d"})
    stop(bars)
    tell(bars, points=3)
    screen.wait_for("3/40")
    stop(bars)


def test_a_scan_whose_end_was_lost_is_forgotten_whatever_else_goes_on(
    bars: ProgressBars, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptyplugin.callbacks.bars._FORGOTTEN_S", 0.2)
    bars("start", {"uid": "run-0", "scan_id": 6, "num_points": 99})
    bars("descriptor", {"uid": "o", "run_start": "run-other", "name": "primary"})
    screen.wait_for("0/99")
    until = time.monotonic() + 20
    while "scan 7" not in screen.getvalue():
        assert time.monotonic() < until, "the next scan has no bar"
        bars("event", {"descriptor": "o", "seq_num": 55})
        tell(bars, points=3)
        time.sleep(0.05)
    assert "55/99" not in screen.getvalue()
    stop(bars)


def test_a_document_is_only_put_aside(bars: ProgressBars, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_by: list[str] = []
    look: Callable[..., None] = bars._look

    def noted(*args: object) -> None:
        drawn_by.append(threading.current_thread().name)
        look(*args)

    monkeypatch.setattr(bars, "_look", noted)
    tell(bars, points=3)
    until = time.monotonic() + 20
    while not drawn_by and time.monotonic() < until:
        time.sleep(0.02)
    stop(bars)
    assert set(drawn_by) == {"ptyplugin-bars"}


def test_a_file_gets_no_bars(tmp_path: Path) -> None:
    file = io.StringIO()
    bars = ProgressBars(Site(home=tmp_path), Console(file=file))
    tell(bars, points=3)
    stop(bars)
    assert bars._queue.empty()
    assert not file.getvalue()
