"""The table of faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


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


@dataclass
class Scanned:
    """A misfortune of a scan and what came of it.

    said: by the session, or in the notes of the result; live, final: what its jobs gave
    lost: images that should be there and are not; missed: what else was expected, and did not come
    """

    misfortune: str
    said: str = ""
    live: str = ""
    final: str = ""
    lost: int = 0
    seconds: float = 0.0
    missed: list[str] = field(default_factory=list)

    def want(self, is_so: bool, what: str) -> None:
        """Note what is not as it should be."""
        if not is_so:
            self.missed.append(what)


def table_of_scans(scans: Sequence[Scanned]) -> str:
    """The table as Markdown."""
    lines = ["| misfortune | said | live image | final image | images lost | s | |", "|---|---|---|---|---:|---:|---|"]
    for scan in scans:
        verdict = f"MISSED: {'; '.join(scan.missed)}" if scan.missed else "MISSED" if scan.lost else "ok"
        told = " | ".join(cell.replace("|", "/").replace("\n", " ") or "-" for cell in (scan.said, scan.live, scan.final))
        lines.append(f"| {scan.misfortune} | {told} | {scan.lost} | {scan.seconds:.0f} | {verdict} |")
    return "\n".join([*lines, "", f"images lost in all: {sum(scan.lost for scan in scans)}"])
