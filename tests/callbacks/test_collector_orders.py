"""Any lawful order of the documents gives the same job; any other order gives it, a stated failure, or nothing; never an exception."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptyplugin.callbacks import Collector
from ptyplugin.model import JobParts, Refusal

NAMES = [
    "stream assets",
    "stream assets, 3 frames a point",
    "stream assets, rewound",
    "resource and datum",
    "resource and datum, 2 frames a point",
    "resource and datum, rewound",
    "resources that name no run",
    "fly",
    "arrays in events",
    "arrays in events, rewound",
]
ALL = pytest.mark.parametrize("name", NAMES)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

Documents = list[tuple[str, dict[str, Any]]]


def lawful(draw: st.DrawFn, documents: Documents) -> Documents:
    """An order that keeps start first, each descriptor before its events, stop last."""
    start, *middle, stop = documents
    descriptors = {document["uid"]: (name, document) for name, document in middle if name == "descriptor"}
    ordered: Documents = []
    for name, document in draw(st.permutations(middle)):
        if name == "descriptor" and descriptors.pop(document["uid"], None) is None:
            continue
        if name == "event" and document["descriptor"] in descriptors:
            ordered.append(descriptors.pop(document["descriptor"]))
        ordered.append((name, document))
    return [start, *ordered, stop]


def test_every_stream_is_tested(bench: Any) -> None:
    assert list(bench.streams) == NAMES


@ALL
@QUICK
@given(data=st.data())
def test_lawful_orders_give_the_same_job(bench: Any, name: str, data: st.DataObject) -> None:
    clean = bench.streams[name]()
    shuffled = data.draw(st.composite(lambda draw: lawful(draw, clean))())
    assert [bench.outcome(parts) for parts in bench.collect(shuffled)] == [bench.outcome(parts) for parts in bench.collect(clean)]


@ALL
@QUICK
@given(data=st.data())
def test_interleaved_runs_give_the_same_jobs(bench: Any, name: str, data: st.DataObject) -> None:
    runs = [bench.streams[name](run="run1"), bench.streams[name](run="run2"), bench.stream_assets(run="run3")]
    waiting = [list(data.draw(st.composite(lambda draw, run=run: lawful(draw, run))())) for run in runs]
    mixed = []
    while any(waiting):
        mixed.append(data.draw(st.sampled_from([each for each in waiting if each])).pop(0))
    got = sorted(bench.outcome(parts) for parts in bench.collect(mixed))
    assert got == sorted(bench.outcome(parts) for run in runs for parts in bench.collect(run))


@ALL
@QUICK
@given(data=st.data())
def test_other_orders_repetition_and_loss_give_that_job_or_a_stated_failure(bench: Any, name: str, data: st.DataObject) -> None:
    clean = bench.streams[name]()
    (expected,) = [bench.outcome(parts) for parts in bench.collect(clean)]
    picked = data.draw(st.lists(st.sampled_from(clean), max_size=2 * len(clean)))
    mixed = data.draw(st.permutations([*(clean if data.draw(st.booleans()) else []), *picked]))
    for parts in bench.collect(mixed):
        # A point whose later reading came after the stop is taken from its earlier one: that cannot be known.
        if "rewound" in name or "no run" in name:
            assert isinstance(parts, JobParts | Refusal)
        else:
            assert isinstance(parts, Refusal) or bench.outcome(parts) == expected


@ALL
@QUICK
@given(data=st.data())
def test_repetition_in_a_lawful_order_changes_nothing(bench: Any, name: str, data: st.DataObject) -> None:
    clean = bench.streams[name]()
    twice = [document for document in clean[:-1] for _ in range(data.draw(st.integers(1, 3)))]
    again = data.draw(st.lists(st.sampled_from(clean[:-1]), max_size=20))
    repeated = [*twice, *again, clean[-1], clean[-1]]
    assert [bench.outcome(parts) for parts in bench.collect(repeated)] == [bench.outcome(parts) for parts in bench.collect(clean)]


@ALL
def test_truncation_gives_nothing(bench: Any, name: str) -> None:
    clean = bench.streams[name]()
    for length in range(len(clean)):
        assert bench.collect(clean[:length]) == []


@ALL
def test_each_lost_document_is_harmless_or_told(bench: Any, name: str) -> None:
    clean = bench.streams[name]()
    (expected,) = [bench.outcome(parts) for parts in bench.collect(clean)]
    told = 0
    for lost in range(len(clean)):
        for parts in bench.collect(clean[:lost] + clean[lost + 1 :]):
            if isinstance(parts, Refusal):
                told += 1
            elif "rewound" not in name and "no run" not in name:
                assert bench.outcome(parts) == expected
    assert told >= 6


@ALL
def test_a_run_replayed_through_the_same_collector_gives_its_job_again(bench: Any, name: str) -> None:
    clean = bench.streams[name]()
    first, second = bench.collect([*clean, *clean[3:], *clean])
    assert bench.outcome(first) == bench.outcome(second)
    assert isinstance(first, JobParts)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5) | st.just(object()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@QUICK
@given(name=ANYTHING, document=ANYTHING)
def test_no_document_whatever_raises(bench: Any, name: Any, document: Any) -> None:
    collector = Collector(bench.profile())
    assert collector(name, document) == []
    assert sum(collector.ignored.values()) == 1


@ALL
@settings(QUICK, max_examples=60)
@given(data=st.data())
def test_damaged_documents_give_a_job_or_a_stated_failure(bench: Any, name: str, data: st.DataObject) -> None:
    """Any field of any document is replaced by anything, or taken away."""
    damaged = []
    clean = bench.streams[name]()
    hit = data.draw(st.sets(st.integers(0, len(clean) - 1), min_size=1, max_size=4))
    for place, (kind, document) in enumerate(clean):
        if place in hit:
            key = data.draw(st.sampled_from(sorted(document)))
            value = data.draw(ANYTHING | st.sampled_from([2**70, -1, float("nan"), "\ud800", {"start": 0, "stop": 10**15}, {"det": []}]))
            inner = document[key]
            if isinstance(inner, dict) and inner and data.draw(st.booleans()):
                document = {**document, key: {**inner, data.draw(st.sampled_from(sorted(inner))): value}}
            elif data.draw(st.booleans()):
                document = {**document, key: value}
            else:
                document = {other: document[other] for other in document if other != key}
        damaged.append((kind, document))
    for parts in bench.collect(damaged):
        assert bench.outcome(parts)[0]
        if isinstance(parts, Refusal):
            assert parts.reason.endswith((".", "?", ")"))
