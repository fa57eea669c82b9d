"""What the pages under docs show is what the code reads."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptyplugin.api import reconstruct
from ptyplugin.io import write_result
from ptyplugin.model import DEFAULT_RECIPE, EigerStream, Profile, PvaChannels, Recipe, RingCorrelation, Site, load_site
from ptyplugin.profiles import load_profile
from ptyplugin.solvers import check_recipe

DOCS = Path(__file__).resolve().parents[2] / "docs"


def tomls_of(page: str) -> list[str]:
    """Each TOML of a page, with what it shows as a comment taken in."""
    blocks = re.findall(r"```toml\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    return [re.sub(r"^# (?=\w+ = )", "", block, flags=re.MULTILINE) for block in blocks]


def toml_of(page: str, folder: Path) -> Path:
    """The first TOML of a page as a file."""
    file = folder / "page.toml"
    file.write_text(tomls_of(page)[0], encoding="utf-8")
    return file


def test_profile(tmp_path: Path) -> None:
    profile = load_profile(toml_of("how-to/write-a-profile.md", tmp_path))
    check_recipe(Recipe.parse(profile.reconstruction.recipe))
    assert profile.geometry.focus_distance is not None


def test_further_tables_of_a_profile() -> None:
    first, *further = [
        tomllib.loads(text) for page in ("write-a-profile", "frames-while-they-come") for text in tomls_of(f"how-to/{page}.md")
    ]
    sources = [tables["source"] for tables in further if "source" in tables]
    profiles = [Profile.model_validate(first | tables) for tables in further if "source" not in tables]
    assert [type(Site(source=source).source[0]) for source in sources] == [PvaChannels, EigerStream]
    assert {profile.live.pva for profile in profiles if profile.live} == {"13SIM1:Pva1:Image"}


def test_site(tmp_path: Path) -> None:
    assert load_site(toml_of("reference/site.md", tmp_path)).path_map == {"/nsls2/data/hxn": "/data/raw/hxn"}


def test_recipes() -> None:
    page = (DOCS / "reference/recipe.md").read_text(encoding="utf-8")
    shown = re.findall(r"^    ((?:DM|LSQML)\(.*)$", page, re.MULTILINE)
    assert DEFAULT_RECIPE in shown
    for text in shown:
        check_recipe(Recipe.parse(text))


def test_result_file(small_cxi: Path, tmp_path: Path) -> None:
    found = 'ePIE(5, background="constant", intensities="fitted")'
    rings = RingCorrelation(*np.ones((4, 9)), resolution_m=1e-8)
    write_result(tmp_path / "a.h5", reconstruct(small_cxi, found).with_resolution(rings))
    page = (DOCS / "reference/result-file.md").read_text(encoding="utf-8")
    rows = [re.findall(r"`(\w+)/?`", line) for line in page.splitlines() if line.startswith("|")]
    named = {name for row in rows for name in row} - {"object", "results_dir"}
    with h5py.File(tmp_path / "a.h5") as file:
        there = {*file, *file.attrs, *file["frc"], *json.loads(file.attrs["quality_json"])}
        sometimes = {"focus_distance_m", "positions_start_px", "resumed_json", "fitted_error", "held_out_error", "held_out_frames"}
        missing = named - there - sometimes
        assert {"quality_json", "job_json", "key"} <= set(file.attrs)
    assert not missing, "the page names what the file does not have"


@pytest.mark.parametrize("page", ["README.md", *(str(path.relative_to(DOCS.parent)) for path in sorted(DOCS.rglob("*.md")))])
def test_links(page: str) -> None:
    file = DOCS.parent / page
    targets = re.findall(r"\]\(([^)#]+)\)", file.read_text(encoding="utf-8"))
    assert [one for one in targets if "://" not in one and not (file.parent / one).exists()] == []
