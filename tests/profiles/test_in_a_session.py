"""What a session sees of a profile that is wrong: one sentence, and the RunEngine goes on without it."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ptyplugin.callbacks import AutoReconstruct
from ptyplugin.model import DeviceError, ProfileError, Site
from ptyplugin.profiles import load_profile

GOOD = (Path(__file__).resolve().parents[2] / "profiles" / "sim.toml").read_text()


@pytest.fixture
def engine() -> Iterator[Any]:
    engine = pytest.importorskip("bluesky").RunEngine(context_managers=[])
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(10)
    engine.loop.close()


@pytest.mark.parametrize("profile", [None, 5, b"sim", ["sim"]])
def test_what_is_no_profile_at_all(profile: Any, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"is no profile: give a name .*sim.*, the path of a \.toml file, or a Profile"):
        AutoReconstruct(profile, Site(home=tmp_path))


def test_a_path_is_named_whole_and_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ProfileError) as caught:
        load_profile("mine.toml")
    assert (
        str(caught.value)
        == f"profile file {tmp_path}/mine.toml cannot be read (No such file or directory): check the path and its permissions."
    )
    (tmp_path / "mine.toml").write_text(GOOD)
    assert load_profile("~/mine.toml").name == "sim"


def test_two_brackets_too_many(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace("[positions]", "[[positions]]"))
    with pytest.raises(ProfileError, match=r"mine.toml: positions: this must be a table \(\[positions\] in brackets\)"):
        load_profile(path)


def test_ipython_shows_one_sentence_and_the_line_of_the_startup_file(tmp_path: Path) -> None:
    """IPython asks an exception for its text by this name; nothing of the chain behind the sentence is shown."""
    startup = tmp_path / "99-ptyplugin.py"
    startup.write_text("from ptyplugin.callbacks import AutoReconstruct\n\nAutoReconstruct(profile='nowhere')\n")
    with pytest.raises(ProfileError) as caught:
        runpy.run_path(str(startup))
    sentence, place = caught.value._render_traceback_()
    assert sentence == f"ProfileError: {caught.value}"
    assert sentence.startswith("ProfileError: there is no profile 'nowhere': give one of ")
    assert place == f"  (called in {startup}, line 3)"


def test_an_error_in_a_plan_names_the_line_that_ran_it(tmp_path: Path, engine: Any) -> None:
    """And not one of the RunEngine, which lies in between."""
    script = tmp_path / "night.py"
    script.write_text(
        "from ptyplugin.sim.plans import _in_a_sentence\n\n"
        "def late():\n    raise TimeoutError\n    yield\n\n"
        "plan = _in_a_sentence(late())\nRE(plan)\n"
    )
    with pytest.raises(DeviceError, match="did not answer in time") as caught:
        runpy.run_path(str(script), {"RE": engine})
    assert caught.value._render_traceback_()[1:] == [f"  (called in {script}, line 8)"]


def test_an_error_that_was_not_called_from_a_file_is_one_sentence() -> None:
    assert ProfileError("it is wrong.")._render_traceback_() == ["ProfileError: it is wrong."]


def test_the_run_engine_is_not_touched_by_a_wrong_profile(tmp_path: Path, engine: Any) -> None:
    seen: list[str] = []
    engine.subscribe(lambda name, document: seen.append(name))
    with pytest.raises(ProfileError):
        engine.subscribe(AutoReconstruct(profile="nowhere", site=Site(home=tmp_path)))
    from bluesky.plan_stubs import close_run, open_run

    def plan() -> Any:
        yield from open_run()
        yield from close_run()

    engine(plan())
    assert seen == ["start", "stop"]
    assert not (tmp_path / "inbox").exists()
