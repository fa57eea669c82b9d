"""What is wrong in a site file, in sentences: each field, its value, and what to write instead."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

#: Characters of a wrong value that are shown.
_SHOWN = 80
#: What pydantic says of a value of the wrong kind, in terms of what is to be written.
_INSTEAD: Mapping[str, str] = {
    "path_type": 'write a path in quotes, such as "/data"',
    "string_type": "write a text in quotes",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "list_type": "write a list in brackets: [..., ...]",
    "dict_type": "write a table",
    "model_attributes_type": "write a table, under a headline in double brackets",
}


def said_wrong(error: ValidationError, keys: Collection[str]) -> str:
    """All that is wrong, one sentence each. keys: all that there are"""
    return " ".join(f"{_place(each)}: {_advice(each, keys)}" for each in error.errors(include_url=False))


def _place(wrong: ErrorDetails) -> str:
    """``slot 2 ranks``: tables and items of lists are counted from 1."""
    return " ".join(str(part + 1) if isinstance(part, int) else part for part in wrong["loc"]) or "the file"


def _advice(wrong: ErrorDetails, keys: Collection[str]) -> str:
    value = _shown(wrong["input"])
    match wrong["type"]:
        case "extra_forbidden":
            close = get_close_matches(str(wrong["loc"][-1]), keys, 1)
            return f"there is no such key: {f'did you mean {close[0]}?' if close else 'the reference of the site file has all.'}"
        case "missing":
            return "this key is missing: add it."
        case "union_tag_not_found":
            return 'this table has no kind: add one, such as kind = "zmq".'
        case "union_tag_invalid":
            kinds = wrong["ctx"]["expected_tags"].replace("'", "")
            return f"there is no kind {wrong['ctx']['tag']!r}: write one of {kinds}."
        case kind if kind in _INSTEAD:
            return f"it is {value}: {_INSTEAD[kind]}."
        case _:
            return f"{wrong['msg'].removeprefix('Value error, ').rstrip('.')} (it is {value})."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
