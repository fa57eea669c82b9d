"""results(): what a person wants to see first."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ptyplugin import catalog
from ptyplugin.api import finding


def test_of_a_run_its_own_results_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def search(client: object, **query: object) -> list[object]:
        asked.append(query)
        return ["newest", "older"]

    monkeypatch.setattr(catalog, "search", search)
    monkeypatch.setattr(catalog, "root", lambda node: node)
    run = SimpleNamespace(metadata={"start": {"uid": "run-1"}})
    assert finding.results(run) == ["newest", "older"]
    finding.results(run, limit=1, live=True)
    assert asked == [{"scan_uid": "run-1"}, {"scan_uid": "run-1", "limit": 1, "live": True}]
