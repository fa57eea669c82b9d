"""The figure that follows the job that runs: without a job, with one, with its result; when things go away; when it is closed."""

from __future__ import annotations

import gc
import importlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

import ptyplugin
from ptyplugin.api import following, scenes
from ptyplugin.io import write_result
from ptyplugin.io.live_picture import Told, live_figure
from ptyplugin.io.live_view import LiveView
from ptyplugin.jobs import Entry, Ledger, write_snapshot
from ptyplugin.model import (
    CatalogError,
    FileFormatError,
    FrameBlock,
    Geometry,
    GeometryNumbers,
    Hdf5Source,
    Job,
    Progress,
    Reconstruction,
    RunSource,
    Site,
    Snapshot,
    Verdict,
)

SIDE, PIXEL_M = 32, 1e-8


@pytest.fixture(autouse=True)
def _no_figure_stays() -> Iterator[None]:
    yield
    for figure in list(following._OPEN):
        figure.close()
    plt.close("all")


def positions_m(frames: int) -> np.ndarray:
    return np.array([(6 * (i // 5), 6 * (i % 5)) for i in range(frames)]) * PIXEL_M


def make_job(scan_id: int = 17, **more: Any) -> Job:
    return Job(
        beamline="sim",
        source=RunSource(run_uid=f"run-{scan_id}", key="detector", scan_id=scan_id),
        geometry=GeometryNumbers(energy_ev=8000, distance_m=2, pixel_m=75e-6, shape=(SIDE, SIDE)),
        recipe="DM(20)",
        frames=[FrameBlock(source=Hdf5Source(uri="file://localhost/a.h5", dataset="/entry/data/data"), ranges=[(0, 25)])],
        frame_ids=[(0, 25)],
        positions_m=positions_m(25)[:, None].tolist(),
        **more,
    )


def waves() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:60, :60] / 60
    wave = (0.9 + 0.1 * np.cos(7 * x)) * np.exp(1j * (0.4 * np.sin(9 * y) + 0.2 * np.cos(12 * x * y)))
    row, column = np.mgrid[-16:16, -16:16]
    return wave.astype(np.complex64), (np.exp(-(row**2 + column**2) / 60) * np.exp(0.02j * row**2))[None].astype(np.complex64)


def snapshot(key: str, iteration: int, frames: int = 25) -> Snapshot:
    wave, probe = waves()
    errors = {"error": 0.5 / iteration, "constraint_residual": 1 / iteration}
    return Snapshot(key, "DM", iteration, 20, errors, frames, 1e9 + iteration, wave, probe, (PIXEL_M, PIXEL_M), (0.0, 0.0))


def result_of(job: Job) -> Reconstruction:
    wave, probe = waves()
    return Reconstruction(
        object=wave[None],
        probe=probe,
        geometry=Geometry(8000.0, 2.0, 75e-6, (SIDE, SIDE)),
        positions_m=positions_m(25),
        positions_px=positions_m(25) / PIXEL_M,
        mask=np.zeros((SIDE, SIDE), np.uint8),
        progress=[Progress(job.key, "DM", step, 20, step * 1.0, {"error": 0.5 / step}) for step in range(1, 21)],
        quality={"error": 0.025},
        verdict=Verdict("good", "converged"),
        provenance={"job": job.model_dump(mode="json"), "recipe": job.recipe},
    )


class Running:
    """A site with a ledger, as a daemon keeps it."""

    def __init__(self, site: Site) -> None:
        self.site, self.ledger = site, Ledger(site.ledger)

    def begin(self, job: Job) -> Entry:
        self.ledger.put(job)
        entry = self.ledger.claim(600)
        assert entry is not None
        folder = self.site.jobs / job.key
        folder.mkdir(parents=True)
        (folder / "job.json").write_bytes(job.to_bytes())
        return entry

    def shows(self, entry: Entry, iteration: int, frames: int = 25) -> None:
        write_snapshot(self.site.jobs / entry.key, snapshot(entry.key, iteration, frames))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(Site(home=tmp_path / "home"))
    yield made
    made.ledger.close()


def words(figure: following.LiveFigure) -> str:
    return " | ".join(text.get_text() for text in figure.figure.texts if text.get_visible())


def shown(figure: following.LiveFigure) -> dict[str, Any]:
    return {axes.get_title(loc="left"): axes for axes in figure.figure.axes if axes.get_visible() and axes.get_title(loc="left")}


def test_without_a_window_it_is_updated_and_saved(running: Running, tmp_path: Path) -> None:
    figure = ptyplugin.live(site=running.site)
    assert not figure.follows
    assert "No job runs yet" in words(figure)
    assert not figure.update()
    assert figure.figure.number not in plt.get_fignums()

    entry = running.begin(make_job())
    assert figure.update()
    assert "Scan 17  ·  sim  ·  final" in words(figure)
    assert "No image of this job yet." in words(figure)
    running.shows(entry, 5)
    assert figure.update()
    assert not figure.update()
    running.shows(entry, 8)
    assert figure.update()
    assert "iteration 8 of 20" in words(figure)
    assert "25 frames" in words(figure)
    maps = shown(figure)
    assert {"Object phase", "Object amplitude"} <= maps.keys()
    phase = maps["Object phase"]
    assert (phase.get_xlabel(), phase.get_ylabel()) == ("x (µm)", "y (µm)")
    # The middle of the beam was within the positions, and the light reaches a little farther.
    left, right = phase.get_xlim()
    assert left < 0 < 0.24 < right < 0.45
    curves = [line.get_xydata().tolist() for axes in figure.figure.axes for line in axes.get_lines() if len(line.get_xydata())]
    assert [[5, 0.1], [8, 0.0625]] in curves
    assert [[5, 25], [8, 25]] in curves

    figure.save(tmp_path / "now.png")
    picture = imread(tmp_path / "now.png")
    assert picture.shape[1] > 1000
    assert picture[..., :3].std() > 0.1
    assert figure._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(FileFormatError, match="cannot be written"):
        figure.save(tmp_path / "nowhere" / "now.png")

    result = running.site.results / f"{entry.key}.h5"
    write_result(result, result_of(make_job()))
    running.ledger.solved(entry, result)
    assert figure.update()
    assert "Scan 17  ·  sim  ·  final  ·  good" in words(figure)
    assert "error 0.025" in words(figure)
    assert "Object phase" in shown(figure)
    # The next job takes its place.
    running.begin(make_job(18))
    assert figure.update()
    assert "Scan 18" in words(figure)
    assert "Object phase" not in shown(figure)


def test_a_thin_image_has_room_around_it_and_no_words_leave_the_figure() -> None:
    """As after the first lines of a scan; small errors have long numbers."""
    wave, probe = waves()
    view = LiveView(wave[:4], np.ones((4, 60), np.float32), probe[0], (PIXEL_M, PIXEL_M), (0.0, 0.0))
    figure = live_figure(Told("Scan 17", "9 frames", {"running_error": [(1, 0.00825), (2, 0.00625)]}, [(1, 9), (2, 30000)]), view)
    FigureCanvasAgg(figure).draw()
    maps = {axes.get_title(loc="left"): axes for axes in figure.axes}
    (bottom, top), (left, right) = maps["Object amplitude"].get_ylim(), maps["Object amplitude"].get_xlim()
    assert bottom - top == pytest.approx(0.4 * (right - left))
    assert (bottom + top) / 2 == pytest.approx(0.02)
    all_of_it, (width, height) = figure.get_tightbbox(figure.canvas.get_renderer()), figure.get_size_inches()
    assert all_of_it.x0 >= 0
    assert all_of_it.x1 <= width
    assert all_of_it.y1 <= height


def test_one_iteration_is_seen_too(running: Running) -> None:
    """A line of one point is invisible, and an axis around it has numbers that are no iterations."""
    entry = running.begin(make_job())
    running.shows(entry, 1)
    figure = ptyplugin.live(site=running.site)
    (errors,) = (axes for axes in figure.figure.axes if axes.get_ylabel() == "error")
    points = [line for line in errors.get_lines() if len(line.get_xydata())]
    assert len(points) == 2
    assert all(line.get_marker() == "o" for line in points)
    assert errors.get_xlim() == (0, 2)
    (frames,) = (axes.get_lines()[0] for axes in figure.figure.axes if axes.get_ylabel().startswith("frames"))
    assert frames.get_xydata().tolist() == [[0, 25], [2, 25]]
    running.shows(entry, 2)
    figure.update()
    assert {line.get_marker() for line in points} == {"", "o"}
    assert 0.5 < errors.get_xlim()[0] < 1


def test_a_live_job_shows_how_its_frames_grow(running: Running) -> None:
    entry = running.begin(make_job(purpose="live"))
    figure = ptyplugin.live(site=running.site)
    for iteration, frames in ((1, 25), (2, 30), (3, 45)):
        running.shows(entry, iteration, frames)
        figure.update()
    assert "sim  ·  live" in words(figure)
    curves = [line.get_xydata().tolist() for axes in figure.figure.axes for line in axes.get_lines() if len(line.get_xydata())]
    assert [[1, 25], [2, 30], [3, 45]] in curves


def test_between_live_and_final_job_the_last_image_stays_and_says_what_it_is(running: Running) -> None:
    live, site = running.begin(make_job(purpose="live")), running.site
    running.shows(live, 3)
    figure = ptyplugin.live(site=site)
    solved = site.results / f"{live.key}.h5"
    write_result(solved, result_of(make_job(purpose="live")))
    running.ledger.solved(live, solved)
    final = running.begin(make_job())
    assert figure.update()
    assert f"Scan 17  ·  sim  ·  final  ·  still the image of live job {live.key[:8]}" in words(figure)
    assert f"job {final.key}" in words(figure)
    assert {"Object phase", "Object amplitude"} <= shown(figure).keys()
    assert not [axes for axes in figure.figure.axes if axes.get_visible() and "error" in axes.get_ylabel()], "there is none yet"
    assert figure.scene is not None
    assert figure.scene.purpose == "live"
    # One that was opened just now has it too.
    opened = ptyplugin.live(site=site)
    assert f"final  ·  still the image of live job {live.key[:8]}" in words(opened)
    assert "Object phase" in shown(opened)
    running.shows(final, 2)
    assert figure.update()
    assert "still" not in words(figure)
    assert figure.scene.purpose == "final"

    # The live job ends last, when its result has been replaced; the image of the run is the final one.
    result = site.results / f"{final.key}.h5"
    write_result(result, result_of(make_job()))
    running.ledger.solved(final, result)
    running.ledger.superseded(running.ledger.show(live.key), "the final image of its run has taken its place.")
    assert figure.update()
    assert "Scan 17  ·  sim  ·  final  ·  good" in words(figure)
    assert "Object phase" in shown(figure)
    # An image of another run is none of this one.
    running.begin(make_job(18))
    assert figure.update()
    assert "No image of this job yet." in words(figure)
    assert "Object phase" not in shown(figure)


def test_the_curves_of_a_job_that_begins_again_go_on(running: Running) -> None:
    """As a live job does that made way, or whose ranks were killed: it counts its iterations from one."""
    entry = running.begin(make_job(purpose="live"))
    figure = ptyplugin.live(site=running.site)
    for iteration, frames in ((10, 25), (20, 30), (20, 30), (2, 45), (4, 50)):
        running.shows(entry, iteration, frames)
        figure.update()
    curves = [line.get_xydata().tolist() for axes in figure.figure.axes for line in axes.get_lines() if len(line.get_xydata())]
    assert [[10, 25], [20, 30], [22, 45], [24, 50]] in curves


def test_of_a_job_that_failed_the_last_image_stays_with_the_reason(running: Running) -> None:
    entry = running.begin(make_job())
    running.shows(entry, 4)
    figure = ptyplugin.live(site=running.site)
    running.ledger.failed(entry, "frame 3 of a.h5 cannot be read.")
    assert figure.update()
    assert "failed | frame 3 of a.h5 cannot be read." in words(figure)
    assert "Object phase" in shown(figure)


def test_what_goes_away_is_said_and_comes_back(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = running.begin(make_job())
    running.shows(entry, 4)
    figure = ptyplugin.live(site=running.site)
    running.site.ledger.rename(running.site.ledger.with_suffix(".moved"))
    assert figure.update()
    assert "there is no ledger" in words(figure)
    assert "Object phase" in shown(figure)
    running.site.ledger.with_suffix(".moved").rename(running.site.ledger)
    assert figure.update()
    assert "iteration 4 of 20" in words(figure)
    with monkeypatch.context() as patch:
        patch.setattr(scenes, "look", lambda _: 1 / 0)
        assert figure.update()
        assert "ZeroDivisionError" in words(figure)
    assert figure.update()


def test_a_catalog_elsewhere_is_asked_where_there_is_no_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(home=tmp_path / "home", tiled_uri="http://127.0.0.1:9")

    def away(_: Site) -> None:
        raise CatalogError("the catalog does not answer.")

    monkeypatch.setattr(scenes, "client_of", away)
    figure = ptyplugin.live(site=site)
    assert isinstance(figure._stage, scenes.CatalogStage)
    assert "the catalog does not answer." in words(figure)


def test_through_the_catalog_the_result_that_replaced_a_live_job_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    def node(purpose: str, **more: Any) -> SimpleNamespace:
        return SimpleNamespace(metadata={"purpose": purpose, "scan_uid": "run-17", **more})

    live, begun, final = node("live", live={"current": 1}), node("final"), node("final", live={"current": 1})
    there: dict[str, list[SimpleNamespace]] = {"live": [begun, live], "run-17": [live]}
    monkeypatch.setattr("ptyplugin.catalog.search", lambda _, limit, state="", scan_uid="": there.get(state or scan_uid, [])[:limit])
    stage, client = scenes.CatalogStage(Site()), {"live": live, "final": final}
    assert stage._newest(client) is live, "the final one has no image yet"
    stage._path = "live"
    there["live"] = []
    assert stage._newest(client) is live, "there is no final result yet"
    there["run-17"] = [final]
    assert stage._newest(client) is final
    stage._path = "final"
    assert stage._newest(client) is final
    stage._path = ""
    assert stage._newest(client) is None


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Matplotlib with a window."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    backend = importlib.import_module("timer_backend")
    before = plt.get_backend()
    plt.switch_backend("module://timer_backend")
    backend.drawn.clear()
    yield backend
    plt.close("all")
    plt.switch_backend(before)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def readers() -> int:
    return sum(thread.name == "ptyplugin-live-figure" for thread in threading.enumerate())


def test_in_a_window_it_follows_by_itself_until_that_is_closed(running: Running, window: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PERIOD_S", 0.05)
    entry = running.begin(make_job())
    number = ptyplugin.live(site=running.site).figure.number
    # Nobody holds it.
    gc.collect()
    (figure,) = following._OPEN
    assert figure.follows
    running.shows(entry, 4)
    until(lambda: figure._next is not None and figure._next.view is not None)
    assert "iteration" not in words(figure)
    window.ring()
    assert "iteration 4 of 20" in words(figure)
    assert len(window.drawn) == 1
    # What is not new is not drawn, and what is new after that is.
    window.ring()
    assert len(window.drawn) == 1
    running.shows(entry, 6)
    until(lambda: figure._next is not None and "iteration 6" in figure._next.facts)
    window.ring()
    assert "iteration 6 of 20" in words(figure)
    assert len(window.drawn) == 2

    # A disk that hangs holds up the thread that reads, and neither the timer nor the session.
    goes_on = threading.Event()
    monkeypatch.setattr(scenes, "look", lambda _: goes_on.wait(30) and None)
    begun = time.monotonic()
    window.ring()
    assert not figure.update()
    assert time.monotonic() - begun < 5
    goes_on.set()

    plt.close(number)
    assert not following._OPEN
    assert window.Timer.running == []
    until(lambda: readers() == 0)
    assert repr(figure) == "<LiveFigure: closed>"


def test_in_a_notebook_its_picture_is_replaced_also_while_a_cell_runs(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that runs a plan keeps the kernel's main thread."""
    display = pytest.importorskip("IPython.display", reason="IPython is not installed")
    monkeypatch.setattr(following, "PERIOD_S", 0.02)
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=None))
    pages: list[list[Any]] = []

    def place(first: Any, display_id: bool) -> SimpleNamespace:
        pages.append([first])
        return SimpleNamespace(update=pages[-1].append)

    monkeypatch.setattr(display, "display", place)
    entry = running.begin(make_job())
    figure = ptyplugin.live(site=running.site)
    assert figure.follows
    assert not plt.get_fignums()
    running.shows(entry, 4)
    until(lambda: "iteration 4 of 20" in words(figure))
    until(lambda: len(pages[0]) > 1 and all(picture.data.startswith(b"\x89PNG") for picture in pages[0]))
    # The cell is run again.
    again = ptyplugin.live(site=running.site)
    until(lambda: "iteration 4 of 20" in words(again) and readers() == 1)
    assert (repr(figure), repr(again)) == ("<LiveFigure: closed>", "<LiveFigure: follows by itself>")
    last = len(pages[0])
    running.shows(entry, 6)
    until(lambda: "iteration 6 of 20" in words(again) and len(pages[1]) > 2)
    assert len(pages[0]) == last
    again.close()
    until(lambda: readers() == 0)
