"""Profiles: every packaged one loads; a wrong one is answered with the file, the key and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptyplugin.model import Profile, ProfileError
from ptyplugin.profiles import load_profile, profile_names

GOOD = """
name = "mine"
beamline = "bl"
[detector]
key = "det"
pixel_m = 55e-6
[geometry]
energy = { start = "energy", unit = "keV" }
distance = { value = 2, unit = "m" }
[positions]
y = { key = "y", unit = "um" }
x = { key = "x", unit = "um" }
"""


def test_packaged_profiles_load_and_are_named_as_their_file() -> None:
    assert {"sim", "example_ophyd", "example_ophyd_async"} <= set(profile_names())
    assert [load_profile(name).name for name in profile_names()] == profile_names()


def test_sim_names_the_things_of_the_simulated_beamline() -> None:
    sim = load_profile("sim")
    assert (sim.detector.key, sim.detector.stream, sim.detector.pixel_m) == ("detector", "primary", 75e-6)
    assert (sim.positions.y.key, sim.positions.x.key, sim.positions.y.unit) == ("stage_y", "stage_x", None)
    assert sim.geometry.energy.start == "energy_ev"


@pytest.mark.parametrize("as_type", [str, Path])
def test_a_file_is_read_by_its_path(tmp_path: Path, as_type: type) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    profile = load_profile(as_type(path))
    assert isinstance(profile, Profile)
    assert profile.name == "mine"


def test_an_unknown_name_is_answered_with_the_names_that_exist() -> None:
    with pytest.raises(ProfileError, match=r"no profile 'hxn': give one of .*sim.*, or the path"):
        load_profile("hxn")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('key = "det"', 'keys = "det"', r"detector\.key: this key is missing: add it\. \(1 more wrong"),
        ("pixel_m = 55e-6", "pixel_m = 55e-6\nmask = 3", r"detector\.mask: there is no such key; the keys here are key, mask_dataset"),
        ("pixel_m = 55e-6", "pixel_m = -1", r"detector\.pixel_m: Input should be greater than 0 \(it is -1\)"),
        ("value = 2,", "", r"geometry\.distance: give exactly one of value, start, configuration, reading"),
        (
            "pixel_m = 55e-6",
            "pixel_m = 55e-6\nsaturated_counts = inf",
            r"detector\.saturated_counts: Input should be a finite number \(it is inf",
        ),
        ("[geometry]", "[preparation]\ncentre_px = [64.0, nan]\n[geometry]", r"preparation\.centre_px.*: Input should be a finite number"),
        ('y = { key = "y", unit = "um" }', 'y = { kay = "y" }', r"positions\.y\.k"),
        ("[positions]", '[reconstruction]\nrecipe = "DM(200"\n[positions]', r"reconstruction\.recipe: 'DM\(200' is no recipe"),
        ("[geometry]", "[geometry\n", r"is no TOML"),
        ('name = "mine"', 'name = "mine"\nextra = 1', r"extra: there is no such key; the keys here are beamline, detector"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ProfileError, match=sentence) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path / "absent.toml")
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="is no TOML"):
        load_profile(binary)
