"""Real scans through the command line: every algorithm and the default recipe, scored by a script that is not ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.parallel import recipe_of
from benchmarks.problems import ROOT, real, script
from benchmarks.table import Table, verdict
from ptyplugin.model import DEFAULT_RECIPE

ITERATIONS = 60
RECIPES = ["DM", "RAAR", "AP", "ePIE", "rPIE", "mPIE", "LSQML", "ML"]
#: Title, file, options, largest error of the default recipe, most seconds, what peers reached.
SCANS = {
    "Velociprobe, 2 modes": ("aps_velociprobe_siemens.cxi", ["--probe-modes", "2"], 0.0090, 60.0, "pty-chi LSQML 0.00905 in 175 CPU s"),
    "P25, near field, sub-pixel": ("petra3_p25_nearfield_siemens.cxi", [], 0.0039, None, "PtyPy DM, then ML 0.00387"),
}
#: Largest held-out error, by the fitted one.
_HELD_OUT = 1.25


def run(quick: bool) -> list[Table]:
    """One table for each scan."""
    return [_table(title, quick, *scan) for title, scan in SCANS.items()]


def _table(title: str, quick: bool, file: str, options: list[str], error: float, seconds: float | None, peers: str) -> Table:
    columns = ["recipe", "error", "held out", "noise floor", "score_real", "seconds", "verdict", "limits", "picture"]
    table = Table(f"Real data: {title}", columns)
    table.notes.append(f"`ptyplugin reconstruct` on all cores; peers: {peers}. score_real: error by ../shared/bench/score_real.py.")
    path, out = real(file), ROOT / ".benchmarks" / Path(file).stem
    out.mkdir(parents=True, exist_ok=True)
    recipes = {name: str(recipe) for name in RECIPES if (recipe := recipe_of(name, 2 if quick else ITERATIONS))}
    for name, recipe in (recipes | {"default": "ePIE(2)" if quick else DEFAULT_RECIPE}).items():
        result, picture = out / f"{name}.h5", out / f"{name}.png"
        command = [sys.executable, "-m", "ptyplugin", "reconstruct", str(path), "--recipe", recipe, *options, "--json"]
        done = subprocess.run([*command, "-o", str(result), "--png", str(picture)], cwd=ROOT, capture_output=True, text=True, check=False)
        shown = recipe if name != "default" else f"default: {recipe}"
        if done.returncode:
            table.add(shown, "FAILED: " + done.stderr.strip()[:200], *[None] * 7)
            continue
        said = json.loads(done.stdout)
        limits = _limits(said, error, seconds) if name == "default" else None
        quality = said["quality"]
        known = [quality["error"], quality.get("held_out_error"), quality.get("noise_floor"), _score(path, result)]
        table.add(shown, *known, said["seconds"], (said["verdict"] or {}).get("word"), limits, picture.relative_to(ROOT).as_posix())
    return table


def _score(path: Path, result: Path) -> float:
    scorer = script("score_real")
    data = scorer.load_data(str(path))
    return float(scorer.score(data, *scorer.load_result(str(result), data))["error"])


def _limits(said: dict[str, Any], error: float, seconds: float | None) -> str:
    quality = said["quality"]
    words = ["error " + verdict(quality["error"], error)]
    if seconds is not None:
        words.append("s " + verdict(said["seconds"], seconds))
    if "held_out_error" in quality:
        words.append("held out " + verdict(quality["held_out_error"] / quality["fitted_error"], _HELD_OUT))
    return "; ".join(words)
