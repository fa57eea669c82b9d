"""Images on their way into a catalog that is fast, slow, away or hangs: the newest one arrives, and nobody waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from at_work import at_work

from ptyplugin.jobs import Entry, Ledger, submit, write_snapshot
from ptyplugin.model import CatalogAway, CatalogError, Progress, Site, Snapshot
from ptyplugin.service import Daemon, Inline, live_catalog
from ptyplugin.service.live_catalog import LiveCatalog, SiteImages
from ptyplugin.service.operations import Operations
from ptyplugin.service.sources import Sources


def snapshot(job: str, iteration: int) -> Snapshot:
    wave = np.ones((4, 4), np.complex64)
    return Snapshot(job, "DM", iteration, 20, {}, 3, 0.0, wave, wave[None], (1e-8, 1e-8), (0.0, 0.0))


class Catalog:
    """Remembers what was shown; ``before`` runs ahead of each call, and may raise."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, Any]] = []
        self.before: Callable[[], object] = lambda: None
        self.closed = False

    def __call__(self, job: Entry) -> Catalog.Images:
        return Catalog.Images(self, job.key)

    def close(self) -> None:
        self.closed = True

    class Images:
        def __init__(self, catalog: Catalog, key: str) -> None:
            self._catalog, self._key = catalog, key

        def put(self, snapshot: Snapshot) -> int:
            self._catalog.before()
            self._catalog.shown.append((self._key, snapshot.iteration))
            return 1

        def end(self, state: str, sentence: str | None) -> None:
            self._catalog.before()
            self._catalog.shown.append((self._key, state))


@pytest.fixture
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
def running_job(site: Site, make_job: Callable[..., Any]) -> Iterator[Callable[[int], tuple[Ledger, Entry]]]:
    with Ledger(site.ledger) as ledger:

        def of(seed: int = 0) -> tuple[Ledger, Entry]:
            ledger.put(make_job(seed))
            entry = ledger.claim(60.0)
            assert entry is not None
            return ledger, entry

        yield of


def test_of_images_that_come_too_fast_the_newest_counts(catalog, running_job) -> None:
    (_, one), (_, other) = running_job(1), running_job(2)
    live = LiveCatalog(catalog)
    for iteration in range(1, 6):
        live.hear(snapshot(one.key, iteration), one)
    live.hear(snapshot(other.key, 1), other)
    assert live.send()
    assert catalog.shown == [(one.key, 5), (other.key, 1)]
    assert live.send()
    assert len(catalog.shown) == 2
    assert live.outcomes == {"shown": 2, "left_out": 4, "refused": 0}


def test_sending_takes_a_share_of_the_time_only(catalog, running_job, until, monkeypatch) -> None:
    monkeypatch.setattr(live_catalog, "PERIOD_S", 0.05)
    _, job = running_job()
    live, begun = LiveCatalog(catalog), list[float]()

    def slow() -> None:
        begun.append(time.monotonic())
        time.sleep(0.1)
        live.hear(snapshot(job.key, len(begun)), job)

    catalog.before = slow
    with at_work(live.run):
        live.hear(snapshot(job.key, 0), job)
        until(lambda: len(begun) >= 4)
    # The first one, which makes a place, does not count.
    assert min(np.diff(begun)[1:]) >= 0.1 / live_catalog.SHARE
    assert begun[1] - begun[0] < 0.1 / live_catalog.SHARE


def test_a_slow_server_is_not_waited_for_longer_than_people_wait(catalog, running_job, until, monkeypatch) -> None:
    monkeypatch.setattr(live_catalog, "PERIOD_S", 0.01)
    monkeypatch.setattr(live_catalog, "LONGEST_S", 0.05)
    # By its share it would rest for a minute.
    monkeypatch.setattr(live_catalog, "SHARE", 1 / 3000)
    _, job = running_job()
    live = LiveCatalog(catalog)

    def slow() -> None:
        time.sleep(0.02)
        live.hear(snapshot(job.key, len(catalog.shown) + 2), job)

    catalog.before = slow
    with at_work(live.run):
        live.hear(snapshot(job.key, 1), job)
        until(lambda: len(catalog.shown) >= 4)
    assert [iteration for _, iteration in catalog.shown[:4]] == [1, 2, 3, 4]


def test_a_catalog_that_hangs_delays_nobody(catalog, running_job, until) -> None:
    _, job = running_job()
    goes_on = threading.Event()
    catalog.before = lambda: goes_on.wait(60)
    live = LiveCatalog(catalog)
    with at_work(live.run):
        live.hear(snapshot(job.key, 1), job)
        until(lambda: not live._due)
        begun = time.monotonic()
        for iteration in range(2, 200):
            live.hear(snapshot(job.key, iteration), job)
        assert time.monotonic() - begun < 5
        goes_on.set()
        until(lambda: catalog.shown[-1:] == [(job.key, 199)])
    assert len(catalog.shown) == 2


def test_a_catalog_that_was_away_gets_the_newest_image(catalog, running_job, caplog) -> None:
    _, job = running_job()

    def away() -> None:
        raise CatalogAway("the catalog does not answer.")

    live = LiveCatalog(catalog)
    catalog.before = away
    live.hear(snapshot(job.key, 1), job)
    assert not live.send()
    assert not live.send()
    live.hear(snapshot(job.key, 2), job)
    catalog.before = lambda: None
    assert live.send()
    assert catalog.shown == [(job.key, 2)]
    assert [record.getMessage() for record in caplog.records if "does not answer" in record.getMessage()] == [
        "the catalog does not answer. The images of jobs that run wait for it; results are not touched by this."
    ]


def test_a_catalog_that_is_away_is_not_asked_for_each_job_of_a_night(catalog, running_job) -> None:
    """Each question may take seconds."""
    asked = []

    def away() -> None:
        asked.append(1)
        raise CatalogAway("the catalog does not answer.")

    live, catalog.before = LiveCatalog(catalog), away
    jobs = [running_job(seed)[1] for seed in range(7)]
    for job in jobs:
        live.hear(snapshot(job.key, 1), job)
    assert not live.send()
    assert len(asked) == live_catalog._ENOUGH < len(jobs)
    catalog.before = lambda: None
    assert live.send()
    assert {key for key, _ in catalog.shown} == {job.key for job in jobs}
    assert catalog.shown[0][0] not in {job.key for job in jobs[: live_catalog._ENOUGH]}


@pytest.mark.parametrize("error", [CatalogError("it is another one's."), ZeroDivisionError("odd"), CatalogAway("not its tags.")])
def test_a_job_whose_image_is_refused_does_not_hold_up_others(catalog, running_job, error) -> None:
    (_, one), (_, other) = running_job(1), running_job(2)
    live = LiveCatalog(catalog)

    def refuse_the_first() -> None:
        catalog.before = lambda: None
        raise error

    catalog.before = refuse_the_first
    live.hear(snapshot(one.key, 1), one)
    live.hear(snapshot(other.key, 1), other)
    assert live.send()
    assert catalog.shown == [(other.key, 1)]
    may_come = isinstance(error, CatalogAway)
    assert live.outcomes["refused"] == (not may_come)
    assert live.send()
    assert catalog.shown[1:] == [(one.key, 1)] * may_come


def test_the_end_of_a_job_comes_after_its_last_image(catalog, running_job) -> None:
    ledger, job = running_job()
    live = LiveCatalog(catalog)
    ledger.listen(live.hear_of)
    live.hear(snapshot(job.key, 1), job)
    assert live.send()
    live.hear(snapshot(job.key, 2), job)
    ledger.failed(job, "it was too dark.")
    # This one had waited.
    live.hear(snapshot(job.key, 3), job)
    assert live.send()
    assert catalog.shown == [(job.key, 1), (job.key, "failed")]
    ledger._retried(ledger.show(job.key), "item")
    again = ledger.claim(60.0)
    live.hear(snapshot(job.key, 1), again)
    live.hear(snapshot(job.key, 2), job)
    assert live.send()
    assert catalog.shown[2:] == [(job.key, 1)]


def test_a_live_image_whose_final_one_is_there_is_live_no_more(catalog, running_job) -> None:
    ledger, job = running_job()
    live = LiveCatalog(catalog)
    ledger.listen(live.hear_of)
    live.hear(snapshot(job.key, 1), job)
    assert live.send()
    ledger.solved(job, Path("result.h5"))
    assert live.send()
    ledger.superseded(ledger.show(job.key), "the final image has taken its place.")
    assert live.send()
    assert catalog.shown == [(job.key, 1), (job.key, "cancelled")]


def test_the_image_that_a_daemon_of_before_has_left_gets_its_end(catalog, running_job) -> None:
    ledger, job = running_job()
    live = LiveCatalog(catalog)
    ledger.listen(live.hear_of)
    ledger.failed(job, "it was too dark.")

    def away() -> None:
        raise CatalogAway("the catalog does not answer.")

    catalog.before = away
    assert not live.send()
    catalog.before = lambda: None
    assert live.send()
    assert catalog.shown == [(job.key, "failed")]


def test_a_daemon_shows_its_jobs_and_no_result_waits_for_that(catalog, site, until, make_job, monkeypatch) -> None:
    """All the way from who solves; the catalog takes the image and then hangs."""
    monkeypatch.setattr("ptyplugin.service.operations.SiteImages", lambda _: catalog)
    named = site.model_copy(update={"tiled_uri": "http://127.0.0.1:1", "http_port": 0, "ranks": 1})
    job, goes_on, published = make_job(slow=0.05), threading.Event(), list[str]()
    catalog.before = lambda: bool(catalog.shown) and goes_on.wait(60)

    def write(progress: Progress) -> None:
        if not progress.snapshot:
            write_snapshot(site.jobs / job.key, snapshot(job.key, progress.iteration))
            daemon._hear(replace(progress, snapshot=True))

    submit(named, job)
    with (
        Daemon(named, Inline("stub_solving:solve"), lambda _, key: published.append(key), on_progress=write) as daemon,
        Sources(named) as sources,
        Operations(named, daemon, sources),
        at_work(daemon.run, goes_on.set),
    ):
        until(lambda: published == [job.key])
        assert [key for key, _ in catalog.shown] == [job.key]
    assert catalog.closed


def test_where_a_live_scan_will_go_is_in_its_job(site, make_job, running_job, monkeypatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr("ptyplugin.catalog.connect", lambda _: "client")
    monkeypatch.setattr("ptyplugin.catalog.LiveImages", lambda *what: made.append(what))
    _, final = running_job()
    extent = ((0.0, 0.0), (1e-6, 2e-6))
    live = make_job(2).model_copy(update={"purpose": "live", "extent_m": extent})
    entry = replace(final, key=live.key, purpose="live")
    images = SiteImages(site)
    images(final)
    images(entry)
    folder = site.jobs / live.key
    folder.mkdir(parents=True)
    (folder / "job.json").write_bytes(live.to_bytes())
    images(entry)
    assert made == [("client", site, job, known) for job, known in ((final, None), (entry, None), (entry, extent))]
