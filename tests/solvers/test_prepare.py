"""Frames as stored become frames as the verbs want them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin.model import FramesError, Geometry, GeometryError, MemoryFrames, Orientation, Placement, Preparation
from ptyplugin.solvers.batches import RankFrames
from ptyplugin.solvers.prepare import oriented, prepare
from ptyplugin.solvers.ranks import OneRank


def prepared(frames: MemoryFrames, shape: tuple[int, int], *, near: bool = False, **how: object) -> RankFrames:
    count = len(frames)
    placement = Placement(np.zeros((count, 1, 2), np.int32), np.zeros((count, 1, 2), np.float32), (64, 64))
    geometry = Geometry(8000.0, 1.0, 75e-6, shape, focus_distance_m=1e-2 if near else None)
    return prepare(frames, np.arange(count), placement, geometry, Preparation.model_validate(how), OneRank())[0]


@pytest.fixture
def counts() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 1000, (3, 16, 12)).astype(np.uint16)


def test_zero_frequency_moves_to_the_corner_and_counts_stay_integers(counts: NDArray[np.uint16]) -> None:
    got = prepared(MemoryFrames(counts), (16, 12))
    assert got.counts.dtype == np.uint16
    np.testing.assert_array_equal(got.counts[:, 0, 0], counts[:, 8, 6])
    np.testing.assert_array_equal(got.counts[:, 1, 11], counts[:, 9, 5])
    assert got.good.all()


def test_near_field_is_not_shifted(counts: NDArray[np.uint16]) -> None:
    np.testing.assert_array_equal(prepared(MemoryFrames(counts), (16, 12), near=True).counts, counts)


def test_crop_keeps_the_given_centre(counts: NDArray[np.uint16]) -> None:
    got = prepared(MemoryFrames(counts), (8, 8), crop_px=8, centre_px=(9.2, 4.0))
    np.testing.assert_array_equal(got.counts[:, 0, 0], counts[:, 9, 4])
    np.testing.assert_array_equal(got.counts[:, 3, 1], counts[:, 12, 5])


def test_what_lies_outside_of_the_frame_is_masked(counts: NDArray[np.uint16]) -> None:
    got = prepared(MemoryFrames(counts), (12, 12), crop_px=12, centre_px=(8, 2))
    stored = np.fft.fftshift(got.good)
    assert not stored[:, :4].any()
    assert stored[:, 4:].all()


def test_auto_centre_is_the_centre_of_mass() -> None:
    rows, columns = np.indices((40, 40))
    spot = (1000 * np.exp(-((rows - 23) ** 2 + (columns - 17) ** 2) / 8)).astype(np.uint16)
    got = prepared(MemoryFrames(np.stack([spot, spot])), (16, 16), crop_px=16, centre_px="auto")
    np.testing.assert_array_equal(got.counts[:, 0, 0], 1000)


@pytest.mark.parametrize("orientation", list(Orientation))
def test_orientation_is_a_symmetry_of_frequencies(orientation: Orientation) -> None:
    """A frame turned is the frame of the turned wave: |F w|^2 turns as w turns about its first pixel."""
    rng = np.random.default_rng(4)
    wave = rng.standard_normal((8, 8)) + 1j * rng.standard_normal((8, 8))
    turned = wave.T if orientation.transposes else wave
    for axis, flips in zip((0, 1), orientation.flips, strict=True):
        turned = np.roll(np.flip(turned, axis), 1, axis) if flips else turned
    stored = np.fft.fftshift(np.abs(np.fft.fft2(wave)) ** 2)
    np.testing.assert_allclose(oriented(stored, orientation), np.fft.fftshift(np.abs(np.fft.fft2(turned)) ** 2))


def test_transposed_frames_have_a_transposed_shape(counts: NDArray[np.uint16]) -> None:
    got = prepared(MemoryFrames(counts), (12, 16), orientation="transpose")
    np.testing.assert_array_equal(np.fft.fftshift(got.counts, axes=(1, 2)), counts.swapaxes(1, 2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_pixels_that_cannot_be_counts_are_masked_in_all_frames(counts: NDArray[np.uint16], bad: float) -> None:
    spoiled = counts.astype(np.float64)
    spoiled[1, 3, 4] = bad
    got = prepared(MemoryFrames(spoiled), (16, 12))
    assert np.isfinite(got.counts).all()
    expected = np.ones((16, 12), bool)
    expected[3, 4] = False
    np.testing.assert_array_equal(np.fft.fftshift(got.good), expected)


def test_marked_and_saturated_pixels_are_masked() -> None:
    frames = np.full((2, 16, 16), 5, np.uint32)
    frames[0, 1, 2] = 2**32 - 1
    frames[1, 3, 4] = 900
    got = prepared(MemoryFrames(frames), (16, 16), saturated_counts=900)
    stored = np.fft.fftshift(got.good)
    assert got.counts.dtype == np.uint16
    assert not stored[1, 2]
    assert not stored[3, 4]
    assert np.count_nonzero(~stored) == 2


def test_counts_that_are_no_uint16_become_floats(counts: NDArray[np.uint16]) -> None:
    assert prepared(MemoryFrames(counts + 0.5), (16, 12)).counts.dtype == np.float32
    assert prepared(MemoryFrames(counts.astype(np.uint32) + 70_000), (16, 12)).counts.dtype == np.float32
    assert prepared(MemoryFrames(counts.astype(np.float64)), (16, 12)).counts.dtype == np.uint16


def test_mask_of_the_file_is_kept(counts: NDArray[np.uint16]) -> None:
    mask = np.zeros((16, 12), np.uint8)
    mask[2, 3] = 4
    assert not np.fft.fftshift(prepared(MemoryFrames(counts, mask), (16, 12)).good)[2, 3]


def test_wrong_sizes_are_told(counts: NDArray[np.uint16]) -> None:
    with pytest.raises(GeometryError, match=r"16 x 12 px become 16 x 12 px .* geometry says 10 x 10"):
        prepared(MemoryFrames(counts), (10, 10))
    with pytest.raises(FramesError, match=r"the mask has shape \(4, 4\)"):
        prepared(MemoryFrames(counts, np.zeros((4, 4), np.uint8)), (16, 12))
    with pytest.raises(FramesError, match=r"only 0.0% of the 16 x 12 pixels are good"):
        prepared(MemoryFrames(counts, np.ones((16, 12), np.uint8)), (16, 12))
