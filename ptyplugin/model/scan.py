"""Scan: where the beam hit the sample, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model.errors import ScanError
from ptyplugin.model.geometry import Geometry
from ptyplugin.model.steps import check_steps

#: An object larger than this on one side is a unit mistake rather than a sample (pixels).
LARGEST_OBJECT_PX = 50_000

#: How positions between pixels are met. none: patches at the nearest pixel; probe: there, and the probe moved by the rest.
Subpixel = Literal["none", "probe"]


class Placement(NamedTuple):
    """Where the patch of each frame lies in the object array.

    corners: (frame, substep, yx) int32, top-left pixel of the patch in the object
    rests: (frame, substep, yx) float32 in -0.5 .. 0.5 px, what rounding left over
    object_shape: (y, x) of the object array that holds all patches and the margin
    """

    corners: NDArray[np.int32]
    rests: NDArray[np.float32]
    object_shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Scan:
    """Positions of the frames in the sample frame.

    positions_m: (frame, substep, yx) m, float64; more than one sub-step only for a fly scan
    frame_ids: (frame,) int64, the number of each frame in its run, unique
    monitor: (frame,) float64, incident intensity relative to its mean, or None

    Raises:
        ScanError: no frames, positions that are not finite or all the same, shapes that do not fit.
    """

    positions_m: NDArray[np.float64]
    frame_ids: NDArray[np.int64]
    monitor: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        positions = np.asarray(self.positions_m, dtype=np.float64)
        if positions.ndim == 2:
            positions = positions[:, None, :]
        object.__setattr__(self, "positions_m", positions)
        object.__setattr__(self, "frame_ids", np.asarray(self.frame_ids, dtype=np.int64))
        self._check()

    def _check(self) -> None:
        positions, count = self.positions_m, len(self.positions_m)
        if count == 0:
            raise ScanError("the scan has 0 frames with a position: nothing to reconstruct. Was the detector triggered?")
        if positions.ndim != 3 or positions.shape[-1] != 2 or positions.shape[1] == 0:
            raise ScanError(f"positions have shape {positions.shape}, not (frame, substep, yx): give y and x per frame.")
        if self.frame_ids.shape != (count,):
            raise ScanError(f"{count} positions but {self.frame_ids.size} frame ids: give one frame id per position.")
        self._check_monitor(count)
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=(1, 2)))
        if bad.size:
            raise ScanError(
                f"{bad.size} of {count} positions are not finite (first: frame {self.frame_ids[bad[0]]}): check the motor readback."
            )
        if count > 1 and not np.ptp(positions.reshape(-1, 2), axis=0).any():
            raise ScanError(
                f"all {count} positions are the same ({positions[0, 0, 0]:g} m, {positions[0, 0, 1]:g} m): "
                "did the motors move, and does the profile name the right ones?"
            )

    def _check_monitor(self, count: int) -> None:
        monitor = self.monitor
        if monitor is not None and (monitor.shape != (count,) or not (np.isfinite(monitor).all() and (monitor > 0).all())):
            raise ScanError(
                f"the monitor has shape {monitor.shape} and begins with {monitor.ravel()[:3]}: give one intensity above zero for each of "
                f"the {count} frames, or none at all."
            )

    def __len__(self) -> int:
        return len(self.positions_m)

    def place(self, geometry: Geometry, margin_px: int = 4) -> Placement:
        """Integer corners and rests of all patches in an object array with ``margin_px`` pixels around.

        Raises:
            ScanError: next to no steps, frames that do not overlap at all, or an absurdly large object: unit mistakes.
        """
        pixel = np.asarray(geometry.object_pixel_m)
        check_steps(self.positions_m.mean(axis=1), geometry)
        at = self.positions_m / pixel
        at = at - at.min(axis=(0, 1)) + margin_px
        corners = np.rint(at)
        extent = corners.max(axis=(0, 1)) + np.asarray(geometry.shape) + margin_px
        if extent.max() > LARGEST_OBJECT_PX:
            span = np.ptp(self.positions_m.reshape(-1, 2), axis=0)
            raise ScanError(
                f"positions span {span[0]:.3g} m x {span[1]:.3g} m, an object of {extent[0]:.0f} x {extent[1]:.0f} px "
                f"at {pixel[0]:.3g} m a pixel: are the motors' units right in the profile?"
            )
        shape = (int(extent[0]), int(extent[1]))
        return Placement(corners.astype(np.int32), (at - corners).astype(np.float32), shape)
