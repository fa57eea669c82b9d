"""What the doctor says about one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: missing: it works without, less well; wrong: something that is needed, or was asked for, does not work.
State = Literal["ok", "missing", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``about``: what was looked at; ``said``: what was found; ``todo``: what to do about it, if anything."""

    about: str
    state: State
    said: str
    todo: str = ""


def in_gb(size_bytes: float) -> str:
    """In words."""
    return f"{size_bytes / 1e9:.3g} GB"
