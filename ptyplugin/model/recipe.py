"""Recipe: ordered stages, as text ``DM(200) + ePIE(100, alpha=0.5)`` and as Python ``Stage("DM", 200) + Stage("ePIE", 100)``.

Data, not code: the text is read as a syntax tree and never evaluated. Whether an algorithm and its options exist is
checked by ``ptyplugin.solvers.check_recipe``.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ptyplugin.model.errors import RecipeError

#: What is run when nobody says otherwise: least-squares steps with momentum, positions refined; then shorter steps that average noise out.
DEFAULT_RECIPE = 'LSQML(40, momentum=0.9, positions="gradient") + LSQML(15, momentum=0.9, object_step=0.1, probe_step=0.1)'

Option = bool | int | float | str

_LONGEST_TEXT = 2000
#: Whole numbers up to here are the same as integers and as floats.
_EXACT = 2.0**53
_EXAMPLE = 'Write for example "DM(200) + ePIE(100, object_step=0.5)".'


@dataclass(frozen=True, slots=True)
class Stage:
    """One algorithm, run for a number of iterations with options."""

    algorithm: str
    iterations: int
    options: Mapping[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.algorithm, *self.options):
            if not (name.isascii() and name.isidentifier()):
                raise RecipeError(f"{name!r} is no name of an algorithm or option. {_EXAMPLE}")
        if isinstance(self.iterations, bool) or not 0 < self.iterations <= 1_000_000:
            raise RecipeError(f"{self.algorithm}({self.iterations}): iterations must be 1 .. 1000000. {_EXAMPLE}")
        for name, value in self.options.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise RecipeError(f"{self.algorithm}: {name} = {value} is not finite. {_EXAMPLE}")
        object.__setattr__(self, "options", {name: _canonical(value) for name, value in self.options.items()})

    def __str__(self) -> str:
        words = [str(self.iterations), *(f"{name}={_written(self.options[name])}" for name in sorted(self.options))]
        return f"{self.algorithm}({', '.join(words)})"

    def __add__(self, other: Stage | Recipe) -> Recipe:
        return Recipe((self,)) + other

    def __mul__(self, times: int) -> Recipe:
        return Recipe((self,)) * times


@dataclass(frozen=True, slots=True)
class Recipe:
    """Stages, walked in order. ``str(recipe)`` is its canonical text, and ``Recipe.parse(str(recipe)) == recipe``."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise RecipeError(f"the recipe is empty. {_EXAMPLE}")

    def __str__(self) -> str:
        return " + ".join(str(stage) for stage in self.stages)

    def __add__(self, other: Stage | Recipe) -> Recipe:
        return Recipe(self.stages + (other.stages if isinstance(other, Recipe) else (other,)))

    def __mul__(self, times: int) -> Recipe:
        if times < 1:
            raise RecipeError(f"a recipe times {times} is empty: multiply by 1 or more.")
        return Recipe(self.stages * times)

    @property
    def iterations(self) -> int:
        """Iterations of all stages together."""
        return sum(stage.iterations for stage in self.stages)

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Read a recipe from its text.

        Raises:
            RecipeError: the text is no recipe; the message quotes the part that is wrong.
        """
        if len(text) > _LONGEST_TEXT:
            raise RecipeError(f"the recipe has {len(text)} characters; at most {_LONGEST_TEXT} are read.")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise RecipeError(f"{text!r} is no recipe. {_EXAMPLE}") from error
        return cls(tuple(_stages(tree, text)))


def _stages(node: ast.expr, text: str) -> list[Stage]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_stages(node.left, text), *_stages(node.right, text)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        times = _constant(node.right, text)
        if isinstance(times, bool) or not isinstance(times, int) or not 1 <= times <= 1000:
            raise _wrong(node, text)
        return _stages(node.left, text) * times
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1):
        raise _wrong(node, text)
    iterations = _constant(node.args[0], text)
    if isinstance(iterations, bool) or not isinstance(iterations, int):
        raise _wrong(node, text)
    options: dict[str, Option] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise _wrong(node, text)
        options[keyword.arg] = _constant(keyword.value, text)
    return [Stage(node.func.id, iterations, options)]


def _constant(node: ast.expr, text: str) -> Option:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _constant(node.operand, text)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return -value
    if isinstance(node, ast.Name):
        raise RecipeError(
            f'recipe {text!r}: {node.id} stands without quotes. As an option it is "{node.id}", and in a shell the whole recipe then '
            f"stands between '...'. {_EXAMPLE}"
        )
    raise _wrong(node, text)


def _wrong(node: ast.expr, text: str) -> RecipeError:
    part = ast.get_source_segment(text.strip(), node) or text
    return RecipeError(f"recipe {text!r}: {part!r} is not an algorithm with a number of iterations. {_EXAMPLE}")


def _canonical(value: Option) -> Option:
    """1.0 is 1: one recipe has one text, and one job key."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT else value


def _written(value: Option) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
