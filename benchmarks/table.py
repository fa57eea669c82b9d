"""Tables: rows of numbers and words, as Markdown for people and as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

Cell = str | float | int | None


@dataclass(slots=True)
class Table:
    """One table; ``notes`` stand below it."""

    title: str
    columns: list[str]
    rows: list[list[Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: Cell) -> None:
        """One more row."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{self.title}: {len(cells)} cells for {len(self.columns)} columns")
        self.rows.append(list(cells))

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [self.columns, ["---"] * len(self.columns), *([_written(cell) for cell in row] for row in self.rows)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([f"## {self.title}", table, *([" ".join(self.notes)] if self.notes else [])]) + "\n"

    def json(self) -> dict[str, Any]:
        """The table as plain data."""
        return asdict(self)


def verdict(value: float, limit: float, most: bool = True) -> str:
    """Whether a number keeps its limit (at most, or at least), in one word with the limit."""
    kept = value <= limit if most else value >= limit
    return f"{'ok' if kept else 'MISSED'} ({'<=' if most else '>='} {limit:.3g})"


def _written(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
