"""Steps of a scan: positions that cannot belong to the frames are mistakes of units, and are named."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ptyplugin.model.errors import ScanError
from ptyplugin.model.geometry import Geometry

#: A scan that spans less, all of whose steps from frame to frame are smaller, or whose frames lie closer, spread evenly over a square, is
#: none (object pixels).
_LEAST_SPAN_PX, _LEAST_STEP_PX, _LEAST_SPACING_PX = 1.0, 0.01, 0.1
#: Closer positions are the same place (object pixels).
_SAME_PLACE_PX = 0.5
#: So many frames are looked at.
_FRAMES = 200
#: What positions would have to be multiplied with, and what then went wrong.
_TOO_LARGE = {
    1e-3: "in millimetres and taken for metres, or in micrometres and taken for millimetres",
    1e-6: "in micrometres and taken for metres",
    1e-9: "in nanometres and taken for metres",
}
_TOO_SMALL = {
    1e3: "in millimetres and taken for micrometres, or in metres and taken for millimetres",
    1e6: "in metres and taken for micrometres",
    1e9: "in metres and taken for nanometres",
}


def check_steps(positions_m: NDArray[np.float64], geometry: Geometry) -> None:
    """Check that the frames at ``positions_m`` (frame, yx) m differ, and overlap.

    Raises:
        ScanError: they do not; the message says how far they span and names the unit that they were probably in.
    """
    at, side = positions_m / np.asarray(geometry.object_pixel_m), max(geometry.shape)
    if len(at) < 2:
        return
    span = float(np.ptp(at, axis=0).max())
    spacing = span / math.sqrt(len(at))
    if span < _LEAST_SPAN_PX or spacing < _LEAST_SPACING_PX or float(np.hypot(*np.diff(at, axis=0).T).max()) < _LEAST_STEP_PX:
        said = f"only {span:.3g} object pixels of {min(geometry.object_pixel_m):.3g} m for {len(at)} frames"
        raise _mistake(positions_m, said, spacing, side, _TOO_SMALL)
    step = _step_px(at)
    if step > side:
        said = f"neighbours {step:.3g} object pixels of {min(geometry.object_pixel_m):.3g} m apart, but a frame covers {side}: none overlap"
        raise _mistake(positions_m, said, step, side, _TOO_LARGE)


def _step_px(at: NDArray[np.float64]) -> float:
    """Median distance of a position to the nearest at another place."""
    nearest = []
    for position in at[:: -(-len(at) // _FRAMES)]:
        distances = np.hypot(*(at - position).T)
        nearest.append(distances[distances >= _SAME_PLACE_PX].min(initial=np.inf))
    return float(np.median(nearest))


def _mistake(positions_m: NDArray[np.float64], said: str, step_px: float, side_px: int, mistakes: dict[float, str]) -> ScanError:
    """The mistake after whose correction the steps are the likeliest: some part of a frame."""
    span_m = np.ptp(positions_m, axis=0)
    likely = [factor for factor in mistakes if _SAME_PLACE_PX <= step_px * factor <= side_px]
    best = min(likely, key=lambda factor: abs(math.log(8 * step_px * factor / side_px)), default=None)
    question = "are the motors' units right in the profile?" if best is None else f"were they {mistakes[best]}?"
    return ScanError(
        f"the positions span {span_m[0]:.3g} m x {span_m[1]:.3g} m, {said}: {question} If not, check the energy, the distance and the "
        "size of the detector's pixels."
    )
