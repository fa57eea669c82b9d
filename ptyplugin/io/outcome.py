"""How a result turned out, without reading the whole of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ptyplugin.io.hdf5 import RESULT, open_hdf5
from ptyplugin.model import FramesError


def outcome_of(path: Path | None) -> dict[str, Any]:
    """``error``, ``verdict``, ``verdict_reasons`` and ``made_by`` (the version) of a result file; all None where there is none to read."""
    nothing: dict[str, Any] = dict.fromkeys(("error", "verdict", "verdict_reasons", "made_by"))
    if path is None:
        return nothing
    try:
        with open_hdf5(path) as file:
            said = dict(file.attrs)
    except (FramesError, OSError, RuntimeError):
        return nothing
    if said.get("format") != RESULT:
        return nothing
    try:
        quality, reasons = json.loads(said.get("quality_json", "{}")), json.loads(said.get("verdict_reasons_json", "null"))
        versions = json.loads(said.get("versions_json", "{}"))
    except ValueError:
        return nothing
    return {"error": quality.get("error"), "verdict": said.get("verdict"), "verdict_reasons": reasons, "made_by": versions.get("ptyplugin")}
