"""The piece of a session that beamlines copy."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

import ptyplugin.profiles
from ptyplugin.callbacks import AutoReconstruct, ProgressBars
from ptyplugin.model import ProfileError

SNIPPET = Path(ptyplugin.profiles.__file__).parent / "startup" / "85-ptyplugin.py"


class FakeRunEngine:
    """Notes who subscribes."""

    def __init__(self) -> None:
        self.subscribed: list[Any] = []

    def subscribe(self, callback: Any) -> None:
        self.subscribed.append(callback)


def test_it_subscribes_what_a_session_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PTYPLUGIN_PROFILE", "sim")
    (tmp_path / "site.toml").write_text(f'home = "{tmp_path}"\n')
    monkeypatch.setenv("PTYPLUGIN_SITE", str(tmp_path / "site.toml"))
    engine = FakeRunEngine()
    runpy.run_path(str(SNIPPET), {"RE": engine})
    assert [type(callback) for callback in engine.subscribed] == [AutoReconstruct, ProgressBars]


def test_a_wrong_profile_is_said_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTYPLUGIN_PROFILE", "nobody")
    with pytest.raises(ProfileError, match="nobody"):
        runpy.run_path(str(SNIPPET), {"RE": FakeRunEngine()})
