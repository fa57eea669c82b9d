"""ptyplugin reconstruct: the answers, and one sentence for each thing that can be wrong."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner, Result

import ptyplugin.api
from ptyplugin.cli.app import app
from ptyplugin.io import read_result
from ptyplugin.model import JobParts

TRANSLATION = "entry_1/sample_1/geometry_1/translation"
DATA = "entry_1/instrument_1/detector_1/data"
ILLUMINATION = "entry_1/instrument_1/source_1/illumination"


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def fails(result: Result, *said: str, code: int = 1) -> None:
    """One sentence on stderr that says all this, nothing on stdout, and no traceback."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("ptyplugin: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    for part in said:
        assert part in result.stderr


def changed(small_cxi: Path, folder: Path, **datasets: Any) -> Path:
    """A copy of the small file with other datasets; None takes one away."""
    path = folder / "changed.cxi"
    path.write_bytes(small_cxi.read_bytes())
    with h5py.File(path, "r+") as file:
        for name, value in datasets.items():
            del file[name]
            if value is not None:
                file[name] = value
    return path


def test_for_people(small_cxi: Path, tmp_path: Path) -> None:
    result = run("reconstruct", small_cxi, "--recipe", "DM(20) + ePIE(10)", "-o", tmp_path / "a.h5", "--png", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    assert "The reconstruction starts from the illumination in the CXI file." in result.stdout
    assert "36 frames, error 0.00" in result.stdout
    assert f"result   {tmp_path / 'a.h5'}" in result.stdout
    assert "verdict  good\n" in result.stdout
    assert "device   CPU (there is no NVIDIA card or driver)\n" in result.stdout
    assert result.stderr == ""
    assert read_result(tmp_path / "a.h5").quality["error"] < 0.005
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_for_machines(small_cxi: Path, tmp_path: Path) -> None:
    words = ("reconstruct", small_cxi, "--recipe", "ePIE(2)", "--probe-modes", 2, "--seed", 5, "--crop-px", 32, "--json")
    result = run(*words, "--output", tmp_path / "a.h5")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["frames"], said["iterations"], said["recipe"], said["png"]) == (36, 2, "ePIE(2)", None)
    assert said["output"] == str(tmp_path / "a.h5")
    written = read_result(tmp_path / "a.h5")
    assert written.quality == said["quality"]
    assert (said["verdict"]["word"], said["verdict"]["convergence"]) == ("doubtful", "still falling")
    assert tuple(said["verdict"]["reasons"]) == written.verdict.reasons
    assert written.provenance["key"] == said["key"]
    assert (written.probe.shape, written.provenance["seed"]) == ((2, 32, 32), 5)
    assert json.loads(run(*words, "--output", tmp_path / "b.h5").stdout)["quality"] == said["quality"]


def test_without_output_the_result_goes_to_the_site(small_cxi: Path, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(f'home = "{tmp_path}"\n')
    result = run("reconstruct", small_cxi, "--recipe", "ePIE(1)", "--site", tmp_path / "site.toml", "--json")
    said = json.loads(result.stdout)
    assert said["output"] == str(tmp_path / "results" / f"{said['key']}.h5")
    assert Path(said["output"]).is_file()


def test_probe_from_an_earlier_result(small_cxi: Path, tmp_path: Path) -> None:
    assert run("reconstruct", small_cxi, "--recipe", "ePIE(5)", "--probe-modes", 2, "-o", tmp_path / "a.h5").exit_code == 0
    again = ("reconstruct", small_cxi, "--recipe", "ePIE(1)", "--json", "-o", tmp_path / "b.h5")
    assert run(*again, "--probe", tmp_path / "a.h5", "--crop-px", 24).exit_code == 0
    written = read_result(tmp_path / "b.h5")
    assert written.probe.shape == (2, 24, 24)
    assert "was interpolated to 24 x 24 px" in written.provenance["notes"][-1]


@pytest.mark.system
def test_two_ranks(small_cxi: Path, tmp_path: Path) -> None:
    """From a rough probe: where a smooth one sends no light at all, the first phases are those of a transform's rounding."""
    with h5py.File(small_cxi) as file:
        smooth = file[ILLUMINATION][()]
    rough = smooth + 0.01 * abs(smooth).max() * np.exp(2j * np.pi * np.random.default_rng(0).random(smooth.shape))
    path = changed(small_cxi, tmp_path, **{ILLUMINATION: rough.astype(np.complex64)})
    result = run("reconstruct", path, "--recipe", "DM(5)", "--ranks", 2, "--json", "-o", tmp_path / "two.h5")
    assert result.exit_code == 0, result.output
    assert run("reconstruct", path, "--recipe", "DM(5)", "--json", "-o", tmp_path / "one.h5").exit_code == 0
    one, two = (read_result(tmp_path / name) for name in ("one.h5", "two.h5"))
    assert (one.provenance["ranks"], two.provenance["ranks"]) == (1, 2)
    assert one.provenance["key"] == two.provenance["key"]
    assert np.linalg.norm(two.probe - one.probe) < 1e-4 * np.linalg.norm(one.probe)


def test_no_frames(small_cxi: Path, tmp_path: Path) -> None:
    path = changed(small_cxi, tmp_path, **{DATA: np.zeros((0, 48, 48), np.uint16), TRANSLATION: np.zeros((0, 3))})
    fails(run("reconstruct", path), "changed.cxi", "0 frames with a position")


def test_frames_do_not_match_positions(small_cxi: Path, tmp_path: Path) -> None:
    path = changed(small_cxi, tmp_path, **{TRANSLATION: np.random.default_rng(0).random((35, 3)) * 1e-6})
    fails(run("reconstruct", path), "36 frames but 35 positions")


def test_positions_that_are_nan(small_cxi: Path, tmp_path: Path) -> None:
    positions = np.random.default_rng(0).random((36, 3)) * 1e-6
    positions[7, 1] = np.nan
    fails(run("reconstruct", changed(small_cxi, tmp_path, **{TRANSLATION: positions})), "1 of 36 positions are not finite (first: frame 7)")


def test_positions_in_another_unit(small_cxi: Path, tmp_path: Path) -> None:
    path = changed(small_cxi, tmp_path, **{TRANSLATION: np.random.default_rng(0).random((36, 3))})
    fails(run("reconstruct", path), "changed.cxi", "positions span", "in micrometres and taken for metres")


def test_what_was_left_out_is_said(small_cxi: Path, tmp_path: Path) -> None:
    with h5py.File(small_cxi) as file:
        counts = file[DATA][()]
    counts[[3, 5]] = 0
    words = ("reconstruct", changed(small_cxi, tmp_path, **{DATA: counts}), "--recipe", "ePIE(1)", "-o", tmp_path / "a.h5")
    assert "2 of 36 frames cannot be used and were left out, 2 without light (frame 3, 5)." in run(*words).stdout
    assert any("were left out" in note for note in json.loads(run(*words, "--json").stdout)["notes"])


def test_a_result_is_no_scan(small_cxi: Path, tmp_path: Path) -> None:
    assert run("reconstruct", small_cxi, "--recipe", "ePIE(1)", "-o", tmp_path / "a.h5").exit_code == 0
    fails(run("reconstruct", tmp_path / "a.h5"), "a.h5 is a result of ptyplugin, not a scan", "--probe")


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_truncated_file(small_cxi: Path, tmp_path: Path, share: float) -> None:
    whole = small_cxi.read_bytes()
    (tmp_path / "half.cxi").write_bytes(whole[: int(share * len(whole))])
    fails(run("reconstruct", tmp_path / "half.cxi"), "half.cxi", "damaged")


def test_entry_missing(small_cxi: Path, tmp_path: Path) -> None:
    path = changed(small_cxi, tmp_path, **{"entry_1/instrument_1/detector_1/distance": None})
    fails(run("reconstruct", path), "changed.cxi has no entry entry_1/instrument_1/detector_1/distance")


def test_no_such_file() -> None:
    fails(run("reconstruct", "gone.cxi"), "gone.cxi does not exist")


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    fails(run("reconstruct", tmp_path / "scans"), "scans is not a file")


def test_a_folder_without_a_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scans").mkdir()
    monkeypatch.chdir(tmp_path)
    fails(run("reconstruct", "scans"), "scans is a folder: give a CXI file in it")


@pytest.mark.parametrize(("recipe", "said"), [("XY(3)", "XY"), ("DM(3, speed=9)", "speed"), ("DM 3", "'DM 3' is no recipe")])
def test_unknown_recipe(small_cxi: Path, recipe: str, said: str) -> None:
    fails(run("reconstruct", small_cxi, "--recipe", recipe), said)


def test_no_gpu(small_cxi: Path) -> None:
    fails(run("reconstruct", small_cxi, "--device", "gpu"), "a GPU was asked for", "there is no NVIDIA card or driver", "use device cpu")


def test_file_that_points_outside_data_roots(small_cxi: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "secret" / "frames.h5", "w") as file:
        file["frames"] = np.ones((36, 48, 48), np.uint16)
    path = changed(small_cxi, tmp_path / "data", **{DATA: h5py.ExternalLink(str(tmp_path / "secret" / "frames.h5"), "frames")})
    fails(run("reconstruct", path), "frames.h5 lies outside the site's data_roots", "add its folder")


def test_run_needs_a_profile() -> None:
    fails(run("reconstruct", "1742"), "'1742' is no file", "name the beamline's profile (", "sim")


def test_run_needs_a_catalog() -> None:
    fails(run("reconstruct", "1742", "--profile", "sim"), "no catalog is named: set tiled_uri")


def test_a_file_needs_no_profile(small_cxi: Path, tmp_path: Path) -> None:
    result = run("reconstruct", small_cxi, "--profile", "sim", "--recipe", "ePIE(1)", "-o", tmp_path / "a.h5")
    assert result.exit_code == 0
    assert "the profile is not used" in " ".join(result.stderr.split())


def test_unknown_profile() -> None:
    fails(run("reconstruct", "1742", "--profile", "moon"), "there is no profile 'moon'")


def test_catalog_is_down(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        (tmp_path / "site.toml").write_text(f'tiled_uri = "http://127.0.0.1:{listener.getsockname()[1]}"\n')
        fails(run("reconstruct", "1742", "--profile", "sim", "--site", tmp_path / "site.toml"), "127.0.0.1")
        fails(run("results", "--site", tmp_path / "site.toml"), "127.0.0.1")


def test_site_file_with_a_wrong_key(small_cxi: Path, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('hoem = "/"\n')
    fails(run("reconstruct", small_cxi, "--site", tmp_path / "site.toml"), "site.toml", "hoem")


def test_output_that_cannot_be_written(small_cxi: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails(run("reconstruct", small_cxi, "--recipe", "ePIE(1)", "-o", tmp_path / "file" / "a.h5"), "cannot be written")


@pytest.mark.parametrize("words", [("--ranks", "0"), ("--probe-modes", "none"), ("--device", "toaster"), ("--nonsense",)])
def test_wrong_usage(small_cxi: Path, words: tuple[str, ...]) -> None:
    result = run("reconstruct", small_cxi, *words)
    assert result.exit_code == 2
    assert words[0] in result.stderr


def raising(error: BaseException) -> Any:
    def instead(*_: object, **__: object) -> JobParts:
        raise error

    return instead


def test_ctrl_c(small_cxi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptyplugin.api, "solve_job", raising(KeyboardInterrupt()))
    result = run("reconstruct", small_cxi)
    assert (result.exit_code, result.stdout) == (130, "")


def test_what_should_not_happen(small_cxi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptyplugin.api, "make_job", raising(ZeroDivisionError("one\n[bold]two")))
    result = run("reconstruct", small_cxi)
    fails(result, "this should not have happened (ZeroDivisionError: one [bold]two)")
    log = Path(result.stderr.split("report it with ")[1].strip().rstrip("."))
    assert "Traceback (most recent call last)" in log.read_text()
    assert log.is_relative_to(Path.home())


def test_the_log_has_a_place_without_a_home(small_cxi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr(ptyplugin.api, "make_job", raising(ZeroDivisionError()))
    result = run("reconstruct", small_cxi)
    fails(result, "ZeroDivisionError: no reason given")
    assert Path(result.stderr.split("report it with ")[1].strip().rstrip(".")).is_file()
