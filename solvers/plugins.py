"""Algorithms of other packages, found through their entry points in the group ``ptyplugin.algorithms``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, get_args

from ptyplugin.model import ErrorName, RecipeError
from ptyplugin.solvers.verbs import DeviceScalar

GROUP = "ptyplugin.algorithms"

Walks = Literal["blocks", "random batches", "chosen batches"]
KeepsWaves = bool | Literal["where they fit"]

#: Options that the runner reads.
_NEEDED: dict[Walks, tuple[str, ...]] = {"blocks": (), "random batches": ("batch",), "chosen batches": ("batch", "batches")}


@dataclass(frozen=True, slots=True)
class Algorithm:
    """An algorithm as the runner knows it.

    sweep(state, batches, verbs, ranks, options, iteration) does one iteration and gives the sum, over all ranks, behind ``measures``
    options: frozen dataclass whose fields are made by ``ptyplugin.solvers.options.option``
    walks: fixed blocks of frames; batches of ``options.batch`` frames drawn at random; or, by choice of ``options.batches``, such
        ("sparse") or of neighbours ("compact")
    keeps_waves: whether State.waves is filled before its first sweep. "where they fit": nothing in them is of the sweep before, and where
        there are none a sweep computes them again, which it cannot if ``options.needs_waves``
    phase(options, iteration): what of the iteration's number a sweep depends on: iterations of one phase do the same to the arrays, and
        a device may do one again without asking ``sweep``. None: this one looks at numbers. No ``phase``: none is done again.
    lengths(options, iteration): numbers that may differ within a phase: a sweep finds them in State.memory["lengths"], where verbs compute
    """

    sweep: Callable[..., DeviceScalar]
    options: type[Any]
    walks: Walks
    keeps_waves: KeepsWaves
    measures: ErrorName
    phase: Callable[[Any, int], Hashable] | None = None
    lengths: Callable[[Any, int], tuple[float, ...]] | None = None

    def stores_waves(self, options: Any, recomputes: bool) -> bool:
        """Whether sweeps with these options work on stored waves. ``recomputes``: those that can do without do."""
        return self.keeps_waves is True or (self.keeps_waves == "where they fit" and (options.needs_waves or not recomputes))


@functools.cache
def installed() -> dict[str, tuple[EntryPoint, ...]]:
    """Entry points by the name of their algorithm. Nothing is imported."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=GROUP):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def check_only_one(name: str, built_in: bool) -> None:
    """Check that an algorithm's name means one thing.

    Raises:
        RecipeError: several packages provide it; the message names them.
    """
    packages = [*(["ptyplugin itself"] if built_in else []), *map(_package, installed().get(name, ()))]
    if len(packages) > 1:
        raise RecipeError(f"the algorithm {name!r} is provided by {' and by '.join(packages)}: uninstall or update all but one of them.")


@functools.cache
def load(name: str) -> Algorithm:
    """The algorithm of this name from the package that has it.

    Raises:
        RecipeError: it cannot be imported, or is none; the message names the package.
    """
    (point,) = installed()[name]
    try:
        loaded = point.load()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RecipeError(
            f"the algorithm {name!r} of {_package(point)} cannot be loaded ({point.value} gave {reason}): update or uninstall that package."
        ) from error
    wrong = _what_is_wrong_with(loaded)
    if wrong:
        raise RecipeError(
            f"the algorithm {name!r} of {_package(point)} cannot be used ({point.value} {wrong}): update or uninstall that package."
        )
    algorithm: Algorithm = loaded
    return algorithm


def _what_is_wrong_with(loaded: Any) -> str:
    if not isinstance(loaded, Algorithm):
        return f"is of type {type(loaded).__name__}, not a ptyplugin.solvers.Algorithm"
    if not (callable(loaded.sweep) and dataclasses.is_dataclass(loaded.options)):
        return "needs a function as its sweep and a dataclass as its options"
    for name, function in (("phase", loaded.phase), ("lengths", loaded.lengths)):
        if function is not None and not callable(function):
            return f"needs a function as its {name}, or none"
    if loaded.keeps_waves not in (True, False, "where they fit"):
        return f"has keeps_waves={loaded.keeps_waves!r}, which is neither True nor False nor 'where they fit'"
    if loaded.keeps_waves == "where they fit" and not hasattr(loaded.options, "needs_waves"):
        return "keeps waves where they fit, but its options do not say needs_waves"
    if loaded.walks not in get_args(Walks) or loaded.measures not in get_args(ErrorName):
        return f"has walks={loaded.walks!r} and measures={loaded.measures!r}, of which one does not exist"
    fields = {field.name: field for field in dataclasses.fields(loaded.options)}
    plain = [name for name, field in fields.items() if "meaning" not in field.metadata]
    if plain:
        return f"has options that are not made by option(): {', '.join(plain)}"
    missing = [name for name in _NEEDED[loaded.walks] if name not in fields]
    return f"walks in {loaded.walks}, but has no option {missing[0]!r}" if missing else ""


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
