"""Options of an algorithm: a frozen dataclass whose fields know their range."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ptyplugin.model import RecipeError


def option(default: float, lowest: float, highest: float, meaning: str) -> Any:
    """A field with its default, its range (both ends allowed) and one line for people."""
    return dataclasses.field(default=default, metadata={"lowest": lowest, "highest": highest, "meaning": meaning})


def choice(default: str, words: tuple[str, ...], meaning: str) -> Any:
    """A field that is one of some words, with its default and one line for people."""
    return dataclasses.field(default=default, metadata={"words": words, "meaning": meaning})


def read_options(kind: type[Any], algorithm: str, given: Mapping[str, Any], beside: type[Any] | None = None) -> Any:
    """The options ``kind`` of ``algorithm`` from the words of a recipe.

    beside: options that the recipe can give too, and that are read elsewhere

    Raises:
        RecipeError: an unknown option, a value of the wrong type or out of its range; the message names those that exist.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name, value in given.items():
        if name not in fields:
            also = f"; and, as every stage, {_defaults(beside)}" if beside else ""
            raise RecipeError(f"{algorithm} has no option {name!r}: it has {_defaults(kind)}{also}.")
        _check(algorithm, fields[name], value)
    return kind(**given)


def _defaults(kind: type[Any]) -> str:
    """Options as a recipe writes them, with their defaults."""
    return ", ".join(f"{field.name}={json.dumps(field.default)}" for field in dataclasses.fields(kind))


def _check(algorithm: str, field: dataclasses.Field[Any], value: Any) -> None:
    if "words" in field.metadata:
        _check_word(algorithm, field, value)
        return
    lowest, highest = field.metadata["lowest"], field.metadata["highest"]
    whole = isinstance(field.default, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise RecipeError(f"{algorithm}: {field.name} = {value!r} is no {'whole ' if whole else ''}number ({field.metadata['meaning']}).")
    if not lowest <= value <= highest:
        raise RecipeError(
            f"{algorithm}: {field.name} = {value:g} is outside {lowest:g} .. {highest:g} ({field.metadata['meaning']}): "
            f"its default is {field.default:g}."
        )


def _check_word(algorithm: str, field: dataclasses.Field[Any], value: Any) -> None:
    words = field.metadata["words"]
    if value not in words:
        raise RecipeError(
            f"{algorithm}: {field.name} = {value!r} is none of {', '.join(words)} ({field.metadata['meaning']}): "
            f"its default is {field.default}."
        )
