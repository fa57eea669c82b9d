"""All parts, or some: ``python -m benchmarks [PART ...] [--quick] [--name NAME]``.

Prints each table when it is ready, and writes all to benchmarks/results/NAME.json and NAME.md. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import (
    callback_overhead,
    convergence,
    divergence,
    fly_scan,
    live_growth,
    live_job,
    live_tiled,
    memory,
    parallel,
    phases,
    real,
    refinement,
    round_trip,
    service,
    speed,
)
from benchmarks.problems import Absent
from benchmarks.table import Table
from benchmarks.timing import floor_ms, libraries

RESULTS = Path(__file__).resolve().parent / "results"
PARTS: dict[str, Callable[[bool], list[Table]]] = {
    "speed": speed.run,
    "parallel": parallel.run,
    "convergence": convergence.run,
    "memory": memory.run,
    "growth": live_growth.run,
    "synchronisation": phases.run,
    "real": real.run,
    "divergence": divergence.run,
    "positions": refinement.run,
    "service": service.run,
    "live": live_job.run,
    "live_tiled": live_tiled.run,
    "round_trip": round_trip.run,
    "fly": fly_scan.run,
    "callback": callback_overhead.run,
}


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    floors = {fft: min(floor_ms(fft, (128, 128)) for _ in range(5)) for fft in libraries()}
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("ptyplugin", "numpy", "scipy", "numba")},
        "floor_ms": floors,
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def head(known: dict[str, Any]) -> str:
    """The beginning of the page."""
    floors = ", ".join(f"{fft} {value:.3f} ms" for fft, value in known["floor_ms"].items())
    versions = ", ".join(f"{name} {number}" for name, number in known["versions"].items())
    return "\n".join(
        [
            "# Benchmarks on the CPU",
            "",
            f"{known['processor']}, {known['cores']} core(s), load {known['load']:.1f} before; Python {known['python']}, {versions}; "
            f"{known['date']}. Floor, two transforms of 128 x 128 px in place and in the cache: {floors}. Compiled code is warm: what "
            "compiles is left out. Compare ratios to the floor, not times. `make bench` makes this page; benchmarks/README.md says what "
            "each part is.",
            "",
        ]
    )


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    words.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all if none is given")
    words.add_argument("--quick", action="store_true", help="tiny: shows that everything runs, the numbers mean nothing")
    words.add_argument("--name", default="cpu", help="of the files in benchmarks/results")
    asked = words.parse_args()
    unknown = [part for part in asked.parts if part not in PARTS]
    if unknown:
        words.error(f"there is no part {unknown[0]!r}: there are {', '.join(PARTS)}")
    logging.basicConfig(level=logging.ERROR)
    known, tables = machine(), dict[str, Any]()
    page = [head(known)]
    print(page[0], flush=True)
    for part in asked.parts or PARTS:
        began = time.monotonic()
        try:
            made = PARTS[part](asked.quick)
        except Absent as absent:
            made = [Table(part, ["left out"], [[str(absent)]])]
        made[-1].notes.append(f"({part}: {time.monotonic() - began:.0f} s)")
        page += [table.markdown() for table in made]
        print("\n".join(table.markdown() for table in made), flush=True)
        tables[part] = [table.json() for table in made]
        _write(asked.name, known, tables, page)


def _write(name: str, known: dict[str, Any], tables: dict[str, Any], page: list[str]) -> None:
    """What there is so far."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": known, "parts": tables}, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
