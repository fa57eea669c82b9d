"""The growing image in a real Tiled server: canvases, what subscribers hear, and the result that comes into the same container."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiled.queries import Key

import ptyplugin
from ptyplugin.catalog import LiveImages, LocalServer, publish, publishing, runs_with_results, search
from ptyplugin.catalog.canvas import LEAST_MARGIN_PX, Canvas, canvas_for
from ptyplugin.catalog.client import PtychoReconstruction
from ptyplugin.catalog.live import BLOCK_PX
from ptyplugin.io import read_result
from ptyplugin.jobs import Entry, Ledger
from ptyplugin.model import CatalogError, Job, Reconstruction, Site, Snapshot

MakeResult = Callable[..., tuple[Path, str, Reconstruction]]
PIXEL_M = (1e-8, 2e-8)
SITE, PATH = Site(), "sim/processed/ptyplugin"


def snapshot(job: str, shape: tuple[int, int], corner: tuple[int, int] = (0, 0), iteration: int = 1, seed: int = 0) -> Snapshot:
    """A snapshot whose first pixel is ``corner`` of a common grid."""
    random = np.random.default_rng(seed)
    wave = (0.5 + random.random(shape)) * np.exp(1j * random.normal(size=shape))
    origin = (corner[0] * PIXEL_M[0], corner[1] * PIXEL_M[1])
    probe = np.ones((1, 12, 12), np.complex64)
    return Snapshot(
        job,
        "DM",
        iteration,
        10,
        {"error": 0.5 / iteration},
        3 * iteration,
        1000.0 + iteration,
        wave.astype(np.complex64),
        probe,
        PIXEL_M,
        origin,
    )


@pytest.mark.parametrize("corner", [(0, 0), (-300, 0), (0, 900), (-40, -60)])
def test_an_outgrown_canvas_is_part_of_the_next(corner: tuple[int, int]) -> None:
    first = snapshot("k", (100, 120))
    canvas = canvas_for(first)
    assert canvas.corner(first) == (LEAST_MARGIN_PX, LEAST_MARGIN_PX)
    later = snapshot("k", (200, 240), corner)
    assert canvas.corner(later) is None
    wider = canvas_for(later, before=canvas)
    assert wider.corner(later) is not None
    assert wider.corner(snapshot("k", canvas.shape, (-LEAST_MARGIN_PX, -LEAST_MARGIN_PX))) is not None
    # It grows where it was too small, by so much that it is not outgrown at once.
    assert wider.shape[0] >= 1.3 * canvas.shape[0] or wider.shape[1] >= 1.3 * canvas.shape[1]


def test_a_canvas_has_room_for_what_was_announced_unless_that_cannot_be() -> None:
    first = snapshot("k", (32, 32))
    announced = canvas_for(first, ((-1e-6, 0.0), (3e-6, 8e-6)))
    assert announced.corner(snapshot("k", (411, 411), (-99, 0), 1)) is not None
    assert canvas_for(first, ((-1.0, 0.0), (3.0, 8.0))) == canvas_for(first)
    # It was announced relative to where the stages stand.
    assert canvas_for(first, ((2e-6, 0.0), (6e-6, 8e-6))) == canvas_for(first)
    other_pixels = Canvas((500, 500), (1.1e-8, 2e-8), (0.0, 0.0))
    assert other_pixels.corner(first) is None
    assert canvas_for(first, before=other_pixels) == canvas_for(first)


@pytest.fixture
def job_of(make_result: MakeResult, tmp_path: Path) -> Callable[[str, int], tuple[Path, Entry]]:
    """A job, as the ledger has it, and the result file that it will come to."""

    def of(run_uid: str, seed: int) -> tuple[Path, Entry]:
        path, key, _ = make_result(run_uid, seed=seed, scan_id=21)
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            ledger.put(Job.model_validate(read_result(path).provenance["job"]))
            return path, ledger.show(key)

    return of


@pytest.mark.system
def test_an_image_grows_until_the_result_takes_its_place(client: Any, site: Site, job_of: Callable[..., tuple[Path, Entry]]) -> None:
    result, job = job_of("run-live", 31)
    live = LiveImages(client, SITE, job)
    first = snapshot(job.key, (60, 80))
    assert live.put(first) == 2
    assert live.put(first) == 0
    (node,) = search(client[PATH], scan_uid="run-live")
    assert isinstance(node, PtychoReconstruction)
    image = node.live()
    assert image is not None
    np.testing.assert_array_equal(image.phase, np.angle(first.object))
    np.testing.assert_array_equal(image.amplitude, np.abs(first.object))
    assert image.phase.dtype == np.float32
    assert len(node.plot().axes) > 2
    metadata = node.metadata
    assert (metadata["state"], metadata["scan_id"], metadata["live"]["current"]) == ("live", 21, 1)
    shown = {name: metadata["live"][name] for name in ("stage", "iteration", "iterations", "frames", "error", "updated")}
    assert shown == {"stage": "DM", "iteration": 1, "iterations": 10, "frames": 3, "error": 0.5, "updated": 1001.0}
    assert runs_with_results(client, site, "sim", ["run-live"]) == set()

    larger = snapshot(job.key, (90, 100), (-30, -10), 2, seed=1)
    live.put(larger)
    image = node.live()
    assert image is not None
    np.testing.assert_array_equal(image.phase, np.angle(larger.object))
    assert image.said["current"] == 2
    assert sorted(node["live"]) == ["1", "2"]
    # The subscribers of the first one still find it as it was.
    assert node["live/1/object_phase"].shape != node["live/2/object_phase"].shape
    assert list(node.metadata_revisions[:]) == []

    # What is no result yet says so, whatever it is asked for.
    assert node.refresh().metadata["quality"]["error"] is None
    assert node.metadata["live"]["error"] == 0.25
    for name in ("object_phase", "object", "progress"):
        with pytest.raises(CatalogError, match=rf"{name} of result {job.key} is not in the catalog: its state is live. .live"):
            node[name]
    with pytest.raises(KeyError, match="nothing"):
        node["nothing"]

    published = publish(client, site, result, job.key)
    assert published.metadata["state"] == "published"
    assert published.metadata["verdict"] == "doubtful"
    np.testing.assert_array_equal(published["object"].read(), read_result(result).object)
    assert published.metadata["live"]["current"] == 2
    assert runs_with_results(client, site, "sim", ["run-live"]) == {"run-live"}
    assert published.reconstruction().quality["error"] == 0.01
    # A snapshot that was late, or on its way meanwhile, does not make it unfinished, whoever brings it.
    live.put(snapshot(job.key, (90, 100), (-30, -10), 3))
    assert client[f"{PATH}/{job.key}"].metadata["quality"]["error"] == 0.01
    assert LiveImages(client, SITE, job).put(larger) == 0
    assert client[f"{PATH}/{job.key}"].metadata["state"] == "published"


@pytest.mark.system
def test_what_a_final_result_has_replaced_is_found_when_asked_for(
    client: Any, site: Site, job_of: Callable[..., tuple[Path, Entry]]
) -> None:
    result, final = job_of("run-replaced", 36)
    live, again = replace(final, key="a" * 16, purpose="live"), replace(final, key="b" * 16)
    elsewhere = replace(final, key="c" * 16, purpose="live", source="another detector")
    folder, first = client[PATH], snapshot(live.key, (40, 40))

    def found(where: Any = folder, **query: Any) -> list[str]:
        return [node.item["id"] for node in search(where, scan_uid="run-replaced", **query)]

    LiveImages(client, SITE, live).put(first)
    assert found() == found(client) == [live.key], "there is nothing else yet"
    LiveImages(client, SITE, final)._open()
    assert found() == found(client) == [live.key], "the final one has no image yet"
    assert found(live=True) == [final.key, live.key]
    LiveImages(client, SITE, final).put(first)
    LiveImages(client, SITE, final).end("failed", "it was too dark.")
    assert found() == [final.key, live.key], "its final job has failed"
    publish(client, site, result, final.key)
    LiveImages(client, SITE, live).end("cancelled", "the final image of its run has taken its place.")
    LiveImages(client, SITE, again).put(first)
    LiveImages(client, SITE, elsewhere).put(first)
    for where in (folder, client):
        assert found(where) == [elsewhere.key, final.key]
        assert found(where, limit=1) == [elsewhere.key]
        assert found(where, live=True) == [elsewhere.key, again.key, final.key, live.key]
        # What is asked for by its state is shown, whatever else there is.
        assert found(where, state="cancelled") == [live.key]
    # The final one does not have what is asked for; the live one is no answer.
    folder[live.key].update_metadata({"verdict": "good"}, drop_revision=True)
    assert found(verdict="good") == []
    assert found(verdict="good", live=True) == [live.key]
    # The question that the reference has for those who know only Tiled.
    asked = folder.search(Key("scan_uid") == "run-replaced").search(Key("purpose") == "final").search(Key("state") == "published")
    assert [node.item["id"] for node in asked.values()] == [final.key]


@pytest.mark.system
def test_a_live_image_that_the_server_joins_late_costs_a_result_nothing(
    client: Any, site: Site, job_of: Callable[..., tuple[Path, Entry]], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, job = job_of("late-patch", 32)
    LiveImages(client, SITE, job).put(snapshot(job.key, (40, 40)))
    node = client[f"{PATH}/{job.key}"]
    before, put_progress = node.metadata_copy()[0], publishing._put_progress

    def interrupted(*args: Any) -> None:
        put_progress(*args)
        # What another handler of the server had read before anything of the result came, it writes now.
        node.replace_metadata({**before, "live": {"current": 1}}, drop_revision=True)

    monkeypatch.setattr(publishing, "_put_progress", interrupted)
    publish(client, site, result, job.key)
    after = client[f"{PATH}/{job.key}"].metadata
    assert (after["state"], after["quality"]["error"], after["verdict"]) == ("published", 0.01, "doubtful")
    assert after["live"]["current"] == 1


@pytest.mark.system
def test_another_daemon_goes_on_with_a_canvas_of_its_own(client: Any, job_of: Callable[..., tuple[Path, Entry]]) -> None:
    _, job = job_of("run-again", 32)
    LiveImages(client, SITE, job).put(snapshot(job.key, (40, 40)))
    # It had begun with another canvas when it was killed.
    client[f"{PATH}/{job.key}/live"].create_container("2")
    after = LiveImages(client, SITE, job)
    after.put(snapshot(job.key, (50, 50), iteration=2))
    node = client[f"{PATH}/{job.key}"]
    assert node.metadata["live"]["current"] == 3
    after.end("failed", "it was too dark.")
    node.refresh()
    assert (node.metadata["state"], node.metadata["sentence"]) == ("failed", "it was too dark.")
    assert node.live().phase.shape == (50, 50)
    # Somebody had it tried again.
    after.put(snapshot(job.key, (50, 50), iteration=3))
    assert node.refresh().metadata["state"] == "live"
    # The next daemon hears of its end only.
    LiveImages(client, SITE, job).end("cancelled", "somebody asked for it.")
    assert (node.refresh().metadata["state"], node.metadata["sentence"]) == ("cancelled", "somebody asked for it.")
    never_shown = replace(job, key="f" * 16)
    LiveImages(client, SITE, never_shown).end("failed", "it was too dark.")
    assert never_shown.key not in client[PATH]


@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")  # Tiled's client does not
@pytest.mark.system
def test_subscribers_get_blocks_that_their_websockets_take(
    client: Any, job_of: Callable[..., tuple[Path, Entry]], until: Callable[..., None]
) -> None:
    """A canvas of several MB, and a subscriber with the default limit of 1 MB."""
    _, job = job_of("run-streamed", 33)
    live = LiveImages(client, SITE, job)
    shape = (2 * BLOCK_PX, 2 * BLOCK_PX)
    live.put(snapshot(job.key, shape))
    array = client[f"{PATH}/{job.key}/live/1/object_phase"]
    held = np.full(array.shape, np.nan, np.float32)
    heard = threading.Event()

    def take(update: Any) -> None:
        top, left = (index * BLOCK_PX for index in update.block)
        block = update.data()
        held[top : top + block.shape[0], left : left + block.shape[1]] = block
        heard.set()

    subscription = array.subscribe()
    subscription.new_data.add_callback(take)
    subscription.start_in_thread(0)
    try:
        until(lambda: not np.isnan(held).any())
        heard.clear()
        before = snapshot(job.key, shape)
        changed = before.object.copy()
        changed[:5, :5] *= np.exp(0.5j).astype(np.complex64)
        # Only the block in the corner is sent; rounding may move the amplitude, too.
        assert live.put(replace(before, object=changed, iteration=2)) in (1, 2)
        assert heard.wait(20)
        until(lambda: np.array_equal(held, array[:]))
    finally:
        subscription.disconnect()


@pytest.mark.system
def test_what_is_not_this_jobs_stays(client: Any, job_of: Callable[..., tuple[Path, Entry]]) -> None:
    _, job = job_of("run-foreign", 34)
    client[PATH].create_container(job.key, metadata={"mine": True})
    with pytest.raises(CatalogError, match="not the result of this job"):
        LiveImages(client, SITE, job).put(snapshot(job.key, (20, 20)))


@pytest.mark.system
def test_a_figure_elsewhere_follows_through_the_catalog(
    server: LocalServer, client: Any, folder: Path, job_of: Callable[..., tuple[Path, Entry]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine without the site's folders; the job of this test is the newest."""
    monkeypatch.setenv("TILED_API_KEY", server.api_key)
    site = Site(home=folder / "elsewhere", tiled_uri=server.uri)
    result, job = job_of("run-followed", 35)
    live = LiveImages(client, SITE, job)
    live.put(snapshot(job.key, (60, 80)))
    figure = ptyplugin.live(site=site)

    def words() -> str:
        return " | ".join(text.get_text() for text in figure.figure.texts if text.get_visible())

    assert "Scan 21  ·  sim  ·  final |" in words()
    assert "3 frames   ·   DM, iteration 1   ·   error 0.5" in words()
    assert not figure.update()
    live.put(snapshot(job.key, (60, 80), iteration=2))
    assert figure.update()
    assert "iteration 2   ·   error 0.25" in words()
    publish(client, site, result, job.key)
    # Others of this catalog that were left unfinished are no longer there.
    monkeypatch.setattr("ptyplugin.catalog.LIVE", "none of them")
    assert figure.update()
    assert "final  ·  doubtful" in words()
