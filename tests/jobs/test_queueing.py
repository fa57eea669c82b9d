"""Which job is next: live before final before bulk; a run's live job and its final one never at the same time, and never a deadlock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ptyplugin.jobs import Fitting, Ledger, ledger, queueing
from ptyplugin.model import Job, Resources, RunSource, Site


class Clock:
    now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(ledger, "now_s", clock)
    return clock


@pytest.fixture
def there(site: Site, clock: Clock) -> Iterator[Ledger]:
    with Ledger(site.ledger) as there:
        yield there


@pytest.fixture
def put(there: Ledger, job: Job):
    def put(run: str, purpose: str, priority: int = 0, key: str = "detector") -> str:
        source = RunSource(run_uid=run, key=key)
        made = job.model_copy(update={"source": source, "purpose": purpose, "resources": Resources(priority=priority)})
        there.put(made)
        return made.key

    return put


def claimed(there: Ledger, **fitting: object) -> str | None:
    entry = there.claim(60.0, Fitting(**fitting))
    return entry.key if entry else None


def test_live_comes_before_final_before_bulk(there: Ledger, put) -> None:
    bulk, final, urgent = put("a", "final", -1), put("b", "final"), put("c", "final", 5)
    live, hasty = put("d", "live"), put("e", "live", 1)
    assert [claimed(there) for _ in range(6)] == [hasty, live, urgent, final, bulk, None]


def test_a_final_job_that_waited_long_has_its_turn(there: Ledger, put, clock: Clock) -> None:
    bulk, final = put("a", "final", -1), put("b", "final")
    clock.now += 40
    live, young = put("c", "live"), put("d", "final")
    assert claimed(there, turn_after_s=30.0) == final
    assert [claimed(there, turn_after_s=30.0) for _ in range(3)] == [live, young, bulk]


def test_final_waits_for_the_live_one_of_its_run_alone(there: Ledger, put) -> None:
    live, final, other, beside = put("a", "live"), put("a", "final"), put("b", "final"), put("a", "final", key="another")
    assert [claimed(there) for _ in range(4)] == [live, other, beside, None]
    there.failed(there.show(live), "it diverged.")
    assert claimed(there) == final


@pytest.mark.parametrize("end", ["solved", "failed", "cancelled"])
def test_final_goes_on_however_the_live_one_ended(there: Ledger, put, site: Site, end: str) -> None:
    live, final = put("a", "live"), put("a", "final")
    claimed(there)
    assert claimed(there) is None
    getattr(there, end)(there.show(live), site.results / "a.h5" if end == "solved" else "for a reason.")
    assert claimed(there) == final


def test_a_live_job_that_stepped_aside_holds_nobody_up_until_it_is_its_time(there: Ledger, put, clock: Clock) -> None:
    live = put("a", "live")
    claimed(there)
    there.step_aside(there.show(live), 900.0)
    other, final = put("b", "final"), put("a", "final")
    assert claimed(there) == other
    there.grow(live, 3, 2)
    assert (there.show(live).frames, there.show(live).tries) == (5, 0)
    assert [claimed(there), claimed(there)] == [live, None]
    there.step_aside(there.show(live), 900.0)
    assert claimed(there) == final
    there.hurry(live)
    assert claimed(there) is None
    there.failed(there.show(final), "it diverged.")
    assert claimed(there) == live


def test_a_live_job_that_could_run_and_is_not_taken_up_holds_nobody_up(there: Ledger, put, clock: Clock) -> None:
    live, final = put("a", "live"), put("a", "final")
    suits = {"above_bytes": -1, "others": [live]}
    assert claimed(there, **suits) is None
    clock.now += queueing._LATELY_S + 1
    assert claimed(there, **suits) == final


def test_a_live_job_that_waits_for_another_try_or_was_lost_holds_nobody_up(there: Ledger, put, clock: Clock) -> None:
    live = put("a", "live")
    claimed(there)
    there.requeue(there.show(live), "its ranks were killed.", wait_s=2.0)
    final = put("a", "final")
    assert claimed(there) == final
    there.requeue(there.show(final), "its ranks were killed too.", wait_s=30.0)
    clock.now += 5
    assert claimed(there) == live
    clock.now += 100
    assert claimed(there, others=[live]) == final


def test_hurry_leaves_a_job_alone_that_waits_for_something_else(there: Ledger, put) -> None:
    live = put("a", "live")
    claimed(there)
    there.requeue(there.show(live), "its ranks were killed.", wait_s=20.0)
    there.grow(live, 3, 2)
    assert claimed(there) is None
