"""results(): what a person wants to see first."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ptyplugin import catalog
from ptyplugin.api import finding


def test_of_a_run_the_final_results_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    newest_first = [
        SimpleNamespace(metadata={"purpose": purpose, "number": number}) for number, purpose in enumerate(["live", "final", "live"])
    ]
    asked: list[dict[str, object]] = []

    def search(client: object, **query: object) -> list[object]:
        asked.append(query)
        return list(newest_first)

    monkeypatch.setattr(catalog, "search", search)
    monkeypatch.setattr(catalog, "root", lambda node: node)
    run = SimpleNamespace(metadata={"start": {"uid": "run-1"}})
    assert [result.metadata["number"] for result in finding.results(run)] == [1, 0, 2]
    assert [result.metadata["number"] for result in finding.results(run, limit=1, state="published")] == [1]
    assert asked == [{"scan_uid": "run-1"}, {"scan_uid": "run-1", "state": "published"}]
