"""Measured frames, and the simulated scan that other packages were measured with: the solver has to work from them alone."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from bench_scripts import script

from ptyplugin.model import Geometry, MemoryFrames, Recipe, Reconstruction, Scan
from ptyplugin.model.geometry import HC_EV_M
from ptyplugin.solvers import solve

_EV_PER_J = 1 / 1.602176634e-19


def open_scan(path: Path) -> tuple[MemoryFrames, Scan, Geometry]:
    with h5py.File(path) as h:
        detector, source = h["entry_1/instrument_1/detector_1"], h["entry_1/instrument_1/source_1"]
        counts, mask = detector["data"][()], detector["mask"][()].astype(np.uint8)
        positions = h["entry_1/sample_1/geometry_1/translation"][()][:, [1, 0]]
        focus = float(source["focus_to_sample_distance"][()]) if "focus_to_sample_distance" in source else None
        numbers = (float(source["energy"][()]) * _EV_PER_J, float(detector["distance"][()]), float(detector["y_pixel_size"][()]))
    return MemoryFrames(counts, mask), Scan(positions, np.arange(len(positions))), Geometry(*numbers, counts.shape[1:], focus)


def independent_error(shared: Path, data: Path, result: Reconstruction) -> float:
    """The error as the scorer beside the data computes it."""
    scorer = script(shared, "score_real")
    return float(scorer.score(scorer.load_data(str(data)), result.object, result.probe, result.positions_px)["error"])


def test_siemens_star_in_the_far_field_from_the_frames_alone(shared: Path) -> None:
    path = shared / "data" / "aps_velociprobe_siemens.cxi"
    frames, scan, geometry = open_scan(path)
    recipe = Recipe.parse("ePIE(10) + ePIE(4, object_step=0.1, probe_step=0.05)")
    result = solve(frames, scan, geometry, recipe=recipe, probe_modes=2)
    assert result is not None
    assert result.quality["error"] < 0.0102
    assert independent_error(shared, path, result) == pytest.approx(result.quality["error"], rel=1e-3)
    assert np.abs(result.object).max() < 2.5
    middle = np.angle(result.object[0, 100:400, 100:400] * np.exp(-1j * np.angle(result.object[0, 100:400, 100:400].sum())))
    assert 0.3 < np.percentile(middle, 95) - np.percentile(middle, 5) < 2


def test_siemens_star_in_the_near_field_from_the_frames_alone(shared: Path) -> None:
    path = shared / "data" / "petra3_p25_nearfield_siemens.cxi"
    frames, scan, geometry = open_scan(path)
    result = solve(frames, scan, geometry, recipe=Recipe.parse("DM(30) + ePIE(10)"), subpixel="none")
    assert result is not None
    assert (result.mask == (frames.mask != 0)).all()
    assert result.quality["error"] < 0.0075
    assert independent_error(shared, path, result) == pytest.approx(result.quality["error"], rel=1e-3)


def test_difference_map_finds_the_simulated_sample_from_a_wrong_start_probe(shared: Path, tmp_path: Path) -> None:
    """400 frames of 128 x 128 px, the start probe with a third too much defocus."""
    script(shared, "make_dataset").main("A", tmp_path / "A.npz")
    data = script(shared, "common").load(tmp_path / "A.npz")
    geometry = Geometry(HC_EV_M / float(data["wavelength"]), float(data["distance"]), float(data["det_psize"]), (128, 128))
    scan = Scan(data["pos"] * float(geometry.object_pixel_m[0]), np.arange(400))
    result = solve(MemoryFrames(data["data"]), scan, geometry, recipe=Recipe.parse("DM(60)"), start_probe=data["probe_init"])
    assert result is not None
    on_truth = np.ones(data["obj"].shape, np.complex64)
    y, x = np.rint(result.positions_px[0] - data["pos"][0]).astype(int)
    part = result.object[0, max(y, 0) :, max(x, 0) :][: on_truth.shape[0] - max(-y, 0), : on_truth.shape[1] - max(-x, 0)]
    on_truth[max(-y, 0) :, max(-x, 0) :][: part.shape[0], : part.shape[1]] = part
    assert script(shared, "common").phase_rms(on_truth, data["obj"], data["pos"], 128) <= 0.06
