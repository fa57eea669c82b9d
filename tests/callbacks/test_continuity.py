"""Whether all documents of a run came: what is missing is found, in whatever order the rest comes."""

from __future__ import annotations

from typing import Any

import pytest

from ptyplugin.callbacks import Continuity, Ending


def run(events: int = 4, uid: str = "run") -> list[tuple[str, dict[str, Any]]]:
    documents: list[tuple[str, dict[str, Any]]] = [
        ("start", {"uid": uid, "time": 5.0}),
        ("descriptor", {"uid": f"{uid}-d", "run_start": uid, "name": "primary"}),
    ]
    documents += [("event", {"descriptor": f"{uid}-d", "seq_num": number}) for number in range(1, events + 1)]
    return [*documents, ("stop", {"run_start": uid, "num_events": {"primary": events}})]


def ending_of(documents: list[tuple[str, Any]]) -> Ending:
    continuity = Continuity()
    (ending,) = [found for document in documents if (found := continuity(*document)) is not None]
    assert len(continuity) == 0
    return ending


def test_nothing_is_missing() -> None:
    assert ending_of(run()) == Ending("run", "", 5.0)


def test_events_in_another_order_and_twice_are_all_there() -> None:
    documents = run()
    assert ending_of([*documents[:2], *documents[5:1:-1], documents[3], documents[-1]]).missing == ""


@pytest.mark.parametrize("lost", [2, 3, 5])
def test_a_lost_event_is_missed(lost: int) -> None:
    documents = run()
    del documents[lost]
    assert ending_of(documents).missing == "of 4 events in stream 'primary', 3 came"


def test_lost_descriptor_and_lost_start_are_missed() -> None:
    documents = run()
    assert ending_of([documents[0], *documents[2:]]).missing == "of 4 events in stream 'primary', 0 came"
    assert ending_of(documents[1:]) == Ending("run", "its start document did not come", None)


def test_a_gap_is_missed_without_a_count_in_the_stop_document() -> None:
    documents = run()
    documents[-1] = ("stop", {"run_start": "run"})
    assert ending_of(documents).missing == ""
    del documents[3]
    assert ending_of(documents).missing == "the numbers of its events have gaps"


def test_fly_scans_are_counted_by_their_frames() -> None:
    documents = run(events=30)
    frames = [("stream_datum", {"descriptor": "run-d", "seq_nums": {"start": a, "stop": b}}) for a, b in ((1, 11), (11, 20), (20, 31))]
    assert ending_of([*documents[:2], *frames, documents[-1]]).missing == ""
    assert ending_of([*documents[:2], *frames[:1], *frames[2:], documents[-1]]).missing


def test_pages_count_as_their_events() -> None:
    documents = run()
    page = ("event_page", {"descriptor": "run-d", "seq_num": [1, 2, 3, 4]})
    assert ending_of([*documents[:2], page, documents[-1]]).missing == ""


@pytest.mark.parametrize(
    "wrong", [None, 7, {}, {"uid": 3}, {"descriptor": "run-d", "seq_num": -1}, {"seq_nums": {"start": 0, "stop": 2**60}}]
)
@pytest.mark.parametrize("name", ["start", "descriptor", "event", "event_page", "stream_datum", "stop", "?", None, 5])
def test_documents_that_are_none_are_passed_over(name: Any, wrong: Any) -> None:
    continuity = Continuity()
    for document in run()[:-1]:
        continuity(*document)
    assert continuity(name, wrong) is None
    assert continuity(*run()[-1]) == Ending("run", "", 5.0)


def test_open_runs_and_what_came_of_them_are_known() -> None:
    continuity = Continuity()
    for document in run()[:4] + run(uid="other")[:2]:
        continuity(*document)
    assert continuity.open() == {"run": 2, "other": 0}


def test_runs_that_never_stop_do_not_pile_up() -> None:
    continuity = Continuity()
    for number in range(1000):
        for document in run(uid=f"run-{number}")[:-1]:
            continuity(*document)
    assert len(continuity) <= 200
