"""Recipe: one text form, read and printed back the same; never evaluated."""

from __future__ import annotations

import contextlib
import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptyplugin.model import Recipe, RecipeError, Stage

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name not in {"True", "False", "None"})
NAMES = NAMES.filter(lambda name: not keyword.iskeyword(name))
VALUES = st.one_of(st.booleans(), st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=12))
STAGES = st.builds(Stage, NAMES, st.integers(1, 1_000_000), st.dictionaries(NAMES, VALUES, max_size=3))


@given(st.lists(STAGES, min_size=1, max_size=4))
def test_a_recipe_is_read_back_as_it_was_printed(stages: list[Stage]) -> None:
    recipe = Recipe(tuple(stages))
    assert Recipe.parse(str(recipe)) == recipe
    assert str(Recipe.parse(str(recipe))) == str(recipe)


def test_the_text_of_the_handbook() -> None:
    recipe = Recipe.parse('DM(200)+LSQML(100, positions="gradient", momentum=0.9)')
    assert str(recipe) == 'DM(200) + LSQML(100, momentum=0.9, positions="gradient")'
    assert recipe.iterations == 300


def test_operators_and_text_are_the_same() -> None:
    built = (Stage("DM", 20) + Stage("ePIE", 5, {"object_step": -0.5})) * 2
    assert built == Recipe.parse("(DM(20) + ePIE(5, object_step=-0.5)) * 2")
    assert Stage("DM", 3) * 2 == Recipe.parse("DM(3) + DM(3)")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "DM",
        "DM()",
        "DM(1.5)",
        "DM(0)",
        "DM(-3)",
        "DM(2, 3)",
        "DM(2)(3)",
        "DM(True)",
        "DM(3) - ePIE(2)",
        "DM(3) * 0",
        "DM(1 + 1)",
        "__import__('os').system('true')",
        "DM(2, **{})",
        "DM(2, x=[1])",
        "DM(2, x=y)",
        "[DM(2)]",
        "DM(2)\nDM(3)",
        "(" * 500,
        "DM(" * 300,
        "\0",
    ],
)
def test_what_is_no_recipe_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(text)
    assert "\n" not in str(caught.value).replace(text, "")
    assert "DM(200)" in str(caught.value)


def test_a_word_whose_quotes_the_shell_took_is_told_as_such() -> None:
    with pytest.raises(RecipeError, match=r'gradient stands without quotes\. As an option it is "gradient", and in a shell'):
        Recipe.parse("LSQML(20, positions=gradient)")


def test_a_very_long_text_is_refused() -> None:
    with pytest.raises(RecipeError, match="has 4997 characters; at most 2000"):
        Recipe.parse(" + ".join(["DM(1)"] * 625)[:4999])


@given(st.text(max_size=60))
def test_any_text_is_a_recipe_or_a_recipe_error(text: str) -> None:
    with contextlib.suppress(RecipeError):
        Recipe.parse(text)


@pytest.mark.parametrize(
    "text", ["LSQML(40, batch=20, momentum=1)", "LSQML(40, batch=20.0, momentum=1.0)", "LSQML(40, momentum=1e0, batch=2e1)"]
)
def test_one_recipe_has_one_text_however_its_numbers_are_written(text: str) -> None:
    assert str(Recipe.parse(text)) == "LSQML(40, batch=20, momentum=1)"


def test_numbers_that_are_not_whole_stay() -> None:
    assert str(Stage("DM", 5, {"beta": 0.5, "on": True, "large": 1e300})) == "DM(5, beta=0.5, large=1e+300, on=True)"
