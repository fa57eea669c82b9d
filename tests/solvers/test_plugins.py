"""Algorithms of other packages: the example of the how-to page, installed, and packages that are wrong in many ways."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptyplugin.model import Recipe, RecipeError
from ptyplugin.solvers import check_recipe, plugins, solve

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "add-an-algorithm.md"
Install = Callable[[str, str, dict[str, str]], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package: name, its one module, its entry points. As pip does, but in a folder of the test's own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)

    def installed(name: str, text: str, points: dict[str, str]) -> None:
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"[{plugins.GROUP}]", *(f"{key} = {value}" for key, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        importlib.invalidate_caches()
        forget()

    yield installed
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]
    forget()


def forget() -> None:
    """What this process knows of installed packages is of the moment when it first asked."""
    plugins.installed.cache_clear()
    plugins.load.cache_clear()


def example() -> tuple[str, dict[str, str]]:
    """The module of the how-to page, and its entry points."""
    page = PAGE.read_text()
    (python,), (toml,) = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "toml"))
    return python, tomllib.loads(toml)["project"]["entry-points"][plugins.GROUP]


def test_the_example_of_the_page_works_once_installed(install: Install, experiment: Any) -> None:
    with pytest.raises(RecipeError, match="no algorithm 'KnownProbe'"):
        check_recipe(Recipe.parse("KnownProbe(2)"))
    module, points = example()
    install("known-probe", module, points)
    result = solve(
        experiment.frames, experiment.scan, experiment.geometry, recipe=Recipe.parse("KnownProbe(40)"), start_probe=experiment.probe
    )
    assert result is not None
    assert result.quality["error"] < 0.005
    assert experiment.phase_rms(result.object[0], result.positions_px) < 0.06
    probe = result.probe[0]
    assert np.abs(np.vdot(probe, experiment.probe[0])) > 0.9999 * np.linalg.norm(probe) * np.linalg.norm(experiment.probe[0])
    with pytest.raises(RecipeError, match=r"KnownProbe has no option 'speed': it has inertia=0.001"):
        check_recipe(Recipe.parse("KnownProbe(1, speed=2)"))
    with pytest.raises(RecipeError, match="KnownProbe cannot be told to keep the probe, since it has no option probe_from"):
        check_recipe(Recipe.parse('KnownProbe(1, probe="fixed")'))
    with pytest.raises(RecipeError, match=r"the recipe can use .*ePIE.*, KnownProbe"):
        check_recipe(Recipe.parse("Magic(1)"))


GOOD = """
from dataclasses import dataclass, field
from ptyplugin.solvers import Algorithm
from ptyplugin.solvers.options import option
@dataclass(frozen=True)
class Options:
    size: int = 3
@dataclass(frozen=True)
class None_:
    pass
def sweep(*a): ...
"""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import no_such_module", r"cannot be loaded \(odd:it gave ModuleNotFoundError: No module named 'no_such_module'\)"),
        ("", r"cannot be loaded \(odd:it gave AttributeError"),
        ("raise ValueError('two\\nlines')", r"cannot be loaded \(odd:it gave ValueError: two lines\)"),
        ("it = (", r"cannot be loaded \(odd:it gave SyntaxError"),
        ("it = 7", r"cannot be used \(odd:it is of type int, not a ptyplugin.solvers.Algorithm\)"),
        (GOOD + "it = Algorithm(3, None_, 'blocks', False, 'error')", r"needs a function as its sweep and a dataclass as its options"),
        (
            GOOD + "it = Algorithm(sweep, None_, 'ways', False, 'error')",
            r"has walks='ways' and measures='error', of which one does not exist",
        ),
        (GOOD + "it = Algorithm(sweep, None_, 'blocks', False, 'error', lengths=3)", r"needs a function as its lengths, or none"),
        (
            GOOD + "it = Algorithm(sweep, None_, 'blocks', 'often', 'error')",
            r"has keeps_waves='often', which is neither True nor False nor",
        ),
        (GOOD + "it = Algorithm(sweep, None_, 'blocks', 'where they fit', 'error')", r"but its options do not say needs_waves"),
        (GOOD + "it = Algorithm(sweep, Options, 'blocks', False, 'error')", r"has options that are not made by option\(\): size"),
        (GOOD + "it = Algorithm(sweep, None_, 'random batches', False, 'error')", r"walks in random batches, but has no option 'batch'"),
        (GOOD + "it = Algorithm(sweep, None_, 'chosen batches', False, 'error')", r"walks in chosen batches, but has no option 'batch'"),
    ],
)
def test_a_broken_package_is_named_in_one_sentence_and_harms_nobody_else(install: Install, text: str, sentence: str) -> None:
    install("odd", text, {"Odd": "odd:it"})
    check_recipe(Recipe.parse("ePIE(2) + DM(1)"))
    with pytest.raises(RecipeError, match=sentence) as caught:
        check_recipe(Recipe.parse("ePIE(2) + Odd(1)"))
    assert "the algorithm 'Odd' of the package odd 1.0 cannot be" in str(caught.value)
    assert str(caught.value).endswith("update or uninstall that package.")
    assert "\n" not in str(caught.value)


def test_a_name_that_two_packages_have_is_refused_and_both_are_named(install: Install) -> None:
    install("one", "", {"Twice": "one:it", "ePIE": "one:it"})
    install("other", "", {"Twice": "other:it"})
    check_recipe(Recipe.parse("DM(1)"))
    both = r"'Twice' is provided by the package (one|other) 1.0 and by the package (one|other) 1.0: uninstall or update all but one"
    with pytest.raises(RecipeError, match=both):
        check_recipe(Recipe.parse("Twice(1)"))
    with pytest.raises(RecipeError, match=r"'ePIE' is provided by ptyplugin itself and by the package one 1.0"):
        check_recipe(Recipe.parse("ePIE(1)"))
