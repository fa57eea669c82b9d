"""Geometry and Scan: derived sampling, placement of patches, and one sentence for each impossible number."""

from __future__ import annotations

import numpy as np
import pytest

from ptyplugin.model import Geometry, GeometryError, Scan, ScanError


def test_far_field_pixel_is_wavelength_times_distance_over_the_detector() -> None:
    geometry = Geometry(energy_ev=8000.0, distance_m=2.0, pixel_m=75e-6, shape=(128, 64))
    assert geometry.wavelength_m == pytest.approx(1.5498e-10, rel=1e-4)
    assert geometry.object_pixel_m[0] == pytest.approx(geometry.wavelength_m * 2.0 / (128 * 75e-6))
    assert geometry.object_pixel_m[1] == pytest.approx(2 * geometry.object_pixel_m[0])


def test_near_field_pixel_is_demagnified() -> None:
    """The figures of the PETRA III P25 scan: z1 = 3.65 mm, z2 = 1.12 m."""
    geometry = Geometry(energy_ev=12658.0, distance_m=1.12, pixel_m=55e-6, shape=(100, 100), focus_distance_m=3.65e-3)
    assert geometry.magnification == pytest.approx(307.8, abs=0.1)
    assert geometry.object_pixel_m[0] == pytest.approx(178.7e-9, rel=1e-3)
    assert geometry.effective_distance_m == pytest.approx(3.638e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"energy_ev": 8.0}, "energy_ev = 8 is outside 10 .. 1e.06 eV: give eV, not keV or J"),
        ({"distance_m": 2000.0}, "distance_m = 2000 is outside"),
        ({"pixel_m": 75.0}, "pixel_m = 75 is outside 1e-07 .. 0.002 m: give metres"),
        ({"energy_ev": float("nan")}, "energy_ev = nan"),
        ({"shape": (4, 128)}, r"frame shape \(4, 128\) px is too small"),
        ({"focus_distance_m": 0.0}, "focus_distance_m = 0 is outside"),
    ],
)
def test_impossible_numbers_are_named_with_their_unit(change: dict[str, object], words: str) -> None:
    numbers = {"energy_ev": 8000.0, "distance_m": 2.0, "pixel_m": 75e-6, "shape": (128, 128)} | change
    with pytest.raises(GeometryError, match=words):
        Geometry(**numbers)  # type: ignore[arg-type]


GEOMETRY = Geometry(energy_ev=8000.0, distance_m=2.0, pixel_m=75e-6, shape=(32, 48))


def test_patches_run_with_the_positions_and_lie_inside_the_object() -> None:
    pixel = np.asarray(GEOMETRY.object_pixel_m)
    at = np.array([[0.0, 0.0], [10.25, 0.0], [0.0, 7.75], [10.0, 7.0]])
    placement = Scan(at * pixel, np.arange(4)).place(GEOMETRY, margin_px=3)
    corners = placement.corners[:, 0]
    assert corners.tolist() == [[3, 3], [13, 3], [3, 11], [13, 10]]
    assert placement.rests[1, 0] == pytest.approx([0.25, 0.0], abs=1e-6)
    assert placement.rests[2, 0] == pytest.approx([0.0, -0.25], abs=1e-6)
    assert placement.object_shape == (13 + 32 + 3, 11 + 48 + 3)


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        (np.empty((0, 2)), "0 frames with a position"),
        (np.full((5, 2), 1e-6), "all 5 positions are the same"),
        (np.array([[0.0, 0.0], [np.nan, 1e-6]]), r"1 of 2 positions are not finite \(first: frame 1\)"),
        (np.zeros((3, 3)), "not .frame, substep, yx."),
    ],
)
def test_positions_that_cannot_be_are_refused(positions: np.ndarray, words: str) -> None:
    with pytest.raises(ScanError, match=words):
        Scan(positions, np.arange(len(positions)))


def test_a_unit_mistake_is_recognised_by_the_size_of_the_object() -> None:
    scan = Scan(np.array([[0.0, 0.0], [10e-3, 0.0]]), np.arange(2))
    with pytest.raises(ScanError, match="are the motors' units right"):
        scan.place(GEOMETRY)


def test_ids_must_match_positions() -> None:
    with pytest.raises(ScanError, match="3 positions but 2 frame ids"):
        Scan(np.arange(6.0).reshape(3, 2), np.arange(2))
