"""The picture, and what is done to a reconstruction for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptyplugin.io import display
from ptyplugin.io.picture import reconstruction_figure, save_png
from ptyplugin.model import FileFormatError, Geometry, Progress, Reconstruction


def smooth_object(side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    return (0.8 + 0.15 * np.cos(9 * x)) * np.exp(1j * (0.3 * np.sin(11 * y) + 0.2 * np.cos(14 * x * y)))


def reconstruction(ramp: tuple[float, float] = (0, 0), frames: int = 25, progress: bool = True) -> Reconstruction:
    geometry = Geometry(8000.0, 2.0, 75e-6, (32, 32))
    side = int(np.sqrt(frames))
    steps = np.array([(4 + 10 * i, 4 + 10 * j) for i in range(side) for j in range(side)], float)
    y, x = np.mgrid[-16:16, -16:16]
    probe = 30 * np.exp(-(y**2 + x**2) / 60) * np.exp(0.02j * (y**2 + x**2))
    whole = smooth_object(90)
    row, column = np.mgrid[:90, :90]
    tilted = whole * np.exp(2j * np.pi * (ramp[0] * row + ramp[1] * column))
    entries = [Progress("k", "DM" if step < 5 else "ePIE", step, 9, step * 1.0, {"running_error": 0.1 / step}) for step in range(1, 10)]
    return Reconstruction(
        object=tilted[None].astype(np.complex64),
        probe=np.stack([probe, 0.2 * probe]).astype(np.complex64),
        geometry=geometry,
        positions_m=steps * geometry.object_pixel_m[0],
        positions_px=steps,
        mask=np.zeros((32, 32), np.uint8),
        progress=entries if progress else [],
        quality={"error": 0.01},
        provenance={"recipe": "DM(4) + ePIE(5)", "scan_id": 12, "beamline": "sim"},
    )


@pytest.mark.parametrize("ramp", [(0.0, 0.0), (0.11, -0.07), (-0.3, 0.002)])
def test_ramp_is_removed_for_the_eye(ramp: tuple[float, float]) -> None:
    """The same picture, whatever ramp the solver happened to leave."""
    flat, tilted = display.scanned_view(reconstruction()), display.scanned_view(reconstruction(ramp))
    assert np.subtract(tilted.ramp, flat.ramp) == pytest.approx(ramp, abs=1e-4)
    good = flat.seen >= 1
    assert np.abs(np.angle(tilted.wave * np.conj(flat.wave)))[good].max() < 0.02
    assert abs(np.angle(tilted.wave[good].sum())) < 1e-3


def test_view_is_the_scanned_part() -> None:
    view = display.scanned_view(reconstruction())
    assert view.wave.shape == view.seen.shape
    assert 4 <= view.corner[0] <= 16
    assert view.seen.max() == 1
    assert view.wave.shape[0] < 90
    lit = display.illumination(reconstruction(frames=1))
    assert np.unravel_index(lit.argmax(), lit.shape) == (20, 20)


def test_limits_ignore_odd_pixels() -> None:
    values = np.concatenate([np.linspace(0, 1, 1000), [1e9, -1e9]])
    low, high = display.limits(values)
    assert -0.01 < low < high < 1.01
    assert display.limits(np.full(10, 3.0)) == (2.5, 3.5)


@pytest.mark.parametrize(
    ("width_m", "bar_m", "said"), [(9.4e-6, 2e-6, "2 µm"), (1.6e-6, 5e-7, "500 nm"), (3.1e-6, 1e-6, "1 µm"), (6.1e-3, 2e-3, "2 mm")]
)
def test_scale_bar_has_a_round_length(width_m: float, bar_m: float, said: str) -> None:
    assert display.length_of_bar(width_m) == pytest.approx(bar_m)
    assert display.said_length(bar_m) == said


def test_probe_view_holds_the_power() -> None:
    mode = np.zeros((64, 64), np.complex64)
    mode[28:36, 30:38] = 1j
    seen = display.probe_view(mode)
    assert seen.shape[0] < 24
    assert np.abs(seen).sum() == np.abs(mode).sum()


@pytest.mark.parametrize(("frames", "progress"), [(25, True), (1, True), (9, False)])
def test_picture_is_written(tmp_path: Path, frames: int, progress: bool) -> None:
    save_png(reconstruction(frames=frames, progress=progress), tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")


def test_picture_explains_itself() -> None:
    figure = reconstruction_figure(reconstruction())
    said = " ".join(text.get_text() for text in figure.texts)
    assert "Scan 12" in said
    assert "DM(4) + ePIE(5)" in said
    assert "error 0.01" in said
    assert "For display only, a phase ramp of" in said
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert "Probe, mode 1 of 2 (96% of the power)" in titles
    assert "Object phase" in titles


def test_picture_says_which_state_of_the_sample_it_shows() -> None:
    one = reconstruction()
    figure = reconstruction_figure(replace(one, object=np.concatenate([one.object, 0.3 * one.object])))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert {"Object phase, mode 1 of 2", "Object amplitude, mode 1 of 2"} <= set(titles)


def test_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("")
    with pytest.raises(FileFormatError, match="picture cannot be written"):
        save_png(reconstruction(), tmp_path / "b" / "a.png")
