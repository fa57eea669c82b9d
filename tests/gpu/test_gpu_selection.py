"""With a real card: it is found, taken, tested, and named in the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ptyplugin.api import reconstruct
from ptyplugin.cli.app import app
from ptyplugin.solvers.devices import look

pytestmark = pytest.mark.gpu


def test_the_doctor_finds_all_well(card: Any) -> None:
    done = CliRunner().invoke(app, ["doctor", "--device", "gpu", "--json"])
    assert done.exit_code == 0, done.output
    about = {finding["about"]: finding for finding in json.loads(done.stdout)["findings"]}
    first = look().driver.cards[0]
    assert about["GPU 0"]["said"].startswith(first.name)
    assert about["GPU 0 self-test"]["state"] == "ok"
    assert first.memory_bytes == pytest.approx(card.memory()[1], rel=0.05)


def test_auto_takes_it(card: Any, small_cxi: Path) -> None:
    made = reconstruct(small_cxi, "DM(20) + ePIE(10)")
    assert made.provenance["device"].startswith("GPU 0, ")
    assert made.quality["error"] < 0.005
