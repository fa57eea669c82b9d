"""The step API: a reconstruction, one iteration at a time."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import ptyplugin
from ptyplugin.api import open_scan, reconstruct, solver
from ptyplugin.model import RecipeError, SolverError


def test_steps_are_the_same_as_reconstruct(small_cxi: Path) -> None:
    going = ptyplugin.solver(small_cxi, "DM(2) + ePIE(3)", seed=2)
    objects = [going.object for _ in going]
    whole = reconstruct(small_cxi, "DM(2) + ePIE(3)", seed=2)
    result = going.result()
    assert result is not None
    np.testing.assert_array_equal(result.object, whole.object)
    np.testing.assert_array_equal(objects[-1], whole.object)
    assert len(objects) == 5
    assert np.abs(objects[0] - objects[1]).max() > 0
    assert result.provenance["key"] == whole.provenance["key"]
    assert result.provenance["recipe"] == whole.provenance["recipe"] == "DM(2) + ePIE(3)"


def test_pause_look_and_go_on(small_cxi: Path) -> None:
    going = solver(open_scan(small_cxi), "ePIE(4)")
    for progress in going:
        if progress.iteration == 2:
            break
    paused = going.object
    assert going.probe.shape == (1, 48, 48)
    early = going.result()
    assert early is not None
    assert early.provenance["recipe"] == "ePIE(2)"
    assert 0 < early.quality["error"] < 1
    np.testing.assert_array_equal(going.object, paused)
    assert [progress.iteration for progress in going] == [3, 4]
    last = going.result()
    assert last is not None
    np.testing.assert_array_equal(early.object, paused)
    np.testing.assert_array_equal(last.object, reconstruct(small_cxi, "ePIE(4)").object)


def test_stages_that_have_not_begun_can_be_changed(small_cxi: Path) -> None:
    going = solver(small_cxi, "DM(2) + ePIE(50)")
    next(going)
    going.recipe = "DM(2) + ePIE(2, object_step=0.1)"
    assert [(one.stage, one.iteration, one.iterations) for one in going] == [("DM", 2, 4), ("ePIE", 3, 4), ("ePIE", 4, 4)]
    with pytest.raises(RecipeError, match=r"changes what has begun: let it start with DM\(2\) \+ ePIE\(2, object_step=0.1\)"):
        going.recipe = "DM(2) + ePIE(3)"
    with pytest.raises(RecipeError, match="no algorithm 'Magic'"):
        going.recipe = "DM(2) + ePIE(2, object_step=0.1) + Magic(1)"
    going.recipe = "DM(2) + ePIE(2, object_step=0.1) + rPIE(1)"
    assert [one.stage for one in going] == ["rPIE"]
    result = going.result()
    assert result is not None
    assert result.provenance["recipe"] == "DM(2) + ePIE(2, object_step=0.1) + rPIE(1)"
    np.testing.assert_array_equal(result.object, reconstruct(small_cxi, str(going.recipe)).object)


def test_plan_comes_before_anything_else(small_cxi: Path) -> None:
    going = solver(small_cxi, "ePIE(2)", probe_modes=3)
    without = going.plan()
    assert (without.frames, without.frame_shape, without.waves, without.ranks) == (36, (48, 48), 3, 1)
    assert not without.keeps_waves
    assert without.batch_frames == (("ePIE", 1),)
    assert without.counts_bytes == 36 * 48 * 48 * 2
    going.recipe = "DM(2)"
    assert going.plan().waves_bytes == 36 * 48 * 48 * 3 * 8
    assert going.plan().needed_bytes >= without.needed_bytes - without.work_bytes + going.plan().waves_bytes
    going.recipe = "LSQML(2) + LSQML(2, batch=7) + DM(2)"
    assert going.plan().batch_frames == (("LSQML", 20), ("LSQML", 7), ("DM", 36))
    going.recipe = "DM(2)"
    said = str(going.plan())
    assert "36 frames of 48 x 48 px on 1 rank(s)" in said
    assert "DM 36 frame(s) at once; 3 wave(s) per frame, stored" in said
    assert "memory: " in said
    for ask in (lambda: going.object, lambda: going.probe, going.result):
        with pytest.raises(SolverError, match="before the first iteration"):
            ask()


def test_what_cannot_be_done_is_said_at_once(small_cxi: Path) -> None:
    with pytest.raises(SolverError, match=r"GB of memory, there are .* GB: use smaller batches"):
        solver(small_cxi, "DM(1)", probe_modes=10_000_000)
    going = solver(small_cxi, "ePIE(1)", probe_modes=1)
    assert going.plan().needed_bytes < 5e8
    with pytest.raises(RecipeError, match="ePIE has no option 'speed'"):
        going.recipe = "ePIE(1, speed=1)"
    assert str(going.recipe) == "ePIE(1)"


def test_the_example_of_the_page_runs(small_cxi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "recipe.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"## Step by step\n+```python\n(.*?)```", page, re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text("import ptyplugin\n" + example.replace("scan.cxi", str(small_cxi)), encoding="utf-8")
    left = runpy.run_path(str(script))
    assert left["image"].provenance["recipe"] == "mPIE(40) + ePIE(20)"
    assert np.abs(left["picture"] - left["image"].object).max() > 0
    assert [event.iteration for event in left["image"].progress] == list(range(1, 61))
    assert "36 frames of 48 x 48 px" in capsys.readouterr().out
