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

from benchmarks.faults.beamline import beamline
from benchmarks.faults.disk import disk
from benchmarks.faults.fuzz import fuzz
from benchmarks.faults.kills import Plan, kills
from benchmarks.faults.small import small
from benchmarks.faults.table import Row, Scanned, table, table_of_scans

#: Part -> what it does in the short form and in the long one.
PARTS: Mapping[str, tuple[Callable[[], list[Row]], Callable[[], list[Row]]]] = {
    "kills": (lambda: kills(Plan(20, 1, 10.0, 30.0, 40.0, 240.0)), lambda: kills(Plan(500, 5, 40.0, 420.0, 960.0, 1860.0))),
    "disk": (lambda: disk(5, 10.0), lambda: disk(20, 10.0)),
    "small": (lambda: small(6), lambda: small(50)),
    "fuzz": (lambda: fuzz(300), lambda: fuzz(10_000)),
}
#: What may happen to a scan has a table of its own.
BEAMLINE = "beamline"
RESULTS = Path(__file__).resolve().parents[1] / "results"


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, BEAMLINE, []], help="all if absent")
    parser.add_argument("--short", action="store_true", help="fewer jobs, kills and examples: minutes")
    given = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    logging.disable(logging.CRITICAL)
    rows: list[Row] = []
    scans: list[Scanned] = []
    for part in given.part or (*PARTS, BEAMLINE):
        loads = [os.getloadavg()[0]]
        if part == BEAMLINE:
            scans = beamline(given.short)
            if not given.short:
                keep_scans(scans, [*loads, os.getloadavg()[0]], RESULTS)
            continue
        found = PARTS[part][0 if given.short else 1]()
        rows += found
        sys.stderr.write(f"{part} is done\n")
        if not given.short:
            keep(part, found, [*loads, os.getloadavg()[0]], RESULTS)
    print("\n\n".join([table(rows)] * bool(rows) + [table_of_scans(scans)] * bool(scans)))
    return int(any(row.lost for row in rows) or any(scan.lost or scan.missed for scan in scans))


def keep(part: str, rows: list[Row], loads: list[float], folder: Path) -> None:
    """Put what came of a part beside what came of the others before. loads: of the machine, before and after"""
    path = folder / "faults.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    kept[part] = {"at": _now(), "machine": _machine(), "load": loads, "rows": [asdict(row) for row in rows]}
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


def keep_scans(scans: list[Scanned], loads: list[float], folder: Path) -> None:
    """Put what came of misfortunes of scans into a file of its own. loads: of the machine, before and after"""
    lines = [
        "# What may happen to a scan",
        "",
        "One after the other over real Channel Access and PVAccess; `benchmarks/faults/README.md` says what is expected of each.",
        "",
        f"`make faults PART={BEAMLINE}`, {_now()}, {_machine()}, load {loads[0]:.1f} before and {loads[1]:.1f} after",
        "",
        table_of_scans(scans),
    ]
    (folder / "beamline_faults.md").write_text("\n".join(lines) + "\n")


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
