"""``python -m benchmarks.faults [--short] [PART ...]``: put faults in, count what is lost, print the table; fails if anything was."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping

from benchmarks.faults.disk import disk
from benchmarks.faults.fuzz import fuzz
from benchmarks.faults.kills import kills
from benchmarks.faults.small import small
from benchmarks.faults.table import Row, table

#: Part -> what it does in the short form and in the long one.
PARTS: Mapping[str, tuple[Callable[[], list[Row]], Callable[[], list[Row]]]] = {
    "kills": (lambda: kills(20, 1, 10.0, 40.0, 240.0), lambda: kills(500, 5, 40.0, 2400.0, 3600.0)),
    "disk": (lambda: disk(5, 10.0), lambda: disk(20, 10.0)),
    "small": (lambda: small(6), lambda: small(50)),
    "fuzz": (lambda: fuzz(300), lambda: fuzz(10_000)),
}


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
        rows += PARTS[part][0 if given.short else 1]()
        sys.stderr.write(f"{part} is done\n")
    print(table(rows))
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
