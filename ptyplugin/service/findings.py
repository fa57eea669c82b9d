"""What the doctor says about one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ptyplugin.solvers.selftest import LARGEST_DIFFERENCE, SIDE_PX, Speed

#: missing: it works without, less well; warning: it works, but not well; wrong: something that is needed, or was asked for, does not work.
State = Literal["ok", "not needed", "missing", "warning", "wrong"]


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


def self_tested(what: str, speed: Speed, apart: float, how: str, more: str) -> Finding:
    """A self-test. apart: from the reference, relative; how: it was done; more: to say, if all is well or not"""
    said = (
        f"{how} copies {_in_figures(speed.copy / 1e9)} GB/s and makes {_in_figures(speed.transforms)} transforms of "
        f"{SIDE_PX} x {SIDE_PX} px a second{more}; the difference map is the reference's to {apart:.1g}"
    )
    if not apart <= LARGEST_DIFFERENCE:
        todo = "do not trust results of this machine or card; please report it"
        return Finding(f"{what} self-test", "wrong", f"{said}, not to {LARGEST_DIFFERENCE:g}", todo)
    return Finding(f"{what} self-test", "ok", said)


def _in_figures(number: float) -> str:
    """Three digits of it, and no exponent."""
    return f"{float(f'{number:.3g}'):,.15g}"
