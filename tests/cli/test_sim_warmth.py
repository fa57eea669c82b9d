"""Demo and simulated session wait until the solver is warm, and go on with a sentence if it never gets so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ptyplugin.cli import demo_walk, service_view, sim_session, sim_site
from ptyplugin.model import LedgerError, Site


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_site, "_ASK_S", 0.001)


def test_it_waits_until_the_solver_is_warm() -> None:
    said = iter([(False, ""), (False, ""), (True, "")])
    assert sim_site.why_cold(lambda: next(said)) == ""
    assert next(said, None) is None


def test_what_keeps_it_cold_is_said_at_once() -> None:
    assert sim_site.why_cold(lambda: (False, "there is no mpiexec.")) == "there is no mpiexec."


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_site, "_PATIENCE_S", 0.02)
    assert sim_site.why_cold(lambda: (False, "")).startswith("the solver is not warm after 0.02 s: this goes on without")


@contextmanager
def process(code: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as running:
        yield running


class FakeView:
    """A daemon that answers ``said``."""

    def __init__(self, said: list[dict[str, Any]] | None) -> None:
        self.said = said

    def slots(self) -> list[dict[str, Any]]:
        if self.said is None:
            raise LedgerError("the daemon does not answer.")
        return self.said


WARM = {"name": "slot 1", "ok": True, "ready": True, "sentence": "waits for a job"}


@pytest.mark.parametrize(
    ("said", "warmth"),
    [
        ([WARM], (True, "")),
        ([WARM, {**WARM, "ready": False}], (False, "")),
        ([WARM, {**WARM, "ready": False, "job": "0123456789abcdef"}], (True, "")),
        ([], (False, "")),
        (None, (False, "")),
        ([{**WARM, "ok": False, "ready": False, "sentence": "there is no mpiexec."}], (False, "there is no mpiexec.")),
    ],
)
def test_the_session_asks_the_service(monkeypatch: pytest.MonkeyPatch, said: list[dict[str, Any]] | None, warmth: tuple[bool, str]) -> None:
    monkeypatch.setattr(service_view, "service_of", lambda _: FakeView(said))
    with process("input()") as running:
        assert sim_session._warmth(Site(), running, Path("serve.log")) == warmth
        monkeypatch.setattr(service_view, "service_of", lambda _: None)
        assert sim_session._warmth(Site(), running, Path("serve.log")) == (False, "")
        running.communicate(b"\n")


def test_a_service_that_has_ended_is_not_waited_for() -> None:
    with process("") as running:
        running.wait()
        is_warm, trouble = sim_session._warmth(Site(), running, Path("serve.log"))
    assert not is_warm
    assert trouble.startswith("the reconstruction service has ended; its log is serve.log.")


def test_the_demo_asks_its_slots() -> None:
    slots = [SimpleNamespace(is_warm=True, trouble=None), SimpleNamespace(is_warm=False, trouble=None)]
    service = demo_walk._Service(SimpleNamespace(slots=slots), [])  # type: ignore[arg-type]
    assert service.warmth() == (False, "")
    slots[1].is_warm = True
    assert service.warmth() == (True, "")
    slots[0].trouble = "there is no mpiexec."
    assert service.warmth()[1] == "there is no mpiexec."
    slots[0].trouble = None
    service.errors.append(LedgerError("the ledger cannot be written."))
    assert service.warmth()[1] == "the ledger cannot be written."


def test_pictures_on_the_way_are_counted_by_what_they_show(tmp_path: Path) -> None:
    drawn = demo_walk.Pictures()
    assert str(drawn) == "no pictures: the scan was over before its first image"
    drawn.final.append(tmp_path / "b.png")
    assert str(drawn) == f"{tmp_path}, pictures on the way: 1 of the final image"
    drawn.live.extend([tmp_path / "a.png"] * 2)
    assert str(drawn) == f"{tmp_path}, pictures on the way: 2 of the live image and 1 of the final image"
