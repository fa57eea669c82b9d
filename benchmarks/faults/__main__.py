"""``python -m benchmarks.faults [--short] [PART ...]``: put faults in, count what is lost, print the table; fails if anything was.

The long form keeps what came of each part in ``benchmarks/results/faults.json`` and ``faults.md``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.faults.disk import disk
from benchmarks.faults.fuzz import fuzz
from benchmarks.faults.kills import Plan, kills
from benchmarks.faults.small import small
from benchmarks.faults.table import Row, table

#: Part -> what it does in the short form and in the long one.
PARTS: Mapping[str, tuple[Callable[[], list[Row]], Callable[[], list[Row]]]] = {
    "kills": (lambda: kills(Plan(20, 1, 10.0, 30.0, 40.0, 240.0)), lambda: kills(Plan(500, 5, 40.0, 420.0, 960.0, 1860.0))),
    "disk": (lambda: disk(5, 10.0), lambda: disk(20, 10.0)),
    "small": (lambda: small(6), lambda: small(50)),
    "fuzz": (lambda: fuzz(300), lambda: fuzz(10_000)),
}
RESULTS = Path(__file__).resolve().parents[1] / "results"


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="all if absent")
    parser.add_argument("--short", action="store_true", help="fewer jobs, kills and examples: minutes")
    given = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    logging.disable(logging.CRITICAL)
    rows: list[Row] = []
    for part in given.part or PARTS:
        loads = [os.getloadavg()[0]]
        found = PARTS[part][0 if given.short else 1]()
        rows += found
        sys.stderr.write(f"{part} is done\n")
        if not given.short:
            keep(part, found, [*loads, os.getloadavg()[0]], RESULTS)
    print(table(rows))
    return int(any(row.lost for row in rows))


def keep(part: str, rows: list[Row], loads: list[float], folder: Path) -> None:
    """Put what came of a part beside what came of the others before. loads: of the machine, before and after"""
    path = folder / "faults.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    kept[part] = {"at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "machine": machine, "load": loads, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(kept, indent=1) + "\n")
    lines = [
        "# What the service lost",
        "",
        "By `make faults` (`PART=kills` for one part); see `benchmarks/faults/README.md` for what counts as lost.",
    ]
    for name, each in kept.items():
        said = f"{each['at']}, {each['machine']}, load {each['load'][0]:.1f} before and {each['load'][1]:.1f} after"
        lines += ["", f"## {name}", "", f"`make faults PART={name}`, {said}", "", table([Row(**row) for row in each["rows"]])]
    (folder / "faults.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
