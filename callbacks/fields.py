"""Checked reading of single fields of a foreign document."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_LONGEST_TEXT = 10_000
_MOST_NUMBERS = 1_000_000
#: No point, row or frame has a larger number; those of all their samples still fit into 64 bits.
LARGEST_NUMBER = 2**40


class MalformedDocument(ValueError):
    """A document that does not say what its kind has to say. It is counted and passed over."""


def table(value: Any) -> Mapping[str, Any]:
    """A mapping; raises MalformedDocument for all else."""
    if not isinstance(value, Mapping):
        raise MalformedDocument(f"a {type(value).__name__} stands where a dictionary is expected")
    return value


def text(value: Any) -> str:
    """A text that can be written as UTF-8; raises MalformedDocument for all else."""
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise MalformedDocument(f"a {type(value).__name__} stands where a text of at most {_LONGEST_TEXT} characters is expected")
    value.encode()
    return str(value)


def text_or_none(value: Any) -> str | None:
    """A text that is not empty, or None for everything else."""
    try:
        return text(value) or None
    except ValueError:
        return None


def whole(value: Any, low: int = 0, high: int = 2**53) -> int:
    """A whole number from ``low`` to ``high``; raises MalformedDocument for all else."""
    number = -1 if isinstance(value, bool) else operator.index(value)
    if not low <= number <= high:
        raise MalformedDocument(f"a whole number from {low} to {high} is expected where another stands")
    return number


def whole_or_none(value: Any, low: int = 0) -> int | None:
    """A whole number of at least ``low``, or None for everything else."""
    try:
        return whole(value, low)
    except (TypeError, ValueError):
        return None


def number(value: Any) -> float:
    """A number as float; NaN for what is no number (texts, truth values, arrays of more than one element)."""
    if isinstance(value, np.ndarray | np.generic) and value.size == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def numbers(value: Any) -> tuple[float, ...]:
    """The numbers of a list or of an array of one axis; of anything else what ``number`` makes of it."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, list | tuple) and 0 < len(value) <= _MOST_NUMBERS:
        return tuple(number(each) for each in value)
    return (number(value),)


def moment(value: Any) -> float:
    """A time that can be compared with others; minus infinity where there is none."""
    seconds = number(value)
    return seconds if math.isfinite(seconds) else -math.inf


def span(value: Any, most: int) -> range:
    """A half-open {start, stop} of at most ``most`` numbers; raises MalformedDocument for all else."""
    ends = table(value)
    start, stop = whole(ends["start"], high=LARGEST_NUMBER), whole(ends["stop"], high=LARGEST_NUMBER)
    if stop - start > most:
        raise MalformedDocument(f"{stop - start} frames in one document: at most {most} are read")
    return range(start, max(start, stop))


def shape(value: Any) -> tuple[int, ...] | None:
    """The shape of a data key; None where it is not known."""
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
        return None
    sides = [whole_or_none(side) for side in value]
    return None if None in sides or len(sides) > 8 else tuple(side for side in sides if side is not None)


def at_dotted_key(tree: Mapping[str, Any], key: str) -> Any:
    """The value at a key of the start document; dots go down, unless the key itself has them.

    Raises:
        KeyError: there is none.
    """
    if key in tree:
        return tree[key]
    first, _, rest = key.partition(".")
    if not rest or not isinstance(tree.get(first), Mapping):
        raise KeyError(key)
    return at_dotted_key(tree[first], rest)
