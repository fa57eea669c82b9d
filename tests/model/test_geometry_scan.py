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
        ({"energy_ev": 8.0}, r"energy_ev = 8 is outside 30 .. 1e.06 eV: was it in keV\? Then it is 8000 eV"),
        ({"energy_ev": 12.658}, r"was it in keV\? Then it is 12658 eV"),
        ({"energy_ev": 1.2817e-15}, r"was it in J\? Then it is 7999\.\d+ eV"),
        ({"energy_ev": 8000.0 / 1.602176634e-19}, r"was it in eV and taken for J\? Then it is 8000 eV"),
        ({"energy_ev": -8000.0}, "energy_ev = -8000 is outside .* give eV"),
        ({"distance_m": 2000.0}, r"distance_m = 2000 is outside .* was it in millimetres\? Then it is 2 m"),
        ({"distance_m": 2e-3}, r"object pixels of 3\.23e-11 m, less than half the wavelength .* is the distance in metres"),
        ({"pixel_m": 75.0}, r"pixel_m = 75 is outside 1e-07 .. 0.002 m: was it in micrometres\? Then it is 7.5e-05 m"),
        ({"pixel_m": 0.055}, r"was it in millimetres\? Then it is 5.5e-05 m"),
        ({"pixel_m": 55e-9}, "pixel_m = 5.5e-08 is outside .* give metres"),
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


STEPS_M = np.stack(np.meshgrid(np.arange(6), np.arange(6), indexing="ij"), -1).reshape(-1, 2) * 0.5e-6


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (1e3, "the positions span 0.0025 m x 0.0025 m, .*: were they in millimetres and taken for metres, or in micrometres and taken for"),
        (1e6, "the positions span 2.5 m x 2.5 m, .* but a frame covers 48: none overlap: were they in micrometres and taken for metres"),
        (1e9, "were they in nanometres and taken for metres"),
        (1e-3, "span 2.5e-09 m x 2.5e-09 m, only .* object pixels of .*: were they in millimetres and taken for micrometres, or in metres"),
        (1e-6, "were they in metres and taken for micrometres"),
        (1e-9, "were they in metres and taken for nanometres"),
        (1e-15, "are the motors' units right in the profile"),
        (1e15, "are the motors' units right in the profile"),
    ],
)
def test_a_unit_mistake_of_positions_is_named(factor: float, words: str) -> None:
    with pytest.raises(ScanError, match=words):
        Scan(STEPS_M * factor, np.arange(36)).place(GEOMETRY)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_steps_that_can_be_are_placed(factor: float) -> None:
    assert Scan(STEPS_M * factor, np.arange(36)).place(GEOMETRY).corners.shape == (36, 1, 2)


def test_a_large_scan_in_too_large_a_unit_is_named() -> None:
    """Thousandths of a scan of 40 x 40 steps span some pixels, as a scan might; its frames lie too close."""
    steps_m = np.stack(np.meshgrid(np.arange(40), np.arange(40), indexing="ij"), -1).reshape(-1, 2) * 0.7e-6
    assert Scan(steps_m, np.arange(1600)).place(GEOMETRY)
    with pytest.raises(ScanError, match=r"only .* object pixels of .* m for 1600 frames: were they in millimetres and taken for"):
        Scan(steps_m * 1e-3, np.arange(1600)).place(GEOMETRY)


def test_frames_that_never_move_from_one_to_the_next_are_refused() -> None:
    creeping = np.linspace(0, 20e-9, 400)[:, None] * [0.0, 1.0] / 20e-9 * 3 * GEOMETRY.object_pixel_m[1]
    with pytest.raises(ScanError, match="only 3 object pixels"):
        Scan(creeping, np.arange(400)).place(GEOMETRY)


def test_two_exposures_at_each_place_are_fine() -> None:
    twice = np.repeat(STEPS_M, 2, axis=0) + np.random.default_rng(0).normal(0, 1e-12, (72, 2))
    assert Scan(twice, np.arange(72)).place(GEOMETRY).corners.shape == (72, 1, 2)


def test_an_absurd_object_is_refused() -> None:
    rows = np.arange(3000) * 40 * GEOMETRY.object_pixel_m[1]
    with pytest.raises(ScanError, match="an object of 40 x 120016 px"):
        Scan(np.stack([np.zeros(3000), rows], axis=1), np.arange(3000)).place(GEOMETRY)


def test_ids_must_match_positions() -> None:
    with pytest.raises(ScanError, match="3 positions but 2 frame ids"):
        Scan(np.arange(6.0).reshape(3, 2), np.arange(2))


@pytest.mark.parametrize("monitor", [[1.0, 2.0], [1.0, 0.0, 2.0], [1.0, np.nan, 2.0]])
def test_a_monitor_has_one_intensity_above_zero_for_each_frame(monitor: list[float]) -> None:
    with pytest.raises(ScanError, match="one intensity above zero for each of the 3 frames"):
        Scan(STEPS_M[:3], np.arange(3), np.array(monitor))
