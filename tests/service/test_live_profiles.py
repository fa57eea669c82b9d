"""A changed profile is used by the next run; a broken one is refused with a sentence, and the old one stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.scan_burst import scan_documents
from ptyplugin.model import ProfileError
from ptyplugin.profiles import load_profile
from ptyplugin.service.sources.collecting import Collecting
from ptyplugin.service.sources.profiles import LiveProfiles
from ptyplugin.service.sources.state import SourceState

SHIPPED = Path(__file__).resolve().parents[2] / "profiles" / "sim.toml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    write(path, SHIPPED.read_text(), 1)
    return path


def write(path: Path, text: str, at_s: int) -> None:
    path.write_text(text)
    os.utime(path, (at_s, at_s))


def other_recipe(text: str) -> str:
    return f'{text}\n[reconstruction]\nrecipe = "DM(7)"\n'


def test_a_changed_profile_is_used_and_a_broken_one_is_not(file: Path, caplog) -> None:
    profiles = LiveProfiles([str(file)])
    assert profiles.now() == [load_profile("sim")]
    write(file, other_recipe(file.read_text()), 2)
    assert profiles[0].reconstruction.recipe == "DM(7)"
    good = file.read_text()
    for number, broken in enumerate([good + "\nnonsense = 1\n", "[[", None], start=3):
        caplog.clear()
        file.unlink()
        if broken is not None:
            write(file, broken, number)
        assert [profile.reconstruction.recipe for profile in profiles] == ["DM(7)"]
        assert "The profile stays as it was until the file is mended." in caplog.text
        caplog.clear()
        assert len(profiles) == 1
        assert caplog.text == "", "said once"
    write(file, SHIPPED.read_text(), 9)
    assert profiles.now() == [load_profile("sim")]


def test_a_wrong_profile_at_the_start_is_an_error(file: Path) -> None:
    write(file, "[[", 2)
    with pytest.raises(ProfileError, match="is no TOML"):
        LiveProfiles([str(file)])


def test_those_of_a_beamline(file: Path) -> None:
    profiles = LiveProfiles([str(file)])
    assert len(profiles.of(load_profile("sim").beamline)) == 1
    assert not profiles.of("elsewhere").now()


def test_a_run_that_is_open_keeps_its_profile_and_the_next_one_has_the_new(file: Path, tmp_path: Path) -> None:
    collecting = Collecting(LiveProfiles([str(file)]), SourceState("test"))
    first, second = (list(scan_documents(f"run-{number}", number, tmp_path / "a.h5", 1.0, 4, 8)) for number in (1, 2))
    for document in first[:-1]:
        assert collecting.take(*document) == []
    write(file, other_recipe(file.read_text()), 2)
    (ended,) = collecting.take(*first[-1])
    assert [profile.reconstruction.recipe for profile, _ in ended.found] == [load_profile("sim").reconstruction.recipe]
    ended_then = [ended for document in second for ended in collecting.take(*document)]
    assert [profile.reconstruction.recipe for profile, _ in ended_then[0].found] == ["DM(7)"]
