"""The table of faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A fault: how often it was put in, over how many jobs or examples, and how many results were lost."""

    fault: str
    injected: int
    over: int
    lost: int
    seconds: float
    note: str = ""


def table(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = ["| fault | injected | jobs or examples | lost | s | |", "|---|---:|---:|---:|---:|---|"]
    lines += [f"| {row.fault} | {row.injected} | {row.over} | {row.lost} | {row.seconds:.0f} | {row.note} |" for row in rows]
    return "\n".join([*lines, "", f"lost in all: {sum(row.lost for row in rows)}"])
