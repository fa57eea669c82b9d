"""The image of a job of the moment, made ready to be looked at: nothing of this is stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptyplugin.io.display import View, scanned_part, scanned_view, take_ramp_off, without_ramp
from ptyplugin.model import Reconstruction, Snapshot


@dataclass(frozen=True, slots=True, eq=False)
class LiveView:
    """The scanned part of an object, and the probe.

    wave: (y, x) complex64, its phase ramp and mean phase removed; seen: (y, x) float32 in 0 .. 1, how well each pixel was lit
    probe: (y, x) complex64, the strongest mode; None where it is not known
    pixel_m: (y, x); middle_m: the scan's position (y, x) with which the middle of the beam is at pixel [0, 0]
    """

    wave: NDArray[np.complex64]
    seen: NDArray[np.float32]
    probe: NDArray[np.complex64] | None
    pixel_m: tuple[float, float]
    middle_m: tuple[float, float]

    @property
    def size_m(self) -> tuple[float, float]:
        """(y, x) of the part that is shown."""
        return self.wave.shape[0] * self.pixel_m[0], self.wave.shape[1] * self.pixel_m[1]


def view_of_snapshot(snapshot: Snapshot, positions_m: NDArray[np.float64] | None) -> LiveView:
    """What to show of a snapshot; positions_m: (frame, yx) of its frames, the whole object is shown where they are not known."""
    pixel, frame_shape = np.array(snapshot.pixel_m), snapshot.probe.shape[-2:]
    at = np.empty((0, 2)) if positions_m is None else (positions_m - snapshot.origin_m) / pixel
    inside = (np.rint(at) >= 0) & (np.rint(at) <= np.array(snapshot.object.shape) - frame_shape)
    at = at[inside.all(axis=1)]
    is_known = len(at) and np.any(snapshot.probe)
    part = scanned_part(snapshot.object, snapshot.probe, at) if is_known else _everything(snapshot.object)
    strongest = snapshot.probe[np.argmax(np.sum(np.abs(snapshot.probe) ** 2, axis=(1, 2)))]
    probe = take_ramp_off(strongest, (-part.ramp[0], -part.ramp[1]))
    return LiveView(part.wave, part.seen, probe, snapshot.pixel_m, _middle(snapshot.origin_m, part.corner, frame_shape, snapshot.pixel_m))


def view_of_image(
    phase: NDArray[np.float32],
    amplitude: NDArray[np.float32],
    pixel_m: tuple[float, float],
    origin_m: tuple[float, float],
    frame_shape: tuple[int, int],
) -> LiveView:
    """What to show of phase (rad) and amplitude (y, x) as they lie in the catalog; origin_m, frame_shape: as of a snapshot."""
    part = _everything((amplitude * np.exp(1j * phase)).astype(np.complex64))
    return LiveView(part.wave, part.seen, None, pixel_m, _middle(origin_m, part.corner, frame_shape, pixel_m))


def view_of_result(reconstruction: Reconstruction) -> LiveView:
    """What to show of a result."""
    part, pixel_m = scanned_view(reconstruction), reconstruction.geometry.object_pixel_m
    first_m = reconstruction.positions_m[0] - reconstruction.positions_px[0] * pixel_m
    probe = take_ramp_off(reconstruction.probe[0], (-part.ramp[0], -part.ramp[1]))
    middle_m = _middle((first_m[0], first_m[1]), part.corner, reconstruction.probe.shape[-2:], pixel_m)
    return LiveView(part.wave, part.seen, probe, pixel_m, middle_m)


def _everything(wave: NDArray[np.complex64]) -> View:
    flat, ramp = without_ramp(wave, np.ones(wave.shape, np.bool_))
    return View(flat, np.ones(wave.shape, np.float32), ramp, (0, 0))


def _middle(
    origin_m: tuple[float, float], corner: tuple[int, int], frame_shape: tuple[int, ...], pixel_m: tuple[float, float]
) -> tuple[float, float]:
    """A patch's first pixel has the scan's position; the beam is in its middle."""
    y, x = (origin + (first - size / 2) * pixel for origin, first, size, pixel in zip(origin_m, corner, frame_shape, pixel_m, strict=True))
    return float(y), float(x)
