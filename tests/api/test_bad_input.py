"""Bad input, one kind after the other, all the way from a file to an image: a clear sentence, or a right result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from ptyplugin import reconstruct
from ptyplugin.model import FileFormatError, FramesError, GeometryError, PtypluginError, Reconstruction, ScanError, SolverError

COUNTS = "entry_1/instrument_1/detector_1/data"
MASK = "entry_1/instrument_1/detector_1/mask"
POSITIONS = "entry_1/sample_1/geometry_1/translation"
ILLUMINATION = "entry_1/instrument_1/source_1/illumination"

Change = Callable[..., Path]


@pytest.fixture
def changed(small_cxi: Path, tmp_path: Path) -> Change:
    """A copy of the small file: each named dataset becomes what a function makes of it; None takes it away."""

    def change(**datasets: Callable[[Any], Any] | None) -> Path:
        path = tmp_path / "bad.cxi"
        path.write_bytes(small_cxi.read_bytes())
        with h5py.File(path, "r+") as file:
            for name, make in datasets.items():
                value = file[globals().get(name, name)][()]
                del file[globals().get(name, name)]
                if make is not None:
                    file[globals().get(name, name)] = make(value)
        return path

    return change


def set_at(index: Any, value: Any, kind: type | None = None) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Makes an array with another value at ``index``."""

    def make(array: NDArray[Any]) -> NDArray[Any]:
        array = array.astype(kind or array.dtype)
        array[index] = value
        return array

    return make


def notes(result: Reconstruction) -> str:
    return " ".join(result.provenance["notes"])


def sentence(path: Path, kind: type[PtypluginError], **how: Any) -> str:
    """What is raised."""
    with pytest.raises(kind) as caught:
        reconstruct(path, "LSQML(15)", **how)
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith((".", "?"))
    return said


@pytest.fixture(scope="module")
def fine(small_cxi: Path) -> Reconstruction:
    """What comes of the file as it is."""
    return reconstruct(small_cxi, "LSQML(15)")


def is_right(result: Reconstruction, fine: Reconstruction, phase_difference: float = 0.05) -> None:
    """The same image, as far as light falls, and explained as well."""
    assert result.quality["error"] < 1.3 * fine.quality["error"]
    y, x = (int(axis.min()) for axis in fine.positions_px.T)
    middle = (0, slice(y + 16, y + 44), slice(x + 16, x + 44))
    ratio = result.object[middle] * fine.object[middle].conj()
    assert np.std(np.angle(ratio / ratio.mean())) < phase_difference


def test_nothing_bad_nothing_said(fine: Reconstruction) -> None:
    assert notes(fine) == "The reconstruction starts from the illumination in the CXI file."
    assert fine.quality["error"] < 0.0025


def test_all_counts_zero(changed: Change) -> None:
    assert "all 36 frames are empty" in sentence(changed(COUNTS=lambda counts: counts * 0), SolverError)


def test_some_frames_dark(changed: Change, fine: Reconstruction) -> None:
    result = reconstruct(changed(COUNTS=set_at([4, 9], 0)), "LSQML(15)")
    assert "2 of 36 frames cannot be used and were left out, 2 without light (frame 4, 9)" in notes(result)
    assert len(result.positions_m) == 34
    is_right(result, fine)


def test_most_frames_dark(changed: Change) -> None:
    said = sentence(changed(COUNTS=set_at(slice(2, 30), 0)), FramesError)
    assert "28 of 36 frames cannot be used, 28 without light (frame 2, 3, 4, 5, 6, ...): check the shutter" in said


def test_all_counts_negative(changed: Change) -> None:
    said = sentence(changed(COUNTS=lambda counts: -1 - counts.astype(np.int32)), FramesError)
    assert "36 of 36 frames cannot be used" in said
    assert "negative" in said


def test_negative_markers_of_the_detector(changed: Change, fine: Reconstruction) -> None:
    path = changed(COUNTS=set_at((slice(None), slice(20, 22), 20), -1, np.int32))
    result = reconstruct(path, "LSQML(15)")
    assert "2 pixels that are not finite, negative" in notes(result)
    assert np.count_nonzero(result.mask) == 2
    is_right(result, fine)


def test_background_was_subtracted(changed: Change, fine: Reconstruction) -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, (36, 48, 48))
    result = reconstruct(changed(COUNTS=lambda counts: (counts + noise).astype(np.float32)), "LSQML(15)")
    assert "of all counts lie below zero" in notes(result)
    assert not result.mask.any()
    is_right(result, fine)


def test_everything_masked(changed: Change) -> None:
    assert "100.0% are masked (is it inverted?)" in sentence(changed(MASK=np.ones_like), FramesError)


def test_frames_that_are_all_masked(changed: Change, fine: Reconstruction) -> None:
    """Detectors mark a frame that was not measured with the largest number there is."""
    result = reconstruct(changed(COUNTS=set_at([7, 20, 21], 65535)), "LSQML(15)")
    assert "3 of 36 frames cannot be used and were left out, 3 with more than half of their pixels bad" in notes(result)
    assert not result.mask.any()
    is_right(result, fine)


def test_frame_of_nan(changed: Change, fine: Reconstruction) -> None:
    result = reconstruct(changed(COUNTS=set_at(7, np.nan, np.float32)), "LSQML(15)")
    assert "1 of 36 frames cannot be used and were left out" in notes(result)
    assert "(frame 7)" in notes(result)
    is_right(result, fine)


def test_all_nan(changed: Change) -> None:
    said = sentence(changed(COUNTS=set_at(slice(None), np.nan, np.float32)), FramesError)
    assert "36 of 36 frames cannot be used" in said
    assert "not finite" in said


def test_some_nan(changed: Change, fine: Reconstruction) -> None:
    result = reconstruct(changed(COUNTS=set_at((7, slice(3, 6)), np.nan, np.float32)), "LSQML(15)")
    assert "144 pixels that are not finite" in notes(result)
    is_right(result, fine)


def test_saturated_pixels_are_suspected(changed: Change) -> None:
    result = reconstruct(changed(COUNTS=lambda counts: np.minimum(counts, 100)), "LSQML(15)")
    assert "Many pixels have exactly 100 counts, and none has more: the detector looks saturated" in notes(result)


def test_marked_saturated_pixels_are_masked(changed: Change, fine: Reconstruction) -> None:
    path = changed(COUNTS=lambda counts: np.where(counts > 0.98 * counts.max(), 65535, counts).astype(np.uint16))
    result = reconstruct(path, "LSQML(15)")
    masked = np.count_nonzero(result.mask)
    assert masked
    assert f"{masked} pixels that are not finite, negative, at the top of their integer type" in notes(result)
    is_right(result, fine)


def test_frames_taken_twice(changed: Change, fine: Reconstruction) -> None:
    twice = {name: (lambda value: np.concatenate([value, value])) for name in ("COUNTS", "POSITIONS")}
    result = reconstruct(changed(**twice), "LSQML(15)")
    assert len(result.positions_m) == 72
    is_right(result, fine)


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1e6, "were they in micrometres and taken for metres?"),
        (1e3, "were they in millimetres and taken for metres, or in micrometres and taken for millimetres?"),
        (30, "none overlap: are the motors' units right in the profile?"),
        (1e-3, "were they in millimetres and taken for micrometres, or in metres and taken for millimetres?"),
        (1e-6, "were they in metres and taken for micrometres?"),
    ],
)
def test_positions_off_by_orders_of_magnitude(changed: Change, factor: float, said: str) -> None:
    found = sentence(changed(POSITIONS=lambda positions: positions * factor), ScanError)
    assert "bad.cxi: the positions span" in found
    assert said in found


@pytest.mark.parametrize(
    ("name", "factor", "said"),
    [
        ("entry_1/instrument_1/detector_1/distance", 1e3, "was it in millimetres? Then it is 1 m"),
        ("entry_1/instrument_1/detector_1/distance", 1e-3, "is the distance in metres"),
        ("entry_1/instrument_1/source_1/energy", 1e-3, "energy_ev = 8 is outside 30 .. 1e+06 eV: was it in keV? Then it is 8000 eV"),
        ("entry_1/instrument_1/source_1/energy", 1 / 1.602176634e-19, "was it in eV and taken for J? Then it is 8000 eV"),
    ],
)
def test_geometry_in_another_unit(changed: Change, name: str, factor: float, said: str) -> None:
    found = sentence(changed(**{name: lambda value: value * factor}), GeometryError)
    assert "bad.cxi: " in found
    assert said in found


def test_detector_pixels_in_micrometres(changed: Change) -> None:
    sizes = {f"entry_1/instrument_1/detector_1/{axis}_pixel_size": (lambda size: size * 1e6) for axis in "xy"}
    assert "was it in micrometres? Then it is 7.5e-05 m" in sentence(changed(**sizes), GeometryError)


def test_a_readback_that_jumped(changed: Change, fine: Reconstruction) -> None:
    """One frame in another unit would make an object of 23000 px."""
    result = reconstruct(changed(POSITIONS=set_at((7, 0), 1e-3)), "LSQML(15)")
    assert "1 frames that lie far from all others were left out (frame 7)" in notes(result)
    assert max(result.object.shape) < 100
    is_right(result, fine)


def test_probe_larger_than_the_frames(changed: Change, fine: Reconstruction) -> None:
    path = changed(ILLUMINATION=None)
    with h5py.File(path.with_name("probe.h5"), "w") as file:
        file["probe"] = np.pad(fine.probe, ((0, 0), (24, 24), (24, 24)))
    result = reconstruct(path, "LSQML(15)", probe=path.with_name("probe.h5"))
    assert "96 x 96 px was cropped or padded with zeros" in notes(result)
    is_right(result, fine)


def test_probe_somewhere_else(changed: Change) -> None:
    probe = np.zeros((200, 200), np.complex64)
    probe[:9, :9] = 1
    assert "0.0% of the start probe's power fits onto 48 x 48 px" in sentence(changed(), FileFormatError, probe=probe)


@pytest.mark.parametrize("given", [True, False])
def test_odd_frames(changed: Change, fine: Reconstruction, given: bool) -> None:
    """The same field of view on one row and column less."""
    odd: dict[str, Any] = {"COUNTS": lambda counts: counts[:, 1:, 1:], "MASK": lambda mask: mask[1:, 1:], "ILLUMINATION": None}
    probe = None
    if given:
        small = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(fine.probe[0])))[1:, 1:]
        probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(small)))
    result = reconstruct(changed(**odd), "LSQML(25)", probe=probe)
    assert result.probe.shape == (1, 47, 47)
    assert result.quality["error"] < 1.5 * fine.quality["error"]


def test_no_overlap(changed: Change) -> None:
    """Steps of 29 px and a beam of 20 px."""
    verdict = reconstruct(changed(POSITIONS=lambda positions: positions * 9), "LSQML(15)").verdict
    assert verdict is not None
    assert verdict.word == "failed"
    assert "Neighbouring frames do not overlap" in str(verdict)


def test_beam_larger_than_the_frame_can_hold(changed: Change) -> None:
    """Detector pixels three times as large see a field of view of a third: 16 px for a beam of 20 px."""
    shapes: dict[str, Any] = {
        "COUNTS": lambda counts: counts.reshape(36, 16, 3, 16, 3).sum(axis=(2, 4), dtype=np.uint32),
        "MASK": lambda mask: mask[:16, :16],
        "ILLUMINATION": lambda probe: probe[:, 16:32, 16:32],
    }
    sizes = {f"entry_1/instrument_1/detector_1/{axis}_pixel_size": (lambda size: size * 3) for axis in "xy"}
    verdict = reconstruct(changed(**shapes, **sizes), "LSQML(15)").verdict
    assert verdict is not None
    assert verdict.word != "good"
    assert "the beam is larger than the frame can hold" in str(verdict)


@pytest.mark.parametrize("count", [1, 2])
def test_next_to_no_frames(changed: Change, count: int) -> None:
    few = {name: (lambda value: value[:count]) for name in ("COUNTS", "POSITIONS")}
    result = reconstruct(changed(**few), "LSQML(15)")
    assert result.verdict is not None
    assert result.verdict.word == "doubtful"
    assert f"There are only {count} frames" in str(result.verdict)
    assert ("overlap" in result.quality) == (count > 1)
