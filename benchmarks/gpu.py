"""All that there is to know on a machine with a GPU, in 8 minutes: ``python -m benchmarks.gpu [--out FILE.json]``.

Runs from a plain checkout with Python 3.11 or newer, NumPy, SciPy, pydantic and CuPy; says in one line what is missing. What matters most
comes first, and is in the file as soon as it is known. Each step is a process of its own, so that one that fails, hangs or breaks the
card's context takes no other with it. ``--shim`` runs all of it on the CPU's stand-in for a GPU, on tiny problems, in one process: its
times mean nothing. ``python -m benchmarks.gpu_table`` makes the table of the documentation.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu_device import ROOT, machine, missing, opened

Row = dict[str, Any]
OUT = ROOT / "benchmarks" / "results" / "gpu.json"
#: Of tiny problems, and of the shim: not where the page of the documentation looks.
QUICK = OUT.with_name("quick.gpu.json")
#: Steps and the most seconds of each, most important first.
STEPS = {
    "copy": 20,
    "verbs": 80,
    "algorithms": 70,
    "graphs": 30,
    "DM 256 px, 1 mode": 60,
    "DM 200 px, 1 mode": 45,
    "showcase": 40,
    "DM 256 px, 5 modes": 75,
    "DM 200 px, 5 modes": 60,
    "engines": 60,
    "sums": 30,
    "transforms": 20,
    "ranks": 40,
    "sanitizer": 60,
    "peers": 60,
    "profiler": 60,
    "tests": 180,
}
#: Less is not worth to start a step with, s.
_LEAST_S = 5.0


@dataclass
class Report:
    """What is known so far, and the file it is in."""

    path: Path
    known: Row
    steps: dict[str, Row] = field(default_factory=dict)

    def put(self, name: str, step: Row) -> None:
        """One more step, or more of it."""
        self.steps[name] = step
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({"machine": self.known, "steps": self.steps}, indent=1, default=float) + "\n", encoding="utf-8")
        part.replace(self.path)


class Heard(logging.Handler):
    """What the package warned of, once each: a sweep that could not be recorded, a plan that did not fit."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if said not in self.said:
            self.said.append(said)


def work_of(name: str) -> Callable[[Any], None]:
    """The function of a step."""
    from benchmarks import gpu_correct, gpu_others, gpu_steps

    maps = {f"DM {side} px, {modes} mode{'s' if modes > 1 else ''}": (side, modes) for side in (256, 200) for modes in (1, 5)}
    if name in maps:
        return gpu_steps.difference_map(*maps[name])
    return {
        "copy": gpu_steps.copy,
        "verbs": gpu_correct.verbs,
        "algorithms": gpu_correct.algorithms,
        "graphs": gpu_correct.graphs,
        "showcase": gpu_steps.showcase,
        "transforms": gpu_steps.transforms,
        "engines": gpu_steps.algorithms,
        "sums": gpu_steps.sums,
        "small": gpu_steps.small,
        "profiled": gpu_steps.profiled,
        "tests": gpu_others.tests,
        "ranks": gpu_others.ranks,
        "sanitizer": gpu_others.sanitizer,
        "profiler": gpu_others.profiler,
        "peers": gpu_others.peers,
    }[name]


def here(name: str, asked: argparse.Namespace, seconds: float, add: Callable[[Row], None]) -> Row:
    """Do a step in this process; ``add`` takes its rows as they come. Gives how it went."""
    from benchmarks.gpu_steps import Bench

    ends, heard = time.monotonic() + seconds, Heard()
    logging.getLogger("ptyplugin").addHandler(heard)

    def added(row: Row) -> None:
        add(row)
        if time.monotonic() > ends:
            raise TimeoutError

    went: Row = {"state": "done"}
    try:
        work_of(name)(Bench(opened(asked.shim), asked.shim, asked.shim or asked.quick, added, lambda: ends - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
        went = {"state": "out of time"}
    except Exception as error:  # whatever it is: it is written down, and the next step goes on
        went = {"state": "failed", "why": f"{type(error).__name__}: {error}", "where": traceback.format_exc()[-2000:]}
    finally:
        logging.getLogger("ptyplugin").removeHandler(heard)
    return went | ({"warnings": heard.said[:10]} if heard.said else {})


def apart(name: str, asked: argparse.Namespace, seconds: float, add: Callable[[Row], None]) -> Row:
    """Do a step in a process of its own, which is ended when its time is up."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows"
        rows.touch()
        flags = [f"--{flag}" for flag in ("shim", "quick") if getattr(asked, flag)]
        command = [sys.executable, "-m", "benchmarks.gpu", "--step", name, "--rows", str(rows), "--seconds", str(seconds), *flags]
        went: Row = {"state": "out of time"}
        try:
            # A little more than it allows itself: it may be stuck.
            code = subprocess.run(command, cwd=ROOT, check=False, timeout=seconds + 5).returncode
            went = {"state": "failed", "why": f"its process ended with code {code}"}
        except subprocess.TimeoutExpired:
            went["why"] = "its process was ended"
        for line in rows.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "state" in row:
                went = row
            else:
                add(row)
    return went


def everything(asked: argparse.Namespace) -> Report:
    """All steps, or those that were asked for, within their time."""
    ends = time.monotonic() + 60 * asked.minutes
    known = {"date": datetime.now(UTC).isoformat(timespec="minutes"), "minutes": asked.minutes, "quick": asked.quick, **machine(asked.shim)}
    report = Report(asked.out, known)
    print(json.dumps(known, default=str), flush=True)
    for name in asked.steps or STEPS:
        began, rows = time.monotonic(), list[Row]()
        seconds = min(float(STEPS[name]), ends - began - _LEAST_S)
        if seconds < _LEAST_S:
            report.put(name, {"state": "skipped", "why": "no time is left", "rows": []})
            continue
        print(f"\n== {name}: {seconds:.0f} s at most", flush=True)
        went = (here if asked.shim and not asked.apart else apart)(name, asked, seconds, rows.append)
        report.put(name, {**went, "seconds": round(time.monotonic() - began, 2), "rows": [_with_share(row, report) for row in rows]})
        for row in (*report.steps[name]["rows"], *({"warning": said} for said in went.get("warnings", []))):
            print(_said(row), flush=True)
        print(f"-- {went['state']} {went.get('why', '')} after {time.monotonic() - began:.0f} s", flush=True)
    return report


def _with_share(row: Row, report: Report) -> Row:
    """With its share of the copy's bandwidth."""
    there = report.steps.get("copy", {}).get("rows", [])
    return row | {"of_copy": row["gb_per_s"] / there[0]["gb_per_s"]} if there and "gb_per_s" in row else row


def _said(row: Row) -> str:
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())


def _arguments() -> argparse.Namespace:
    words = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    words.add_argument("--out", type=Path, help=f"the file that all is written to; {OUT.name}, or {QUICK.name}, in benchmarks/results")
    words.add_argument("--minutes", type=float, default=8.0, help="the most that it may take")
    words.add_argument("--quick", action="store_true", help="tiny problems on the GPU: shows that everything runs, the times mean nothing")
    words.add_argument("--shim", action="store_true", help="without a GPU, on tiny problems: needs g++")
    words.add_argument("--apart", action="store_true", help="with --shim: each step in a process of its own, as on a GPU")
    words.add_argument("--steps", nargs="*", choices=STEPS, metavar="STEP", help=f"of {', '.join(STEPS)}; all if none is given")
    words.add_argument("--step", help=argparse.SUPPRESS)
    words.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    words.add_argument("--seconds", type=float, default=3600.0, help=argparse.SUPPRESS)
    asked = words.parse_args()
    asked.out = asked.out or (QUICK if asked.shim or asked.quick else OUT)
    return asked


def main() -> None:
    asked = _arguments()
    lacking = missing(asked.shim)
    if lacking:
        raise SystemExit(lacking)
    if not asked.step:
        everything(asked)
        return

    def add(row: Row) -> None:
        if asked.rows:
            with asked.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, default=float) + "\n")

    went = here(asked.step, asked, asked.seconds, add)
    add(went)
    if went["state"] != "done" and not asked.rows:
        raise SystemExit(went.get("where") or went["state"])


if __name__ == "__main__":
    main()
