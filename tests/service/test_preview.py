"""The result of a live job: published for want of a final one, and gone when that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ptyplugin.jobs import Ledger
from ptyplugin.model import Job, Site
from ptyplugin.service.preview import drop_previews
from ptyplugin.service.publisher import Publisher


@pytest.fixture
def ledger(site: Site) -> Iterator[Ledger]:
    with Ledger(site.ledger) as ledger:
        yield ledger


@pytest.fixture
def put(site: Site, ledger: Ledger, make_job: Callable[..., Job]) -> Callable[..., str]:
    def put(purpose: str, state: str = "queued") -> str:
        job = make_job().model_copy(update={"purpose": purpose})
        ledger.put(job)
        if state != "queued":
            entry = ledger.claim(60.0)
            result = site.results / f"{job.key}.h5"
            result.parent.mkdir(parents=True, exist_ok=True)
            result.touch()
            getattr(ledger, state)(entry, result if state == "solved" else "for a reason.")
        return job.key

    return put


def published(ledger: Ledger) -> list[str]:
    done: list[str] = []
    Publisher(ledger, lambda result, key: done.append(key)).publish_due()
    return done


def test_it_waits_for_the_final_one_and_makes_way_for_it(ledger: Ledger, put: Callable[..., str]) -> None:
    live = put("live", "solved")
    result = ledger.show(live).result
    final = put("final")
    assert published(ledger) == []
    entry = ledger.claim(60.0)
    assert published(ledger) == []
    ledger.solved(entry, Path("final.h5"))
    drop_previews(ledger, entry)
    assert published(ledger) == [final]
    there = ledger.show(live)
    assert (there.state, there.result, result is not None and result.exists()) == ("cancelled", None, False)
    assert there.sentence == f"the final image of its run has taken its place (job {final})."


def test_a_daemon_that_was_killed_in_between_drops_it_later(ledger: Ledger, put: Callable[..., str]) -> None:
    live, final = put("live", "solved"), put("final", "solved")
    assert published(ledger) == [final]
    assert ledger.show(live).state == "cancelled"


@pytest.mark.parametrize("end", [None, "failed", "cancelled"])
def test_without_a_final_one_it_is_published(ledger: Ledger, put: Callable[..., str], end: str | None) -> None:
    live = put("live", "solved")
    if end:
        put("final", end)
    assert published(ledger) == [live]
